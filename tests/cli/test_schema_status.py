"""`dal schema status`, `plan`, `lint`, `validate` and `new`: what looks at files and databases and changes none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command, document
from tests.cli.schema_files import AUTHORS, BOOKS, FILES, SEED, broken, write_files

FINDING_KEYS = {"rule", "severity", "file", "line", "message", "advice"}
DROP = {"0004_drop.sql": "\nDROP TABLE authors;\n", "rollback/0004_drop.sql": "SELECT 1;\n"}


def test_status_says_what_is_applied_what_is_pending_and_what_to_run(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS).exit_code == 0
    result = run("schema", "status", "--dir", files, "--url", database)
    assert result.exit_code == 1
    states = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if ".sql" in line}
    assert states == {AUTHORS: "applied", BOOKS: "pending", SEED: "left"}
    assert result.stderr == f"dal: run `dal schema up --dir {files} --url {database}`\n"
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    done = run("schema", "status", "--dir", files, "--url", database)
    assert (done.exit_code, done.stderr) == (0, "")


def test_status_as_json(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS).exit_code == 0
    found = document(run("schema", "status", "--dir", files, "--url", database, "--json"), code=1)
    assert set(found) == {
        *("address", "environment", "set", "usable", "applied", "pending", "required", "left_out", "findings"),
    }
    assert set(found["applied"][0]) == {"name", "applied_at", "duration_ms", "checksum", "backup"}
    assert (found["usable"], found["pending"], found["required"]) == (False, [BOOKS], [BOOKS])


def test_a_finding_makes_status_fail(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    (Path(files) / AUTHORS).write_text("SELECT 1;\n")
    result = run("schema", "status", "--dir", files, "--url", database)
    assert result.exit_code == 1
    assert f"migrations/{AUTHORS}: error: edited-migration: " in result.stdout
    found = document(run("schema", "status", "--dir", files, "--url", database, "--json"), code=1)
    assert [set(one) for one in found["findings"]] == [FINDING_KEYS]
    assert found["findings"][0]["rule"] == "edited-migration"


def test_plan_shows_what_up_would_do_and_does_nothing(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS).exit_code == 0
    for _ in range(2):
        result = run("schema", "plan", "--dir", files, "--url", database)
        assert result.exit_code == 1
        assert BOOKS in result.stdout
        assert AUTHORS not in result.stdout
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    done = run("schema", "plan", "--dir", files, "--url", database)
    assert done.exit_code == 0
    assert "up to date" in done.stderr


def test_plan_prints_the_statements_with_their_lines(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS).exit_code == 0
    result = run("schema", "plan", "--dir", files, "--url", database, "--sql")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"-- migrations/{BOOKS}:2\nCREATE TABLE books (\n")
    assert f"-- migrations/{BOOKS}:7\nCREATE INDEX idx_books_author_id ON books (author_id);\n" in result.stdout
    found = document(run("schema", "plan", "--dir", files, "--url", database, "--sql", "--json"), code=1)
    assert set(found) == {"address", "environment", "set", "applied", "pending", "left_out", "findings"}
    (pending,) = found["pending"]
    assert set(pending) == {
        *("name", "checksum", "statements", "transaction", "foreign_keys", "optional", "requires", "phase"),
        *("has_rollback", "sql"),
    }
    assert [one["line"] for one in pending["sql"]] == [2, 7]
    assert (
        "sql" not in document(run("schema", "plan", "--dir", files, "--url", database, "--json"), code=1)["pending"][0]
    )


def test_an_optional_file_is_planned_and_not_missed(run: Command, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'new.db'}"
    assert run("schema", "up", "--url", url, "--leave-out", "0002_search.sql").exit_code == 0
    assert run("schema", "status", "--url", url).exit_code == 0
    assert run("schema", "plan", "--url", url).exit_code == 1
    assert run("schema", "plan", "--url", url, "--leave-out", "0002_search.sql").exit_code == 0


@pytest.mark.parametrize("place", ["sqlite", "d1", "postgresql"])
def test_lint_names_line_rule_and_the_safe_way(run: Command, files: str, place: str) -> None:
    assert run("schema", "lint", "--dir", files, "--place", place).exit_code == 0
    write_files(Path(files), DROP)
    result = run("schema", "lint", "--dir", files, "--place", place)
    assert result.exit_code == 1
    assert "migrations/0004_drop.sql:2: error: " in result.stdout
    assert "\n    " in result.stdout
    assert f"4 files for {place}" in result.stderr
    found = document(run("schema", "lint", "--dir", files, "--place", place, "--json"), code=1)
    assert set(found) == {"sets", "errors", "warnings"}
    (one,) = found["sets"]
    assert set(one) == {"place", "directory", "files", "findings"}
    assert (one["place"], one["files"]) == (place, 4)
    assert all(set(finding) == FINDING_KEYS for finding in one["findings"])


def test_lint_takes_the_engine_from_the_directory_or_the_url(run: Command, tmp_path: Path, files: str) -> None:
    assert run("schema", "lint", "--dir", files).exit_code == 2
    assert run("schema", "lint", "--dir", files, "--url", "sqlite:no.db").exit_code == 0
    assert not (tmp_path / "no.db").exists()
    for engine in ("sqlite", "postgresql"):
        write_files(tmp_path / "both" / engine)
    found = document(run("schema", "lint", "--dir", str(tmp_path / "both"), "--json"))
    assert [one["place"] for one in found["sets"]] == ["sqlite", "postgresql"]
    own = document(run("schema", "lint", "--json"))
    assert [one["place"] for one in own["sets"]] == ["sqlite", "postgresql"]
    assert own["errors"] == 0


def test_validate_tries_every_file_and_leaves_the_database_alone(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS).exit_code == 0
    result = run("schema", "validate", "--dir", files, "--url", database)
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(name in result.stdout for name in (AUTHORS, BOOKS, SEED))
    status = document(run("schema", "status", "--dir", files, "--url", database, "--json"), code=1)
    assert status["pending"] == [BOOKS]
    broken(Path(files))
    failed = run("schema", "validate", "--dir", files, "--url", database)
    assert failed.exit_code == 1
    assert "migrations/0004_reviews.sql:3: error: " in failed.stdout
    found = document(run("schema", "validate", "--dir", files, "--url", database, "--json"), code=1)
    assert set(found) == {"ok", "address", "schema_set", "files", "findings", "objects", "duration_ms"}
    assert found["ok"] is False


def test_validate_without_a_database_tries_on_sqlite(run: Command, files: str, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    result = run("schema", "validate", "--dir", files)
    assert result.exit_code == 0
    assert "tried on SQLite" in result.stderr
    assert set(tmp_path.iterdir()) == before
    write_files(tmp_path / "only" / "postgresql")
    refused = run("schema", "validate", "--dir", str(tmp_path / "only"))
    assert refused.exit_code == 2
    assert "--url" in refused.stderr


def test_a_way_back_that_forgets_something_is_found(run: Command, files: str) -> None:
    (Path(files) / "rollback" / BOOKS).write_text("DROP INDEX idx_books_author_id;\n")
    result = run("schema", "validate", "--dir", files)
    assert result.exit_code == 1
    assert f"rollback/{BOOKS}" in result.stdout
    assert "table books" in result.stdout


def test_new_makes_the_next_file_and_its_way_back(run: Command, tmp_path: Path) -> None:
    result = run("schema", "new", "Add chat labels", "--dir", "sql")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["sql/0001_add_chat_labels.sql", "sql/rollback/0001_add_chat_labels.sql"]
    assert (tmp_path / "sql/0001_add_chat_labels.sql").is_file()
    found = document(run("schema", "new", "x", "--dir", "sql", "--no-transaction", "--phase", "expand", "--json"))
    assert set(found) == {"files"}
    text = (tmp_path / "sql/0002_x.sql").read_text()
    assert "-- dal:no-transaction\n" in text
    assert "-- dal:phase=expand\n" in text


def test_new_serves_every_engine_of_a_directory(run: Command, tmp_path: Path) -> None:
    for engine in ("sqlite", "postgresql"):
        write_files(tmp_path / "both" / engine)
    lines = run("schema", "new", "labels", "--dir", "both").stdout.splitlines()
    assert [line for line in lines if "rollback" not in line] == [
        "both/sqlite/0004_labels.sql",
        "both/postgresql/0004_labels.sql",
    ]
    one = run("schema", "new", "more", "--dir", "both", "--place", "postgresql").stdout.splitlines()
    assert one[0] == "both/postgresql/0005_more.sql"
    assert len(one) == 2


@pytest.mark.parametrize("title", ["", "日本", "--"])
def test_a_title_without_words_is_wrong_usage(run: Command, files: str, title: str) -> None:
    result = run("schema", "new", "--dir", files, "--", title)
    assert result.exit_code == 2
    assert {path.name for path in Path(files).glob("*.sql")} == {
        name for name in FILES if name.endswith(".sql") and "/" not in name
    }


def test_new_needs_a_directory_of_ones_own(run: Command) -> None:
    result = run("schema", "new", "labels")
    assert result.exit_code == 2
    assert "--dir" in result.stderr
