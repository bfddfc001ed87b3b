"""The pool: a stack, under its ceiling, with a connection left for reads, and none dead or lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from dal.backends.postgresql import pool as pool_module
from dal.backends.postgresql import postgresql_store
from dal.backends.postgresql.adapters import adapters
from dal.backends.postgresql.pool import ConnectionPool
from dal.backends.sql import SqlStore
from dal.errors import DalTimeoutError
from dal.ops import Compare, JsonValue, Select
from tests.engines import postgres
from tests.postgresql.conftest import OpenStore
from tests.postgresql.rows import append, chat

CHATS = Select("chat_sessions", (Compare("chat_id", "=", "c"),))


@pytest_asyncio.fixture
async def pool(url: str) -> AsyncIterator[ConnectionPool]:
    made = ConnectionPool(url, max_connections=4, idle_timeout_s=300, prepare_threshold=None, adapters=adapters())
    await made.open()
    yield made
    await made.close()


async def _pool_part(store: SqlStore) -> dict[str, JsonValue]:
    part = (await store.health()).parts["pool"]
    assert isinstance(part, dict)
    return part


async def test_the_connection_returned_last_is_handed_out_first(pool: ConnectionPool) -> None:
    # Fails also when psycopg_pool changes what the subclass relies on.
    first, second, third = [await pool.take("test") for _ in range(3)]
    for connection in (first, third, second):
        await pool.give_back(connection)
    taken = [await pool.take("test") for _ in range(3)]
    assert taken == [second, third, first]
    for connection in taken:
        await pool.give_back(connection)


async def test_a_connection_in_the_middle_of_something_is_not_pooled_again(pool: ConnectionPool) -> None:
    connection = await pool.take("test")
    await connection.execute("BEGIN")
    await pool.give_back(connection)
    assert connection.closed
    other = await pool.take("test")
    assert other is not connection
    await pool.give_back(other)


async def test_a_cancelled_return_loses_no_connection(pool: ConnectionPool) -> None:
    for _ in range(20):
        connection = await pool.take("test")
        async with pool._pool._lock:  # so that the return has to wait, and is cancelled there
            returning = asyncio.create_task(pool.give_back(connection))
            await asyncio.sleep(0)
            returning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await returning
    taken = [await pool.take("test") for _ in range(4)]  # the ceiling: a lost one would never come
    for connection in taken:
        await pool.give_back(connection)
    assert pool.statistics()["in_use"] == 0


async def test_a_cancelled_return_behind_a_lock_just_released_loses_no_connection(pool: ConnectionPool) -> None:
    lock = pool._pool._lock
    for _ in range(20):
        connection = await pool.take("test")
        await lock.acquire()
        waiting = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0)
        returning = asyncio.create_task(pool.give_back(connection))
        lock.release()  # not locked now, but promised to `waiting`
        await asyncio.sleep(0)
        returning.cancel()
        await waiting
        lock.release()
        with pytest.raises(asyncio.CancelledError):
            await returning
    taken = [await pool.take("test") for _ in range(4)]
    for connection in taken:
        await pool.give_back(connection)


async def test_whoever_opens_connections_can_be_ended_at_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def connect(*_given: object, **_named: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    pool = ConnectionPool(url, max_connections=4, idle_timeout_s=300, prepare_threshold=None, adapters=adapters())
    before = asyncio.all_tasks()
    await pool.open()
    async with asyncio.timeout(30):
        await begun.wait()
    for _ in range(50):  # what else there is to begin with
        await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - before
    for task in tasks:  # as a loop does it that shuts down
        task.cancel()
    assert not (await asyncio.wait(tasks, timeout=10))[1]


async def test_two_hundred_tasks_stay_under_the_ceiling(open_store: OpenStore, url: str) -> None:
    store = await open_store(url, max_connections=5)
    await store.commit([chat(f"c{k}") for k in range(20)])
    seen: list[int] = []

    async def work(k: int) -> None:
        await store.commit(append(f"c{k % 20}"))
        part = await _pool_part(store)
        assert isinstance(part["size"], int)
        seen.append(part["size"])
        await store.read(CHATS)

    with psycopg.connect(url, autocommit=True) as watcher:
        await asyncio.gather(*[work(k) for k in range(200)])
        row = watcher.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND application_name <> %s",
            (postgres.KEEPER,),
        ).fetchone()
    assert row is not None
    assert 1 <= row[0] <= 5
    assert max(seen) <= 5
    part = await _pool_part(store)
    assert (part["in_use"], part["waiting"], part["max"]) == (0, 0, 5)


async def test_reads_go_on_while_transactions_hold_all_they_may(open_store: OpenStore, url: str) -> None:
    store = await open_store(url, max_connections=3)
    done = asyncio.Event()
    holding = asyncio.Semaphore(0)

    async def hold() -> None:
        async with store.transaction() as transaction:
            await transaction.read(CHATS)
            holding.release()
            await done.wait()

    holders = [asyncio.create_task(hold()) for _ in range(10)]
    for _ in range(2):
        await holding.acquire()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*[store.read(CHATS) for _ in range(20)]) == [[]] * 20
    done.set()
    await asyncio.gather(*holders)


async def test_waiting_for_a_connection_ends_in_a_timeout(
    open_store: OpenStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "POOL_WAIT_TIMEOUT_S", 0.05)
    store = await open_store(url, max_connections=2)
    async with store.transaction():
        with pytest.raises(DalTimeoutError) as caught:
            await store.commit([chat("c")])
        assert caught.value.retryable
        assert caught.value.outcome == "not_applied"
    await store.commit([chat("c")])


async def test_health_is_degraded_while_a_caller_waits_for_long(
    open_store: OpenStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.backends.postgresql.executor.DEGRADED_LATENCY_MS", -1.0)
    store = await open_store(url, max_connections=2)
    async with store.transaction():
        waiting = asyncio.create_task(store.commit([chat("c")]))
        while not (await _pool_part(store))["waiting"]:
            assert not waiting.done(), "the machine stood still for longer than it waits"
        health = await store.health()
        assert health.status == "degraded"
        assert "DB_MAX_CONNECTIONS" in str(health.parts["problems"])
    await waiting


async def test_a_connection_that_died_in_the_pool_is_noticed_before_use(
    open_store: OpenStore, own_postgres: postgres.OwnServer
) -> None:
    url = own_postgres.create_database()
    store = await open_store(url, auto_migrate=True)
    await store.read(CHATS)
    await asyncio.to_thread(own_postgres.restart)
    assert await store.read(CHATS) == []
    await store.commit([chat("c")])


async def test_closing_gives_every_connection_back(url: str) -> None:
    store = postgresql_store(url)
    await store.open()
    await asyncio.gather(*[store.read(CHATS) for _ in range(50)])
    await store.close()
    await store.open()
    assert await store.read(CHATS) == []
    await store.close()
