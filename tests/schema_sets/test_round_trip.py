"""Every set goes up, is what its documents promise, goes down to nothing, and comes up again the same."""

from __future__ import annotations

import pytest

from dal.factory import schema_connection
from dal.schema import Connection, MigrationSet, down, plan, read_set, up
from dal.schema.checking.explain import explain
from dal.schema.checking.validate import validate
from dal.schema.checking.verify import drift, verify
from dal.schema.inspection.compare import differences
from dal.schema.inspection.objects import snapshot
from tests.schema_sets.conftest import MakeUrl
from tests.schema_sets.sets import NOTHING, PLACES, SchemaSet, ledger, names_in


@pytest.mark.parametrize(("schema_set", "place"), PLACES)
async def test_a_set_goes_up_and_down_and_up_again(schema_set: SchemaSet, place: str, new_url: MakeUrl) -> None:
    url = new_url(schema_set, on=place)
    migrations = read_set(schema_set.directory, schema_set.engine)
    async with schema_connection(url, create=True) as connection:
        applied = await up(connection, migrations, seed=True)
        assert [migrated.name for migrated in applied] == schema_set.files
        assert ledger(url) == schema_set.files
        assert names_in(url) == schema_set.names()
        await _assert_as_promised(connection, migrations)
        first = await snapshot(connection)

        taken_back = await down(connection, migrations, steps=len(schema_set.files))
        assert [migrated.name for migrated in taken_back] == schema_set.files[::-1]
        assert ledger(url) == []
        assert names_in(url) == NOTHING

        assert [migrated.name for migrated in await up(connection, migrations, seed=True)] == schema_set.files
        assert names_in(url) == schema_set.names()
        assert differences(first, await snapshot(connection), column_order=True) == []
        await _assert_as_promised(connection, migrations)
        assert await up(connection, migrations, seed=True) == [], "there is nothing left to do"
        assert (await plan(connection, migrations, seed=True)).pending == ()


@pytest.mark.parametrize(("schema_set", "place"), PLACES)
async def test_each_step_down_leaves_what_the_files_before_it_gave(
    schema_set: SchemaSet, place: str, new_url: MakeUrl
) -> None:
    migrations = read_set(schema_set.directory, schema_set.engine)
    url = new_url(schema_set, on=place)
    async with schema_connection(url, create=True) as connection:
        before = []
        for name in schema_set.files:
            before.append(names_in(url))
            assert [m.name for m in await up(connection, migrations, to=name, seed=True)] == [name]
        for name, names in zip(schema_set.files[::-1], before[::-1], strict=True):
            assert [m.name for m in await down(connection, migrations)] == [name]
            assert names_in(url) == names


@pytest.mark.parametrize(("schema_set", "place"), PLACES)
async def test_a_set_is_valid_and_every_file_of_it_is_taken_back_exactly(
    schema_set: SchemaSet, place: str, new_url: MakeUrl
) -> None:
    url = new_url(schema_set, on=place)
    async with schema_connection(url, create=True) as connection:
        report = await validate(connection, read_set(schema_set.directory, schema_set.engine))
    assert report.ok, report
    assert names_in(url) == NOTHING, "all of it was elsewhere"


async def _assert_as_promised(connection: Connection, migrations: MigrationSet) -> None:
    """The documents' numbers, the plans of the key queries, and nothing that nobody declared."""
    report = await verify(connection, migrations)
    assert report.ok, report
    script = (migrations.directory / "checks" / "verify.sql").read_text()
    assert len(report.checks) == script.count("\n-- expect: ") > 8
    explained = await explain(connection, migrations.directory)
    assert [(e.query.sql, e.problems) for e in explained if not e.ok] == []
    assert len(explained) >= 4
    assert await drift(connection, migrations) == []
