"""Group commit at the waist: commits that wait together become one batch, one round trip, one flush to disk.

A commit that finds its lane idle goes straight down in its own task and pays nothing. The others queue; a drain task,
alive only while there is work, merges them (dal.layers.merge) and hands each its own Receipt. A merged batch that is
refused is halved until the culprit stands alone, so that one caller's conflict never becomes another's. Reads and
transactions pass untouched.

Cancellation: a commit that still waits is dropped and never written; one already taken happens whole, and its Receipt
is thrown away. Nobody else's commit notices.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import Context
from copy import copy
from functools import partial
from typing import Final

from dal.errors import DalError, Outcome, UnavailableError
from dal.layers.base import Layer
from dal.layers.merge import Merger, Simple, take_apart
from dal.limits import CLOSE_TIMEOUT_S, MAX_GROUP_OPS, MAX_WAITING_COMMITS
from dal.ops import Delete, Insert, Op, Receipt, Upsert
from dal.store import Store

# What a store raises at once, with nothing written, for an operation that makes no sense: a caller's bug.
_PROGRAMMING_ERRORS: Final = (KeyError, ValueError, TypeError)


class _Waiter:
    """A commit in the queue. Its future gives the Receipt or the error as a value, so that none goes unretrieved."""

    __slots__ = ("future", "ops", "simple")

    def __init__(self, ops: Sequence[Op], future: asyncio.Future[Receipt | Exception]) -> None:
        self.ops = ops
        self.future = future
        self.simple: Simple | None = None

    def answer(self, result: Receipt | Exception) -> None:
        if not self.future.done():
            self.future.set_result(result)


class _Lane:
    """One batch in flight, and those who wait for it to end."""

    __slots__ = ("busy", "drain", "idle", "taken", "waiting")

    def __init__(self) -> None:
        self.busy = False
        self.waiting: OrderedDict[_Waiter, None] = OrderedDict()
        self.taken: list[_Waiter] = []
        self.drain: asyncio.Task[None] | None = None
        self.idle: asyncio.Future[None] | None = None  # made by close() where it has to wait

    def release(self) -> None:
        self.busy = False
        if self.idle is not None and not self.idle.done():
            self.idle.set_result(None)


class GroupCommit(Layer):
    """A Store whose concurrent commits share batches.

    Lanes  `capabilities.commit_lanes` of the store below; a commit's lane follows from the first row it touches, so
           that writers of one chat meet in one lane and merge instead of queueing for its row lock.
    Order  within a lane, that of the calls.
    Limits MAX_GROUP_COMMITS, MAX_GROUP_OPS and MAX_GROUP_CHARS a batch; more than MAX_WAITING_COMMITS in the queue
           are refused with UnavailableError (retryable, not applied).
    Cost   1 µs for a commit alone; about 6 µs for one of a hundred that are merged.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lanes = [_Lane() for _ in range(max(1, inner.capabilities.commit_lanes))]
        self._max_ops = min(MAX_GROUP_OPS, inner.capabilities.max_batch_ops)
        self._closed = False

    @property
    def waiting(self) -> int:
        """Commits in the queue now."""
        return sum(len(lane.waiting) for lane in self._lanes)

    async def open(self) -> None:
        await self.inner.open()
        self._closed = False

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        lane = self._lanes[0] if len(self._lanes) == 1 else self._lanes[_row_hash(ops) % len(self._lanes)]
        if self._closed:
            raise self._unavailable("the store is closed; open it first", retryable=False)
        if lane.busy:
            return await self._wait(lane, ops)
        lane.busy = True
        try:
            return await self.inner.commit(ops)
        finally:
            if any(not waiter.future.cancelled() for waiter in lane.waiting):
                # In a context of its own: the drain works for everybody, not for the request that came first.
                lane.drain = asyncio.get_running_loop().create_task(self._drain(lane), context=Context())
                lane.drain.add_done_callback(partial(self._drained, lane))
            else:
                lane.release()

    async def close(self) -> None:
        """Lets the queue drain for CLOSE_TIMEOUT_S, refuses new commits, then closes the store below."""
        self._closed = True
        loop = asyncio.get_running_loop()
        busy = []
        for lane in self._lanes:
            if lane.busy:
                lane.idle = lane.idle if lane.idle is not None and not lane.idle.done() else loop.create_future()
                busy.append(lane.idle)
        if busy:
            await asyncio.wait(busy, timeout=CLOSE_TIMEOUT_S)
        await self.inner.close()

    async def _wait(self, lane: _Lane, ops: Sequence[Op]) -> Receipt:
        if self.waiting >= MAX_WAITING_COMMITS:
            raise self._unavailable(f"{MAX_WAITING_COMMITS} commits are waiting already; write slower", retryable=True)
        waiter = _Waiter(ops, asyncio.get_running_loop().create_future())
        lane.waiting[waiter] = None
        try:
            result = await waiter.future
        finally:
            lane.waiting.pop(waiter, None)  # still there only when cancelled
        if isinstance(result, Exception):
            raise result
        return result

    async def _drain(self, lane: _Lane) -> None:
        """Writes batch after batch until nobody waits."""
        while lane.waiting:
            lane.taken, merger = self._take(lane)
            await self._write(lane.taken, merger)
            # Those just answered get their turn first, so that what they write next joins the next batch: without it
            # every second batch of a closed loop of writers holds only the few that came too late for the first.
            await asyncio.sleep(0)
        lane.taken = []
        lane.release()

    def _drained(self, lane: _Lane, drain: asyncio.Task[None]) -> None:
        """Nobody waits for an answer that cannot come: when the loop shuts down, even before the drain began."""
        if lane.drain is drain:  # the next one may have begun already
            lane.drain = None
        bug = None if drain.cancelled() else drain.exception()
        if bug is None and not drain.cancelled():
            return
        for waiter in lane.taken:
            waiter.answer(self._abandoned("unknown", bug))
        for waiter in lane.waiting:
            waiter.answer(self._abandoned("not_applied", bug))
        lane.taken = []
        lane.waiting.clear()
        lane.release()

    def _take(self, lane: _Lane) -> tuple[list[_Waiter], Merger]:
        """As many from the front of the queue as fit together; those cancelled meanwhile are dropped."""
        taken: list[_Waiter] = []
        merger = Merger(max_ops=self._max_ops)
        while lane.waiting:
            waiter = next(iter(lane.waiting))
            if waiter.future.cancelled():
                lane.waiting.popitem(last=False)
                continue
            waiter.simple = waiter.simple or _taken_apart(waiter.ops)
            if waiter.simple is None:  # it has to go alone
                if not taken:
                    lane.waiting.popitem(last=False)
                    taken.append(waiter)
                break
            if not merger.add(waiter.simple):
                break
            lane.waiting.popitem(last=False)
            taken.append(waiter)
        return taken, merger

    async def _write(self, taken: Sequence[_Waiter], merger: Merger) -> None:
        """Commits these together and answers each."""
        if len(taken) <= 1:
            for waiter in taken:
                await self._write_alone(waiter)
            return
        merged = merger.merged()
        try:
            receipts = merged.split(await self.inner.commit(merged.ops))
        except Exception as error:
            if not _is_refusal(error):
                for waiter in taken:
                    waiter.answer(_own(error))
                return
        else:
            for waiter, receipt in zip(taken, receipts, strict=True):
                waiter.answer(receipt)
            return
        half = len(taken) // 2
        for part in (taken[:half], taken[half:]):
            merger = Merger(max_ops=self._max_ops)
            alive = [waiter for waiter in part if not waiter.future.cancelled()]
            for waiter in alive:
                assert waiter.simple is not None  # noqa: S101 - only such ones were taken together
                merger.add(waiter.simple)
            await self._write(alive, merger)

    async def _write_alone(self, waiter: _Waiter) -> None:
        try:
            waiter.answer(await self.inner.commit(waiter.ops))
        except Exception as error:
            waiter.answer(error)

    def _unavailable(self, why: str, *, retryable: bool, outcome: Outcome = "not_applied") -> UnavailableError:
        backend = self.capabilities.backend
        return UnavailableError(
            f"commit: {why}", operation="commit", backend=backend, retryable=retryable, outcome=outcome
        )

    def _abandoned(self, outcome: Outcome, bug: BaseException | None) -> UnavailableError:
        why = "the event loop is shutting down" if bug is None else "group commit failed; this is a bug in it"
        error = self._unavailable(why, retryable=True, outcome=outcome)
        error.__cause__ = bug
        return error


