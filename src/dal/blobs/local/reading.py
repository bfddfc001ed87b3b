"""A blob's file as pieces: read in blocks by a thread, the next block while the one before is used."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator

from dal.blobs.local.errors import BACKEND, translated
from dal.blobs.threads import Threads
from dal.errors import CorruptDataError
from dal.limits import BLOB_BLOCK_BYTES, BLOB_PIECE_BYTES


class FilePieces:
    """The Pieces of an open file, which it closes. For one task at a time; holds two blocks at most."""

    def __init__(self, threads: Threads, descriptor: int, key: str, start: int, end: int) -> None:
        self._threads = threads
        self._descriptor = descriptor
        self._key = key
        self._position = start
        self._end = end
        self._pieces: deque[bytes] = deque()
        self._ahead: asyncio.Task[list[bytes]] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            await self._next_block()
        return self._pieces.popleft()

    async def aclose(self) -> None:
        self._pieces.clear()
        self._end = self._position
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            await asyncio.wait([ahead])
            if not ahead.cancelled():
                ahead.exception()
        self._close()

    def __del__(self) -> None:
        self._close()  # a read under way would hold this object

    async def _next_block(self) -> None:
        """The next pieces; StopAsyncIteration behind the last one, the file then being closed."""
        if self._position >= self._end:
            await self.aclose()
            raise StopAsyncIteration
        ahead, self._ahead = self._ahead, None
        with translated("get", self._key):
            pieces = await (ahead or self._threads.run(self._read, self._position))
        if not all(pieces):
            await self.aclose()
            raise CorruptDataError(
                f"get: the file of {self._key} ends before its time", operation="blobs.get", backend=BACKEND
            )
        self._pieces.extend(pieces)
        self._position += sum(map(len, pieces))
        if self._position < self._end:
            self._ahead = asyncio.ensure_future(self._threads.run(self._read, self._position))
        else:
            self._close()

    def _read(self, position: int) -> list[bytes]:
        until = min(position + BLOB_BLOCK_BYTES, self._end)
        starts = range(position, until, BLOB_PIECE_BYTES)
        return [os.pread(self._descriptor, min(BLOB_PIECE_BYTES, until - start), start) for start in starts]

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
