"""D1 for the schema engine: what a batch may do, what is said of one that fails, scratch databases, copies."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from dal import schema
from dal.backends.d1.schema_connection import D1SchemaConnection, open_schema
from dal.backends.d1.transport import D1Address
from dal.errors import ConfigurationError, CorruptDataError, SchemaError, UnavailableError
from dal.factory import schema_connection
from dal.schema import Connection, Reader
from dal.schema.connection import Bookmarks, StatementError
from tests.engines.d1 import D1Database, D1Engine

MANY = [f"INSERT INTO t (a) VALUES ({n})" for n in range(40)]


@pytest.fixture
def database(d1_engine: D1Engine, monkeypatch: pytest.MonkeyPatch) -> D1Database:
    """An empty database, and the environment that leads to it."""
    made = d1_engine.create_database()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest_asyncio.fixture
async def connection(database: D1Database) -> AsyncIterator[Connection]:
    async with schema_connection(database.url) as opened:
        yield opened


async def run(connection: Connection, *statements: str, foreign_keys: bool = True) -> None:
    await connection.run([(sql, ()) for sql in statements], foreign_keys=foreign_keys)


async def names(connection: Reader) -> list[object]:
    rows = await connection.fetch(
        "SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\' ORDER BY name"
    )
    return [name for (name,) in rows]


async def test_a_batch_is_a_transaction(connection: Connection) -> None:
    assert (connection.engine, connection.place, connection.backup_suffix) == ("sqlite", "d1", ".db")
    await run(connection, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1)")
    with pytest.raises(StatementError):
        await run(connection, "CREATE TABLE u (a INTEGER)", "INSERT INTO nowhere VALUES (1)")
    assert await names(connection) == ["t"]
    await connection.run([("INSERT INTO t VALUES (?)", (2,))])
    assert await connection.fetch("SELECT a FROM t WHERE a = ?", (2,)) == [(2,)]
    await connection.run([])


@pytest.mark.parametrize("place", [0, 1, 20, 40, 41])
async def test_the_statement_that_fails_is_found(connection: Connection, place: int) -> None:
    """D1 does not say which one it was."""
    statements = ["CREATE TABLE t (a INTEGER UNIQUE)", *MANY]
    statements.insert(place, "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StatementError) as caught:
        await run(connection, *statements)
    assert caught.value.index == place
    assert caught.value.kind == "other"
    assert caught.value.reason == "no such table: nowhere"
    assert await names(connection) == [], "what was tried to find it has left nothing"


async def test_what_is_wrong_is_said_with_its_place_and_kind(connection: Connection) -> None:
    await run(connection, "CREATE TABLE t (a INTEGER UNIQUE)", *MANY)
    with pytest.raises(StatementError) as caught:
        await run(connection, "DELETE FROM t WHERE a = 1", "INSERT INTO t VALUES (2)")
    assert (caught.value.kind, caught.value.index) == ("unique", 1)
    assert caught.value.code == "SQLITE_CONSTRAINT"
    with pytest.raises(StatementError) as caught:
        await run(connection, "SELECT 1,\n  FROM t")
    assert (caught.value.index, caught.value.position) == (0, 12)
    with pytest.raises(StatementError, match="not authorized"):
        await run(connection, "ATTACH 'x' AS y")
    with pytest.raises(StatementError, match="VACUUM"):
        await connection.run_alone("VACUUM")


async def test_a_foreign_key_is_checked_at_the_end_where_that_is_asked_for(connection: Connection) -> None:
    await run(
        connection,
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id))",
    )
    await run(connection, "INSERT INTO c VALUES (1, 1)", "INSERT INTO p VALUES (1)", foreign_keys=False)
    with pytest.raises(StatementError, match="FOREIGN KEY") as caught:
        await run(connection, "INSERT INTO c VALUES (2, 2)", "INSERT INTO c VALUES (3, 3)", foreign_keys=False)
    assert caught.value.index is None, "no single statement is to blame"
    assert await connection.fetch("SELECT count(*) FROM c") == [(1,)]


async def test_rebuilding_a_parent_does_not_empty_its_children(connection: Connection) -> None:
    """Where foreign keys cannot be switched off, DROP TABLE deletes the rows that depend on it."""
    await run(
        connection,
        'CREATE TABLE "Odd ""Parent" (id INTEGER PRIMARY KEY)',
        'CREATE TABLE child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES "Odd ""Parent" (id) ON DELETE CASCADE)',
        'INSERT INTO "Odd ""Parent" VALUES (1)',
        "INSERT INTO child VALUES (1, 1)",
    )
    rebuild = [
        "CREATE TABLE fresh (id INTEGER PRIMARY KEY, added TEXT)",
        'INSERT INTO fresh (id) SELECT id FROM "Odd ""Parent"',
        'DROP TABLE IF EXISTS main."Odd ""Parent"',
        'ALTER TABLE fresh RENAME TO "Odd ""Parent"',
    ]
    with pytest.raises(StatementError, match="rows of child") as caught:
        await run(connection, *rebuild, foreign_keys=False)
    assert caught.value.index == 2
    assert await connection.fetch("SELECT count(*) FROM child") == [(1,)]
    await run(connection, "DELETE FROM child")
    await run(connection, *rebuild, foreign_keys=False)


async def test_triggers_go_through_the_api(connection: Connection) -> None:
    await run(
        connection,
        "CREATE TABLE t (a INTEGER)",
        "CREATE TABLE log (a INTEGER)",
        "CREATE TRIGGER again AFTER INSERT ON t BEGIN INSERT INTO log VALUES (NEW.a); "
        "UPDATE log SET a = CASE WHEN a = 1 THEN 10 ELSE a END; END",
        "INSERT INTO t VALUES (1)",
    )
    assert await connection.fetch("SELECT a FROM log") == [(10,)]


async def test_what_a_trigger_refuses_is_the_statements_fault(connection: Connection) -> None:
    await run(
        connection,
        "CREATE TABLE t (a INTEGER)",
        "CREATE TRIGGER never BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'not here'); END",
    )
    with pytest.raises(StatementError) as caught:
        await run(connection, "INSERT INTO t VALUES (1)")
    assert (caught.value.reason, caught.value.index) == ("not here", 0)


async def test_a_query_that_is_wrong_is_told_in_d1s_words(connection: Connection) -> None:
    with pytest.raises(SchemaError, match="no such column: nonsense"):
        await connection.fetch("SELECT nonsense FROM sqlite_master")
    assert (await connection.explain("SELECT 1"))[0][3] == "SCAN CONSTANT ROW"


async def test_cloudflares_own_tables_do_not_count(connection: Connection) -> None:
    assert await connection.fetch("SELECT 1 FROM sqlite_master WHERE name LIKE '_cf%'")
    assert (await schema.status(connection)).empty


async def test_a_lost_answer_leaves_the_outcome_open(
    d1_engine: D1Engine, database: D1Database, connection: Connection
) -> None:
    d1_engine.faults(database, {"when": "after", "match": "CREATE", "drop": True})
    with pytest.raises(UnavailableError) as caught:
        await run(connection, "CREATE TABLE t (a INTEGER)")
    assert caught.value.outcome == "unknown"
    assert await names(connection) == ["t"]
    d1_engine.faults(database, {"match": "CREATE", "status": 429, "count": 2})
    await run(connection, "CREATE TABLE u (a INTEGER)")


async def test_a_wrong_token_is_said_at_once(database: D1Database) -> None:
    with pytest.raises(ConfigurationError, match="D1_API_TOKEN"):
        async with open_schema(D1Address(database.base, database.account, database.id), "wrong"):
            pass


# Scratch databases ----------------------------------------------------------------------------------------------------


async def test_a_scratch_database_is_gone_afterwards(d1_engine: D1Engine, connection: Connection) -> None:
    before = d1_engine.names()
    with pytest.raises(ZeroDivisionError):
        async with connection.scratch() as scratch:
            assert await names(scratch) == []
            await run(scratch, "CREATE TABLE t (a INTEGER)")
            assert len(d1_engine.names()) == len(before) + 1
            raise ZeroDivisionError
    assert d1_engine.names() == before
    assert await names(connection) == []


async def test_scratch_databases_of_runs_that_were_killed_are_dropped(
    d1_engine: D1Engine, connection: Connection
) -> None:
    now = int(time.time())
    old, young, others = f"dal-scratch-{now - 7200}-a", f"dal-scratch-{now}-b", "dal-scratch-of-mine"
    for name in (old, young, others):
        d1_engine.create_database(name)
    async with connection.scratch():
        left = d1_engine.names()
    assert old not in left
    assert young in left
    assert others in left


# The schema engine ----------------------------------------------------------------------------------------------------


async def test_two_runners_at_once_apply_each_file_once(database: D1Database) -> None:
    async def runner() -> Sequence[object]:
        async with schema_connection(database.url) as opened:
            return await schema.up(opened)

    done = await asyncio.gather(*(runner() for _ in range(3)))
    assert sorted(len(found) for found in done)[-1] + sum(sorted(len(f) for f in done)[:-1]) == len(
        schema.library_set("sqlite").migrations
    )
    async with schema_connection(database.url) as opened:
        assert (await schema.status(opened)).pending == ()
        await schema.down(opened, steps=len(schema.library_set("sqlite").migrations))
        assert (await schema.status(opened)).version == ""


async def test_the_state_before_has_a_name(connection: Connection) -> None:
    assert isinstance(connection, Bookmarks)
    assert await connection.bookmark()


async def test_a_database_is_known_by_its_name(d1_engine: D1Engine) -> None:
    made = d1_engine.create_database("known-by-name")
    async with open_schema(D1Address(made.base, made.account, made.id), made.token) as opened:
        assert await opened.database_name() == "known-by-name"
        assert made.token not in repr(opened)


# Copies ---------------------------------------------------------------------------------------------------------------

CONTENT = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY AUTOINCREMENT, k TEXT UNIQUE COLLATE NOCASE, r REAL, b BLOB, x)",
    "CREATE TABLE child (p INTEGER NOT NULL REFERENCES parent (id) ON DELETE CASCADE, n INTEGER, "
    "twice INTEGER GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (p, n)) WITHOUT ROWID",
    'CREATE TABLE "Odd ""Name" ("a b" TEXT, rowid TEXT)',
    "CREATE TABLE loose (a)",
    "CREATE VIRTUAL TABLE words USING fts5(terms, tokenize = 'ascii')",
    "CREATE INDEX idx ON parent (lower(k)) WHERE r > 1",
    "CREATE VIEW seen AS SELECT k FROM parent",
    "CREATE TRIGGER noise AFTER INSERT ON parent BEGIN INSERT INTO loose VALUES (NEW.k); END",
    "INSERT INTO parent VALUES (7, 'it''s', 0.1, x'00ff', 9007199254740993), (8, NULL, -1e300, NULL, 1.0)",
    "INSERT INTO parent VALUES (9, char(0) || 'nul 🙂', 2.5e-310, zeroblob(3), -9223372036854775808)",
    "DELETE FROM parent WHERE id = 9 AND k IS NULL",
    "INSERT INTO child (p, n) VALUES (7, 1), (7, 2), (8, 1)",
    "INSERT INTO \"Odd \"\"Name\" VALUES ('x', 'y')",
    "INSERT INTO words (rowid, terms) VALUES (5, 'one two'), (6, 'two three')",
    "INSERT INTO loose (rowid, a) VALUES (40, 'forty')",
)


async def test_a_copy_brings_everything_back(connection: Connection, tmp_path: Path) -> None:
    await run(connection, *CONTENT)
    before = await _everything(connection)
    path = tmp_path / "copy.db"
    looked: list[object] = []

    async def look(reader: Reader) -> None:
        looked.append(await reader.fetch("SELECT count(*) FROM parent"))

    await connection.dump(path, look=look)
    assert looked == [[(3,)]]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT x FROM parent ORDER BY id").fetchall() == [(2**53 + 1,), (1.0,), (-(2**63),)]
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    await run(connection, "DELETE FROM parent", "DROP TABLE loose", "CREATE TABLE later (a)", "DROP VIEW seen")
    await connection.load(path)
    assert await _everything(connection) == before
    assert await connection.fetch("SELECT rowid FROM words WHERE words MATCH 'two' ORDER BY rowid") == [(5,), (6,)]
    await run(connection, "INSERT INTO parent (k) VALUES ('next')")
    assert await connection.fetch("SELECT max(id) FROM parent") == [(10,)], "numbers once given are not given again"


async def test_a_copy_of_many_rows_is_read_in_pages(connection: Connection, tmp_path: Path) -> None:
    await run(
        connection,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)",
        "INSERT INTO t SELECT value, printf('%.5000c', 'x') FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL "
        "SELECT value + 1 FROM n WHERE value < 2500) SELECT value FROM n)",
    )
    await connection.dump(tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as file:
        assert file.execute("SELECT count(*), sum(length(a)), max(id) FROM t").fetchone() == (2500, 12_500_000, 2500)
    await run(connection, "DELETE FROM t")
    await connection.load(tmp_path / "copy.db")
    assert await connection.fetch("SELECT count(*), sum(length(a)) FROM t") == [(2500, 12_500_000)]


async def test_a_database_written_to_all_the_time_is_not_copied(connection: Connection, tmp_path: Path) -> None:
    await run(connection, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1)")
    assert isinstance(connection, D1SchemaConnection)
    fetch = connection.fetch

    async def busy(sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        await run(connection, "UPDATE t SET a = a + 1")
        return await fetch(sql, params)

    connection.fetch = busy  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="written to each time"):
        await connection.dump(tmp_path / "copy.db")
    assert os.listdir(tmp_path) == []


async def test_a_file_of_another_kind_is_refused(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be looked at by SQLite " * 40)
    await run(connection, "CREATE TABLE t (a INTEGER)")
    with pytest.raises(CorruptDataError, match=r"text\.db"):
        await connection.load(tmp_path / "text.db")
    assert await names(connection) == ["t"]


async def _everything(connection: Connection) -> dict[str, object]:
    found: dict[str, object] = {}
    objects = await connection.fetch(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '\\_cf%' ESCAPE '\\' "
        "AND name NOT LIKE 'sqlite%' ORDER BY name"
    )
    found["objects"] = objects
    for table, columns in {
        "parent": "id, k, r, hex(b), typeof(x), CAST(x AS TEXT)",
        "child": "p, n, twice",
        '"Odd ""Name"': '"a b", rowid',
        "loose": "rowid, hex(a)",
        "words": "rowid, terms",
        "sqlite_sequence": "name, seq",
    }.items():
        found[table] = await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY 1, 2")
    return found
