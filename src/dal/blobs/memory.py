"""Blobs in this process's memory, for tests and trials: everything of the contract but lasting, and signed requests."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dal.blobs.base import BINARY, BlobCapabilities, BlobInfo, Data, Method, Part, PartialUpload, Reading, SignedRequest
from dal.blobs.checks import (
    already_there,
    check_arrived,
    check_content_type,
    check_key,
    check_part,
    check_parts,
    check_prefix,
    check_put,
    check_range,
    resolve_range,
)
from dal.blobs.data import SlicedBytes, gather
from dal.errors import InvalidInputError, NotFoundError, UnsupportedError
from dal.limits import BLOB_PIECE_BYTES, MAX_BLOB_BYTES, MAX_BLOB_PART_BYTES, MAX_BLOB_PARTS
from dal.values import Clock, now

_BACKEND = "memory"


@dataclass(slots=True)
class _Upload:
    key: str
    content_type: str
    started_at: datetime
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class MemoryBlobStore:
    """A BlobStore that is gone with its process."""

    capabilities = BlobCapabilities(
        backend=_BACKEND,
        shared=False,
        presign=False,
        if_absent=True,
        list_parts=True,
        equal_parts=False,
        min_part_bytes=1,
        max_part_bytes=MAX_BLOB_PART_BYTES,
        max_parts=MAX_BLOB_PARTS,
        max_bytes=MAX_BLOB_BYTES,
        hashes=True,
    )

    def __init__(self, *, clock: Clock = now) -> None:
        self._clock = clock
        self._blobs: dict[str, tuple[BlobInfo, bytes]] = {}
        self._uploads: dict[str, _Upload] = {}

    def __repr__(self) -> str:
        return "MemoryBlobStore()"

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close: what was stored is there when it is opened again."""

    async def put(
        self,
        key: str,
        data: Data,
        *,
        size: int | None = None,
        content_type: str = BINARY,
        checksum: str | None = None,
        if_absent: bool = False,
    ) -> BlobInfo:
        check_put(self.capabilities, key, size, content_type, checksum)
        content = await gather(data, max_bytes=size)
        found = _checksum(content)
        check_arrived(
            key, found_size=len(content), found_checksum=found, size=size, checksum=checksum, backend=_BACKEND
        )
        if if_absent and key in self._blobs:
            raise already_there("put", key, _BACKEND)
        return self._store(key, content, content_type, found)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        check_key(key)
        check_range(start, end)
        info, content = self._find(key, "get")
        first, last = resolve_range(key, info.size, start, end)
        return Reading(info, SlicedBytes(content[first:last], BLOB_PIECE_BYTES))

    async def head(self, key: str) -> BlobInfo | None:
        found = self._blobs.get(check_key(key))
        return None if found is None else found[0]

    async def delete(self, keys: Sequence[str]) -> None:
        for key in [check_key(key) for key in keys]:
            self._blobs.pop(key, None)

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        check_prefix(prefix)
        check_prefix(after)
        for key in sorted(key for key in self._blobs if key.startswith(prefix) and key > after):
            if key in self._blobs:
                yield self._blobs[key][0]

    async def copy(self, source: str, target: str) -> BlobInfo:
        check_key(target)
        info, content = self._find(check_key(source), "copy")
        return self._store(target, content, info.content_type, info.checksum)

    async def start_parts(self, key: str, *, content_type: str = BINARY, checksum: str | None = None) -> str:  # noqa: ARG002  # it hashes itself
        check_key(key)
        upload_id = uuid.uuid4().hex
        self._uploads[upload_id] = _Upload(key, check_content_type(content_type), self._clock())
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        check_part(self.capabilities, number, size)
        self._upload(key, upload_id)
        content = await gather(data, max_bytes=size)
        found = _checksum(content)
        check_arrived(key, found_size=len(content), found_checksum=found, size=size, checksum=None, backend=_BACKEND)
        part = Part(number, size, found.removeprefix("sha256:"))
        self._upload(key, upload_id).parts[number] = part, content
        return part

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        upload = self._upload(key, upload_id)
        return [upload.parts[number][0] for number in sorted(upload.parts)]

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        upload = self._upload(key, upload_id)
        contents = []
        for part in check_parts(self.capabilities, parts):
            arrived = upload.parts.get(part.number)
            if arrived is None or arrived[0] != part:
                raise InvalidInputError(f"complete: part {part.number} of {key} did not arrive as it is named here")
            contents.append(arrived[1])
        if if_absent and key in self._blobs:
            raise already_there("complete_parts", key, _BACKEND)
        content = b"".join(contents)
        info = self._store(key, content, upload.content_type, _checksum(content))
        del self._uploads[upload_id]
        return info

    async def abort_parts(self, key: str, upload_id: str) -> None:
        upload = self._uploads.get(upload_id)
        if upload is not None and upload.key == check_key(key):
            del self._uploads[upload_id]

    async def list_uploads(self, prefix: str = "") -> AsyncIterator[PartialUpload]:
        check_prefix(prefix)
        for upload_id, upload in list(self._uploads.items()):
            if upload.key.startswith(prefix):
                yield PartialUpload(upload.key, upload_id, upload.started_at)

    async def presign(self, method: Method, key: str, **given: object) -> SignedRequest:  # noqa: ARG002
        raise UnsupportedError(
            "presign: nobody else reaches blobs in memory; use a directory or S3",
            operation="blobs.presign",
            backend=_BACKEND,
        )

    async def health(self) -> str | None:
        return None

    def _store(self, key: str, content: bytes, content_type: str | None, checksum: str | None) -> BlobInfo:
        etag = uuid.uuid4().hex
        info = BlobInfo(key, len(content), self._clock(), content_type, checksum, etag)
        self._blobs[key] = info, content
        return info

    def _find(self, key: str, operation: str) -> tuple[BlobInfo, bytes]:
        found = self._blobs.get(key)
        if found is None:
            raise NotFoundError(f"{operation}: no blob {key}", operation=f"blobs.{operation}", backend=_BACKEND)
        return found

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != check_key(key):
            raise NotFoundError(
                f"upload in parts: none of {key} has this id: it was completed or aborted, or never was",
                operation="blobs.parts",
                backend=_BACKEND,
            )
        return upload


def _checksum(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
