"""Contents of files: a directory beside plain files and `cp`, a bucket beside obstore, a cache beside neither."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from dal.blobs.cache import Cached
from dal.blobs.local import LocalBlobStore
from tests.bench.baselines.blobs import Boto3, CopyCommand, Obstore, PlainFiles
from tests.bench.contents import ROUNDS, SMALL_CALLS, OurContents, contents
from tests.bench.paths import Against, Row
from tests.bench.stage import Stage
from tests.bench.subject import Subject
from tests.bench.targets import Measure, Target
from tests.engines.s3 import RcloneEngine

_SHOWN: Final = (Target(Measure.SLOWDOWN),)
_LARGE: Final = (Target(Measure.THROUGHPUT, 0.85),)
_LARGE_SHOWN: Final = (Target(Measure.THROUGHPUT),)


def _row(what: str, where: str, *against: Against) -> Row:
    direction, size = what.split("_")
    kind = "1 KiB" if size == "small" else "{large_mib} MiB"
    return Row(
        f"{direction}, {kind}, {where}",
        contents(what),
        against,
        who=where,
        writes=direction == "upload",
        calls=SMALL_CALLS if size == "small" else 1,
        rounds=ROUNDS,
    )


class BlobsStage(Stage):
    """The directory lies on the machine's disk; the bucket is rclone's, in memory, on this machine."""

    backend = "blobs"
    rows = (
        _row("upload_small", "directory", Against("files", _SHOWN)),
        _row("download_small", "directory", Against("files", _SHOWN)),
        _row("upload_large", "directory", Against("files", _LARGE), Against("cp", _LARGE_SHOWN)),
        _row("download_large", "directory", Against("files", _LARGE), Against("cp", _LARGE_SHOWN)),
        _row("upload_small", "S3", Against("obstore", _SHOWN), Against("boto3", _SHOWN)),
        _row("download_small", "S3", Against("obstore", _SHOWN), Against("boto3", _SHOWN)),
        _row("upload_large", "S3", Against("obstore", _LARGE), Against("boto3", _LARGE)),
        _row("download_large", "S3", Against("obstore", _LARGE), Against("boto3", _LARGE)),
        _row("download_small", "S3 with a cache", Against("obstore", _SHOWN)),
        _row("download_large", "S3 with a cache", Against("obstore", _LARGE_SHOWN)),
    )

    async def make(self, name: str) -> Subject:
        large_bytes = self.data.scale.large_mib * 1024**2
        match name:
            case "directory":
                return OurContents("dal", LocalBlobStore(self.directory / "dal"), large_bytes)
            case "S3":
                return OurContents("dal", self._engine.store(), large_bytes)
            case "S3 with a cache":
                cached = Cached(self._engine.store(), self.directory / "cache", max_bytes=8 * large_bytes)
                return OurContents("dal", cached, large_bytes)
            case "obstore":
                return Obstore(self._engine, large_bytes)
            case "boto3":
                return Boto3(self._engine, large_bytes)
            case "cp":
                return CopyCommand(self.directory / "cp", large_bytes)
            case _:
                return PlainFiles(self.directory / "files", large_bytes)

    @cached_property
    def _engine(self) -> RcloneEngine:
        engine = RcloneEngine()
        self.stack.callback(engine.close)
        self.engine = "rclone serve s3 in memory, on the same machine; obstore computes no checksum"
        return engine
