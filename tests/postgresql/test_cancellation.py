"""Cancelled anywhere: a commit has happened whole or not at all, and its connection is clean or gone, never lost."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from dal.errors import DalError
from dal.ops import Compare, JsonValue, Select
from dal.store import Store
from tests.postgresql.conftest import OpenStore
from tests.postgresql.rows import append, chat, message, user

COUNT = Select("chat_sessions", (Compare("chat_id", "=", "c"),), columns=("message_count",))


async def test_a_storm_of_cancellations_loses_no_connection_and_tears_no_batch(open_store: OpenStore, url: str) -> None:
    store = await open_store(url, max_connections=4)
    session = chat("c")
    await store.commit([session])
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def work() -> None:
        kind = rng.randrange(5)
        if kind == 0:
            await store.read(Select("messages", columns=("id",), limit=20))
        elif kind == 1:
            await store.commit(append("c"))  # one statement
        elif kind == 2:
            await store.commit([user(), *append("c", n=3), user()])  # a pipeline
        elif kind == 3:
            async with store.transaction() as transaction:
                await transaction.commit(append("c"))
                await transaction.read(COUNT)
        else:
            await store.commit([user() for _ in range(150)])  # COPY

    for _ in range(30):
        tasks = [asyncio.create_task(work()) for _ in range(20)]
        for _ in range(rng.randrange(1, 40)):
            await asyncio.sleep(0)
        if rng.random() < 0.7:
            await asyncio.sleep(rng.random() * 0.01)
        for task in rng.sample(tasks, 15):
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, DalError):  # transactions of one storm may well be in each other's way
                assert result.retryable, result
            else:
                assert result is None or isinstance(result, asyncio.CancelledError)

    part = cast("dict[str, JsonValue]", (await store.health()).parts["pool"])
    assert (part["in_use"], part["waiting"]) == (0, 0)
    # Every place of the pool can still be taken, and no row is still locked.
    async with asyncio.timeout(10):
        await asyncio.gather(*[_in_transaction(store) for _ in range(3)])
    rows = await store.read(Select("messages", (), ("sequence_number",), columns=("sequence_number",)))
    counted = await store.read(COUNT)
    assert [number for (number,) in rows] == list(range(1, len(rows) + 1))
    assert counted == [(len(rows),)]


async def _in_transaction(store: Store) -> None:
    async with store.transaction() as transaction:
        await transaction.read(COUNT)


async def test_a_commit_cancelled_while_it_waits_for_a_lock_is_not_written(open_store: OpenStore, url: str) -> None:
    store = await open_store(url)
    session = chat("c")
    await store.commit([session])
    async with store.transaction() as holder:
        await holder.commit(append("c"))
        blocked = asyncio.create_task(store.commit(append("c")))
        lock = Select("messages", (Compare("chat_session_id", "=", cast(str, session.row["id"])),), columns=("id",))
        while not blocked.done() and not await _somebody_waits(url):
            await store.read(lock)
        blocked.cancel()
        assert isinstance((await asyncio.gather(blocked, return_exceptions=True))[0], asyncio.CancelledError)
    assert await store.read(COUNT) == [(1,)]
    await store.commit([message(cast(str, session.row["id"]), 2)])


async def _somebody_waits(url: str) -> bool:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        row = await cursor.fetchone()
    return row is not None and row[0] > 0


async def test_cancelled_at_any_step_a_connection_waits_for_its_answers_ever_after(
    open_store: OpenStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The driver gives way where the loop has been busy for so long; here at each of its steps, also as it enters and
    # leaves its pipeline mode, in which a statement seems done before the server has it.
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", -1.0, raising=False)
    store = await open_store(url, max_connections=1)
    await store.commit([chat("c")])
    watcher = await open_store(url, max_connections=1)
    for steps in range(60):
        batch = asyncio.create_task(store.commit([user(), *append("c"), user()]))
        for _ in range(steps):
            await asyncio.sleep(0)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
        one = user()
        await store.commit([one])  # a statement alone, outside pipeline mode
        assert await watcher.read(Select("users", (Compare("id", "=", one.row["id"]),), columns=("id",)))
