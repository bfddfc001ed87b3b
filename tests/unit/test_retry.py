"""Retry: what may be tried again is, what may not is not, and errors tell the whole story."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from dal.backends.memory import MemoryStore
from dal.errors import (
    AlreadyExistsError,
    ConflictError,
    DalError,
    DalTimeoutError,
    FencedError,
    NotFoundError,
    UnavailableError,
)
from dal.layers.base import Layer
from dal.layers.group import GroupCommit
from dal.layers.retry import Retry
from dal.limits import RETRY_ATTEMPTS, RETRY_FIRST_WAIT_S, RETRY_MAX_WAIT_S
from dal.ops import Count, Guard, Insert, Op, Query, Receipt, Ref, Row, Update, Value
from dal.store import ReadCommit
from dal.tables import TABLES
from dal.values import new_id, now

READ = Count("users")


def audit(message_id: str | None = None) -> Insert:
    row: dict[str, Value | Ref] = dict.fromkeys(TABLES["system_logs"].names)
    row |= {"id": message_id or new_id(), "action": "test", "level": "info", "context": {}, "created_at": now()}
    return Insert("system_logs", row)


TOUCH = Update("users", {"id": new_id()}, {}, {"version": 1})


class Flaky(Layer):
    """Fails as it is told, before or after the store below has done its work."""

    def __init__(self, *failures: Exception | None, lose_answers: bool = False) -> None:
        super().__init__(MemoryStore())
        self.failures = list(failures)
        self.lose_answers = lose_answers
        self.tries = 0

    def _fail(self) -> None:
        self.tries += 1
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure

    async def read(self, query: Query) -> list[Row]:
        self._fail()
        return await self.inner.read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        receipt = await self.inner.commit(ops) if self.lose_answers else None
        self._fail()
        return receipt or await self.inner.commit(ops)

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        self._fail()
        return self.inner.transaction()


class Naps:
    """A sleep that takes no time and remembers."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept_s.append(seconds)


async def retry(flaky: Flaky) -> tuple[Retry, Naps]:
    await flaky.open()
    naps = Naps()
    return Retry(flaky, sleep=naps), naps


def unavailable(outcome: str = "not_applied") -> UnavailableError:
    return UnavailableError("gone", outcome="unknown" if outcome == "unknown" else "not_applied")


async def test_without_a_failure_nothing_is_tried_twice() -> None:
    flaky = Flaky()
    store, naps = await retry(flaky)
    assert await store.read(READ) == [(0,)]
    await store.commit([audit()])
    assert flaky.tries == 2
    assert naps.slept_s == []


@pytest.mark.parametrize("error", [unavailable(), unavailable("unknown"), ConflictError("deadlock", retryable=True)])
async def test_a_read_is_tried_again(error: DalError) -> None:
    flaky = Flaky(error, error)
    store, naps = await retry(flaky)
    assert await store.read(READ) == [(0,)]
    assert flaky.tries == 3
    assert len(naps.slept_s) == 2


@pytest.mark.parametrize("operation", ["read", "commit"])
async def test_tries_are_limited_and_the_last_error_comes_as_it_is(operation: str) -> None:
    errors = [unavailable() for _ in range(RETRY_ATTEMPTS + 1)]
    flaky = Flaky(*errors)
    store, naps = await retry(flaky)
    with pytest.raises(UnavailableError) as caught:
        await (store.read(READ) if operation == "read" else store.commit([TOUCH]))
    assert caught.value is errors[RETRY_ATTEMPTS - 1]
    assert caught.value.outcome == "not_applied"
    assert flaky.tries == RETRY_ATTEMPTS
    assert len(naps.slept_s) == RETRY_ATTEMPTS - 1


async def test_waits_grow_within_their_limits() -> None:
    for _ in range(50):
        store, naps = await retry(Flaky(*(unavailable() for _ in range(RETRY_ATTEMPTS - 1))))
        await store.read(READ)
        for place, seconds in enumerate(naps.slept_s):
            assert 0 <= seconds <= min(RETRY_MAX_WAIT_S, RETRY_FIRST_WAIT_S * 2**place)
    assert len(set(naps.slept_s)) == len(naps.slept_s)


