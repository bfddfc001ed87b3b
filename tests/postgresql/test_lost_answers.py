"""A connection that is cut in the middle: what may have been written is said to be unknown, the rest is not applied."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import psycopg
import pytest

from dal.backends.postgresql import session
from dal.backends.postgresql.pool import Connection
from dal.backends.sql import SqlStore
from dal.errors import UnavailableError
from dal.ops import Compare, Op, Select
from tests.postgresql.rows import append, chat, raise_count, user

COUNT = Select("chat_sessions", (Compare("chat_id", "=", "c"),), columns=("message_count",))
CUT_THE_WAITING = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def _cut_while_waiting(url: str) -> None:
    """Ends the server process that waits for a lock, as soon as there is one."""
    async with asyncio.timeout(20), await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            row = await (await connection.execute(CUT_THE_WAITING)).fetchone()
            if row is not None and row[0]:
                return


def _cut(url: str, connection: Connection) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        # Waits for the process to be gone, so that it is cut for certain.
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])


@pytest.mark.parametrize(
    "ops",
    [append("c"), [user(), *append("c"), user()], [*[user() for _ in range(150)], raise_count("c")]],
    ids=["one statement", "several", "behind a COPY"],
)
async def test_a_commit_cut_on_its_way_may_have_happened(store: SqlStore, url: str, ops: list[Op]) -> None:
    await store.commit([chat("c")])
    async with store.transaction() as holder:
        await holder.commit([raise_count("c")])
        blocked = asyncio.create_task(store.commit(ops))
        await _cut_while_waiting(url)
        with pytest.raises(UnavailableError) as caught:
            await blocked
    assert caught.value.retryable
    assert caught.value.outcome == "unknown"
    await store.commit(append("c"))
    assert await store.read(COUNT) == [(2,)]


async def test_a_commit_cut_before_its_end_was_sent_is_not_applied(store: SqlStore, url: str) -> None:
    await store.commit([chat("c")])
    async with store.transaction() as holder:
        await holder.commit([raise_count("c")])
        # The COPY behind it cannot be sent before the update has its answer.
        commit = asyncio.create_task(store.commit([raise_count("c"), *[user() for _ in range(150)]]))  # noqa: RUF006 - awaited below
        await _cut_while_waiting(url)
        with pytest.raises(UnavailableError) as caught:
            await commit
    assert caught.value.outcome == "not_applied"
    assert await store.read(Select("users", limit=1)) == []


async def test_a_transaction_cut_before_its_end_is_not_applied(store: SqlStore, url: str) -> None:
    await store.commit([chat("c")])

    async def blocked() -> None:
        async with store.transaction() as transaction:
            await transaction.commit([user()])
            await transaction.commit([raise_count("c")])

    async with store.transaction() as holder:
        await holder.commit([raise_count("c")])
        task = asyncio.create_task(blocked())
        await _cut_while_waiting(url)
        with pytest.raises(UnavailableError) as caught:
            await task
    assert caught.value.outcome == "not_applied"
    assert await store.read(Select("users", limit=1)) == []


async def test_a_transaction_cut_while_a_refused_batch_is_undone_is_not_applied(
    store: SqlStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = psycopg.AsyncConnection.execute

    async def cutting(connection: Connection, query: Any, *given: Any, **named: Any) -> object:
        if query == session._UNDO:
            _cut(url, connection)
        return await execute(connection, query, *given, **named)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", cutting)
    with pytest.raises(UnavailableError) as caught:
        async with store.transaction() as transaction:
            await transaction.commit([chat("c")])
            await transaction.commit([chat("c")])
    assert (caught.value.retryable, caught.value.outcome) == (True, "not_applied")
    assert await store.read(COUNT) == []


async def test_reads_of_a_trip_that_is_cut_fail_as_retryable_and_the_next_ones_succeed(
    store: SqlStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([chat("c")])
    cut: list[Connection] = []
    pipeline = psycopg.AsyncConnection.pipeline

    def cutting(connection: Connection) -> AbstractAsyncContextManager[psycopg.AsyncPipeline]:
        if not cut:
            cut.append(connection)
            _cut(url, connection)
        return pipeline(connection)

    monkeypatch.setattr(psycopg.AsyncConnection, "pipeline", cutting)
    results = await asyncio.gather(*[store.read(COUNT) for _ in range(40)], return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    assert cut
    assert 1 <= len(failed) <= 16
    for error in failed:
        assert isinstance(error, UnavailableError)
        assert error.retryable
        assert error.outcome == "not_applied"
    assert [result for result in results if result not in failed] == [[(0,)]] * (40 - len(failed))
