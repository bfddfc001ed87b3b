"""What moves and checks of contents share: the report as it grows, progress, patience, and work side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import TypeAlias, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from dal.blobs.base import BlobInfo, BlobStore
from dal.errors import DalError
from dal.files_move.pace import Pace, seconds_left
from dal.files_move.report import ContentsProgress, ContentsReport, OnProblem, OnProgress, Problem, ProblemKind
from dal.files_move.throttle import Sleep, Throttle, Timer
from dal.files_move.transfer import OnBytes
from dal.limits import CONTENTS_FIRST_WAIT_S, CONTENTS_MAX_WAIT_S, CONTENTS_TRIES
from dal.ops import Count, Sum
from dal.store import ReadCommit

T = TypeVar("T")
Begin: TypeAlias = Callable[[Callable[[], Coroutine[None, None, None]]], Awaitable[None]]


class Work:
    """One run: what it has done, and how it is told.

    jobs           transfers at a time.
    limit_bytes_s  all transfers together; None for no limit.
    """

    def __init__(
        self,
        report: ContentsReport,
        *,
        jobs: int,
        limit_bytes_s: float | None = None,
        on_progress: OnProgress | None = None,
        on_problem: OnProblem | None = None,
        timer: Timer = monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.report = report
        self.throttle = Throttle(limit_bytes_s, timer=timer, sleep=sleep)
        self.total_files = 0
        self.total_bytes = 0
        self.jobs = asyncio.Semaphore(jobs)
        self._on_progress = on_progress
        self._on_problem = on_problem
        self._timer = timer
        self._sleep = sleep
        self._began = timer()
        self._pace = Pace(timer)
        self._passing = 0  # bytes of blobs that are under way

    async def expect(self, rows: ReadCommit) -> None:
        """Takes the totals from the rows. Two reads."""
        (files,), *_ = await rows.read(Count("files"))
        (size,), *_ = await rows.read(Sum("files", "file_size"))
        self.total_files, self.total_bytes = int(str(files)), int(str(size))

    def end(self) -> ContentsReport:
        self.report.seconds = self._timer() - self._began
        self.total_files, self.total_bytes = self.report.files, self.report.bytes
        self.tell()
        return self.report

    def passed(self, size: int) -> None:
        """So many bytes of a blob went by."""
        self._passing += size
        self.tell()

    def done(self, size: int) -> None:
        """A blob of this size is dealt with."""
        self.report.files += 1
        self.report.bytes += size
        self.tell()

    def forget(self, passed: int) -> None:
        """Bytes that were told of pass again, or are those of a blob that is done."""
        self._passing -= passed

    def problem(self, kind: ProblemKind, key: str, text: str) -> None:
        self.found(Problem(kind, key, text))

    def found(self, found: Problem) -> None:
        self.report.problems.add(found)
        if self._on_problem is not None:
            self._on_problem(found)

    def tell(self) -> None:
        if self._on_progress is None:
            return
        files, size = self.report.files, self.report.bytes + self._passing
        total_files, total_bytes = max(self.total_files, files), max(self.total_bytes, size)
        rate = self._pace.look(size, files)
        self._on_progress(
            ContentsProgress(
                self.report.action,
                files,
                size,
                total_files,
                total_bytes,
                self.report.copied,
                self.report.copied_bytes,
                self.report.problems.total,
                rate.bytes_s,
                rate.files_s,
                seconds_left(rate, total_bytes - size, total_files - files),
            )
        )

    async def head(self, store: BlobStore, key: str) -> BlobInfo | None:
        """What a store says of a key, asked patiently; None too for what cannot be a key."""
        try:
            return await self.patiently(partial(store.head, key))
        except DalError as error:
            if error.retryable:
                raise
            return None

    async def _rest(self, seconds: float) -> None:
        await self._sleep(seconds)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What the call gives, tried again while a store does not answer; its last error where it never does."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, DalError) and error.retryable),
            stop=stop_after_attempt(CONTENTS_TRIES),
            wait=wait_random_exponential(CONTENTS_FIRST_WAIT_S, CONTENTS_MAX_WAIT_S),
            sleep=self._rest,
            reraise=True,
        ):
            with attempt:
                return await call()
        raise AssertionError("unreachable: the last attempt returns or raises")


class Passing:
    """The bytes of one blob on their way, counted once however often it is tried."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._size = 0

    def on_bytes(self, size: int) -> None:
        self._size += size
        self._work.passed(size)

    def end(self) -> None:
        """Nothing of it is on its way any more."""
        size, self._size = self._size, 0
        self._work.forget(size)

    async def patiently(self, call: Callable[[OnBytes], Awaitable[None]]) -> None:
        """As `Work.patiently`, counting anew at each try."""

        async def attempt() -> None:
            self.end()
            await call(self.on_bytes)

        await self._work.patiently(attempt)


@asynccontextmanager
async def side_by_side(places: asyncio.Semaphore) -> AsyncIterator[Begin]:
    """Gives a call that begins a piece of work as soon as a place is free; at the end of the block all are done.

    The first error ends the others and is raised.
    """
    try:
        async with asyncio.TaskGroup() as group:

            async def begin(work: Callable[[], Coroutine[None, None, None]]) -> None:
                await places.acquire()
                group.create_task(work()).add_done_callback(lambda _: places.release())

            yield begin
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
