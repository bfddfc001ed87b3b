"""`dal schema backup` and `dal schema restore`, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dal.factory import schema_connection
from tests.cli.conftest import Command, document, run_sql
from tests.cli.schema_files import AUTHORS, BOOKS
from tests.schema.written import write_past_index


def count(url: str) -> int:
    async def work() -> object:
        async with schema_connection(url) as connection:
            return (await connection.fetch("SELECT count(*) FROM authors"))[0][0]

    found = asyncio.run(work())
    assert isinstance(found, int)
    return found


@pytest.fixture
def filled(run: Command, files: str, database: str) -> str:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    run_sql(database, "INSERT INTO authors (id, name) VALUES (1, 'Ada'), (2, 'Yuki')")
    return database


def backup(run: Command, url: str) -> str:
    result = run("schema", "backup", "--url", url)
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    return line


def test_a_backup_brings_back_what_was_there(run: Command, filled: str, files: str) -> None:
    path = backup(run, filled)
    assert Path(path).parent == Path("backups")
    run_sql(filled, "DELETE FROM authors WHERE id = 1")
    assert run("schema", "down", "--dir", files, "--url", filled, "--to", AUTHORS, "--yes").exit_code == 0
    result = run("schema", "restore", path, "--url", filled, "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "are what they were" in result.stderr
    assert "what was there is kept in backups/" in result.stderr
    assert count(filled) == 2
    assert run("schema", "status", "--dir", files, "--url", filled).exit_code == 0


def test_a_database_that_was_lost_is_made_again(run: Command, files: str, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'database.db'}"
    assert run("schema", "up", "--dir", files, "--url", url).exit_code == 0
    path = backup(run, url)
    (tmp_path / "database.db").unlink()
    typo = run("schema", "restore", path, "--url", f"sqlite:{tmp_path / 'databse.db'}", "--yes")
    assert typo.exit_code == 1
    assert not (tmp_path / "databse.db").exists()
    assert run("schema", "restore", path, "--url", url, "--yes").exit_code == 0
    assert run("schema", "status", "--dir", files, "--url", url).exit_code == 0


def test_both_as_json(run: Command, filled: str, tmp_path: Path) -> None:
    made = document(run("schema", "backup", "--url", filled, "--into", "elsewhere", "--json"))
    assert Path(made["path"]).resolve().parent == tmp_path / "elsewhere"
    assert {"path", "created_at", "database", "sha256", "size_bytes", "tables", "ledger"} <= set(made)
    assert made["tables"]["authors"]["rows"] == 2
    back = document(run("schema", "restore", made["path"], "--url", filled, "--yes", "--json"))
    assert set(back) == {"address", "environment", "restored", "kept", "tables", "differences", "findings", "pending"}
    assert back["differences"] == []
    assert back["tables"]["authors"] == {"rows": 2}
    assert Path(back["kept"]).is_file()
    alone = document(run("schema", "restore", made["path"], "--url", filled, "--yes", "--no-keep", "--json"))
    assert alone["kept"] is None


def test_restore_asks_nobody_off_a_terminal(run: Command, filled: str) -> None:
    path = backup(run, filled)
    run_sql(filled, "DELETE FROM authors")
    assert run("schema", "restore", path, "--url", filled).exit_code == 0
    assert count(filled) > 0


def test_backup_and_restore_say_what_their_state_lacks(run: Command, filled: str, files: str) -> None:
    made = document(run("schema", "backup", "--url", filled, "--dir", files, "--json"))
    assert made["pending"] == []
    assert run("schema", "down", "--dir", files, "--url", filled).exit_code == 0
    lacking = document(run("schema", "backup", "--url", filled, "--dir", files, "--json"))
    assert lacking["pending"] == [BOOKS]
    back = document(run("schema", "restore", lacking["path"], "--url", filled, "--dir", files, "--json"))
    assert back["pending"] == [BOOKS]
    assert document(run("schema", "restore", made["path"], "--url", filled, "--json"))["pending"] == []


def test_a_damaged_or_unfinished_backup_is_refused(run: Command, filled: str) -> None:
    path = Path(backup(run, filled))
    run_sql(filled, "DELETE FROM authors")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    damaged = run("schema", "restore", str(path), "--url", filled, "--yes")
    assert damaged.exit_code == 1
    assert "nothing was restored" in damaged.stderr
    path.with_suffix(".manifest.json").unlink()
    unfinished = run("schema", "restore", str(path), "--url", filled, "--yes")
    assert unfinished.exit_code == 1
    assert "not finished" in unfinished.stderr
    missing = run("schema", "restore", "no-such-file", "--url", filled, "--yes")
    assert missing.exit_code == 1
    assert "no-such-file" in missing.stderr
    assert count(filled) == 0


def test_a_backup_of_another_database_needs_to_be_meant(
    run: Command, filled: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = backup(run, filled)
    if filled.startswith("sqlite:"):
        other = f"sqlite:{tmp_path / 'other.db'}"
    else:
        other = request.getfixturevalue("postgres_server").create_database()
    refused = run("schema", "restore", path, "--url", other, "--yes")
    assert refused.exit_code == 1
    assert "backup of database" in refused.stderr
    assert run("schema", "restore", path, "--url", other, "--yes", "--other-database").exit_code == 0
    assert count(other) == 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_broken_index_is_told_by_verify_backup_and_restore(
    run: Command, filled: str, files: str, tmp_path: Path
) -> None:
    path = tmp_path / "database.db"
    write_past_index(path, "idx_books_author_id", "INSERT INTO books VALUES (1, 1, 'Notes')")
    verified = run("schema", "verify", "--dir", files, "--url", filled)
    assert verified.exit_code == 1
    assert "error: broken-index: integrity_check: row 1 missing from index idx_books_author_id" in verified.stdout
    kept = run("schema", "backup", "--url", filled)
    assert kept.exit_code == 0, "the rows are whole, and a backup is the more wanted"
    assert "broken-index" in kept.stderr
    assert "REINDEX" in kept.stderr
    restored = run("schema", "restore", kept.stdout.strip(), "--url", filled, "--yes")
    assert restored.exit_code == 1
    assert "broken-index" in restored.stderr
    assert "are what they were" in restored.stderr
    run_sql(filled, "REINDEX")
    assert run("schema", "verify", "--dir", files, "--url", filled).exit_code == 0
