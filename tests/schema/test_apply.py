"""Applying files and taking them back: all or nothing, once, and told in words that help."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from dal import schema
from dal.errors import InvalidInputError, SchemaError, UnavailableError
from dal.factory import schema_connection
from dal.limits import SCHEMA_RESUMPTIONS
from dal.schema import Connection, MigrationSet, Progress
from dal.schema.inspection.objects import snapshot
from dal.testing.reaching import reached
from tests.schema.faulty import Fault, Faulty
from tests.schema.written import write_set

FILES = {
    "0001_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY);\n",
    "rollback/0001_a.sql": "DROP TABLE a;\n",
    "0002_b.sql": "CREATE TABLE b (id INTEGER PRIMARY KEY);\nINSERT INTO b VALUES (1);\n",
    "rollback/0002_b.sql": "DROP TABLE b;\n",
    "0003_c.sql": 'CREATE TABLE "C; it\'s 😀" (id INTEGER PRIMARY KEY);\n',
    "rollback/0003_c.sql": 'DROP TABLE "C; it\'s 😀";\n',
}
ALL = ["0001_a.sql", "0002_b.sql", "0003_c.sql"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "shop"


def write(directory: Path, connection: Connection, files: Mapping[str, str] = FILES) -> MigrationSet:
    return write_set(directory, connection.engine, files)


def names(found: list[schema.Migrated]) -> list[str]:
    return [migrated.name for migrated in found]


async def applied(connection: Connection) -> list[str]:
    return [row.name for row in (await schema.status(connection)).applied]


async def test_up_and_down_and_up_again(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection)
    seen: list[Progress] = []
    done = await schema.up(connection, migrations, on_progress=seen.append)
    assert [(m.name, m.statements) for m in done] == [("0001_a.sql", 1), ("0002_b.sql", 2), ("0003_c.sql", 1)]
    assert [(p.name, p.phase) for p in seen] == [(name, phase) for name in ALL for phase in ("running", "done")]
    whole = await snapshot(connection)
    assert set(whole.tables) == {"a", "b", "C; it's 😀"}
    assert names(await schema.down(connection, migrations)) == ["0003_c.sql"]
    assert names(await schema.down(connection, migrations, to="0001_a.sql")) == ["0002_b.sql"]
    assert await applied(connection) == ["0001_a.sql"]
    assert names(await schema.up(connection, migrations)) == ["0002_b.sql", "0003_c.sql"]
    assert await snapshot(connection) == whole
    assert names(await schema.down(connection, migrations, steps=99)) == ALL[::-1]
    assert await schema.down(connection, migrations) == []
    assert (await snapshot(connection)).tables == {}


async def test_to_ends_a_run_and_the_next_goes_on(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection)
    assert names(await schema.up(connection, migrations, to="0002_b.sql")) == ALL[:2]
    assert names(await schema.up(connection, migrations)) == ALL[2:]


async def test_the_backups_name_and_the_set_are_kept(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection), backup_ref="backups/x.dump")
    rows = await connection.fetch(
        "SELECT name, schema_set, backup_ref, done_count, statement_count FROM dal_migration_details ORDER BY name"
    )
    assert [tuple(row) for row in rows] == [
        (name, "shop", "backups/x.dump", count, count) for name, count in zip(ALL, (1, 2, 1), strict=True)
    ]


async def test_a_failure_names_file_line_statement_and_the_engines_words(
    connection: Connection, directory: Path
) -> None:
    broken = "CREATE TABLE d (id INTEGER);\n\n-- why\nINSERT INTO d\n  VALUES (1);\nINSERT INTO missing VALUES (1);\n"
    migrations = write(directory, connection, {**FILES, "0004_d.sql": broken})
    with pytest.raises(SchemaError) as caught:
        await schema.up(connection, migrations)
    message = caught.value.message
    assert message.startswith(f"{connection.address}: 0004_d.sql:6 failed and was rolled back: ")
    assert "missing" in message.split("the statement:")[0]
    assert message.endswith("the statement: INSERT INTO missing VALUES (1)")
    assert "d" not in (await snapshot(connection)).tables
    assert await applied(connection) == ALL
    mended = write(directory, connection, {"0004_d.sql": broken.replace("missing", "d")})
    assert names(await schema.up(connection, mended)) == ["0004_d.sql"]


async def test_a_long_statement_is_told_by_its_beginning(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection, {"0001_a.sql": f"SELECT\n  nothing, '{'x' * 5000}';\n"})
    with pytest.raises(SchemaError) as caught:
        await schema.up(connection, migrations)
    assert "0001_a.sql:" in caught.value.message
    assert "SELECT nothing, 'xxx" in caught.value.message
    assert len(caught.value.message) < 700


async def test_a_file_with_any_characters_is_run_as_it_is(connection: Connection, directory: Path) -> None:
    text = "100%, %s, ?, $1, :name, {x}, \\n, 😀"
    migrations = write(
        directory, connection, {"0001_a.sql": f"CREATE TABLE a (t TEXT);\nINSERT INTO a VALUES ('{text}');\n"}
    )
    await schema.up(connection, migrations)
    assert [tuple(row) for row in await connection.fetch("SELECT t FROM a")] == [(text,)]


async def test_rows_that_statements_return_do_no_harm(connection: Connection, directory: Path) -> None:
    text = "CREATE TABLE a (id INTEGER);\nINSERT INTO a VALUES (1), (2) RETURNING id;\nSELECT id FROM a;\n"
    migrations = write(directory, connection, {"0001_a.sql": text})
    await schema.up(connection, migrations)
    assert len(await connection.fetch("SELECT id FROM a")) == 2


async def test_a_constraint_that_waits_for_the_commit_refuses_the_file(connection: Connection, directory: Path) -> None:
    text = (
        "CREATE TABLE p (id INTEGER PRIMARY KEY);\n"
        "CREATE TABLE k (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO k VALUES (7, 99);\n"
    )
    migrations = write(directory, connection, {"0001_a.sql": text})
    with pytest.raises(SchemaError, match=r"0001_a\.sql failed and was rolled back.*") as caught:
        await schema.up(connection, migrations)
    assert "k" in caught.value.message
    assert (await snapshot(connection)).tables == {}
    assert await applied(connection) == []


async def test_a_file_must_leave_the_ledger_alone(connection: Connection, directory: Path) -> None:
    for table in ("dal_migration_details", '"dal_migration_lock"', "public.DAL_Migrations", "d1_migrations"):
        migrations = write(directory, connection, {"0001_a.sql": f"SELECT 1;\nDROP TABLE {table};\n"})
        with pytest.raises(SchemaError, match=r"0001_a\.sql:2: tool-table"):
            await schema.up(connection, migrations, allow=["tool-table"])
    harmless = "CREATE TABLE t (x TEXT);\nINSERT INTO t VALUES ('d1_migrations');\n"
    await schema.up(connection, write(directory, connection, {"0001_a.sql": harmless}))


async def test_several_runners_at_once_each_end_well(url: str, directory: Path) -> None:
    async def run() -> list[str]:
        async with schema_connection(url, create=True) as connection:
            return names(await schema.up(connection, write_set(directory, connection.engine, FILES)))

    found = await asyncio.gather(*(run() for _ in range(4)))
    assert sorted(name for each in found for name in each) == ALL
    async with schema_connection(url) as connection:
        assert await applied(connection) == ALL


async def test_two_that_take_one_step_back_take_one_step_back(url: str, directory: Path) -> None:
    async with schema_connection(url, create=True) as first, schema_connection(url) as second:
        migrations = write(directory, first)
        await schema.up(first, migrations)
        held = asyncio.Event()

        async def let_the_other_go(text: str) -> None:
            if "DROP TABLE" in text and not held.is_set():
                held.set()
                # It has made its choice, and is waiting for the lock.
                waits = asyncio.Event()
                tasks.append(asyncio.create_task(schema.down(second, migrations, on_progress=lambda _: waits.set())))
                await reached(waits, *tasks)

        tasks: list[asyncio.Task[list[schema.Migrated]]] = []
        slow = cast(Connection, Faulty(first, before=let_the_other_go))
        assert names(await schema.down(slow, migrations)) == ["0003_c.sql"]
        assert names(await tasks[0]) == []
        assert await applied(first) == ALL[:2]


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
@pytest.mark.parametrize(
    "text", ["CREATE TABLE b", "CREATE TABLE IF NOT EXISTS", "INSERT INTO dal_migration_lock", "SET owner = ''"]
)
async def test_a_lost_answer_is_looked_up_in_the_ledger(
    connection: Connection, directory: Path, text: str, fault: Fault
) -> None:
    migrations = write(directory, connection)
    faulty = Faulty(connection, text, fault)
    assert names(await schema.up(cast(Connection, faulty), migrations, wait_s=30)) == ALL
    assert await applied(connection) == ALL
    assert sum("CREATE TABLE b" in ran for ran in faulty.ran) == (
        2 if (text, fault) == ("CREATE TABLE b", "lost before") else 1
    )


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
async def test_a_lost_answer_of_a_way_back_too(connection: Connection, directory: Path, fault: Fault) -> None:
    migrations = write(directory, connection)
    await schema.up(connection, migrations)
    faulty = Faulty(connection, "DROP TABLE b", fault)
    assert names(await schema.down(cast(Connection, faulty), migrations, steps=2)) == ["0003_c.sql", "0002_b.sql"]
    assert await applied(connection) == ["0001_a.sql"]


async def test_a_database_that_stays_away_is_said_with_its_outcome(connection: Connection, directory: Path) -> None:
    class Gone(Faulty):
        async def _meet(self, text: str, call: object) -> None:
            if "CREATE TABLE b" in text:
                self.ran.append(text)
                raise UnavailableError("the connection broke", outcome="unknown")
            await super()._meet(text, call)  # type: ignore[arg-type]

    gone = Gone(connection)
    with pytest.raises(UnavailableError) as caught:
        await schema.up(cast(Connection, gone), write(directory, connection))
    assert caught.value.outcome == "unknown"
    assert sum("CREATE TABLE b" in ran for ran in gone.ran) == SCHEMA_RESUMPTIONS + 1
    assert await applied(connection) == ["0001_a.sql"]


async def test_down_refuses_before_it_does_anything(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection)
    await schema.up(connection, migrations)
    (directory / "rollback" / "0002_b.sql").unlink()
    for trouble in (r"no rollback/0002_b\.sql", "unreadable", "changed after it had been applied", "not in the dir"):
        migrations = schema.read_set(directory, connection.engine)
        with pytest.raises(SchemaError, match=f"0002_b.*{trouble}"):
            await schema.down(connection, migrations, steps=2)
        assert await applied(connection) == ALL
        if trouble.startswith("no "):
            (directory / "rollback" / "0002_b.sql").write_text("DROP 'TABLE;")
        elif trouble == "unreadable":
            (directory / "rollback" / "0002_b.sql").write_text("DROP TABLE b;")
            (directory / "0002_b.sql").write_text("-- new words\n" + FILES["0002_b.sql"])
        else:
            (directory / "0002_b.sql").unlink(missing_ok=True)
    with pytest.raises(SchemaError, match=r"0009_z\.sql is not applied"):
        await schema.down(connection, migrations, to="0009_z.sql")


async def test_a_way_back_that_fails_is_rolled_back(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection, {**FILES, "rollback/0003_c.sql": "DROP TABLE a;\nDROP TABLE nowhere;\n"})
    await schema.up(connection, migrations)
    with pytest.raises(SchemaError, match=r"rollback/0003_c\.sql:2 failed and was rolled back"):
        await schema.down(connection, migrations)
    assert await applied(connection) == ALL
    assert "a" in (await snapshot(connection)).tables


async def test_newest_means_as_applied(connection: Connection, directory: Path) -> None:
    first = {name: text for name, text in FILES.items() if "0002" not in name}
    await schema.up(connection, write(directory, connection, first))
    migrations = write(directory, connection)
    await schema.up(connection, migrations, allow=["late-migration"])
    assert names(await schema.down(connection, migrations, steps=3)) == ["0002_b.sql", "0003_c.sql", "0001_a.sql"]


async def test_baseline_enters_without_running(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection)
    assert await schema.baseline(connection, migrations, to="0002_b.sql") == ALL[:2]
    assert await schema.baseline(connection, migrations, to="0002_b.sql") == []
    assert (await snapshot(connection)).tables == {}
    assert names(await schema.up(connection, migrations)) == ALL[2:]
    with pytest.raises(SchemaError, match=r"no 0009_z\.sql"):
        await schema.baseline(connection, migrations, to="0009_z.sql")
    (directory / "0001_a.sql").write_text("-- changed\n" + FILES["0001_a.sql"])
    found = await schema.plan(connection, schema.read_set(directory, connection.engine))
    assert [finding.rule for finding in found.refusals()] == ["edited-migration"]


async def test_a_new_migration_gets_the_next_number_and_overwrites_nothing(
    connection: Connection, directory: Path
) -> None:
    engine = connection.engine
    first = schema.new_migration(directory, engine, "Add chat labels!")
    second = schema.new_migration(directory, engine, "index them", transaction=False, phase="expand")
    assert [path.relative_to(directory).as_posix() for path in (*first, *second)] == [
        "0001_add_chat_labels.sql",
        "rollback/0001_add_chat_labels.sql",
        "0002_index_them.sql",
        "rollback/0002_index_them.sql",
    ]
    found = schema.read_set(directory, engine)
    assert [(m.directives.transaction, m.directives.phase) for m in found.migrations] == [
        (True, None),
        (False, "expand"),
    ]
    assert {finding.rule for finding in found.findings} == {"empty-file"}
    with pytest.raises(InvalidInputError):
        schema.new_migration(directory, engine, "日本語")
