"""Databases that wrangler and we migrate by turns: each knows what the other has done.

Both keep wrangler's own ledger. wrangler's file is a plain SQLite database while wrangler is not running.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from dal.factory import create_data_access, schema_connection
from dal.schema import baseline, down, library_set, plan, read_set, schema_directory, status, up
from dal.schema.checking.verify import verify
from dal.schema.inspection.objects import snapshot
from tests.engines import honesty
from tests.engines.postgres import EngineMissingError
from tests.engines.wrangler import Wrangler
from tests.schema_sets.commands import Project
from tests.schema_sets.sets import CUTTY, PATTERNS, SchemaSet, ledger, names_in

ON_D1 = pytest.mark.parametrize("schema_set", [CUTTY, PATTERNS], ids=lambda s: s.name)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[SchemaSet], Wrangler]:
    """A project for each set, whose database wrangler has brought up; made once, because that takes it seconds."""

    @cache
    def template(schema_set: SchemaSet) -> Wrangler:
        project = _project(tmp_path_factory.mktemp("wrangler"), schema_set.directory)
        project.apply()
        return project

    return template


@pytest.fixture
def applied(schema_set: SchemaSet, templates: Callable[[SchemaSet], Wrangler], tmp_path: Path) -> Wrangler:
    """A project whose database wrangler has brought up."""
    return templates(schema_set).copy(tmp_path / "project")


@pytest.fixture
def empty(schema_set: SchemaSet, tmp_path: Path) -> Wrangler:
    """A project whose database is there and empty."""
    project = _project(tmp_path, schema_set.directory)
    project.execute("SELECT 1")
    return project


def _project(directory: Path, migrations: Path) -> Wrangler:
    """Skips the test where there is no wrangler, and says so."""
    try:
        return Wrangler(directory / "project", migrations)
    except EngineMissingError as error:
        honesty.not_tested("wrangler", str(error))


def _url(project: Wrangler) -> str:
    return f"sqlite://{project.database}"


def _first(schema_set: SchemaSet, count: int, to: Path) -> Path:
    """A directory with the first files of a set only, under the set's name."""
    directory = schema_set.copy(to)
    for name in schema_set.files[count:]:
        (directory / name).unlink()
        (directory / "rollback" / name).unlink()
    return directory


@ON_D1
async def test_what_wrangler_has_applied_is_recognised_and_nothing_is_left_to_do(
    schema_set: SchemaSet, applied: Wrangler, tmp_path: Path
) -> None:
    url, ours = _url(applied), f"sqlite://{tmp_path / 'ours.db'}"
    assert sorted(ledger(url)) == sorted(schema_set.files)
    migrations = read_set(schema_set.directory, "sqlite")
    async with schema_connection(url) as theirs, schema_connection(ours, create=True) as connection:
        found = await plan(theirs, migrations, seed=True)
        assert sorted(row.name for row in found.applied) == sorted(schema_set.files)
        assert found.pending == ()
        assert [finding for finding in found.findings if finding.severity == "error"] == []
        assert await up(theirs, migrations, seed=True) == []
        assert (await verify(theirs, migrations)).ok
        await up(connection, migrations, seed=True)
        assert await snapshot(theirs) == await snapshot(connection), "by either way it is the same"
    assert names_in(url) == schema_set.names()


@ON_D1
def test_the_commands_find_nothing_to_do_either(schema_set: SchemaSet, applied: Wrangler, tmp_path: Path) -> None:
    commands = Project(tmp_path, schema_set, _url(applied))
    found = commands.ask("status")
    assert sorted(row["name"] for row in found["applied"]) == sorted(schema_set.files)
    assert found["pending"] == []
    assert commands.ask("up")["applied"] == []
    assert commands.ask("verify")["ok"]
    assert commands.ask("drift")["differences"] == []


@ON_D1
async def test_what_we_have_applied_is_recognised_by_wrangler(schema_set: SchemaSet, empty: Wrangler) -> None:
    url = _url(empty)
    async with schema_connection(url) as connection:
        done = await up(connection, read_set(schema_set.directory, "sqlite"), seed=True)
    assert [migrated.name for migrated in done] == schema_set.files
    assert empty.pending() == []
    assert "No migrations to apply" in empty.apply()
    assert ledger(url) == schema_set.files