def _taken_apart(ops: Sequence[Op]) -> Simple | None:
    """None also for what makes no sense: alone, it is refused by the store, and stands in nobody else's way."""
    try:
        return take_apart(ops)
    except Exception:
        return None


def _is_refusal(error: Exception) -> bool:
    """Whether nothing was written, for a reason that may lie in a single commit of the batch."""
    if isinstance(error, DalError):
        return error.outcome == "not_applied" and not isinstance(error, UnavailableError)
    return isinstance(error, _PROGRAMMING_ERRORS)


def _own(error: Exception) -> Exception:
    """A copy for one waiter: an exception raised in several tasks would gather all their tracebacks."""
    own = copy(error)
    own.__cause__ = error
    return own


def _row_hash(ops: Sequence[Op]) -> int:
    """The same number for commits whose first row is named by the same key. Nothing but load depends on it."""
    if not ops:
        return 0
    first = ops[0]
    try:
        if isinstance(first, Insert):
            return hash(first.row.get("id"))
        if isinstance(first, Upsert):
            return hash(first.row[first.on[0]])
        if isinstance(first, Delete):
            return hash(first.where[0].value)
        return hash(next(iter(first.key.values())))
    except (TypeError, LookupError, StopIteration):  # odd operations: the store will say what is wrong with them
        return 0