@pytest.mark.parametrize(
    "error",
    [
        ConflictError("stale version"),
        AlreadyExistsError("taken"),
        NotFoundError("none"),
        FencedError("moving"),
        DalTimeoutError("too slow"),
        UnavailableError("closed", retryable=False),
        KeyError("no such column"),
    ],
)
async def test_what_another_try_cannot_help_is_not_tried_again(error: Exception) -> None:
    for operation in ("read", "commit"):
        flaky = Flaky(error)
        store, naps = await retry(flaky)
        with pytest.raises(type(error)) as caught:
            await (store.read(READ) if operation == "read" else store.commit([audit()]))
        assert caught.value is error
        assert flaky.tries == 1
        assert naps.slept_s == []


@pytest.mark.parametrize("error", [unavailable(), ConflictError("serialization failure", retryable=True)])
async def test_a_commit_that_was_not_applied_is_tried_again(error: DalError) -> None:
    flaky = Flaky(error)
    store, _ = await retry(flaky)
    assert await store.commit([TOUCH, audit()]) == Receipt((0, 1), (None, None))
    assert flaky.tries == 2


@pytest.mark.parametrize(
    "ops",
    [
        [TOUCH],
        [Guard("users", {"id": new_id()})],
        [Insert("system_logs", {**audit().row, "id": Ref("users", {"id": new_id()}, "id")})],
    ],
)
async def test_a_commit_of_unknown_outcome_is_not_repeated_where_that_could_count_twice(ops: list[Op]) -> None:
    error = unavailable("unknown")
    flaky = Flaky(error)
    store, _ = await retry(flaky)
    with pytest.raises(UnavailableError) as caught:
        await store.commit(ops)
    assert caught.value is error
    assert flaky.tries == 1


async def test_an_insert_under_an_id_is_repeated_when_the_request_was_lost() -> None:
    flaky = Flaky(unavailable("unknown"))
    store, _ = await retry(flaky)
    assert (await store.commit([audit()])).counts == (1,)
    assert await store.read(Count("system_logs")) == [(1,)]


async def test_an_insert_whose_answer_was_lost_is_not_stored_twice_and_the_error_says_unknown() -> None:
    flaky = Flaky(unavailable("unknown"), lose_answers=True)
    store, _ = await retry(flaky)
    with pytest.raises(AlreadyExistsError) as caught:
        await store.commit([audit()])
    assert caught.value.outcome == "unknown"
    assert await store.read(Count("system_logs")) == [(1,)]


async def test_a_row_that_was_there_before_is_plainly_not_applied() -> None:
    store, _ = await retry(Flaky(None, unavailable()))
    row = audit()
    await store.commit([row])
    with pytest.raises(AlreadyExistsError) as caught:
        await store.commit([row])
    assert caught.value.outcome == "not_applied"


async def test_once_unknown_a_commit_stays_unknown_whatever_the_later_tries_say() -> None:
    store, _ = await retry(Flaky(unavailable(), unavailable("unknown"), *(unavailable() for _ in range(9))))
    with pytest.raises(UnavailableError) as caught:
        await store.commit([audit()])
    assert caught.value.outcome == "unknown"


async def test_an_error_after_a_retry_is_judged_anew() -> None:
    flaky = Flaky(unavailable(), ConflictError("stale"), unavailable())
    store, _ = await retry(flaky)
    with pytest.raises(ConflictError):
        await store.commit([TOUCH])
    assert flaky.tries == 2


async def test_a_transaction_is_never_retried() -> None:
    flaky = Flaky(unavailable())
    store, naps = await retry(flaky)
    with pytest.raises(UnavailableError):
        store.transaction()
    async with store.transaction() as transaction:
        assert type(transaction).__module__ != Retry.__module__
    assert naps.slept_s == []


async def test_a_cancelled_caller_is_not_kept_waiting() -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    flaky = Flaky(unavailable())
    await flaky.open()
    task = asyncio.create_task(Retry(flaky, sleep=sleep).commit([TOUCH]))
    await asleep.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flaky.tries == 1


def test_a_retry_around_a_retry_is_refused() -> None:
    store = Retry(GroupCommit(MemoryStore()))
    with pytest.raises(ValueError, match="multiply"):
        Retry(store)
    with pytest.raises(ValueError, match="multiply"):
        Retry(GroupCommit(store))
