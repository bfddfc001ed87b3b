"""Taking one optional file back from among others, as `dal search drop` does with the library's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from dal.errors import SchemaError
from dal.schema import Connection, down, plan, up
from dal.schema.files import MigrationSet
from tests.schema.written import write_set

FILES = {
    "0001_core.sql": "CREATE TABLE core (a INTEGER);\n",
    "0002_extra.sql": "-- dal:optional\nCREATE TABLE extra (a INTEGER);\n",
    "0003_more.sql": "CREATE TABLE more (a INTEGER);\n",
    **{f"rollback/{number}.sql": f"DROP TABLE {number[5:]};\n" for number in ("0001_core", "0002_extra", "0003_more")},
}


async def applied(connection: Connection, migrations: MigrationSet) -> list[str]:
    return [row.name for row in (await plan(connection, migrations)).applied]


async def test_one_optional_file_is_taken_back_and_the_later_ones_stay(connection: Connection, tmp_path: Path) -> None:
    migrations = write_set(tmp_path / "set", connection.engine, FILES)
    await up(connection, migrations)
    assert [done.name for done in await down(connection, migrations, only="0002_extra.sql")] == ["0002_extra.sql"]
    assert await applied(connection, migrations) == ["0001_core.sql", "0003_more.sql"]
    assert await down(connection, migrations, only="0002_extra.sql") == []
    await up(connection, migrations)
    assert await applied(connection, migrations) == ["0001_core.sql", "0003_more.sql", "0002_extra.sql"]


@pytest.mark.parametrize("name", ["0001_core.sql", "0003_more.sql", "0009_none.sql"])
async def test_no_other_file_is_taken_back_alone(connection: Connection, tmp_path: Path, name: str) -> None:
    migrations = write_set(tmp_path / "set", connection.engine, FILES)
    await up(connection, migrations)
    with pytest.raises(SchemaError, match="not optional"):
        await down(connection, migrations, only=name)
    assert len(await applied(connection, migrations)) == 3


async def test_what_an_applied_file_requires_stays(connection: Connection, tmp_path: Path) -> None:
    files = {**FILES, "0003_more.sql": f"-- dal:requires 0002_extra.sql\n{FILES['0003_more.sql']}"}
    migrations = write_set(tmp_path / "set", connection.engine, files)
    await up(connection, migrations)
    with pytest.raises(SchemaError, match=r"0003_more.sql requires it"):
        await down(connection, migrations, only="0002_extra.sql")
    await down(connection, migrations)
    assert len(await down(connection, migrations, only="0002_extra.sql")) == 1
