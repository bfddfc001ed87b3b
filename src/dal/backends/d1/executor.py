"""Statements on D1: one request for each, one for each batch, tried again where that can do no harm.

Reads are tried again on everything that may pass. Batches too, because each carries an id that is committed with it
(commits.py): what was lost on its way is sent again, and a batch that had arrived is recognised, not repeated. Waits
grow with chance in them, and end with STATEMENT_TIMEOUT_S. A batch runs to its end even where its caller is cancelled.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar

from dal.backends.d1.commits import BURNT, Commit
from dal.backends.d1.errors import (
    BACKEND,
    Failure,
    broken_constraint,
    error_of,
    gave_up,
    meaning_of,
    violation_of,
)
from dal.backends.d1.transport import D1Transport, Rows
from dal.backends.d1.wire import Entry, body_of, entries_of
from dal.backends.sql import Result, Session, Statement, Violation
from dal.errors import DalError, Outcome, UnavailableError, UnsupportedError
from dal.limits import (
    CLOSE_TIMEOUT_S,
    D1_PRUNE_EVERY_S,
    D1_RETRY_FIRST_WAIT_S,
    D1_RETRY_MAX_WAIT_S,
    RETRY_ATTEMPTS,
    STATEMENT_TIMEOUT_S,
)
from dal.ops import JsonValue

_T = TypeVar("_T")
_Sleep = Callable[[float], Awaitable[None]]


class D1Executor:
    """An Executor on one database."""

    def __init__(
        self,
        transport: D1Transport,
        label: str,
        *,
        sleep: _Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.transport = transport
        self._label = label
        self._sleep = sleep
        self._clock = clock
        self._prune_at = clock()
        #: Batches under way. Those whose callers are gone end by themselves, and are waited for where it matters.
        self._batches: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        await self.transport.open()

    async def fetch(self, statement: Statement) -> Rows:
        return (await self.fetch_all([statement]))[0]

    async def fetch_all(self, statements: Sequence[Statement]) -> list[Rows]:
        """The rows of several reading statements as of one moment."""
        return await self.read([entry for statement in statements for entry in entries_of(statement)])

    async def read(self, entries: Sequence[Entry]) -> list[Rows]:
        """The rows of entries that only read, tried again freely."""
        body = body_of(entries)
        tries = Tries("read", self._label, self._sleep, self._clock)
        while True:
            try:
                return await self.transport.query(body, len(entries))
            except Failure as failure:
                await tries.another(failure)

    async def batch(self, statements: Sequence[Statement]) -> list[Result]:
        """The batch, atomic and durable; carried out once however often it has to be sent."""
        prune = self._clock() >= self._prune_at
        if prune:
            self._prune_at = self._clock() + D1_PRUNE_EVERY_S
        rows = await self.to_the_end(self._commit(Commit(statements, prune=prune)))
        return [Result(len(part), part) for part in rows]

    async def settled(self) -> None:
        """Waits for the batches of callers who were cancelled: what they wrote is there then, or never comes."""
        if self._batches:
            await asyncio.wait(self._batches, timeout=CLOSE_TIMEOUT_S)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Always raises: D1 has no interactive transaction (store.py has an optimistic one instead)."""
        raise UnsupportedError("D1 has no interactive transaction", operation="transaction", backend=BACKEND)
        yield self

    async def health(self) -> tuple[dict[str, JsonValue], list[str]]:
        limiter, usage = self.transport.limiter, self.transport.usage
        problems = []
        if limiter.waiting:
            problems.append(f"{limiter.waiting} requests wait for the API's rate limit")
        parts: dict[str, JsonValue] = {
            "requests": usage.requests,
            "rows_read": usage.rows_read,
            "rows_written": usage.rows_written,
            "waited_for_rate_limit_s": round(limiter.waited_s, 3),
        }
        return parts, problems

    async def close(self) -> None:
        await self.settled()
        await self.transport.close()

    async def to_the_end(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Awaits it in a task of its own, which goes on where the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._batches.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._batches.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: nobody else may be there to do it

    async def _commit(self, commit: Commit) -> list[Rows]:
        body = body_of(commit.entries)
        tries = Tries("commit", self._label, self._sleep, self._clock, writes=True)
        while True:
            try:
                try:
                    return commit.rows(await self.transport.query(body, len(commit.entries)))
                except Failure as failure:
                    broken = broken_constraint(failure)
                    if broken is not None:
                        raise violation_of(broken, [statement.sql for statement in commit.statements]) from failure
                    await tries.another(failure)
            except (DalError, Violation) as error:
                if tries.outcome == "not_applied":
                    raise
                # An earlier try may have arrived, and be what this one was refused for; or be on its way still.
                kept = await self._burn(commit, error)
                if kept == BURNT:
                    if isinstance(error, DalError):
                        error.outcome = "not_applied"
                    raise
                return await self._recall(commit, kept, error)

    async def _burn(self, commit: Commit, error: DalError | Violation) -> str:
        """Whether the batch is in; once it is not, it never will be. Raises the error, its outcome unknown, where D1
        does not say."""
        try:
            return str((await self.read(commit.burn))[-1][0][0])
        except DalError as unreachable:
            if isinstance(error, DalError):
                error.outcome = "unknown"
                raise error from unreachable
            unreachable.outcome = "unknown"
            raise

    async def _recall(self, commit: Commit, kept: str, error: DalError | Violation) -> list[Rows]:
        """What the lost answer said."""
        wanted = commit.recall
        found = await self.fetch_all(wanted) if wanted else []
        try:
            return commit.recalled(kept, found)
        except LookupError:
            raise UnavailableError(
                f"{self._label}: commit: it was carried out and its answer lost, and the rows it wrote are gone since",
                operation="commit",
                backend=BACKEND,
                retryable=False,
                outcome="unknown",
            ) from error


class Tries:
    """How often a request was sent, and whether to send it again."""

    def __init__(
        self,
        operation: str,
        label: str,
        sleep: _Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        *,
        writes: bool = False,
    ) -> None:
        self._operation = operation
        self._label = label
        self._sleep = sleep
        self._clock = clock
        self._writes = writes
        self._deadline = clock() + STATEMENT_TIMEOUT_S
        self._count = 0
        #: What may have come of the tries so far.
        self.outcome: Outcome = "not_applied"

    async def another(self, failure: Failure) -> None:
        """Returns when it is time to send again; raises where that cannot help, or helped too seldom."""
        self._count += 1
        meaning = meaning_of(failure)
        if self._writes and meaning.outcome == "unknown":
            self.outcome = "unknown"
        if not meaning.passes:
            self._fail(failure)
        wait_s = min(D1_RETRY_FIRST_WAIT_S * 2.0**self._count, D1_RETRY_MAX_WAIT_S) * random.random()  # noqa: S311
        asked_s = failure.retry_after_s or 0.0  # the limiter holds the next request back for so long
        if self._count >= RETRY_ATTEMPTS or self._clock() + max(wait_s, asked_s) > self._deadline:
            raise gave_up(failure, self._operation, self._label, tries=self._count, outcome=self.outcome) from failure
        await self._sleep(wait_s)

    def _fail(self, failure: Failure) -> NoReturn:
        error = error_of(failure, self._operation, self._label, writes=self._writes)
        if self.outcome == "unknown":
            error.outcome = "unknown"
        raise error from failure