@ON_D1
async def test_wrangler_begins_and_we_go_on(schema_set: SchemaSet, empty: Wrangler, tmp_path: Path) -> None:
    empty.use(_first(schema_set, 3, tmp_path))
    empty.apply()
    migrations = read_set(schema_set.directory, "sqlite")
    url = _url(empty)
    async with schema_connection(url) as connection:
        done = [migrated.name for migrated in await up(connection, migrations, seed=True)]
        assert done == schema_set.files[3:]
        assert (await verify(connection, migrations)).ok
    empty.use(schema_set.directory)
    assert empty.pending() == []
    assert names_in(url) == schema_set.names()


@ON_D1
async def test_we_begin_and_wrangler_goes_on(schema_set: SchemaSet, empty: Wrangler) -> None:
    url = _url(empty)
    migrations = read_set(schema_set.directory, "sqlite")
    async with schema_connection(url) as connection:
        await up(connection, migrations, to=schema_set.files[2])
    assert sorted(empty.pending()) == sorted(schema_set.files[3:])
    empty.apply()
    async with schema_connection(url) as connection:
        assert (await plan(connection, migrations, seed=True)).pending == ()
        assert (await verify(connection, migrations)).ok
    assert ledger(url)[:3] == schema_set.files[:3]
    assert names_in(url) == schema_set.names()


@ON_D1
async def test_what_wrangler_has_applied_can_be_entered_and_then_taken_back(
    schema_set: SchemaSet, applied: Wrangler
) -> None:
    url = _url(applied)
    migrations = read_set(schema_set.directory, "sqlite")
    async with schema_connection(url) as connection:
        assert await baseline(connection, migrations, to=schema_set.files[-1], seed=True) == schema_set.files
        assert await baseline(connection, migrations, to=schema_set.files[-1], seed=True) == []
        assert sorted(ledger(url)) == sorted(schema_set.files)
        await down(connection, migrations, steps=2)
    assert sorted(applied.pending()) == sorted(schema_set.files[-2:])
    applied.apply()
    assert names_in(url) == schema_set.names()


@pytest.mark.parametrize("schema_set", [CUTTY], ids=lambda s: s.name)
async def test_a_file_that_wrangler_applied_and_somebody_edits_is_noticed_once_it_is_entered(
    schema_set: SchemaSet, applied: Wrangler, tmp_path: Path
) -> None:
    """wrangler keeps no checksum: what the files said is known from the day they were entered."""
    directory = schema_set.copy(tmp_path)
    async with schema_connection(_url(applied)) as connection:
        await baseline(connection, read_set(directory, "sqlite"), to=schema_set.files[2])
        for name in (schema_set.files[1], schema_set.files[4]):
            with (directory / name).open("a") as file:
                file.write("-- changed\n")
        found = await plan(connection, read_set(directory, "sqlite"))
    assert [f.file for f in found.findings if f.rule == "edited-migration"] == [schema_set.files[1]]


@ON_D1
async def test_wrangler_gives_the_documents_numbers_too(schema_set: SchemaSet, applied: Wrangler) -> None:
    """The same script, read by another tool: nothing in it is only ours."""
    script = schema_set.directory / "checks" / "verify.sql"
    wanted = re.findall(r"^-- expect: (.*)$", script.read_text(), re.MULTILINE)
    assert [str(value) for value in applied.values(script)] == wanted


async def test_the_librarys_own_files_may_be_applied_by_wrangler(tmp_path: Path) -> None:
    project = _project(tmp_path, schema_directory("sqlite").resolve())
    project.apply()
    url = _url(project)
    async with schema_connection(url) as connection:
        found = await status(connection)
        assert (found.pending, found.newer) == ((), ())
        assert (await verify(connection, library_set("sqlite"))).ok
    async with create_data_access(url, auto_migrate=False) as dal:
        await dal.chats.create("c1")
        await dal.messages.add("c1", "user", "found again")
        assert [hit.message.content for hit in (await dal.messages.search("again")).items] == ["found again"]
    assert project.pending() == []
