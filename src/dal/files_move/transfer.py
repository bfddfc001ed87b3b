"""One blob from one store to another, its bytes hashed on the way and compared with everything that knows them.

What its row says of the content, what the source says of the blob, and what the target says that it stored: where one
of them differs, nothing is left in the target. Small blobs travel as a whole, others in pieces as they come, and large
ones in parts, which a later try goes on behind (dal.files_move.resuming).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple, cast

from dal.blobs.base import BINARY, BlobInfo, BlobStore, Data, Reading
from dal.errors import CorruptDataError, UnavailableError
from dal.files_move.resuming import Sending, version_of
from dal.files_move.throttle import OnBytes, Throttle, untold
from dal.files_move.walking import Expected
from dal.limits import CONTENTS_PARTS_BYTES, CONTENTS_WHOLE_BYTES


class Sums(NamedTuple):
    """The checksums of a blob as it lies there, and of the content inside; the same where it is not compressed."""

    stored: str
    content: str
    size: int


class Hashing:
    """The checksums of what passes. `is_compressed`: the content is hashed as well, in constant memory."""

    def __init__(self, *, is_compressed: bool) -> None:
        self._stored = hashlib.sha256()
        self._size = 0
        self._inside = _Inside() if is_compressed else None

    def update(self, data: bytes) -> None:
        self._stored.update(data)
        self._size += len(data)
        if self._inside is not None:
            self._inside.update(data)

    def sums(self) -> Sums:
        stored = f"sha256:{self._stored.hexdigest()}"
        return Sums(stored, stored if self._inside is None else self._inside.checksum(), self._size)


async def copy_blob(
    source: BlobStore,
    target: BlobStore,
    key: str,
    row: Expected | None,
    *,
    throttle: Throttle,
    on_bytes: OnBytes,
    if_absent: bool,
) -> BlobInfo:
    """The target's word on the blob, which is there whole and durable now.

    on_bytes  is told of the bytes as they pass.
    Raises    CorruptDataError: the bytes are not what the row, the source or the target say.  NotFoundError: the source
              has none.  AlreadyExistsError: `if_absent`, and the target has one.  UnavailableError.
    """
    reading = await source.get(key)
    info = reading.info
    content_type = info.content_type or (row and row.mime_type) or BINARY
    known = info.checksum or (row and row.stored_checksum) or None
    hashing = _hashing(row)
    if info.size > CONTENTS_PARTS_BYTES and not _is_near(source, target):
        await reading.data.aclose()
        sending = Sending(target, info, throttle, on_bytes)
        arrived = await sending.begin(content_type, known)
        start = arrived if target.capabilities.hashes and _is_agreed(info, row, known) else 0
        return await _in_parts(source, target, info, row, sending, start, known, if_absent=if_absent)
    async with aclosing(_checked(reading, row, throttle, on_bytes, hashing)) as pieces:
        data: Data = pieces
        if info.size <= CONTENTS_WHOLE_BYTES:
            data = b"".join([piece async for piece in pieces])
            known = hashing.sums().stored
        stored = await target.put(
            key, data, size=info.size, content_type=content_type, checksum=known, if_absent=if_absent
        )
    return await _believed(target, stored, hashing.sums())


async def _in_parts(
    source: BlobStore,
    target: BlobStore,
    info: BlobInfo,
    row: Expected | None,
    sending: Sending,
    start: int,
    known: str | None,
    *,
    if_absent: bool,
) -> BlobInfo:
    """Copies a blob from a byte on; `sending` throttles and tells of the parts that it sends."""
    reading = await source.get(info.key, start=start)
    if version_of(reading.info) != version_of(info):
        await reading.data.aclose()
        raise UnavailableError(f"{info.key}: it is changing in the source", operation="files.move")
    if start == 0:
        hashing = _hashing(row)
        async with aclosing(_checked(reading, row, Throttle(None), untold, hashing)) as pieces:
            stored = await sending.send(pieces, 0, if_absent=if_absent)
        return await _believed(target, stored, hashing.sums())
    async with reading:
        stored = await sending.send(reading.data, start, if_absent=if_absent)
    if (stored.size, stored.checksum) == (info.size, known):
        return stored
    await target.delete([stored.key])
    raise UnavailableError(
        f"{info.key}: what had arrived before is not right; it is sent again", operation="files.move"
    )


def _is_near(source: BlobStore, target: BlobStore) -> bool:
    """Two directories: no line is slow between them, and parts would be written twice."""
    return source.capabilities.backend == target.capabilities.backend == "file"


def _is_agreed(info: BlobInfo, row: Expected | None, known: str | None) -> bool:
    """Whether one checksum of the blob as it lies there is all that can be asked for."""
    if known is None or row is None:
        return known is not None
    return row.size in (None, info.size) and (row.checksum is None or row.stored_checksum == known)


async def read_sums(
    store: BlobStore, key: str, row: Expected | None, *, throttle: Throttle, on_bytes: OnBytes
) -> tuple[BlobInfo, Sums]:
    """The checksums of a blob's bytes, read now. NotFoundError."""
    reading = await store.get(key)
    hashing = _hashing(row)
    async with aclosing(cast(Any, reading.data)) as pieces:
        async for piece in pieces:
            hashing.update(piece)
            on_bytes(len(piece))
            await throttle.passed(len(piece))
    return reading.info, hashing.sums()


