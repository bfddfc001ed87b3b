"""The migration files, applied, give exactly the declared tables; taken back, they leave nothing behind."""

from __future__ import annotations

from dal import schema
from dal.schema import Connection
from dal.tables import TABLES
from tests.schema.introspection import OWN_TABLES, declared, tables


async def take_back(connection: Connection) -> None:
    """Runs every rollback file, the last one first."""
    names = [m.name for m in schema.library_set(connection.engine).migrations]
    assert [m.name for m in await schema.down(connection, steps=len(names))] == names[::-1]


async def test_replayed_migrations_are_the_declared_tables(connection: Connection) -> None:
    await schema.up(connection)
    found = await tables(connection)
    assert set(found) == set(TABLES) | OWN_TABLES[connection.engine]
    for name, table in TABLES.items():
        expected = declared(table, connection.engine)
        actual = found[name]
        if connection.engine == "sqlite" and name == "messages":
            # The number that the full-text index points to; no column of the waist.
            assert actual.columns.pop("doc_id") == ("INTEGER", True)
        assert actual.columns == expected.columns, name
        assert list(actual.columns) == list(expected.columns), f"{name}: the order of columns"
        assert actual.indexes == expected.indexes, name
        assert actual == expected, name


async def test_up_then_down_then_up_gives_the_same_tables(connection: Connection) -> None:
    await schema.up(connection)
    first = await tables(connection)
    await take_back(connection)
    assert await tables(connection) == {}
    applied = await schema.up(connection)
    assert [m.name for m in applied] == [m.name for m in schema.library_set(connection.engine).migrations]
    assert await tables(connection) == first


def test_both_engines_have_the_same_files_each_with_its_way_back() -> None:
    names = [m.name for m in schema.library_set("sqlite").migrations]
    assert names == [m.name for m in schema.library_set("postgresql").migrations]
    assert [m.directives.optional for m in schema.library_set("sqlite").migrations] == [
        m.directives.optional for m in schema.library_set("postgresql").migrations
    ]
    for engine in ("sqlite", "postgresql"):
        directory = schema.schema_directory(engine)
        assert sorted(path.name for path in (directory / "rollback").glob("*.sql")) == names
