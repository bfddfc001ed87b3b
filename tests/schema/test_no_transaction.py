"""Files that run statement by statement: resumable, each statement once, and indexes built CONCURRENTLY made whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import psycopg
import pytest

from dal import schema
from dal.errors import SchemaError
from dal.factory import schema_connection
from dal.schema import Connection, MigrationSet, Progress, Statement, indexes
from tests.schema.faulty import Fault, Faulty
from tests.schema.written import write_set

TABLE = "CREATE TABLE t (id INTEGER);\n"
ALONE = {"sqlite": "VACUUM", "postgresql": "VACUUM t"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "shop"


def write(directory: Path, connection: Connection, text: str, back: str = "") -> MigrationSet:
    """0001 makes a table; 0002 is the file without transaction, with its way back."""
    files = {"0001_t.sql": TABLE, "rollback/0001_t.sql": "DROP TABLE t;\n"}
    files["0002_x.sql"] = f"-- dal:no-transaction\n{text}"
    files["rollback/0002_x.sql"] = f"-- dal:no-transaction\n{back}"
    return write_set(directory, connection.engine, files)


def names(found: list[schema.Migrated]) -> list[str]:
    return [migrated.name for migrated in found]


async def rows(connection: Connection, table: str = "t") -> list[object]:
    return [row[0] for row in await connection.fetch(f"SELECT id FROM {table} ORDER BY id")]


async def counts(connection: Connection) -> tuple[object, ...]:
    ((*found,),) = await connection.fetch(
        "SELECT done_count, undone_count, in_doubt FROM dal_migration_details WHERE name = '0002_x.sql'"
    )
    return tuple(found)


async def rules(connection: Connection, migrations: MigrationSet) -> list[str]:
    found = await schema.plan(connection, migrations)
    return [finding.rule for finding in found.findings if finding.rule not in ("empty-file", "missing-rollback")]


async def test_each_statement_is_told_and_counted(connection: Connection, directory: Path) -> None:
    text = f"INSERT INTO t VALUES (1);\n{ALONE[connection.engine]};\nINSERT INTO t VALUES (2);\n"
    seen: list[Progress] = []
    done = await schema.up(connection, write(directory, connection, text), on_progress=seen.append)
    assert [(m.name, m.statements) for m in done] == [("0001_t.sql", 1), ("0002_x.sql", 3)]
    assert [(p.statement, p.of, p.phase) for p in seen if p.name == "0002_x.sql"] == [
        (1, 3, "running"), (2, 3, "running"), (3, 3, "running"), (3, 3, "done"),
    ]  # fmt: skip
    assert await rows(connection) == [1, 2]
    assert await counts(connection) == (3, 0, 0)


@pytest.mark.parametrize("wrong", ["INSERT INTO nowhere VALUES (2)", "REINDEX nowhere"])
async def test_a_failure_leaves_what_was_done_and_the_mended_file_goes_on(
    connection: Connection, directory: Path, wrong: str
) -> None:
    text = f"INSERT INTO t VALUES (1);\n{ALONE[connection.engine]};\n\n{wrong};\nINSERT INTO t VALUES (3);\n"
    migrations = write(directory, connection, text)
    with pytest.raises(SchemaError) as caught:
        await schema.up(connection, migrations)
    assert "0002_x.sql:5 failed; the 2 before it stay, and the next run goes on there" in caught.value.message
    assert "nowhere" in caught.value.message
    assert await counts(connection) == (2, 0, 0)
    assert await rules(connection, migrations) == ["interrupted-migration"]
    mended = write(directory, connection, text.replace(wrong, "INSERT INTO t VALUES (2)"))
    assert names(await schema.up(connection, mended)) == ["0002_x.sql"]
    assert await rows(connection) == [1, 2, 3]
    assert await rules(connection, mended) == []


async def test_what_has_run_must_not_change_before_the_rest_has(connection: Connection, directory: Path) -> None:
    text = "INSERT INTO t VALUES (1);\nINSERT INTO nowhere VALUES (2);\n"
    with pytest.raises(SchemaError):
        await schema.up(connection, write(directory, connection, text))
    changed = write(directory, connection, text.replace("(1)", "(7)").replace("nowhere", "t"))
    with pytest.raises(SchemaError, match="changed-while-begun"):
        await schema.up(connection, changed, allow=["changed-while-begun"])
    assert await rows(connection) == [1]


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
async def test_a_row_is_written_once_though_its_answer_was_lost(
    connection: Connection, directory: Path, fault: Fault
) -> None:
    last = "WITH x (y) AS (SELECT 2) INSERT INTO t SELECT y FROM x"
    text = f"INSERT INTO t VALUES (1);\nUPDATE t SET id = id + 10;\n{last};\n"
    migrations = write(directory, connection, text)
    for statement in ("INSERT INTO t VALUES", "UPDATE t", "WITH x"):
        faulty = cast(Connection, Faulty(connection, statement, fault))
        await schema.up(faulty, migrations)
        assert await rows(connection) == [2, 11]
        await schema.down(connection, migrations, steps=2)


async def test_a_way_back_goes_on_where_it_failed(connection: Connection, directory: Path) -> None:
    text, back = "INSERT INTO t VALUES (1), (2);\n", "DELETE FROM t WHERE id = 1;\nDELETE FROM nowhere;\n"
    migrations = write(directory, connection, text, back)
    await schema.up(connection, migrations)
    with pytest.raises(SchemaError, match=r"rollback/0002_x\.sql:3 failed; the one before it stays"):
        await schema.down(connection, migrations)
    assert await rules(connection, migrations) == ["interrupted-rollback"]
    with pytest.raises(SchemaError, match="run `dal schema down` again"):
        await schema.up(connection, write_set(directory, connection.engine, {"0003_y.sql": TABLE}))
    (directory / "0003_y.sql").unlink()
    with pytest.raises(SchemaError, match="the file now says something else"):
        await schema.down(
            connection, write(directory, connection, "INSERT INTO t VALUES (1), (2);\n", "DELETE FROM t;")
        )
    await connection.run([("INSERT INTO t VALUES (1)", ())])  # by the application
    mended = write(directory, connection, text, back.replace("nowhere", "t WHERE id = 2"))
    assert names(await schema.down(connection, mended)) == ["0002_x.sql"]
    assert await rows(connection) == [1]
    assert await rules(connection, mended) == []


async def test_a_file_that_was_begun_can_be_taken_back(connection: Connection, directory: Path) -> None:
    text = "INSERT INTO t VALUES (1);\nINSERT INTO nowhere VALUES (2);\n"
    migrations = write(directory, connection, text, "DELETE FROM t;\n")
    with pytest.raises(SchemaError):
        await schema.up(connection, migrations)
    assert names(await schema.down(connection, migrations)) == ["0002_x.sql"]
    assert await rows(connection) == []
    assert [m.name for m in (await schema.plan(connection, migrations)).pending] == ["0002_x.sql"]
    assert await rules(connection, migrations) == []


async def test_a_begun_file_of_which_nothing_has_run_is_only_forgotten(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection, "INSERT INTO nowhere VALUES (2);\n", "DROP TABLE nowhere;\n")
    with pytest.raises(SchemaError, match=r"0002_x\.sql:2 failed; nothing was done"):
        await schema.up(connection, migrations)
    assert names(await schema.down(connection, migrations)) == ["0002_x.sql"]
    assert names(await schema.down(connection, migrations)) == ["0001_t.sql"]


async def test_a_begun_file_that_is_gone_is_a_finding(connection: Connection, directory: Path) -> None:
    with pytest.raises(SchemaError):
        await schema.up(connection, write(directory, connection, "INSERT INTO nowhere VALUES (2);\n"))
    (directory / "0002_x.sql").unlink()
    (directory / "rollback" / "0002_x.sql").unlink()
    assert await rules(connection, schema.read_set(directory, connection.engine)) == ["deleted-migration"]


async def test_a_begun_file_may_become_one_transaction(connection: Connection, directory: Path) -> None:
    text, back = (
        "INSERT INTO t VALUES (1);\nINSERT INTO nowhere VALUES (2);\n",
        "DELETE FROM t;\nDELETE FROM nowhere;\n",
    )
    with pytest.raises(SchemaError):
        await schema.up(connection, write(directory, connection, text, back))
    files = {"0002_x.sql": text.replace("nowhere", "t")}
    assert names(await schema.up(connection, write_set(directory, connection.engine, files))) == ["0002_x.sql"]
    assert (await rows(connection), await counts(connection)) == ([1, 2], (2, 0, 0))
    with pytest.raises(SchemaError):
        await schema.down(connection, schema.read_set(directory, connection.engine))
    await connection.run([("INSERT INTO t VALUES (9)", ())])
    files = {"rollback/0002_x.sql": back.replace("nowhere", "t WHERE id = 0")}
    assert names(await schema.down(connection, write_set(directory, connection.engine, files))) == ["0002_x.sql"]
    assert await rows(connection) == [9]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_settings_of_a_sqlite_file_can_be_changed(connection: Connection, directory: Path) -> None:
    text = "PRAGMA journal_mode = WAL;\nVACUUM;\nPRAGMA user_version = 7;\n"
    await schema.up(connection, write(directory, connection, text))
    assert list(await connection.fetch("PRAGMA journal_mode")) == [("wal",)]
    assert list(await connection.fetch("PRAGMA user_version")) == [(7,)]


# PostgreSQL ----------------------------------------------------------------------------------------------------------

on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


async def valid(connection: Connection) -> dict[str, bool]:
    """Indexes by name, and whether each is valid."""
    found = await connection.fetch(
        "SELECT c.relname::text, i.indisvalid::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_class t ON t.oid = i.indrelid WHERE t.relname IN ('t', 'Odd; Table')"
    )
    return {str(name): is_valid == "true" for name, is_valid in found}


@on_postgresql
@pytest.mark.parametrize("exists", ["", "IF NOT EXISTS "])
@pytest.mark.parametrize(
    ("name", "table", "found"),
    [
        ("t_id", "t", "t_id"),
        ("T_Id", "T", "t_id"),
        ('"T; ""Id"" 😀"', "public.t", 'T; "Id" 😀'),
        (f"t_{'x' * 80}", "only t", f"t_{'x' * 61}"),
        ("t_id", 'shop."Odd; Table"', "t_id"),
    ],
)
async def test_an_invalid_index_is_dropped_and_built_again(
    connection: Connection, directory: Path, exists: str, name: str, table: str, found: str
) -> None:
    real_table = table.removeprefix("only ")
    if "shop" in table:
        await connection.run([("CREATE SCHEMA shop", ()), (f"CREATE TABLE {table} (id INTEGER)", ())])
    text = f"CREATE UNIQUE INDEX CONCURRENTLY {exists}{name} ON {table} (id);\nINSERT INTO {real_table} VALUES (7);\n"
    migrations = write(directory, connection, text)
    await schema.up(connection, migrations, to="0001_t.sql")
    await connection.run([(f"INSERT INTO {real_table} VALUES (1), (1)", ())])
    with pytest.raises(SchemaError, match="is duplicated"):
        await schema.up(connection, migrations)
    assert await valid(connection) == {found: False}
    with pytest.raises(SchemaError, match="is duplicated"):  # and once more, over the invalid one
        await schema.up(connection, migrations)
    await connection.run([(f"DELETE FROM {real_table}", ())])
    await schema.up(connection, migrations)
    assert await valid(connection) == {found: True}


@on_postgresql
async def test_an_index_that_stood_in_the_way_before_is_not_taken_for_ours(
    connection: Connection, directory: Path
) -> None:
    migrations = write(directory, connection, "CREATE INDEX CONCURRENTLY t_id ON t (id);\n")
    await schema.up(connection, migrations, to="0001_t.sql")
    await connection.run([("CREATE INDEX t_id ON t (id DESC)", ())])
    for _ in range(2):
        with pytest.raises(SchemaError, match="already exists"):
            await schema.up(connection, migrations)
    assert await valid(connection) == {"t_id": True}


@on_postgresql
@pytest.mark.parametrize("fault", ["lost before", "lost after"])
async def test_a_build_whose_answer_was_lost_is_looked_for(
    connection: Connection, directory: Path, fault: Fault
) -> None:
    text = "CREATE INDEX CONCURRENTLY t_id ON t (id);\nCREATE INDEX CONCURRENTLY t_down ON t (id DESC);\n"
    back = "DROP INDEX CONCURRENTLY t_down;\nDROP INDEX CONCURRENTLY public.t_id;\n"
    migrations = write(directory, connection, text, back)
    for lost in ("INDEX CONCURRENTLY t_id", "INDEX CONCURRENTLY t_down"):
        await schema.up(cast(Connection, Faulty(connection, lost, fault)), migrations)
        assert await valid(connection) == {"t_id": True, "t_down": True}
        faulty = cast(Connection, Faulty(connection, lost.replace("t_id", "public.t_id"), fault))
        await schema.down(faulty, migrations)
        assert await valid(connection) == {}


@on_postgresql
async def test_another_sessions_build_is_waited_for(connection: Connection, directory: Path, url: str) -> None:
    migrations = write(directory, connection, "CREATE INDEX CONCURRENTLY IF NOT EXISTS t_id ON t (id);\n")
    await schema.up(connection, migrations, to="0001_t.sql")

    def build() -> None:
        with psycopg.connect(url, autocommit=True) as builder:
            builder.execute("CREATE INDEX CONCURRENTLY t_id ON t (id)")

    told: list[Progress] = []
    with psycopg.connect(url) as writer, psycopg.connect(url, autocommit=True) as watcher:
        writer.execute("INSERT INTO t VALUES (1)")  # for whose end the build waits
        thread = threading.Thread(target=build)
        thread.start()
        while not watcher.execute("SELECT 1 FROM pg_stat_progress_create_index WHERE index_relid <> 0").fetchone():
            assert thread.is_alive(), "the build has failed"

        def let_go(progress: Progress) -> None:
            told.append(progress)
            if progress.phase == "waiting":
                writer.rollback()

        await schema.up(connection, migrations, on_progress=let_go)
        thread.join()
    assert "another session is building" in next(p.detail for p in told if p.phase == "waiting")
    assert await valid(connection) == {"t_id": True}


@on_postgresql
@pytest.mark.parametrize(
    "setting", ["SET search_path = other", "SELECT pg_catalog.set_config('search_path', 'other', false)"]
)
async def test_what_is_set_holds_for_the_rest_of_the_file_also_when_it_goes_on(
    connection: Connection, directory: Path, url: str, setting: str
) -> None:
    text = (
        f"CREATE SCHEMA other;\n{setting};\nCREATE TABLE o (id INTEGER);\n"
        "CREATE INDEX CONCURRENTLY o_id ON o (id);\nINSERT INTO public.nowhere VALUES (1);\nINSERT INTO o VALUES (1);\n"
        "DROP INDEX CONCURRENTLY o_id;\n"
    )
    with pytest.raises(SchemaError, match="nowhere"):
        await schema.up(connection, write(directory, connection, text))
    await connection.run_alone("CREATE TABLE where_now (id INTEGER)")
    assert await rows(connection, "public.where_now") == []
    mended = write(directory, connection, text.replace("public.nowhere", "o"))
    async with schema_connection(url) as another:
        assert names(await schema.up(another, mended)) == ["0002_x.sql"]
    assert await rows(connection, "other.o") == [1, 1]
    after = write_set(directory, "postgresql", {"0003_y.sql": "-- dal:no-transaction\nCREATE TABLE y (id INTEGER);\n"})
    await schema.up(connection, after)
    assert await rows(connection, "public.y") == []


@on_postgresql
async def test_a_file_in_a_transaction_may_set_another_search_path(connection: Connection, directory: Path) -> None:
    text = "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE public.p (id INTEGER);\n"
    files = {"0001_p.sql": text, "0002_q.sql": "CREATE TABLE q (id INTEGER);\n"}
    assert len(await schema.up(connection, write_set(directory, "postgresql", files))) == 2
    assert await rows(connection, "public.q") == []


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("create index concurrently a on b (c)", ("CREATE", "a", "b")),
        ('CREATE UNIQUE INDEX CONCURRENTLY "a.b" ON x . "Y" (c)', ("CREATE", '"a.b"', 'x."Y"')),
        ("CREATE INDEX CONCURRENTLY /* c */ IF NOT EXISTS a ON ONLY b USING gin (c)", ("CREATE", "a", "b")),
        ("DROP INDEX CONCURRENTLY IF EXISTS s.a", ("DROP", "s.a", "")),
        ("DROP INDEX CONCURRENTLY a, b", None),
        ("CREATE INDEX CONCURRENTLY ON b (c)", None),
        ("CREATE INDEX a ON b (c)", None),
        ("REINDEX INDEX CONCURRENTLY a", None),
        ("VACUUM t", None),
    ],
)
def test_names_are_read_from_the_statement(sql: str, found: tuple[str, str, str] | None) -> None:
    assert indexes.read(Statement(sql)) == found
