"""Who may write in an open store: one task of one process to the journal, and one process to the files.

Writing to the journal waits for the other tasks of this process and then for other processes, and begins with what
those have written. The files stand still under the checkpoint lock: for a checkpoint, for whoever looks at them for
others' changes, and, shared, for those who open the store.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dal.backends.file.errors import reading_error, timed_out
from dal.backends.file.layout import Layout
from dal.backends.file.lock import FileLock


class Locks:
    """The locks of one open store.

    timeout_s  how long others are waited for, where the caller says nothing else; DalTimeoutError then.
    follow     takes in what other processes have written.
    check      raises where nothing may be written any more.
    """

    def __init__(
        self,
        layout: Layout,
        timeout_s: float,
        *,
        follow: Callable[[], Awaitable[None]],
        check: Callable[[str], None],
    ) -> None:
        self.timeout_s = timeout_s
        self._layout = layout
        self._follow = follow
        self._check = check
        self._turn = asyncio.Lock()
        self._lock = FileLock(layout.journal / "lock")

    def close(self) -> None:
        """Lets go of everything."""
        self._lock.close()

    @asynccontextmanager
    async def exclusive(self, operation: str, timeout_s: float | None = None) -> AsyncIterator[None]:
        """Nobody else writes, in this process or another, and everything committed so far is known."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._turn.acquire()
        except TimeoutError as error:
            raise timed_out(self._layout, operation, timeout_s) from error
        try:
            self._check(operation)
            async with self.alone(operation, timeout_s):
                yield
        finally:
            self._turn.release()

    @asynccontextmanager
    async def alone(
        self, operation: str, timeout_s: float | None = None, *, following: bool = True
    ) -> AsyncIterator[None]:
        """As `exclusive`, whatever other tasks of this process do: before there are any, and after the last one.

        following  what others have written is taken in first.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            await self._lock.acquire(timeout_s)
        except TimeoutError as error:
            raise timed_out(self._layout, operation, timeout_s) from error
        except OSError as error:  # the store was closed meanwhile
            raise reading_error(self._layout, operation, error) from error
        try:
            if following:
                await self._followed(operation)
            yield
        finally:
            self._lock.release()

    async def _followed(self, operation: str) -> None:
        try:
            await self._follow()
        except (OSError, sqlite3.Error) as error:
            raise reading_error(self._layout, operation, error) from error

    async def last_turn(self) -> None:
        """Returns when what other tasks write has ended. They get no turn any more."""
        await self._turn.acquire()

    @asynccontextmanager
    async def still_files(
        self, operation: str, timeout_s: float | None = None, *, shared: bool = False
    ) -> AsyncIterator[None]:
        """Nobody else writes to the files. Writers of the journal go on.

        shared  nobody writes to them at all, and others may read them at the same time.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        lock = FileLock(self._layout.journal / "checkpoint.lock")
        try:
            try:
                await lock.acquire(timeout_s, shared=shared)
            except TimeoutError as error:
                raise timed_out(self._layout, operation, timeout_s) from error
            self._layout.look()
            yield
        finally:
            lock.close()

    @asynccontextmanager
    async def settled_files(self, operation: str, timeout_s: float | None = None) -> AsyncIterator[None]:
        """Nobody else writes, neither to the journal nor to the files."""
        try:
            await self._follow()  # before: who has to read the documents again needs the checkpoint lock too
            async with self.still_files(operation, timeout_s), self.exclusive(operation, timeout_s):
                self._layout.look()
                yield
        except (OSError, sqlite3.Error) as error:
            raise reading_error(self._layout, operation, error) from error
