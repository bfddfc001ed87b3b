"""What moves and checks of contents share: the report as it grows, progress and patience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from dal.blobs.base import BlobInfo, BlobStore
from dal.errors import DalError
from dal.files_move.options import MoveOptions
from dal.files_move.pace import Pace
from dal.files_move.report import ContentsProgress, ContentsReport, Problem, ProblemKind
from dal.files_move.throttle import OnBytes, Throttle
from dal.limits import CONTENTS_FIRST_WAIT_S, CONTENTS_MAX_WAIT_S, CONTENTS_TRIES
from dal.ops import Count, Sum
from dal.store import ReadCommit

T = TypeVar("T")


class Work:
    """One run: what it has done, and how it is told."""

    def __init__(self, report: ContentsReport, options: MoveOptions) -> None:
        timer = options.timer
        self.report = report
        self.throttle = Throttle(options.limit_bytes_s, timer=timer, sleep=options.sleep)
        self.total_files = 0
        self.total_bytes = 0
        self.jobs = asyncio.Semaphore(options.jobs)
        self._on_progress = options.on_progress
        self._on_problem = options.on_problem
        self._timer = timer
        self._sleep = options.sleep
        self._began = timer()
        self._pace = Pace(timer)
        self._passing = 0  # bytes of blobs that are under way
        # What has taken the time: files that were worked on to their end, and bytes that have passed.
        self._worked_files = self._worked_bytes = 0

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

    def passed(self, size: int, *, is_there: bool = False) -> None:
        """So many bytes of a blob went by, or need not."""
        self._passing += size
        self._worked_bytes += 0 if is_there else size
        self.tell()

    def done(self, size: int, *, is_there: bool = False) -> None:
        """A blob of this size is dealt with. is_there: the target had it."""
        self.report.files += 1
        self._worked_files += not is_there
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
        rate = self._pace.look(size, files, worked_bytes=self._worked_bytes, worked_files=self._worked_files)
        left_bytes, left_files = total_bytes - size, total_files - files
        if self.report.action == "verify" and not self._worked_bytes:
            left_bytes = 0  # none are read
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
                self._pace.seconds_left(left_bytes, left_files),
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

    def on_bytes(self, size: int, *, is_there: bool = False) -> None:
        self._size += size
        self._work.passed(size, is_there=is_there)

    def end(self) -> None:
        """Nothing of it is on its way any more."""
        size, self._size = self._size, 0
        self._work.forget(size)

    async def patiently(self, call: Callable[[OnBytes], Awaitable[T]]) -> T:
        """As `Work.patiently`, counting anew at each try."""

        async def attempt() -> T:
            self.end()
            return await call(self.on_bytes)

        return await self._work.patiently(attempt)
