"""The schema engine: where a database stands, and bringing it up once however many try."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from dal import schema
from dal.errors import SchemaError, UnsupportedError
from dal.factory import schema_connection
from dal.ops import Count, Search
from dal.schema import Connection
from dal.search import parse_query
from tests.schema.conftest import store_of

EVERY = ["0001_core.sql", "0002_search.sql", "0003_files.sql", "0004_file_names.sql"]
REQUIRED = ["0001_core.sql", "0003_files.sql", "0004_file_names.sql"]


async def ledger_rows(connection: Connection) -> list[str]:
    return [row.name for row in (await schema.status(connection)).applied]


async def enter(connection: Connection, name: str) -> None:
    ledger = "d1_migrations" if connection.engine == "sqlite" else "dal_migrations"
    mark = "?" if connection.engine == "sqlite" else "%s"
    await connection.run([(f"INSERT INTO {ledger} (name) VALUES ({mark})", (name,))])


async def test_status_of_an_empty_database_names_what_is_pending_and_writes_nothing(connection: Connection) -> None:
    status = await schema.status(connection)
    assert (status.empty, status.applied, status.version) == (True, (), "")
    assert status.pending == tuple(EVERY)
    assert status.required == tuple(REQUIRED)
    assert (await schema.status(connection)).empty


async def test_up_is_safe_to_repeat(connection: Connection) -> None:
    assert [m.name for m in await schema.up(connection)] == EVERY
    assert await schema.up(connection) == []
    assert await ledger_rows(connection) == EVERY


async def test_the_ledger_keeps_checksum_time_and_statements(connection: Connection) -> None:
    await schema.up(connection)
    rows = await connection.fetch(
        "SELECT name, checksum, statement_count, duration_ms FROM dal_migration_details ORDER BY name"
    )
    for row, migration in zip(rows, schema.library_set(connection.engine).migrations, strict=True):
        text = (schema.schema_directory(connection.engine) / migration.name).read_text(encoding="utf-8")
        assert row[:3] == (migration.name, hashlib.sha256(text.encode()).hexdigest(), len(migration.statements))
        assert isinstance(row[3], int)


async def test_two_runners_at_once_apply_each_file_once(url: str) -> None:
    async def run() -> list[str]:
        async with schema_connection(url, create=True) as connection:
            return [m.name for m in await schema.up(connection)]

    applied = await asyncio.gather(run(), run(), run())
    assert sorted(name for names in applied for name in names) == EVERY
    async with schema_connection(url, create=True) as connection:
        assert await ledger_rows(connection) == EVERY


async def test_search_can_be_left_out_and_says_so(url: str) -> None:
    async with schema_connection(url, create=True) as connection:
        assert [m.name for m in await schema.up(connection, leave_out=["0002_search.sql"])] == REQUIRED
    store = store_of(url, auto_migrate=False)
    await store.open()
    assert not store.capabilities.search
    with pytest.raises(UnsupportedError, match="dal search rebuild"):
        await store.read(Search("messages", parse_query("x")))
    with pytest.raises(UnsupportedError):
        await store.index_pending()
    assert await store.read(Count("messages")) == [(0,)]
    await store.close()


async def test_only_optional_migrations_can_be_left_out(connection: Connection) -> None:
    for name in ("0001_core.sql", "0009_unknown.sql"):
        with pytest.raises(SchemaError, match="0002_search"):
            await schema.up(connection, leave_out=[name])
    assert (await schema.status(connection)).empty


async def test_a_store_without_schema_names_the_command(url: str) -> None:
    store = store_of(url, auto_migrate=False)
    with pytest.raises(SchemaError, match="run `dal schema up"):
        await store.open()
    with pytest.raises(SchemaError):
        await store.open()


async def test_an_older_database_is_refused_until_it_is_brought_up(url: str) -> None:
    async with schema_connection(url, create=True) as connection:
        await schema.up(connection, to="0002_search.sql")
    for auto_migrate in (None, False):
        lacks = r"is at 0002_search and lacks 0003_files\.sql, 0004_file_names\.sql; run `dal schema up"
        with pytest.raises(SchemaError, match=lacks):
            await store_of(url, auto_migrate=auto_migrate).open()
    store = store_of(url, auto_migrate=True)
    await store.open()
    assert await store.read(Count("user_quotas")) == [(0,)]
    await store.close()
    async with schema_connection(url, create=True) as connection:
        assert await ledger_rows(connection) == EVERY


async def test_a_database_newer_than_the_library_is_not_touched(url: str) -> None:
    async with schema_connection(url, create=True) as connection:
        await schema.up(connection, leave_out=["0002_search.sql"])
        await enter(connection, "0042_from_the_future.sql")
        with pytest.raises(SchemaError, match="0042_from_the_future"):
            await schema.up(connection)
    for auto_migrate in (True, False):
        with pytest.raises(SchemaError, match="upgrade the library"):
            await store_of(url, auto_migrate=auto_migrate).open()
    async with schema_connection(url, create=True) as connection:
        assert await ledger_rows(connection) == [*REQUIRED, "0042_from_the_future.sql"]


async def test_another_teams_migrations_in_the_ledger_are_left_alone(connection: Connection) -> None:
    await schema.up(connection)
    await enter(connection, "0001_another_team.sql")
    status = await schema.status(connection)
    status.require_usable()
    assert await schema.up(connection) == []


async def test_a_file_that_fails_is_rolled_back_whole(connection: Connection) -> None:
    # A table in the way: the file's first statements run, then it fails.
    await connection.run([("CREATE TABLE messages (id TEXT)", ())])
    with pytest.raises(SchemaError, match=r"0001_core\.sql:\d+ failed and was rolled back.*messages.*already exists"):
        await schema.up(connection)
    status = await schema.status(connection)
    assert status.applied == ()
    with pytest.raises(SchemaError):
        await connection.fetch("SELECT 1 FROM users")


async def test_a_database_with_other_tables_is_not_taken_for_empty(url: str) -> None:
    async with schema_connection(url, create=True) as connection:
        await connection.run([("CREATE TABLE theirs (id TEXT)", ())])
    with pytest.raises(SchemaError, match="holds no dal schema"):
        await store_of(url, auto_migrate=None).open()
    store = store_of(url, auto_migrate=True)
    await store.open()
    await store.close()
