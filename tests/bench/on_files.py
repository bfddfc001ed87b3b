"""`dal.files`, rows in SQLite and bytes in a directory: beside the bare blob store and one commit, and beside itself
where a promise is about a part of it (a contended quota, the access log)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dal import DataAccess
from dal.blobs.local import LocalBlobStore
from dal.factory import create_store
from dal.files.core import Core
from dal.layers.group import GroupCommit
from dal.layers.retry import Retry
from dal.ops import Compare, Insert, Select, Value
from dal.values import new_id, now
from tests.bench.contents import ROUNDS, SMALL, SMALL_CALLS, ContentSubject, contents
from tests.bench.paths import Against, Row
from tests.bench.stage import Stage
from tests.bench.subject import Subject
from tests.bench.targets import Measure, Target

_SHOWN: Final = (Target(Measure.SLOWDOWN),)
_LARGE: Final = (Target(Measure.THROUGHPUT, 0.85),)
_TASKS: Final = 100


class OurFiles(ContentSubject):
    """The service.

    users    whose files they are, in turn.
    is_silent  without its access log, by turning it off from within.
    """

    def __init__(self, name: str, place: Path, large_bytes: int, *, users: int = 1, is_silent: bool = False) -> None:
        super().__init__(name, large_bytes)
        self._count = users
        self._is_silent = is_silent
        self._ids: dict[str, str] = {}
        store = Retry(GroupCommit(create_store(f"sqlite:{place}.db")))
        self._dal = DataAccess(store, blobs=LocalBlobStore(place))

    async def open(self) -> None:
        await self._dal.open()
        self._users = [(await self._dal.users.create()).id for _ in range(self._count)]
        if self._is_silent:
            core: Core = self._dal.files._core
            core.log.add = _forget  # type: ignore[method-assign]
        await self.fill()

    async def close(self) -> None:
        await self._dal.close()

    async def put(self, key: str, content: bytes) -> object:
        file = await self._dal.files.upload(self._users[len(self._ids) % self._count], key, content)
        self._ids[key] = file.id
        return file

    async def get(self, key: str) -> int:
        async with self._dal.files.open(self._ids[key]) as reader:
            return sum([len(piece) async for piece in reader])

    async def upload_of_many(self, number: int) -> object:
        """One of the users' after the other."""
        return await self._dal.files.upload(self._users[number % self._count], f"{number}", SMALL)


class BareWithRow(ContentSubject):
    """The bare blob store, and one round trip to the rows: an insert for each upload, a read for each download."""

    def __init__(self, place: Path, large_bytes: int) -> None:
        super().__init__("blob store and a row", large_bytes)
        self._blobs = LocalBlobStore(place)
        self._store = create_store(f"sqlite:{place}.db")
        self._keys: dict[str, str] = {}

    async def open(self) -> None:
        await self._store.open()
        await self._blobs.open()
        self._user = new_id()
        time: dict[str, Value] = {"created_at": now(), "updated_at": now(), "last_active_at": None}
        empty: dict[str, Value] = {"clerk_id": None, "email": None, "name": None, "profile": {}, "preferences": {}}
        row = {"id": self._user, **empty, "status": "active", **time, "version": 1}
        await self._store.commit([Insert("users", row)])
        await self.fill()

    async def close(self) -> None:
        await self._blobs.close()
        await self._store.close()

    async def put(self, key: str, content: bytes) -> object:
        blob_key = f"{key}-{new_id()}"
        info = await self._blobs.put(blob_key, content, size=len(content))
        self._keys[key] = blob_key
        row: dict[str, Value] = {
            "id": new_id(),
            "user_id": self._user,
            "filename": key,
            "storage_key": blob_key,
            "mime_type": "application/octet-stream",
            "file_size": info.size,
            "checksum": info.checksum,
            "metadata": {},
            "status": "active",
            "created_at": now(),
            "updated_at": now(),
            "version": 1,
        }
        return await self._store.commit([Insert("files", row)])

    async def get(self, key: str) -> int:
        where = (Compare("storage_key", "=", self._keys[key]),)
        rows = await self._store.read(Select("files", where, columns=("storage_key",)))
        async with await self._blobs.get(str(rows[0][0])) as reading:
            return sum([len(piece) async for piece in reading.data])


def _row(what: str, size: str, targets: tuple[Target, ...]) -> Row:
    direction = what.split("_")[0]
    return Row(
        f"{direction}, {size}",
        contents(what),
        (Against("bare", targets),),
        writes=direction == "upload",
        calls=SMALL_CALLS if what.endswith("small") else 1,
        rounds=ROUNDS,
    )


class FilesStage(Stage):
    """Both on the machine's disk."""

    backend = "files"
    rows = (
        _row("upload_small", "1 KiB", _SHOWN),
        _row("download_small", "1 KiB", _SHOWN),
        _row("upload_large", "{large_mib} MiB", _LARGE),
        _row("download_large", "{large_mib} MiB", _LARGE),
        Row(
            f"upload, 1 KiB, {_TASKS} tasks, one user's quota",
            contents("upload_of_many"),
            (Against("a hundred users", _SHOWN),),
            tasks=_TASKS,
            writes=True,
        ),
        Row("download, 1 KiB, access log", contents("download_small"), (Against("no access log", _SHOWN),)),
    )

    async def make(self, name: str) -> Subject:
        large_bytes, place = self.data.scale.large_mib * 1024**2, self.directory / name.replace(" ", "-")
        match name:
            case "bare":
                return BareWithRow(place, large_bytes)
            case "a hundred users":
                return OurFiles("a hundred users", place, large_bytes, users=_TASKS)
            case "no access log":
                return OurFiles("without its access log", place, large_bytes, is_silent=True)
        return OurFiles("dal", place, large_bytes)


def _forget(row: Insert) -> None:
    """Writes nothing."""
