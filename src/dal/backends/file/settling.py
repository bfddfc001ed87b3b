"""When checkpoints run: as soon as a journal segment is full, and some seconds after a write that did not fill it.

One process at a time works, under the checkpoint lock; the others leave it to that one. Commits go on meanwhile, and
wait only when the documents fall too far behind, which bounds the memory of every process that follows the journal.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from dal.backends.file import checkpoint, fencing, registry_files
from dal.backends.file.checkpoint import Work, take_up
from dal.backends.file.errors import reason
from dal.backends.file.image import Image
from dal.backends.file.journal import Journal
from dal.backends.file.layout import BACKEND, Layout
from dal.backends.file.lock import FileLock
from dal.backends.file.locks import Locks
from dal.backends.file.waiting import finished
from dal.errors import DalError, UnavailableError

#: Documents lag behind the journal at most so long while the store is in use.
CHECKPOINT_INTERVAL_S: Final = 10.0
#: Closed segments that wait for a checkpoint; behind that, commits wait too.
MAX_WAITING_SEGMENTS: Final = 8

_OTHERS_S: Final = 0.005

_log = logging.getLogger("dal.file")


class Following(Protocol):
    """What a process has of the store: replaced as a whole when it had to read the documents again."""

    @property
    def journal(self) -> Journal: ...

    @property
    def image(self) -> Image: ...

    @property
    def locks(self) -> Locks: ...

    async def follow(self) -> None: ...


class Settling:
    """The checkpoints of one open store. `problem` says why the last one failed."""

    def __init__(
        self,
        layout: Layout,
        store: Following,
        lock: FileLock,
        writer: ThreadPoolExecutor,
        *,
        timeout_s: float,
        interval_s: float,
    ) -> None:
        self._layout = layout
        self._store = store
        self._lock = lock
        self._writer = writer  # the thread that appends to the journal also ends its segments
        self._timeout_s = timeout_s
        self._interval_s = interval_s
        self._thread = ThreadPoolExecutor(1, "dal-file-checkpoint")
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0  # the timer is for what was written before this position
        self._is_closing = False
        self.problem: str | None = None

    def shutdown(self) -> None:
        """Waits for the thread."""
        self._thread.shutdown()

    # -- beginning

    def begin(self) -> None:
        """Starts a checkpoint of what is sealed, unless one is running: that one goes on until nothing is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._spawn(self._run)

    def begin_later(self) -> None:
        """Sees to it that what is in the journal now does not stay out of the documents for long."""
        if self._timer is None and not self._is_closing:
            self._due = self._store.journal.position
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        state = self._store.journal.state
        if state.settled < self._due:
            self._spawn(self._run_timed)
        elif state.settled < state.published:  # another process was faster: what came since is not so old
            self.begin_later()

    def _spawn(self, run: Callable[[], Coroutine[None, None, None]]) -> None:
        if self._task is None and not self._is_closing:
            self._task = asyncio.get_running_loop().create_task(run())
            self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)
        if error is not None or self._store.image.sealed():
            self.begin_later()

    # -- running

    async def _run_timed(self) -> None:
        async with self._store.locks.exclusive("checkpoint"):
            await self.rotate()
        await self._run()

    async def _run(self) -> None:
        while self._store.image.sealed() and self._lock.try_acquire():
            try:
                if not await self._run_once():
                    return
            finally:
                self._lock.release()

    async def rotate(self) -> bool:
        """Ends the journal's segment, under the store's lock; whether the task was cancelled meanwhile.

        Where there is no room for a new segment, the old one grows on.
        """
        journal = self._store.journal
        if not journal.segment_bytes() or journal.is_broken:
            return False
        rotating = asyncio.wrap_future(self._writer.submit(journal.rotate))
        is_cancelled = await finished(rotating)
        error = rotating.exception()
        if error is None:
            self._store.image.seal(journal.position)
        else:
            self._failed(error)
        return is_cancelled

    async def _run_once(self) -> bool:
        """One checkpoint, under the checkpoint lock; whether it succeeded."""
        if self._store.journal.has_news():
            await self._store.follow()
        journal, image = self._store.journal, self._store.image
        image.retire(journal.state.settled)  # by another process
        self._layout.look()  # a fence of another process may have put directories away, or brought them back
        fencing.complete(self._layout, image.registry)
        work = take_up(image)
        if work is None:
            return True
        journal.state.horizon = max(journal.state.horizon, journal.position)
        running = asyncio.wrap_future(self._thread.submit(self._write, journal, image, work))
        is_cancelled = await finished(running)
        error = running.exception()
        if error is None:
            self.problem = None
            image.retire(journal.state.settled)
        else:
            self._failed(error)
        if is_cancelled:
            raise asyncio.CancelledError
        return error is None

    def _write(self, journal: Journal, image: Image, work: Work) -> None:
        checkpoint.run(self._layout, image, work)
        journal.settle(work.target)
        journal.retire()
        if work.registry is not None:
            registry_files.retire(self._layout, work.registry)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, DalError) and error.retryable:
            return  # a long transaction had the store: tried again soon
        self.problem = f"checkpoint: {reason(error)}"
        is_expected = isinstance(error, OSError | sqlite3.Error)
        _log.warning("%s: %s", self._layout.root, self.problem, exc_info=None if is_expected else error)

    # -- waiting

    async def catch_up(self, operation: str) -> None:
        """Returns when everything written before the call is in the files. UnavailableError: it does not get there."""
        async with self._store.locks.exclusive(operation):
            await self.rotate()
            target = self._store.journal.position
        try:
            async with asyncio.timeout(self._timeout_s):
                while self._store.journal.state.settled < target:
                    self.begin()
                    if self._task is not None:
                        await asyncio.wait([self._task])
                    if self._store.journal.state.settled < target:
                        await asyncio.sleep(_OTHERS_S)  # another process is at it
        except TimeoutError as error:
            raise self._behind(operation) from error

    async def wait_for_room(self, operation: str) -> None:
        """Returns when the documents are not too far behind. UnavailableError: they stay behind."""
        if self._has_room():
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                while not self._has_room():
                    self.begin()
                    if self._task is not None:
                        await asyncio.wait([self._task])
                    if self.problem is not None and not self._has_room():
                        raise self._behind(operation)
                    if not self._has_room():
                        await asyncio.sleep(_OTHERS_S)  # another process is at it
        except TimeoutError as error:
            raise self._behind(operation) from error

    def _has_room(self) -> bool:
        image = self._store.image
        if len(image.layers) > MAX_WAITING_SEGMENTS:
            image.retire(self._store.journal.state.settled)
        return len(image.layers) <= MAX_WAITING_SEGMENTS

    def _behind(self, operation: str) -> UnavailableError:
        return UnavailableError(
            f"{operation}: the journal waits for its documents: {self.problem or 'the disk is slow'}; "
            "see health, then retry",
            operation=operation,
            backend=BACKEND,
        )

    async def finish(self) -> None:
        """Begins nothing any more, and waits for what is running."""
        self._begin_nothing()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Begins nothing any more, and ends what is running as soon as its thread lets it."""
        self._begin_nothing()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _begin_nothing(self) -> None:
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def settle(self) -> None:
        """A last checkpoint, unless another process is at one."""
        if self._lock.try_acquire():
            try:
                await self._run_once()
            finally:
                self._lock.release()
