"""The migration files, applied, give exactly the declared tables; taken back, they leave nothing behind."""

from __future__ import annotations

from dal import schema
from dal.schema import Connection
from dal.schema.inspection.compare import differences
from dal.schema.inspection.objects import snapshot
from dal.tables import TABLES
from tests.schema.declared import OWN_OBJECTS, declared


async def test_replayed_migrations_are_the_declared_tables(connection: Connection) -> None:
    await schema.up(connection)
    found = await snapshot(connection)
    expected = declared(connection.engine, found)
    unlike = differences(expected, found, column_order=True)
    assert [str(difference) for difference in unlike] == OWN_OBJECTS[connection.engine]


async def test_up_then_down_then_up_gives_the_same_objects(connection: Connection) -> None:
    await schema.up(connection)
    first = await snapshot(connection)
    names = [m.name for m in schema.library_set(connection.engine).migrations]
    assert [m.name for m in await schema.down(connection, steps=len(names))] == names[::-1]
    assert (await snapshot(connection)).empty
    assert [m.name for m in await schema.up(connection)] == names
    assert await snapshot(connection) == first


def test_every_table_is_on_the_page_of_tables() -> None:
    page = (schema.schema_directory("sqlite").parents[1] / "docs/reference/tables.md").read_text()
    for name, table in TABLES.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert (row.split("|")[3].strip() == "") == (not any(p.on_delete == "cascade" for p in table.parents)), name


def test_both_engines_have_the_same_files_each_with_its_way_back() -> None:
    names = [m.name for m in schema.library_set("sqlite").migrations]
    assert names == [m.name for m in schema.library_set("postgresql").migrations]
    assert [m.directives.optional for m in schema.library_set("sqlite").migrations] == [
        m.directives.optional for m in schema.library_set("postgresql").migrations
    ]
    for engine in ("sqlite", "postgresql"):
        directory = schema.schema_directory(engine)
        assert sorted(path.name for path in (directory / "rollback").glob("*.sql")) == names
