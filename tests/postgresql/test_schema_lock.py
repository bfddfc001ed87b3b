"""The lock for migrations: one runner per schema, and free as soon as that runner is gone, however it went."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from dal.backends.postgresql.schema_connection import PostgresSchemaConnection, open_schema
from tests.engines import postgres

#: A runner that holds the lock, and is then busy with the statement that it is given.
RUNNER = """
import asyncio, sys
from dal.backends.postgresql import schema_connection

schema_connection._DEFAULTS = ("SET client_connection_check_interval = '100ms'",)

async def main(url, statement):
    async with schema_connection.open_schema(url) as connection:
        assert await connection.try_exclusive()
        print("held", flush=True)
        if statement:
            await connection.run_alone(statement)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def url(postgres_server: postgres.PostgresServer) -> str:
    return postgres_server.create_database()


@pytest_asyncio.fixture
async def connection(url: str) -> AsyncIterator[PostgresSchemaConnection]:
    async with open_schema(url) as opened:
        yield opened


async def test_one_holds_it_and_nobody_waits(connection: PostgresSchemaConnection, url: str) -> None:
    async with open_schema(url) as second:
        assert await connection.try_exclusive()
        assert await connection.try_exclusive()
        assert not await second.try_exclusive()
        await second.end_exclusive()
        assert not await second.try_exclusive()
        await connection.end_exclusive()
        await connection.end_exclusive()
        assert await second.try_exclusive()


async def test_it_goes_with_the_connection(connection: PostgresSchemaConnection, url: str) -> None:
    async with open_schema(url) as second:
        assert await second.try_exclusive()
    assert await free(url)
    assert await connection.try_exclusive()


async def test_it_survives_what_statements_set(connection: PostgresSchemaConnection, url: str) -> None:
    assert await connection.try_exclusive()
    await connection.run([("SET search_path = pg_catalog", ())])
    await connection.run_alone("SET lock_timeout = 0")
    async with open_schema(url) as second:
        assert not await second.try_exclusive()


async def test_databases_and_schemas_have_locks_of_their_own(
    connection: PostgresSchemaConnection, url: str, postgres_server: postgres.PostgresServer
) -> None:
    assert await connection.try_exclusive()
    await connection.run([("CREATE SCHEMA tenant", ())])
    async with (
        open_schema(postgres_server.create_database()) as elsewhere,
        open_schema(f"{url}?options=-csearch_path%3Dtenant") as tenant,
        open_schema(f"{url}?options=-csearch_path%3Dtenant") as second,
    ):
        assert await elsewhere.try_exclusive()
        assert await tenant.try_exclusive()
        assert not await second.try_exclusive()


async def test_a_lock_lost_with_its_connection_is_given_back_without_complaint(
    connection: PostgresSchemaConnection, url: str
) -> None:
    assert await connection.try_exclusive()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (connection.driver.info.backend_pid,))
    await connection.end_exclusive()
    assert await free(url)


async def free(url: str) -> bool:
    """Waits until nobody holds an advisory lock in the database."""
    async with (
        asyncio.timeout(30),
        await psycopg.AsyncConnection.connect(url, autocommit=True) as admin,
    ):
        query = (
            "SELECT count(*) = 0 FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
            "WHERE l.locktype = 'advisory' AND d.datname = current_database()"
        )
        while (await (await admin.execute(query)).fetchone()) != (True,):
            pass
        return True


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("statement", ["", "DO $$ BEGIN LOOP PERFORM pg_sleep(3600); END LOOP; END $$"])
async def test_a_killed_runner_holds_it_no_longer(url: str, statement: str, tmp_path: Path) -> None:
    with psycopg.connect(url) as admin:
        row = admin.execute("SELECT current_setting('server_version_num')::int").fetchone()
    if statement and (row is None or row[0] < 140000):
        pytest.skip("before PostgreSQL 14 a server notices a dead client at the end of its statement")
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUNNER, url, statement, stdout=asyncio.subprocess.PIPE, cwd=tmp_path, env=os.environ
    )
    try:
        assert runner.stdout is not None
        assert await runner.stdout.readline() == b"held\n"
        async with open_schema(url) as second:
            assert not await second.try_exclusive()
            runner.send_signal(signal.SIGKILL)
            await runner.wait()
            assert await free(url)
            assert await second.try_exclusive()
    finally:
        if runner.returncode is None:
            runner.kill()
            await runner.wait()
