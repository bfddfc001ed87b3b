"""A blob on its way into the cache, and those who read it meanwhile: fetched once, however many they are."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from dal.blobs.base import BlobInfo, Pieces, Reading
from dal.blobs.cache.entries import Entries, Held
from dal.blobs.threads import Threads
from dal.errors import CorruptDataError
from dal.limits import BLOB_PIECE_BYTES


class Fill:
    """One blob that is being fetched. Goes on whether anybody reads it or not.

    written   bytes that are in the file by now.
    is_stale  the blob was changed meanwhile: what comes is of no use to later readers.
    is_over   nothing more comes, and nobody can begin to follow.
    is_kept   it is in the cache.
    """

    def __init__(self, entries: Entries, threads: Threads, reading: Reading, draft: Held) -> None:
        self.info = reading.info
        self.written = 0
        self.is_stale = False
        self.is_kept = False
        self._entries = entries
        self._threads = threads
        self._reading = reading
        self._draft = draft
        self._moved = asyncio.Event()
        self._error: BaseException | None = None
        self.is_over = False
        self.task = asyncio.create_task(self._run())

    def follow(self, start: int, end: int, again: Callable[[int, int], Awaitable[Reading]]) -> Pieces:
        """The bytes of a range, as they come. `again` reads what could not be written here."""
        return _Following(self, self._threads, os.dup(self._draft.descriptor), start, end, again)

    async def beyond(self, position: int) -> bool:
        """Waits for bytes behind that position; False where the disk refused them. Raises what fetching failed with."""
        while self.written <= position:
            if self._error is not None:
                if isinstance(self._error, OSError):
                    return False
                raise self._error
            if self.is_over:
                return False
            await self._moved.wait()
        return True

    async def _run(self) -> None:
        found = hashlib.sha256()
        try:
            async with self._reading:
                async for piece in self._reading.data:
                    await self._threads.run(os.pwrite, self._draft.descriptor, piece, self.written)
                    found.update(piece)
                    self._advance(self.written + len(piece))
            await self._keep(f"sha256:{found.hexdigest()}")
        except asyncio.CancelledError:
            self._error = OSError("the cache was closed")
            raise
        except Exception as error:
            self._error = error
        finally:
            self.is_over = True
            self._moved.set()
            self._draft.close()

    async def _keep(self, checksum: str) -> None:
        if self.written != self.info.size or (self.info.checksum or checksum) != checksum:
            raise CorruptDataError(
                f"get: {self.info.key}: what came is not what its checksum says", operation="blobs.get"
            )
        if not self.is_stale:
            info: BlobInfo = self.info._replace(checksum=checksum)
            await self._threads.run(self._entries.store, self._draft, info)
            self.is_kept = True

    def _advance(self, written: int) -> None:
        self.written = written
        self._moved.set()
        self._moved.clear()


class _Following:
    """The Pieces of a blob that is still coming. The last one waits until its checksum was compared."""

    def __init__(
        self,
        fill: Fill,
        threads: Threads,
        descriptor: int,
        start: int,
        end: int,
        again: Callable[[int, int], Awaitable[Reading]],
    ) -> None:
        self._fill = fill
        self._threads = threads
        self._descriptor = descriptor
        self._position = start
        self._end = end
        self._again = again
        self._direct: Pieces | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._direct is not None:
            return await anext(self._direct)
        if self._position >= self._end:
            await self.aclose()
            raise StopAsyncIteration
        if not await self._fill.beyond(self._position):
            self._direct = (await self._again(self._position, self._end)).data
            return await anext(self._direct)
        until = min(self._fill.written, self._end, self._position + BLOB_PIECE_BYTES)
        if until == self._fill.info.size:
            await asyncio.wait([self._fill.task])
            if isinstance(self._fill._error, CorruptDataError):
                raise self._fill._error
        piece = await self._threads.run(os.pread, self._descriptor, until - self._position, self._position)
        self._position += len(piece)
        return piece

    async def aclose(self) -> None:
        self._position = self._end
        if self._direct is not None:
            await self._direct.aclose()
        self._close()

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
