"""The plan: what is pending, what is left out and why, and what in the ledger does not fit the files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dal import schema
from dal.errors import SchemaError
from dal.schema import Connection, MigrationSet, Plan
from dal.schema.ledger import creation
from tests.schema.written import write_set

A = "CREATE TABLE a (id INTEGER);\n"
B = "CREATE TABLE b (id INTEGER);\n"
C = "CREATE TABLE c (id INTEGER);\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "shop"


def write(directory: Path, connection: Connection, **files: str) -> MigrationSet:
    """The set of just these files, by name without `.sql`."""
    for old in directory.rglob("*.sql"):
        old.unlink()
    backs = {f"rollback/{name}.sql": f"DROP TABLE {name[-1]};\n" for name in files}
    return write_set(directory, connection.engine, {**backs, **{f"{name}.sql": text for name, text in files.items()}})


def pending(found: Plan) -> list[str]:
    return [migration.name.removesuffix(".sql") for migration in found.pending]


def errors(found: Plan) -> list[tuple[str, str]]:
    return [(finding.rule, finding.file.removesuffix(".sql")) for finding in found.refusals()]


async def enter(connection: Connection, name: str) -> None:
    """As wrangler does: without details."""
    await connection.run(creation(connection.engine)[:1])
    table = "d1_migrations" if connection.engine == "sqlite" else "dal_migrations"
    await connection.run([(f"INSERT INTO {table} (name) VALUES ('{name}')", ())])


async def test_a_plan_writes_nothing_and_says_what_is_pending(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection, **{"0001_a": A, "0002_b": B})
    found = await schema.plan(connection, migrations)
    assert (pending(found), found.applied, found.findings, found.left_out) == (["0001_a", "0002_b"], (), (), ())
    assert found.address == connection.address
    assert (await schema.status(connection)).empty


async def test_environments_choose_files(connection: Connection, directory: Path) -> None:
    seed = "-- dal:env seed\nINSERT INTO a VALUES (1);\n"
    migrations = write(directory, connection, **{"0001_a": A, "0002_b": seed, "0003_c": f"-- dal:env dev ci\n{C}"})
    for environment, seeds, names in (
        (None, False, ["0001_a"]),
        ("prod", False, ["0001_a"]),
        ("dev", False, ["0001_a", "0003_c"]),
        ("ci", True, ["0001_a", "0002_b", "0003_c"]),
    ):
        assert pending(await schema.plan(connection, migrations, environment=environment, seed=seeds)) == names
    assert (await schema.plan(connection, migrations)).left_out == (
        ("0002_b.sql", "it is for seed only"),
        ("0003_c.sql", "it is for ci, dev only"),
    )


async def test_to_and_leave_out(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection, **{"0001_a": A, "0002_b": f"-- dal:optional\n{B}", "0003_c": C})
    found = await schema.plan(connection, migrations, to="0002_b.sql", leave_out=["0002_b.sql"])
    assert pending(found) == ["0001_a"]
    assert [name for name, _ in found.left_out] == ["0002_b.sql", "0003_c.sql"]
    with pytest.raises(SchemaError, match=r"no 0009_z\.sql"):
        await schema.plan(connection, migrations, to="0009_z.sql")
    with pytest.raises(SchemaError, match=r"0001_a\.sql cannot be left out; what can: 0002_b\.sql"):
        await schema.plan(connection, migrations, leave_out=["0001_a.sql"])


async def test_a_file_whose_requirement_is_left_out_is_refused(connection: Connection, directory: Path) -> None:
    migrations = write(
        directory, connection, **{"0001_a": f"-- dal:env dev\n{A}", "0002_b": f"-- dal:requires 0001_a.sql\n{B}"}
    )
    assert errors(await schema.plan(connection, migrations)) == [("unmet-requires", "0002_b")]
    assert errors(await schema.plan(connection, migrations, environment="dev")) == []


async def test_an_edited_file_is_found_until_it_is_put_back(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection, **{"0001_a": A}))
    edited = write(directory, connection, **{"0001_a": f"-- a better word\n{A}", "0002_b": B})
    assert errors(await schema.plan(connection, edited)) == [("edited-migration", "0001_a")]
    with pytest.raises(SchemaError, match=r"nothing was applied: 0001_a\.sql: edited-migration"):
        await schema.up(connection, edited)
    assert [m.name for m in await schema.up(connection, edited, allow=["edited-migration"])] == ["0002_b.sql"]
    windows = write(directory, connection, **{"0001_a": A.replace("\n", "\r\n"), "0002_b": B})
    assert errors(await schema.plan(connection, windows)) == []


async def test_a_file_may_allow_for_itself(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection, **{"0001_a": A}))
    edited = write(directory, connection, **{"0001_a": f"-- dal:allow edited-migration\n{A}"})
    assert (await schema.plan(connection, edited)).findings == ()


async def test_a_deleted_file_is_found(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection, **{"0001_a": A, "0002_b": B}))
    left = write(directory, connection, **{"0001_a": A, "0003_c": C})
    assert errors(await schema.plan(connection, left)) == [("deleted-migration", "0002_b")]
    assert [m.name for m in await schema.up(connection, left, allow=["deleted-migration"])] == ["0003_c.sql"]


async def test_a_late_file_is_found_and_optional_ones_are_not_late(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection, **{"0001_a": A, "0003_c": C}))
    late = write(directory, connection, **{"0001_a": A, "0002_b": B, "0003_c": C})
    assert errors(await schema.plan(connection, late)) == [("late-migration", "0002_b")]
    with pytest.raises(SchemaError, match="late-migration"):
        await schema.up(connection, late)
    optional = write(directory, connection, **{"0001_a": A, "0002_b": f"-- dal:optional\n{B}", "0003_c": C})
    assert errors(await schema.plan(connection, optional)) == []
    seed = write(directory, connection, **{"0001_a": A, "0002_b": f"-- dal:env seed\n{B}", "0003_c": C})
    found = await schema.plan(connection, seed, seed=True)
    assert [(f.rule, f.severity) for f in found.findings if f.rule == "late-migration"] == [
        ("late-migration", "warning")
    ]
    assert [m.name for m in await schema.up(connection, late, allow=["late-migration"])] == ["0002_b.sql"]


async def test_one_number_twice_is_not_late(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection, **{"0001_x_b": B}))
    both = write(directory, connection, **{"0001_x_b": B, "0001_a": A})
    assert [m.name for m in await schema.up(connection, both)] == ["0001_a.sql"]


async def test_a_declared_order_is_not_late(connection: Connection, directory: Path) -> None:
    files = {"0001_a": f"-- dal:requires 0002_b.sql\n{A}", "0002_b": B}
    migrations = write(directory, connection, **files)
    assert [m.name for m in await schema.up(connection, migrations, to="0002_b.sql")] == ["0002_b.sql"]
    assert [m.name for m in await schema.up(connection, migrations)] == ["0001_a.sql"]


async def test_a_database_that_wrangler_migrated_is_recognised(connection: Connection, directory: Path) -> None:
    await connection.run([(A, ())])
    await enter(connection, "0001_a.sql")
    migrations = write(directory, connection, **{"0001_a": A, "0002_b": B})
    found = await schema.plan(connection, migrations)
    assert ([row.name for row in found.applied], pending(found), errors(found)) == (["0001_a.sql"], ["0002_b"], [])
    assert [m.name for m in await schema.up(connection, migrations)] == ["0002_b.sql"]
    await enter(connection, "0007_theirs.sql")
    assert errors(await schema.plan(connection, migrations)) == [("deleted-migration", "0007_theirs")]


async def test_sets_live_beside_each_other(connection: Connection, directory: Path) -> None:
    shop = write(directory, connection, **{"0001_a": A, "0005_b": B})
    other = write(directory.with_name("other"), connection, **{"0003_c": C})
    await schema.up(connection)
    await schema.up(connection, shop)
    await schema.up(connection, other)
    for migrations in (shop, other, schema.library_set(connection.engine)):
        found = await schema.plan(connection, migrations)
        assert (pending(found), errors(found)) == ([], [])
        assert [row.name for row in found.applied] == [m.name for m in migrations.migrations]
    (await schema.status(connection)).require_usable()


async def test_a_name_that_another_set_has_taken_is_an_error(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection, **{"0001_a": A}))
    other = write(directory.with_name("other"), connection, **{"0001_a": B})
    assert errors(await schema.plan(connection, other)) == [("name-taken", "0001_a")]
    with pytest.raises(SchemaError, match="of another set, shop"):
        await schema.up(connection, other, allow=["name-taken"])


async def test_a_directory_may_be_renamed(connection: Connection, directory: Path) -> None:
    await schema.up(connection, write(directory, connection, **{"0001_a": A}))
    renamed = write(directory.with_name("other"), connection, **{"0001_a": A, "0002_b": B})
    found = await schema.plan(connection, renamed)
    assert ([row.name for row in found.applied], pending(found), errors(found)) == (["0001_a.sql"], ["0002_b"], [])


async def test_errors_of_files_cannot_be_allowed_away(connection: Connection, directory: Path) -> None:
    migrations = write(directory, connection, **{"0001_a": "SELECT 'open;\n"})
    with pytest.raises(SchemaError, match=r"0001_a\.sql:1: unreadable"):
        await schema.up(connection, migrations, allow=["unreadable"])
    assert (await schema.status(connection)).empty


async def test_a_look_at_the_ledger_is_two_round_trips(connection: Connection, directory: Path) -> None:
    await schema.up(connection)
    asked: list[str] = []

    class Counting:
        engine = connection.engine
        address = connection.address

        async def fetch(self, sql: str, params: object = ()) -> object:
            asked.append(sql)
            return await connection.fetch(sql)

    reader = Counting()
    await schema.status(reader)  # type: ignore[arg-type]
    assert len(asked) == 2
    await schema.plan(reader, schema.library_set(connection.engine))  # type: ignore[arg-type]
    assert len(asked) == 4


async def test_plans_of_several_tasks_do_not_disturb_each_other(connection: Connection) -> None:
    library = schema.library_set(connection.engine)
    found = await asyncio.gather(*(schema.plan(connection, library) for _ in range(4)))
    assert len({tuple(pending(each)) for each in found}) == 1
