"""A command that a message tells to type does what the message says when it is typed, and nothing else."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import psycopg
import pytest

from tests.cli.conftest import Command, run_sql
from tests.cli.schema_files import AUTHORS


def suggested(said: str) -> list[list[str]]:
    """The words of each command in backquotes, without `dal`."""
    return [shlex.split(command)[1:] for command in re.findall(r"`(dal [^`]*)`", said)]


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
@pytest.mark.parametrize("name", ["plain", "with a space", "100%3F", "it's"])
def test_a_store_that_is_not_there_is_made_where_it_was_looked_for(
    run: Command, tmp_path: Path, scheme: str, name: str
) -> None:
    url = f"{scheme}:{name.replace('%', '%25')}"
    refused = run("users", "list", "--url", url)
    assert refused.exit_code == 1
    (command,) = suggested(refused.stderr)
    assert command[:3] == ["schema", "up", "--url"]
    assert run(*command).exit_code == 0
    assert run("users", "list", "--url", url).exit_code == 0
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in tmp_path.iterdir()} == {name}


def test_an_older_database_is_brought_up(run: Command, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'an old one.db'}"
    assert run("schema", "up", "--url", url, "--to", "0002_search.sql").exit_code == 0
    refused = run("users", "list", "--url", url)
    assert "is at 0002_search and lacks" in refused.stderr
    (command,) = suggested(refused.stderr)
    assert run(*command).exit_code == 0
    assert run("users", "list", "--url", url).exit_code == 0


def test_an_older_directory_is_brought_up(run: Command, tmp_path: Path) -> None:
    url = f"file:{tmp_path / 'an old one'}"
    assert run("schema", "up", "--url", url).exit_code == 0
    (tmp_path / "an old one" / "dal.json").write_text('{"layout":1}\n')
    (command,) = suggested(run("users", "list", "--url", url).stderr)
    assert run(*command).exit_code == 0
    assert run("users", "list", "--url", url).exit_code == 0


def test_a_database_of_the_environment_is_brought_up_by_the_environment(
    run: Command, postgres_server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = psycopg.conninfo.conninfo_to_dict(postgres_server_url)
    monkeypatch.setenv("DATA_STORAGE_TYPE", "postgresql")
    for variable, key in (("HOST", "host"), ("PORT", "port"), ("NAME", "dbname"), ("USER", "user")):
        monkeypatch.setenv(f"DB_{variable}", str(found[key]))
    monkeypatch.setenv("DB_PASSWORD", str(found.get("password") or "unused"))
    refused = run("users", "list")
    assert refused.exit_code == 1
    plain, by_url = suggested(refused.stderr)
    assert (plain, by_url) == (["schema", "up"], ["schema", "up", "--url"])
    assert run(*by_url).exit_code == 2, "the URL may hold a password, so it is to be filled in"
    assert run(*plain).exit_code == 0
    assert run("users", "list").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_the_schema_commands_name_the_database_and_the_files_again(run: Command, tmp_path: Path, files: str) -> None:
    url = f"sqlite:{tmp_path / 'a database.db'}"
    missing = run("schema", "verify", "--dir", files, "--url", url)
    (command,) = suggested(missing.stderr)
    assert run(*command, "--to", AUTHORS).exit_code == 0
    pending = run("schema", "status", "--dir", files, "--url", url)
    assert suggested(pending.stderr) == [command]
    assert run(*command).exit_code == 0
    assert run("schema", "status", "--dir", files, "--url", url).exit_code == 0


def test_a_password_is_left_out(run: Command, postgres_server_url: str, files: str) -> None:
    url = f"{postgres_server_url}{'&' if '?' in postgres_server_url else '?'}password=hunter2"
    pending = run("schema", "status", "--dir", files, "--url", url)
    assert pending.exit_code == 1
    assert "hunter2" not in pending.output
    assert pending.stderr.endswith(f"run `dal schema up --dir {files} --url` with the same URL\n")


def test_a_restore_that_is_told_of_names_the_database(run: Command, tmp_path: Path, files: str) -> None:
    url = f"sqlite:{tmp_path / 'a database.db'}"
    assert run("schema", "up", "--dir", files, "--url", url).exit_code == 0
    run_sql(url, "INSERT INTO authors (id, name) VALUES (1, 'Ada'), (2, 'Ada')")
    (Path(files) / "0004_names.sql").write_text("CREATE UNIQUE INDEX idx_authors_name ON authors (name);\n")
    failed = run("schema", "up", "--dir", files, "--url", url, "--backup")
    assert failed.exit_code == 1
    (restore,) = [command for command in suggested(failed.stderr) if command[1] == "restore"]
    run_sql(url, "DELETE FROM authors")
    assert run(*restore, "--yes").exit_code == 0
