"""SQLite as the schema engine sees it: what a batch promises, also when it fails or is cancelled."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from dal.backends.sqlite.schema_connection import SqliteSchemaConnection, open_schema
from dal.errors import ConfigurationError, CorruptDataError, DalError, DalTimeoutError, SchemaError
from dal.factory import schema_connection
from dal.schema.connection import Run, StatementError

ENDLESS = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "odd; 'name' 😀.db"


@pytest_asyncio.fixture
async def connection(path: Path) -> AsyncIterator[SqliteSchemaConnection]:
    async with open_schema(path, create=True) as opened:
        await opened.run([("CREATE TABLE t (id INTEGER PRIMARY KEY)", ())])
        yield opened


def runs(*statements: str) -> list[Run]:
    return [(sql, ()) for sql in statements]


def mode(path: Path) -> int | None:
    """Of a file or directory; None where there is none."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


async def count(connection: SqliteSchemaConnection) -> object:
    return (await connection.fetch("SELECT count(*) FROM t"))[0][0]


async def test_a_file_is_made_for_its_owner_only_and_only_when_wished(tmp_path: Path, path: Path) -> None:
    with pytest.raises(SchemaError, match="is not there"):
        async with schema_connection(f"sqlite:{path}"):
            pass
    assert mode(path) is None
    async with schema_connection(f"sqlite:{path}", create=True) as opened:
        assert (opened.engine, opened.place, opened.backup_suffix) == ("sqlite", "sqlite", ".db")
        assert opened.address == f"sqlite:{path}"
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


async def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(b"hello, world! " * 100)
    with pytest.raises(CorruptDataError):
        async with open_schema(file):
            pass
    with pytest.raises(ConfigurationError):
        async with open_schema(tmp_path, create=True):
            pass


async def test_a_refused_batch_leaves_nothing_and_names_its_statement(connection: SqliteSchemaConnection) -> None:
    for sql, kind, code in (
        ("INSERT INTO t VALUES (1)", "unique", "SQLITE_CONSTRAINT_PRIMARYKEY"),
        ("INSERT INTO t VALUES (NULL, 1)", "other", "SQLITE_ERROR"),
        ("INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)", "other", ""),
        ("INSERT INTO t VALUES (?)", "other", ""),
    ):
        with pytest.raises(StatementError) as caught:
            await connection.run(runs("INSERT INTO t VALUES (1)", "CREATE TABLE u (id)", sql))
        assert (caught.value.index, caught.value.kind, caught.value.code) == (2, kind, code)
        assert await count(connection) == 0
    await connection.run(runs("CREATE TABLE u (id)"))


@pytest.mark.parametrize("sql", ["COMMIT", "end transaction", "ROLLBACK", "BEGIN", "SAVEPOINT x", "/* x */ RELEASE x"])
async def test_a_statement_cannot_end_the_transaction(connection: SqliteSchemaConnection, sql: str) -> None:
    with pytest.raises(StatementError) as caught:
        await connection.run(runs("INSERT INTO t VALUES (1)", sql, "INSERT INTO t VALUES (2)"))
    assert caught.value.index == 1
    with pytest.raises(StatementError):
        await connection.run_alone(sql)
    assert await count(connection) == 0


async def test_foreign_keys_are_on_again_after_whatever_happened(connection: SqliteSchemaConnection) -> None:
    await connection.run(runs("CREATE TABLE k (t INTEGER REFERENCES t (id))"))
    for statements in (["SELECT nothing"], ["INSERT INTO k VALUES (9)"], ["INSERT INTO t VALUES (5)"]):
        try:
            await connection.run(runs(*statements), foreign_keys=False)
        except StatementError as error:
            assert "nothing" in error.reason or "k row 1 refers to a row of t that is not there" in error.reason
        assert list(await connection.fetch("PRAGMA foreign_keys")) == [(1,)]
        with pytest.raises(StatementError):
            await connection.run(runs("INSERT INTO k VALUES (9)"))
    assert await count(connection) == 1


