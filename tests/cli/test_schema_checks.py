"""`dal schema verify`, `drift` and `explain`, on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command, document, run_sql
from tests.cli.schema_files import write_files


@pytest.fixture
def migrated(run: Command, files: str, database: str) -> str:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    return database


def test_verify_and_drift_are_content_with_what_up_made(run: Command, files: str, migrated: str) -> None:
    verified = run("schema", "verify", "--dir", files, "--url", migrated)
    assert verified.exit_code == 0, verified.output
    assert "1 of 1" in verified.stdout
    drifted = run("schema", "drift", "--dir", files, "--url", migrated)
    assert (drifted.exit_code, drifted.stdout) == (0, "")


def test_what_is_missing_is_named(run: Command, files: str, migrated: str) -> None:
    run_sql(migrated, "DROP INDEX idx_books_author_id")
    for command in ("verify", "drift"):
        result = run("schema", command, "--dir", files, "--url", migrated)
        assert result.exit_code == 1
        assert "index idx_books_author_id on books: missing\n" in result.stdout
    found = document(run("schema", "verify", "--dir", files, "--url", migrated, "--json"), code=1)
    assert set(found) == {
        *("ok", "address", "schema_set", "migrations", "objects", "differences", "findings", "checks", "duration_ms"),
    }
    assert [(one["kind"], one["what"]) for one in found["differences"]] == [("index", "missing")]


def test_what_nobody_declared_is_drift_and_no_failure_of_verify(run: Command, files: str, migrated: str) -> None:
    run_sql(migrated, "CREATE TABLE notes (id BIGINT)")
    assert run("schema", "verify", "--dir", files, "--url", migrated).exit_code == 0
    found = document(run("schema", "drift", "--dir", files, "--url", migrated, "--json"), code=1)
    assert set(found) == {"address", "differences"}
    assert found["differences"] == [
        {"kind": "table", "name": "notes", "what": "unexpected", "detail": "unexpected", "table": ""}
    ]


def test_an_unexpected_answer_is_named_with_its_line(run: Command, files: str, migrated: str) -> None:
    text = "-- Authors there should be\n-- expect: 3\nSELECT count(*) FROM authors;\n"
    write_files(Path(files), {"checks/verify.sql": text})
    result = run("schema", "verify", "--dir", files, "--url", migrated)
    assert result.exit_code == 1
    assert "checks/verify.sql:3: Authors there should be: 3 expected, found 0" in result.stdout
    assert "not as its files make it" in result.stderr


def test_questions_about_the_whole_set_wait_until_it_is_whole(run: Command, files: str, database: str) -> None:
    write_files(Path(files), {"checks/verify.sql": "-- expect: 0\nSELECT count(*) FROM books;\n"})
    assert run("schema", "up", "--dir", files, "--url", database, "--to", "0001_authors.sql").exit_code == 0
    found = document(run("schema", "verify", "--dir", files, "--url", database, "--json"))
    assert found["checks"] == []
    assert [one["rule"] for one in found["findings"]] == ["checks-not-asked"]


def test_explain_says_which_index_serves_the_key_queries(run: Command, files: str, migrated: str) -> None:
    result = run("schema", "explain", "--dir", files, "--url", migrated)
    assert result.exit_code == 0, result.output
    assert "idx_books_author_id" in result.stdout
    found = document(run("schema", "explain", "--dir", files, "--url", migrated, "--json"))
    assert set(found) == {"address", "queries"}
    (one,) = found["queries"]
    assert set(one) == {
        *("query", "plan_lines", "indexes", "full_scans", "whole_indexes", "duration_ms", "problems", "ok"),
    }
    assert one["ok"] is True


def test_a_query_that_reads_a_whole_table_fails(run: Command, migrated: str) -> None:
    query = "SELECT id FROM books WHERE title = 'x'"
    result = run("schema", "explain", query, "--url", migrated)
    assert result.exit_code == 1
    assert "reads every row of books" in result.stderr
    found = document(run("schema", "explain", query, "--url", migrated, "--runs", "0", "--json"), code=1)
    assert found["queries"][0]["full_scans"] == ["books"]


def test_a_query_that_is_wrong_is_named(run: Command, migrated: str) -> None:
    result = run("schema", "explain", "SELECT nothing FROM books", "--url", migrated)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing" in result.stderr


def test_explain_without_any_query_is_wrong_usage(run: Command, files: str, migrated: str) -> None:
    (Path(files) / "checks" / "explain.sql").unlink()
    result = run("schema", "explain", "--dir", files, "--url", migrated)
    assert result.exit_code == 2
    assert "checks/explain.sql" in result.stderr
