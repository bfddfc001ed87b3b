"""A blob's file as pieces: at once what the system has in memory, and the rest by a thread, in blocks.

A thread is asked where the disk is: from there on it reads the next block while the one before is used. What lies in
the page cache needs no thread (Linux alone tells without waiting, and not for every file system): asking one for each
block took twice as long as reading it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Final

from dal.blobs.local.errors import BACKEND, translate, translated
from dal.blobs.threads import Threads
from dal.errors import CorruptDataError
from dal.limits import BLOB_BLOCK_BYTES, BLOB_PIECE_BYTES, BLOB_UNPAUSED_BYTES

_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)


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
        self._cached = None if _NOWAIT is None else _Cached(descriptor, _NOWAIT, min(BLOB_PIECE_BYTES, end - start))
        self._unpaused_bytes = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces:
            return self._pieces.popleft()
        if self._cached is not None and self._position < self._end:
            if self._unpaused_bytes >= BLOB_UNPAUSED_BYTES:
                self._unpaused_bytes = 0
                await asyncio.sleep(0)  # a task that never waits would have the event loop for itself
            try:
                piece = self._cached.read(self._position, self._end)
            except OSError as error:
                raise translate("get", self._key, error) from error
            if piece:
                self._position += len(piece)
                self._unpaused_bytes += len(piece)
                return piece
            self._cached = None
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
        if not pieces:
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
        """A block from there on, or as much as comes without a gap; nothing where the file ends."""
        pieces: list[bytes] = []
        until = min(position + BLOB_BLOCK_BYTES, self._end)
        while position < until:
            piece = os.pread(self._descriptor, min(BLOB_PIECE_BYTES, until - position), position)
            if not piece:
                break
            pieces.append(piece)
            position += len(piece)
        return pieces

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class _Cached:
    """Reads what the system has in memory, and never waits.

    Two buffers take turns, whose bytes are given away as they are: while a caller still holds a piece, BytesIO takes
    other memory for the next. Room for each piece anew, and copying into it, took a third of the time.
    """

    def __init__(self, descriptor: int, flag: int, piece_bytes: int) -> None:
        self._descriptor = descriptor
        self._flag = flag
        self._next, self._last = (BytesIO(bytes(piece_bytes)) for _ in range(2))

    def read(self, position: int, end: int) -> bytes:
        """A piece from there on; empty where the disk must be asked, nobody can tell, or the file ends."""
        buffer, self._next, self._last = self._next, self._last, self._next
        with buffer.getbuffer() as whole, whole[: end - position] as wanted:
            try:
                size = os.preadv(self._descriptor, [wanted], position, self._flag)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    return b""
                raise
        piece = buffer.getvalue()
        return piece if size == len(piece) else piece[:size]
