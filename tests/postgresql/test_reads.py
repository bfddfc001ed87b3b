"""Reads that share a round trip: each has its own answer, its own error and its own cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from dal.backends.postgresql.adapters import adapters
from dal.backends.postgresql.pool import ConnectionPool
from dal.backends.postgresql.reads import SharedReads
from dal.backends.sql import Statement
from dal.errors import InvalidInputError, UnavailableError

BACKEND_OF = "SELECT %s::int, pg_backend_pid(), txid_current()"


@pytest_asyncio.fixture
async def reads(url: str) -> AsyncIterator[SharedReads]:
    pool = ConnectionPool(url, max_connections=8, idle_timeout_s=300, prepare_threshold=1, adapters=adapters())
    await pool.open()
    made = SharedReads(pool, max_connections=8)
    yield made
    await made.close()
    assert pool.statistics()["in_use"] == 0
    await pool.close()


def _number(n: int) -> Statement:
    return Statement(BACKEND_OF, [n], returns=True)


async def test_everybody_gets_their_own_answer_over_a_few_connections(reads: SharedReads) -> None:
    answers = await asyncio.gather(*[reads.fetch(_number(n)) for n in range(200)])
    assert [rows[0][0] for rows in answers] == list(range(200))
    assert len({rows[0][1] for rows in answers}) <= 4


async def test_reads_that_wait_share_a_trip(reads: SharedReads) -> None:
    answers = await asyncio.gather(*[reads.fetch(_number(n)) for n in range(200)])
    # Statements of one trip run in one implicit transaction.
    assert len({rows[0][2] for rows in answers}) < 60


async def test_a_failing_read_fails_alone(reads: SharedReads) -> None:
    async def fetch(n: int) -> object:
        if n % 10 == 7:
            return await reads.fetch(Statement("SELECT 1 / %s::int", [0], returns=True))
        return (await reads.fetch(_number(n)))[0][0]

    results = await asyncio.gather(*[fetch(n) for n in range(100)], return_exceptions=True)
    for n, result in enumerate(results):
        if n % 10 == 7:
            assert isinstance(result, InvalidInputError)
        else:
            assert result == n


async def test_a_read_that_cannot_be_sent_fails_alone(reads: SharedReads) -> None:
    async def fetch(n: int) -> object:
        if n % 10 == 7:
            return await reads.fetch(Statement("SELECT %s::text", ["\ud800"], returns=True))  # no UTF-8
        return (await reads.fetch(_number(n)))[0][0]

    async with asyncio.timeout(30):
        results = await asyncio.gather(*[fetch(n) for n in range(100)], return_exceptions=True)
    for n, result in enumerate(results):
        if n % 10 == 7:
            assert isinstance(result, UnicodeEncodeError)
        else:
            assert result == n


async def test_a_read_that_a_failed_trip_would_have_prepared_goes_on_working(url: str) -> None:
    pool = ConnectionPool(url, max_connections=1, idle_timeout_s=300, prepare_threshold=1, adapters=adapters())
    await pool.open()
    reads = SharedReads(pool, max_connections=1)
    fails = Statement("SELECT 1 / %s::int", [0], returns=True)
    # The first is alone; the others share a trip, in which the third is to be prepared and is skipped.
    first, failed, *rest = await asyncio.gather(
        reads.fetch(_number(0)), reads.fetch(fails), *[reads.fetch(_number(n)) for n in (1, 2)], return_exceptions=True
    )
    assert isinstance(failed, InvalidInputError)
    answers = [rows[0] for rows in (first, *rest) if not isinstance(rows, BaseException)]
    assert [(row[0], row[1]) for row in answers] == [(n, answers[0][1]) for n in range(3)]  # on one connection
    assert (await reads.fetch(_number(3)))[0][1] == answers[0][1]
    await reads.close()
    await pool.close()


async def test_a_cancelled_read_leaves_the_others_alone(reads: SharedReads) -> None:
    tasks = [asyncio.create_task(reads.fetch(_number(n))) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for n, result in enumerate(results):
        if n % 3 == 0:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert not isinstance(result, BaseException)
            assert result[0][0] == n


async def test_reads_that_still_wait_at_closing_fail_clearly(url: str) -> None:
    pool = ConnectionPool(url, max_connections=2, idle_timeout_s=300, prepare_threshold=1, adapters=adapters())
    await pool.open()
    reads = SharedReads(pool, max_connections=2)
    tasks = [asyncio.create_task(reads.fetch(_number(n))) for n in range(50)]
    await asyncio.sleep(0)
    await reads.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await pool.close()
    assert any(isinstance(result, UnavailableError) for result in results)
    assert all(isinstance(result, UnavailableError | list) for result in results)
