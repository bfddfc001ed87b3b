"""Data on its way: whole bytes or an async iterator, gathered, cut into pieces, or grouped into blocks of one size."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from dal.blobs.base import BINARY, BlobInfo, BlobStore, Data, Reading

_HASHED_AT_ONCE_BYTES: Final = 128 * 1024


class SlicedBytes:
    """The Pieces of bytes that are in memory already."""

    def __init__(self, content: bytes, piece_bytes: int) -> None:
        self._content = memoryview(content)
        self._piece_bytes = piece_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._content:
            raise StopAsyncIteration
        piece = bytes(self._content[: self._piece_bytes])
        self._content = self._content[self._piece_bytes :]
        return piece

    async def aclose(self) -> None:
        self._content = memoryview(b"")


async def gather(data: Data, *, max_bytes: int | None = None) -> bytes:
    """All of it. With `max_bytes`, what comes beyond is read no further: one piece more than that tells of it."""
    if isinstance(data, bytes):
        return data
    pieces, size = [], 0
    async for piece in data:
        pieces.append(piece)
        size += len(piece)
        if max_bytes is not None and size > max_bytes:
            break
    return b"".join(pieces)


def until(data: Data, size: int | None) -> Data:
    """The data, which is read no further once it is longer than that: what comes beyond is not wanted anyway."""
    return data if size is None or isinstance(data, bytes) else _until(data, size)


async def _until(data: AsyncIterable[bytes], size: int) -> AsyncIterator[bytes]:
    found = 0
    async for piece in data:
        yield piece
        found += len(piece)
        if found > size:
            return


async def blocks(data: Data, block_bytes: int) -> AsyncIterator[bytes]:
    """The same bytes in blocks of exactly that size, the last one aside. Holds one block, and a piece as it came."""
    if isinstance(data, bytes):
        view = memoryview(data)
        for start in range(0, len(data), block_bytes):
            yield bytes(view[start : start + block_bytes])
        return
    pieces: list[bytes] = []
    size = 0
    async for piece in data:
        pieces.append(piece)
        size += len(piece)
        if size < block_bytes:
            continue
        whole = b"".join(pieces)
        pieces.clear()
        if size == block_bytes:
            size = 0
            yield whole
            continue
        joined, start = memoryview(whole), 0
        while size - start >= block_bytes:
            yield bytes(joined[start : start + block_bytes])
            start += block_bytes
        pieces, size = [bytes(joined[start:])], size - start
    if size:
        yield b"".join(pieces)


async def put_again(reading: Reading, store: BlobStore, key: str) -> BlobInfo:
    """Stores what is being read under another key, or in another store, as what it is."""
    async with reading:
        info = reading.info
        return await store.put(
            key, reading.data, size=info.size, checksum=info.checksum, content_type=info.content_type or BINARY
        )


async def sha256(content: bytes) -> str:
    """The SHA-256 in hexadecimal: at once where that takes less time than to ask a thread."""
    if len(content) <= _HASHED_AT_ONCE_BYTES:
        return hashlib.sha256(content).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()
