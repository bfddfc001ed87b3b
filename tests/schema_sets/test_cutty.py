"""Two files with one number, in whichever order is declared; and a file that has nothing to do where others were."""

from __future__ import annotations

from pathlib import Path

import pytest

from dal.factory import schema_connection
from dal.schema import plan, read_set, up
from dal.schema.checking.verify import verify
from tests.schema_sets.conftest import MakeUrl
from tests.schema_sets.sets import CUTTY, ledger, names_in, rows

METRICS, ACCESS = "0003_storage_metrics.sql", "0003_access_control_schema.sql"
STORAGE = "0005_r2_storage_tables.sql"


@pytest.fixture(params=["sqlite", "d1"])
def url(request: pytest.FixtureRequest, new_url: MakeUrl) -> str:
    """The address of an empty database."""
    return new_url(CUTTY, on=request.param)


def declare(directory: Path, name: str, *required: str) -> None:
    """Makes the header of a file name the files that come before it; none for no files."""
    path = directory / name
    lines = [line for line in path.read_text().splitlines() if not line.startswith("-- dal:requires")]
    header = [f"-- dal:requires {' '.join(required)}"] if required else []
    path.write_text("\n".join([*header, *lines, ""]))


@pytest.mark.parametrize(
    ("first", "second"), [(METRICS, ACCESS), (ACCESS, METRICS)], ids=["as documented", "the other way round"]
)
async def test_two_files_of_one_number_are_applied_once_each_in_the_declared_order(
    first: str, second: str, tmp_path: Path, url: str
) -> None:
    directory = CUTTY.copy(tmp_path)
    declare(directory, first)
    declare(directory, second, first)
    migrations = read_set(directory, "sqlite")
    assert [finding.rule for finding in migrations.findings if finding.severity == "error"] == []
    assert "duplicate-number" in {finding.rule for finding in migrations.findings}
    async with schema_connection(url, create=True) as connection:
        applied = [migrated.name for migrated in await up(connection, migrations)]
        assert await up(connection, migrations) == []
    assert applied == ledger(url)
    assert [name for name in applied if name.startswith("0003")] == [first, second]
    assert names_in(url) == CUTTY.names()


async def test_without_a_declaration_the_order_is_that_of_the_names(tmp_path: Path, url: str) -> None:
    directory = CUTTY.copy(tmp_path)
    declare(directory, ACCESS)
    async with schema_connection(url, create=True) as connection:
        await up(connection, read_set(directory, "sqlite"))
    assert ledger(url)[2:4] == [ACCESS, METRICS]


async def test_files_that_require_each_other_are_refused_and_the_circle_is_named(tmp_path: Path) -> None:
    directory = CUTTY.copy(tmp_path)
    declare(directory, ACCESS, METRICS)
    declare(directory, METRICS, ACCESS)
    (finding,) = (f for f in read_set(directory, "sqlite").findings if f.severity == "error")
    assert finding.rule == "requires-cycle"
    assert METRICS in finding.message
    assert ACCESS in finding.message


async def test_the_storage_tables_stay_as_they_are_where_they_were_made_before(url: str) -> None:
    migrations = read_set(CUTTY.directory, "sqlite")
    async with schema_connection(url, create=True) as connection:
        await up(connection, migrations, to="0004_alerting_system.sql")
        await connection.run([("INSERT INTO users (id, email) VALUES ('u', 'u@example.com')", ())])
        await connection.run(
            [("INSERT INTO files (id, user_id, filename, r2_key, mime_type, file_size) "
              "VALUES ('f', 'u', 'a.txt', 'k', 'text/plain', 1)", ())]
        )  # fmt: skip
        before, made = names_in(url), _statements(url)
        assert [migrated.name for migrated in await up(connection, migrations)] == [STORAGE]
        assert (await verify(connection, migrations)).ok
    after = names_in(url)
    assert after.tables == before.tables
    assert sorted(set(after.indexes) - set(before.indexes)) == [
        "idx_file_access_logs_action",
        "idx_files_mime_type",
        "idx_multipart_uploads_file",
    ]
    assert made.items() <= _statements(url).items(), "no table was made anew"
    assert rows(url, "SELECT id, storage_class FROM files") == [("f", "STANDARD")]


async def test_the_storage_tables_are_made_where_only_the_users_are(tmp_path: Path, url: str) -> None:
    """As #64 found the database: everything else had been made by hand, or not at all."""
    directory = tmp_path / "storage"
    directory.mkdir()
    (directory / STORAGE).write_text((CUTTY.directory / STORAGE).read_text())
    async with schema_connection(url, create=True) as connection:
        await connection.run([("CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT)", ())])
        migrations = read_set(directory, "sqlite")
        assert [m.name for m in (await plan(connection, migrations)).pending] == [STORAGE]
        assert [m.name for m in await up(connection, migrations)] == [STORAGE]
    found = names_in(url)
    assert set(found.tables) == {"users", "files", "multipart_uploads", "file_access_logs"}
    assert found.tables["multipart_uploads"] == CUTTY.names().tables["multipart_uploads"]
    assert found.tables["file_access_logs"] == CUTTY.names().tables["file_access_logs"]


def _statements(url: str) -> dict[str, str]:
    return dict(rows(url, "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'dal%'"))
