"""Through PgBouncer in transaction mode: nothing is left in a session, and nothing depends on one."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dal.backends.postgresql import executor as executor_module
from dal.backends.postgresql import postgresql_store
from dal.backends.sql import SqlStore
from dal.errors import ConfigurationError, DalError, DalTimeoutError
from dal.ops import Compare, Select
from tests.engines.pgbouncer import PgBouncer
from tests.postgresql.conftest import OpenStore
from tests.postgresql.rows import append, chat, raise_count, user

KEEPS_STATEMENTS = (1, 21)


def _count(name: str) -> Select:
    return Select("chat_sessions", (Compare("chat_id", "=", name),), columns=("message_count",))


async def _work(store: SqlStore) -> list[object]:
    """Reads, commits of every kind and transactions from many tasks; the errors that came of it."""
    await store.commit([chat(f"c{k}") for k in range(20)])

    async def work(k: int) -> None:
        name = f"c{k % 20}"
        await store.commit(append(name))
        await store.commit([user(), *append(name, n=2), user()])
        await store.read(_count(name))
        async with store.transaction() as transaction:
            await transaction.commit([user()])
            await transaction.read(_count(f"other-{k}"))

    results = await asyncio.gather(*[work(k) for k in range(60)], return_exceptions=True)
    return [result for result in results if result is not None]


async def test_reads_commits_and_transactions_work_through_it(open_store: OpenStore, pgbouncer: PgBouncer) -> None:
    store = await open_store(pgbouncer.url)
    health = await store.health()
    assert health.status == "ok"
    assert health.parts["pooler"] is True
    assert [e for e in await _work(store) if not (isinstance(e, DalError) and e.retryable)] == []
    for k in range(20):
        assert await store.read(_count(f"c{k}")) == [(9,)]


async def test_prepared_statements_work_where_the_pooler_keeps_them_and_are_explained_where_not(
    pgbouncer: PgBouncer,
) -> None:
    store = postgresql_store(f"{pgbouncer.url}?prepare_threshold=0")
    if pgbouncer.version() >= KEEPS_STATEMENTS:
        await store.open()
        assert [e for e in await _work(store) if not (isinstance(e, DalError) and e.retryable)] == []
        await store.close()
        return
    try:
        await store.open()
        errors = await _work(store)
    except ConfigurationError as error:
        errors = [error]
    assert any(isinstance(e, ConfigurationError) and "prepare_threshold=none" in e.message for e in errors)
    await store.close()


async def test_time_limits_travel_with_the_transaction(
    open_store: OpenStore, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = executor_module._LIMITS
    monkeypatch.setattr(executor_module, "_LIMITS", limits._replace(params=("5000", "50")))
    store = await open_store(pgbouncer.url)
    await store.commit([chat("c")])
    async with store.transaction() as holder:
        await holder.commit([raise_count("c")])
        with pytest.raises(DalTimeoutError, match="55P03"):
            await store.commit([user(), raise_count("c")])


async def test_nothing_stays_in_the_sessions_behind_it(
    open_store: OpenStore, pgbouncer: PgBouncer, own_url: str
) -> None:
    import psycopg

    with psycopg.connect(own_url) as connection:
        fresh = connection.execute("SHOW lock_timeout").fetchall(), connection.execute("SHOW timezone").fetchall()
    store = await open_store(pgbouncer.url)
    await _work(store)

    async def settings() -> tuple[object, object, object]:
        async with await psycopg.AsyncConnection.connect(
            pgbouncer.url, autocommit=True, prepare_threshold=None
        ) as connection:
            found = [await (await connection.execute(f"SHOW {n}")).fetchall() for n in ("lock_timeout", "timezone")]
            prepared = await (await connection.execute("SELECT count(*) FROM pg_prepared_statements")).fetchall()
            return found[0], found[1], prepared

    for lock_timeout, timezone, prepared in await asyncio.gather(*[settings() for _ in range(6)]):
        assert (lock_timeout, timezone) == fresh
        assert cast("list[tuple[int]]", prepared) == [(0,)]
