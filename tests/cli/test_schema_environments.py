"""`--env` and `status --all`: the databases that dal.toml names, and what each of them demands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command, document
from tests.cli.schema_files import AUTHORS, BOOKS, FILES, SEED
from tests.engines.postgres import PostgresServer

PROJECT = """
[schema]
directory = "migrations"
backups = "kept"

[environments.dev]
url = "sqlite:dev.db"
seed = true

[environments.staging]
url = "$STAGING_URL"

[environments.prod]
url = "$PROD_URL"
database = "shop-*"
require_backup = true
after = "staging"
"""


@pytest.fixture
def project(files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its files, and databases on SQLite; those of staging and prod are named by variables."""
    (tmp_path / "dal.toml").write_text(PROJECT)
    monkeypatch.setenv("STAGING_URL", f"sqlite:{tmp_path / 'staging.db'}")
    monkeypatch.setenv("PROD_URL", f"sqlite:{tmp_path / 'shop-prod.db'}")
    return tmp_path


def test_an_environment_names_database_migrations_and_seeds(run: Command, project: Path) -> None:
    found = document(run("schema", "up", "--env", "dev", "--json"))
    assert (found["environment"], found["set"]) == ("dev", "migrations")
    assert [one["name"] for one in found["applied"]] == [AUTHORS, BOOKS, SEED]
    assert (project / "dev.db").is_file()
    staging = document(run("schema", "up", "--env", "staging", "--json"))
    assert [one["name"] for one in staging["applied"]] == [AUTHORS, BOOKS]


def test_every_command_takes_the_environment(run: Command, project: Path) -> None:
    for command in (
        ["up"],
        ["status"],
        ["plan"],
        ["validate"],
        ["lint"],
        ["verify"],
        ["drift"],
        ["explain"],
        ["backup"],
    ):
        result = run("schema", *command, "--env", "dev")
        assert result.exit_code == 0, (command, result.output)
    assert (project / "kept").is_dir()
    assert run("schema", "down", "--env", "dev", "--yes").exit_code == 0
    assert "run `dal schema up --env dev`" in run("schema", "status", "--env", "dev").stderr
    assert run("schema", "baseline", "--env", "dev", "--to", SEED).exit_code == 0
    (kept,) = (project / "kept").glob("*.db")
    assert run("schema", "restore", str(kept), "--env", "dev", "--yes").exit_code == 0
    assert run("schema", "new", "more", "--env", "dev").exit_code == 0
    assert (project / "migrations" / "0004_more.sql").is_file()


def test_what_needs_no_database_finds_the_projects_directory_by_itself(run: Command, project: Path) -> None:
    assert run("schema", "new", "more").stdout.startswith("migrations/0004_more.sql\n")
    assert document(run("schema", "lint", "--place", "sqlite", "--json"))["sets"][0]["files"] == 4


def test_a_url_never_gets_the_projects_migrations_unasked(run: Command, project: Path) -> None:
    assert document(run("schema", "up", "--url", "sqlite:other.db", "--json"))["set"] == "dal"


def test_an_environment_that_comes_after_another_waits_for_it(run: Command, project: Path) -> None:
    early = run("schema", "up", "--env", "prod")
    assert early.exit_code == 1
    assert "order failed: prod comes after staging" in early.stderr
    assert run("schema", "up", "--env", "staging").exit_code == 0
    found = document(run("schema", "up", "--env", "prod", "--json"))
    assert Path(found["backup"]).parent == project / "kept"
    # A way back destroys as well: what demands a backup before `up` gets one before `down`.
    back = document(run("schema", "down", "--env", "prod", "--yes", "--json"))
    assert Path(back["backup"]).is_file()
    assert Path(back["backup"]) != Path(found["backup"])