async def test_rows_without_a_number_are_named_by_their_table(connection: SqliteSchemaConnection) -> None:
    table = 'CREATE TABLE "odd; k" (id TEXT PRIMARY KEY, t REFERENCES t (id)) WITHOUT ROWID'
    with pytest.raises(StatementError, match="odd; k refers to a row of t that is not there"):
        await connection.run(runs(table, "INSERT INTO \"odd; k\" VALUES ('a', 9)"), foreign_keys=False)


async def test_a_parent_without_a_fitting_key_is_told(connection: SqliteSchemaConnection) -> None:
    statements = runs("CREATE TABLE k (t REFERENCES t (no_key))", "INSERT INTO k VALUES (1)")
    with pytest.raises(StatementError, match="foreign key mismatch"):
        await connection.run(statements, foreign_keys=False)


async def test_a_busy_file_is_told_from_a_wrong_statement(connection: SqliteSchemaConnection, path: Path) -> None:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    for call in (connection.run(runs("INSERT INTO t VALUES (1)")), connection.run_alone("VACUUM")):
        with pytest.raises(StatementError) as caught:
            await call
        assert (caught.value.kind, caught.value.code) == ("busy", "SQLITE_BUSY")
    with pytest.raises(DalTimeoutError):
        await connection.fetch("SELECT 1 FROM t")
    writer.execute("ROLLBACK")
    writer.close()
    await connection.run(runs("INSERT INTO t VALUES (1)"))


@pytest.mark.parametrize("how", ["run", "run_alone", "fetch"])
async def test_a_cancelled_call_stops_at_once_and_leaves_nothing(connection: SqliteSchemaConnection, how: str) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "run": lambda: connection.run(runs("INSERT INTO t VALUES (1)", ENDLESS), foreign_keys=False),
        "run_alone": lambda: connection.run_alone(ENDLESS),
        "fetch": lambda: connection.fetch(ENDLESS),
    }
    task = asyncio.ensure_future(calls[how]())
    await asyncio.sleep(0)  # it is on its way to the thread, running or not
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count(connection) == 0
    assert list(await connection.fetch("PRAGMA foreign_keys")) == [(1,)]
    await connection.run(runs("INSERT INTO t VALUES (1)"))


async def test_a_scratch_is_empty_behaves_the_same_and_vanishes(connection: SqliteSchemaConnection) -> None:
    await connection.run(runs("INSERT INTO t VALUES (1)"))
    with pytest.raises(RuntimeError, match="a test"):
        async with connection.scratch() as scratch:
            assert list(await scratch.fetch("SELECT name FROM sqlite_master")) == []
            assert list(await scratch.fetch("PRAGMA foreign_keys")) == [(1,)]
            await scratch.run(runs("CREATE TABLE u (id)"))
            await scratch.run_alone("VACUUM")
            file = Path(scratch.address.removeprefix("sqlite:"))
            assert mode(file) is not None
            raise RuntimeError("a test")
    assert mode(file.parent) is None
    assert await count(connection) == 1


async def test_a_dump_is_brought_back(connection: SqliteSchemaConnection, tmp_path: Path) -> None:
    await connection.run(runs("INSERT INTO t VALUES (1)"))
    await connection.dump(tmp_path / "backup.db")
    await connection.run(runs("INSERT INTO t VALUES (2)", "CREATE TABLE late (id)"))
    await connection.load(tmp_path / "backup.db")
    assert list(await connection.fetch("SELECT name FROM sqlite_master ORDER BY name")) == [("t",)]
    assert await count(connection) == 1


async def test_a_plan_says_how_a_query_would_run(connection: SqliteSchemaConnection) -> None:
    ((*_, detail),) = await connection.explain("SELECT id FROM t WHERE id = 1")
    assert "SEARCH t" in str(detail)
    with pytest.raises(DalError, match="nothing"):
        await connection.explain("SELECT nothing FROM t")


async def test_the_lock_is_the_files_own(connection: SqliteSchemaConnection) -> None:
    assert await connection.try_exclusive()
    await connection.end_exclusive()
