"""Data on its way up: in one request where it is small, else in parts, some at a time.

All parts but the last have one size, as R2 wants it. Whatever goes wrong, an error or a cancellation, the upload in
parts is aborted before the call ends.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING

from dal.blobs.base import BlobInfo, Data, Part
from dal.blobs.checks import already_there, check_arrived, check_size
from dal.blobs.data import blocks, sha256, until
from dal.blobs.s3.errors import BACKEND
from dal.errors import CorruptDataError, DalError, LimitExceededError
from dal.limits import CLOSE_TIMEOUT_S, MAX_BLOB_PARTS, S3_PART_BYTES, S3_PARTS_AT_ONCE, S3_UNKNOWN_PART_BYTES

if TYPE_CHECKING:
    from dal.blobs.s3.store import S3BlobStore

_MIB = 1024 * 1024


async def put_data(
    store: S3BlobStore,
    key: str,
    data: Data,
    *,
    size: int | None,
    content_type: str,
    checksum: str | None,
    if_absent: bool,
) -> BlobInfo:
    """Stores a blob. What it is given was checked. Holds S3_PARTS_AT_ONCE parts, and one that is being filled."""
    if size is None and isinstance(data, bytes):
        size = len(data)
    part_bytes = _part_bytes(size)
    content = aiter(blocks(until(data, size), part_bytes))
    first = await anext(content, b"")
    second = await anext(content, b"") if len(first) == part_bytes else b""
    if not second:
        found = f"sha256:{await sha256(first)}"
        check_arrived(key, found_size=len(first), found_checksum=found, size=size, checksum=checksum, backend=BACKEND)
        return await store.put_whole(key, first, content_type=content_type, checksum=found, if_absent=if_absent)
    if if_absent and await store.head(key) is not None:
        raise already_there("put", key, BACKEND)
    upload_id = await store.start_parts(key, content_type=content_type, checksum=checksum)
    try:
        sending = _Sending(store, key, upload_id)
        try:
            await sending.send(first)
            await sending.send(second)
            del first, second
            async for block in content:
                check_size(store.capabilities, sending.size + len(block))
                await sending.send(block)
            parts = await sending.parts()
        finally:
            await sending.stop()
        check_arrived(
            key,
            found_size=sending.size,
            found_checksum=sending.checksum,
            size=size,
            checksum=checksum,
            backend=BACKEND,
        )
        info = await store.complete_parts(key, upload_id, parts, if_absent=if_absent)
    except BaseException:
        await finish(store.abort_parts(key, upload_id))
        raise
    return info._replace(content_type=content_type, checksum=sending.checksum)


class _Sending:
    """Parts of one upload, sent some at a time; their bytes are hashed in their order."""

    def __init__(self, store: S3BlobStore, key: str, upload_id: str) -> None:
        self._store = store
        self._key = key
        self._upload_id = upload_id
        self._hash = hashlib.sha256()
        self._room = asyncio.Semaphore(S3_PARTS_AT_ONCE)
        self._tasks: list[asyncio.Task[Part]] = []
        self._failed: asyncio.Task[Part] | None = None
        self.size = 0

    @property
    def checksum(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    async def send(self, block: bytes) -> None:
        """Takes the next part, once there is room for it. Raises what an earlier one failed with."""
        number = len(self._tasks) + 1
        if number > MAX_BLOB_PARTS:
            raise LimitExceededError(f"put: {self._key}: more than {MAX_BLOB_PARTS} parts; name the size before")
        await self._room.acquire()
        if self._failed is not None:
            self._room.release()
            await self._failed
        await asyncio.to_thread(self._hash.update, block)
        self.size += len(block)
        task = asyncio.create_task(self._store.put_part(self._key, self._upload_id, number, block, size=len(block)))
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    async def parts(self) -> list[Part]:
        """Every part, once all have arrived."""
        return list(await asyncio.gather(*self._tasks))

    async def stop(self) -> None:
        """Ends what is still under way, and waits for it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await finish(_settled(self._tasks))

    def _ended(self, task: asyncio.Task[Part]) -> None:
        self._room.release()
        if not task.cancelled() and task.exception() is not None and self._failed is None:
            self._failed = task


async def _settled(tasks: list[asyncio.Task[Part]]) -> None:
    await asyncio.wait(tasks)


async def finish(work: Coroutine[object, object, None]) -> None:
    """Carries cleaning up to its end, for CLOSE_TIMEOUT_S, before a cancellation goes on.

    What it fails with is left to a sweeper: the caller has an error of its own to raise.
    """
    task = asyncio.ensure_future(asyncio.wait_for(work, CLOSE_TIMEOUT_S))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    with suppress(DalError, TimeoutError):
        task.result()
    if cancelled is not None:
        raise cancelled


async def exactly(data: AsyncIterable[bytes], key: str, number: int, size: int) -> AsyncIterator[bytes]:
    """The data, if it is so long; else the request breaks off, and the part is not stored. CorruptDataError."""
    found = 0
    async for piece in data:
        found += len(piece)
        if found > size:
            break
        yield piece
    if found != size:
        raise _wrong_length(key, number, found, size)


def exactly_bytes(content: bytes, key: str, number: int, size: int) -> bytes:
    """The content, if it is so long. CorruptDataError."""
    if len(content) != size:
        raise _wrong_length(key, number, len(content), size)
    return content


def _wrong_length(key: str, number: int, found: int, size: int) -> CorruptDataError:
    return CorruptDataError(
        f"put_part: part {number} of {key}: {found} bytes came, {size} were announced; nothing was stored",
        operation="blobs.put_part",
        backend=BACKEND,
    )


def _part_bytes(size: int | None) -> int:
    if size is None:
        return S3_UNKNOWN_PART_BYTES
    smallest = -(-size // MAX_BLOB_PARTS)
    return max(S3_PART_BYTES, -(-smallest // _MIB) * _MIB)