def complaint(sums: Sums, info: BlobInfo, row: Expected | None) -> str:
    """What the bytes contradict, in a sentence; empty where they are what everything says."""
    if sums.size != info.size:
        return f"{sums.size} bytes were read where the listing says {info.size}"
    if info.checksum is not None and info.checksum != sums.stored:
        return f"the bytes have {sums.stored}, and were stored as {info.checksum}"
    if row is not None and row.checksum is not None and row.checksum != sums.content:
        return f"the content has {sums.content}, and its row says {row.checksum}"
    if row is not None and row.size is not None and row.size != sums.size:
        return f"there are {sums.size} bytes, and its row says {row.size}"
    return ""


async def _checked(
    reading: Reading, row: Expected | None, throttle: Throttle, on_bytes: OnBytes, hashing: Hashing
) -> AsyncGenerator[bytes, None]:
    """The bytes of a blob; CorruptDataError behind the last one, where they are not what is said of them."""
    async with aclosing(cast(Any, reading.data)) as pieces:
        async for piece in pieces:
            hashing.update(piece)
            on_bytes(len(piece))
            await throttle.passed(len(piece))
            yield piece
    if wrong := complaint(hashing.sums(), reading.info, row):
        raise CorruptDataError(f"{reading.info.key}: {wrong}; nothing was stored", operation="files.move")


async def _believed(target: BlobStore, stored: BlobInfo, sums: Sums) -> BlobInfo:
    """What the target says it stored, if that is what was sent; else the blob is taken out again."""
    if stored.size == sums.size and stored.checksum in (None, sums.stored):
        return stored
    await target.delete([stored.key])
    raise CorruptDataError(
        f"{stored.key}: the target stored {stored.size} bytes with {stored.checksum}, where {sums.size} with "
        f"{sums.stored} were sent; they were removed again",
        operation="files.move",
    )


def _hashing(row: Expected | None) -> Hashing:
    return Hashing(is_compressed=row is not None and row.is_compressed and row.checksum is not None)


class _Inside:
    """The checksum of what a zstd stream unpacks to, unpacked in small pieces however much that is."""

    def __init__(self) -> None:
        import zstandard

        self._sum = hashlib.sha256()
        self._error: type[Exception] = zstandard.ZstdError
        self._unpack = zstandard.ZstdDecompressor().stream_writer(cast(Any, self), write_size=131_072, closefd=False)
        self._is_broken = False

    def write(self, data: bytes) -> int:
        """For the decompressor."""
        self._sum.update(data)
        return len(data)

    def update(self, data: bytes) -> None:
        try:
            if not self._is_broken:
                self._unpack.write(data)
        except self._error:
            self._is_broken = True

    def checksum(self) -> str:
        return "no zstd stream" if self._is_broken else f"sha256:{self._sum.hexdigest()}"