def test_a_wrongly_bound_environment_is_not_touched(
    run: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROD_URL", f"sqlite:{project / 'dev.db'}")
    assert run("schema", "up", "--env", "dev").exit_code == 0
    for command in (["up"], ["status"], ["plan"], ["down", "--yes"], ["verify"], ["backup"]):
        result = run("schema", *command, "--env", "prod")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "wrongly bound" in result.stderr
        assert "'shop-*'" in result.stderr
    assert run("schema", "status", "--env", "dev").exit_code == 0
    monkeypatch.setenv("PROD_URL", f"sqlite:{project / 'typo.db'}")
    assert "wrongly bound" in run("schema", "up", "--env", "prod").stderr
    assert not (project / "typo.db").exists()


def test_a_name_that_is_not_known_lists_those_that_are(run: Command, project: Path) -> None:
    for command in ("up", "lint", "new x"):
        result = run("schema", *command.split(), "--env", "prodd")
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert "dev, staging, prod" in result.stderr


def test_a_variable_that_is_not_set_is_named(run: Command, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAGING_URL")
    result = run("schema", "up", "--env", "staging")
    assert result.exit_code == 2
    assert "STAGING_URL is not set" in result.stderr


def test_a_database_is_named_once(run: Command, project: Path) -> None:
    for command in ("up", "status", "lint", "new x", "backup"):
        result = run("schema", *command.split(), "--env", "dev", "--url", "sqlite:dev.db")
        assert result.exit_code == 2
        assert "--url and --env" in result.stderr


def test_all_environments_stand_in_one_table(
    run: Command, project: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    assert run("schema", "up", "--env", "dev").exit_code == 0
    monkeypatch.setenv("STAGING_URL", postgres_server.create_database())
    monkeypatch.setenv("PROD_URL", "postgresql://me:hunter2@127.0.0.1:1/shop-prod")
    result = run("schema", "status", "--all")
    assert result.exit_code == 1
    states = {line.split()[0]: line for line in result.stdout.splitlines() if line.split()[:1]}
    assert "up-to-date" in states["dev"]
    assert "pending" in states["staging"]
    assert "unreachable" in states["prod"]
    assert "dal: prod: " in result.stderr
    assert "run `dal schema up --env staging`" in result.stderr
    assert "hunter2" not in result.output
    assert run("schema", "up", "--env", "staging").exit_code == 0
    found = document(run("schema", "status", "--all", "--json"), code=1)
    assert [one["state"] for one in found["environments"]] == ["up-to-date", "up-to-date", "unreachable"]
    assert set(found["environments"][0]) == {
        *("environment", "address", "database", "state", "applied", "last", "pending", "findings", "problem"),
    }


def test_all_environments_name_the_wrongly_bound_the_unset_and_the_wrong(
    run: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("schema", "up", "--env", "dev").exit_code == 0
    monkeypatch.setenv("PROD_URL", f"sqlite:{project / 'dev.db'}")
    monkeypatch.delenv("STAGING_URL")
    (project / "migrations" / AUTHORS).write_text(FILES[AUTHORS] + "-- edited\n")
    found = document(run("schema", "status", "--all", "--json"), code=1)
    states = {one["environment"]: (one["state"], one["problem"]) for one in found["environments"]}
    assert states["dev"][0] == "wrong"
    assert "edited-migration" in states["dev"][1]
    assert states["staging"][0] == "unknown"
    assert "STAGING_URL" in states["staging"][1]
    assert states["prod"][0] == "wrongly-bound"


def test_all_is_fine_when_every_environment_is(run: Command, project: Path) -> None:
    for name in ("dev", "staging", "prod"):
        assert run("schema", "up", "--env", name).exit_code == 0
    assert run("schema", "status", "--all").exit_code == 0


def test_all_without_a_project_is_wrong_usage(run: Command) -> None:
    result = run("schema", "status", "--all")
    assert result.exit_code == 2
    assert "dal.toml" in result.stderr
    assert run("schema", "status", "--all", "--env", "dev").exit_code == 2
