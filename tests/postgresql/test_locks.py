"""Rows that several want at once: guards, lock time-outs, deadlocks and serialization failures."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dal.backends.postgresql import executor
from dal.backends.sql import SqlStore
from dal.errors import AlreadyExistsError, ConflictError, DalTimeoutError
from dal.ops import Compare, Guard, Insert, Op, Ref, Select, Update, Value
from dal.testing import rows
from tests.postgresql.conftest import OpenStore
from tests.postgresql.rows import append, chat, raise_count, user
from tests.postgresql.waiting import TIMEOUT_S, until

_WAITS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
COUNT = Select("chat_sessions", (Compare("chat_id", "=", "c"),), columns=("message_count",))


async def test_six_optimistic_writers_lose_no_increment(store: SqlStore) -> None:
    # Without FOR UPDATE in the guard's sub-select most of them are lost.
    row = user(profile={"n": 0})
    key = {"id": cast(str, row.row["id"])}
    await store.commit([row])
    read = Select("users", (Compare("id", "=", key["id"]),), columns=("version", "profile"))
    refused = 0

    async def increment() -> None:
        nonlocal refused
        while True:
            version, profile = (await store.read(read))[0]
            n = cast("dict[str, int]", profile)["n"]
            try:
                await store.commit(
                    [
                        Guard("users", key, {"version": version}),
                        Update("users", key, {"profile": {"n": n + 1}}, {"version": 1}),
                    ]
                )
                return
            except ConflictError as error:
                assert not error.retryable
                refused += 1

    async def writer() -> None:
        for _ in range(20):
            await increment()

    await asyncio.gather(*[writer() for _ in range(6)])
    version, profile = (await store.read(read))[0]
    assert profile == {"n": 120}
    assert version == 121
    assert refused > 0, "nobody was ever in the way: nothing was tested"


@pytest.mark.parametrize("whose", [1, 2])
async def test_a_guard_compares_with_what_its_locks_waited_for(store: SqlStore, url: str, whose: int) -> None:
    """In the guarded row itself, and in another one that it refers to: not with what its snapshot showed before."""
    of: list[dict[str, Value]] = [{"user_id": rows.row_id(n)} for n in range(3)]
    await store.commit([Insert("users", rows.user(n)) for n in (1, 2)])
    numbers: dict[str, Value] = {"max_bytes": 10, "taken_bytes": 5}
    await store.commit([Insert("user_quotas", rows.whole("user_quotas", n, **of[n], **numbers)) for n in (1, 2)])
    room = Compare("taken_bytes", "<=", Ref("user_quotas", of[whose], "max_bytes", -5))
    take: list[Op] = [Guard("user_quotas", of[1], {}, (room,)), Update("user_quotas", of[1], add={"taken_bytes": 5})]
    async with store.transaction() as holder:
        await holder.commit([Update("user_quotas", of[whose], {"max_bytes": 9})])
        taking = asyncio.create_task(store.commit(take))
        await until(url, _WAITS)
    with pytest.raises(ConflictError) as caught:
        await taking
    assert not caught.value.retryable
    await store.commit([Update("user_quotas", of[whose], {"max_bytes": 10})])
    await store.commit(take)
    taken = Select("user_quotas", (Compare("user_id", "=", rows.row_id(1)),), columns=("taken_bytes",))
    assert await store.read(taken) == [(10,)]


async def test_waiting_for_a_locked_row_ends_in_a_timeout(
    open_store: OpenStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_OPTIONS", "-c lock_timeout=50")
    store = await open_store(url)
    await store.commit([chat("c")])
    async with store.transaction() as holder:
        await holder.commit([raise_count("c")])
        with pytest.raises(DalTimeoutError) as caught:
            await store.commit(append("c"))
        assert caught.value.retryable
        assert caught.value.outcome == "not_applied"
    assert await store.read(COUNT) == [(1,)]


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    open_store: OpenStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_OPTIONS", "-c statement_timeout=50")
    store = await open_store(url)
    await store.commit([chat("c")])
    async with store.transaction() as holder:
        await holder.commit([raise_count("c")])
        with pytest.raises(DalTimeoutError, match="57014"):
            await store.commit(append("c"))


async def test_a_deadlock_is_a_conflict_to_retry(store: SqlStore) -> None:
    await store.commit([chat("a"), chat("b")])
    met = asyncio.Barrier(2)

    async def cross(first: str, second: str) -> bool:
        try:
            async with store.transaction() as transaction:
                await transaction.commit([raise_count(first)])
                async with asyncio.timeout(TIMEOUT_S):  # the other may have ended before
                    await met.wait()
                await transaction.commit([raise_count(second)])
        except ConflictError as error:
            assert error.retryable
            assert error.outcome == "not_applied"
            return False
        return True

    results = await asyncio.gather(cross("a", "b"), cross("b", "a"))
    assert sorted(results) == [False, True]


async def test_a_serialization_failure_is_a_conflict_to_retry(store: SqlStore) -> None:
    await store.commit([chat("c")])
    met = asyncio.Barrier(2)

    async def read_then_write(number: int) -> bool:
        try:
            async with store.transaction() as transaction:
                await transaction.read(COUNT)
                async with asyncio.timeout(TIMEOUT_S):  # the other may have ended before
                    await met.wait()
                await transaction.commit([raise_count("c", number)])
        except ConflictError as error:
            assert error.retryable
            return False
        return True

    results = await asyncio.gather(read_then_write(1), read_then_write(10))
    assert sorted(results) == [False, True]
    assert await store.read(COUNT) in ([(1,)], [(10,)])


async def test_batches_over_the_same_chats_in_any_order_cannot_deadlock(store: SqlStore) -> None:
    names = [f"c{k}" for k in range(20)]
    await store.commit([chat(name) for name in names])

    async def write(backwards: bool) -> None:
        order = names[::-1] if backwards else names
        for _ in range(25):
            await store.commit([raise_count(name) for name in order])

    await asyncio.gather(*[write(backwards=bool(k % 2)) for k in range(6)])
    rows = await store.read(Select("chat_sessions", columns=("message_count",)))
    assert rows == [(150,)] * len(names)


async def test_a_refused_batch_leaves_the_transaction_usable(store: SqlStore) -> None:
    row = user()
    await store.commit([row])
    async with store.transaction() as transaction:
        await transaction.commit([chat("kept")])
        with pytest.raises(AlreadyExistsError):
            await transaction.commit([chat("gone"), row])
        await transaction.commit([chat("also kept")])
    rows = await store.read(Select("chat_sessions", columns=("chat_id",)))
    assert sorted(cast("list[tuple[str]]", rows)) == [("also kept",), ("kept",)]
