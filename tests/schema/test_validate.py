"""Validation: what is wrong with a file, forward or back, is found on a scratch database and named by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dal.schema import Connection, Progress, library_set, up
from dal.schema.checking.validate import ValidationReport, validate
from dal.schema.checking.verify import verify
from dal.schema.inspection.objects import snapshot
from tests.schema.written import write_set

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)

FIRST = {
    "0001_users.sql": "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT);\n",
    "rollback/0001_users.sql": "DROP TABLE users;\n",
}


async def tried(connection: Connection, directory: Path, files: dict[str, str]) -> ValidationReport:
    return await validate(connection, write_set(directory / "set", connection.engine, files))


def rules(report: ValidationReport) -> list[str]:
    return [finding.rule for finding in report.findings]


async def test_the_librarys_own_files_pass(connection: Connection) -> None:
    report = await validate(connection, library_set(connection.engine))
    assert report.ok, [str(finding) for finding in report.findings]
    assert [file.name for file in report.files] == [
        "0001_core.sql",
        "0002_search.sql",
        "0003_files.sql",
        "0004_file_names.sql",
    ]
    assert all(file.down_ms is not None and file.again_ms is not None for file in report.files)
    assert report.objects["tables"] >= 8


async def test_the_database_itself_is_not_touched(connection: Connection, tmp_path: Path) -> None:
    assert (await tried(connection, tmp_path, FIRST)).ok
    assert (await snapshot(connection)).empty


async def test_a_statement_that_fails_is_named_by_file_and_line(connection: Connection, tmp_path: Path) -> None:
    files = FIRST | {
        "0002_more.sql": "-- Purpose: more\n\nCREATE TABLE more (id INTEGER);\n\n-- why\nALTER TABLE nowhere\n"
        "  ADD COLUMN x TEXT;\n",
        "rollback/0002_more.sql": "DROP TABLE more;\n",
        "0003_never.sql": "CREATE TABLE never (id INTEGER);\n",
    }
    report = await tried(connection, tmp_path, files)
    (finding,) = [finding for finding in report.findings if finding.severity == "error"]
    assert (finding.rule, finding.file, finding.line) == ("does-not-run", "0002_more.sql", 6)
    assert "nowhere" in finding.message
    assert "ALTER TABLE nowhere ADD COLUMN x TEXT" in finding.message
    assert [file.name for file in report.files] == ["0001_users.sql"]


@on_postgresql
async def test_the_line_is_that_which_the_engine_points_at(connection: Connection, tmp_path: Path) -> None:
    files = {"0001_a.sql": "CREATE TABLE a (\n  id INTEGER,\n  b NOSUCHTYPE\n);\n"}
    report = await tried(connection, tmp_path, files)
    assert [finding.line for finding in report.findings if finding.rule == "does-not-run"] == [3]


async def test_a_way_back_that_leaves_something_is_found(connection: Connection, tmp_path: Path) -> None:
    files = FIRST | {
        "0002_orders.sql": "CREATE TABLE orders (id INTEGER);\nCREATE INDEX by_email ON users (email);\n",
        "rollback/0002_orders.sql": "DROP TABLE orders;\n",
    }
    report = await tried(connection, tmp_path, files)
    assert rules(report) == ["rollback-differs", "not-repeatable"]
    assert report.findings[0].file == "rollback/0002_orders.sql"
    assert report.findings[0].message == ("the former schema is not restored: index by_email on users: unexpected")


async def test_a_way_back_that_takes_too_much_is_found(connection: Connection, tmp_path: Path) -> None:
    files = FIRST | {
        "0002_name.sql": "ALTER TABLE users ADD COLUMN name TEXT;\n",
        "rollback/0002_name.sql": "ALTER TABLE users DROP COLUMN name;\nALTER TABLE users DROP COLUMN email;\n",
    }
    report = await tried(connection, tmp_path, files)
    assert "table users, column email: missing" in report.findings[0].message
    assert report.findings[0].rule == "rollback-differs"


async def test_a_way_back_that_fails_is_named_and_the_next_files_are_tried(
    connection: Connection, tmp_path: Path
) -> None:
    files = FIRST | {
        "0002_name.sql": "ALTER TABLE users ADD COLUMN name TEXT;\n",
        "rollback/0002_name.sql": "-- back\nALTER TABLE users DROP COLUMN nonsense;\n",
        "0003_index.sql": "CREATE INDEX by_name ON users (name);\n",
        "rollback/0003_index.sql": "DROP INDEX by_name;\n",
    }
    report = await tried(connection, tmp_path, files)
    assert [(f.rule, f.file, f.line) for f in report.findings] == [
        ("rollback-does-not-run", "rollback/0002_name.sql", 2)
    ]
    assert [file.name for file in report.files] == ["0001_users.sql", "0002_name.sql", "0003_index.sql"]


async def test_a_seed_whose_rows_stay_is_found(connection: Connection, tmp_path: Path) -> None:
    files = FIRST | {
        "0002_seed.sql": "-- dal:env seed\nINSERT INTO users (id, email) VALUES (1, 'a@example.com');\n",
        "rollback/0002_seed.sql": "SELECT 1;\n",
    }
    report = await tried(connection, tmp_path, files)
    assert rules(report) == ["not-repeatable"]
    assert (report.findings[0].file, report.findings[0].line) == ("0002_seed.sql", 2)


async def test_a_file_without_a_way_back_is_a_warning(connection: Connection, tmp_path: Path) -> None:
    files = FIRST | {"0002_name.sql": "ALTER TABLE users ADD COLUMN name TEXT;\n"}
    report = await tried(connection, tmp_path, files)
    assert report.ok
    assert rules(report) == ["missing-rollback"]
    assert report.files[1].down_ms is None


async def test_files_that_cannot_be_read_are_not_tried(connection: Connection, tmp_path: Path) -> None:
    report = await tried(connection, tmp_path, FIRST | {"0002_torn.sql": "SELECT 'torn;\n"})
    assert not report.ok
    assert "unreadable" in rules(report)
    assert report.files == ()


async def test_columns_that_come_back_in_another_order_are_a_warning(connection: Connection, tmp_path: Path) -> None:
    files = FIRST | {
        "0002_drop.sql": "ALTER TABLE users DROP COLUMN email;\nALTER TABLE users ADD COLUMN age INTEGER;\n",
        "rollback/0002_drop.sql": "ALTER TABLE users DROP COLUMN age;\nALTER TABLE users ADD COLUMN email TEXT;\n",
        "0003_more.sql": "ALTER TABLE users ADD COLUMN more TEXT;\n",
        "rollback/0003_more.sql": "ALTER TABLE users DROP COLUMN more;\n",
    }
    assert (await tried(connection, tmp_path, files)).findings == ()
    files["0001_users.sql"] = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, phone TEXT);\n"
    report = await tried(connection, tmp_path, files)
    assert report.ok
    assert rules(report) == ["column-order"]


@on_postgresql
async def test_a_file_without_transaction_is_tried_statement_by_statement(
    connection: Connection, tmp_path: Path
) -> None:
    files = FIRST | {
        "0002_index.sql": "-- dal:no-transaction\nCREATE INDEX CONCURRENTLY by_email ON users (email);\n",
        "rollback/0002_index.sql": "-- dal:no-transaction\nDROP INDEX CONCURRENTLY by_email;\n",
    }
    report = await tried(connection, tmp_path, files)
    assert report.ok, [str(finding) for finding in report.findings]
    files["0002_index.sql"] += "CREATE INDEX CONCURRENTLY by_nothing ON users (nothing);\n"
    report = await tried(connection, tmp_path, files)
    assert [(f.rule, f.line) for f in report.findings] == [("does-not-run", 3)]


@on_sqlite
async def test_rows_that_point_to_nothing_are_found(connection: Connection, tmp_path: Path) -> None:
    files = FIRST | {
        "0002_posts.sql": "CREATE TABLE posts (id INTEGER PRIMARY KEY, author INTEGER REFERENCES users (email));\n",
        "rollback/0002_posts.sql": "DROP TABLE posts;\n",
    }
    report = await tried(connection, tmp_path, files)
    assert rules(report) == ["foreign-key-violation"]
    assert "cannot be checked" in report.findings[0].message


@on_sqlite
async def test_a_rebuild_that_would_delete_children_fails_without_its_directive(
    connection: Connection, tmp_path: Path
) -> None:
    rebuild = (
        "CREATE TABLE users_new (id INTEGER PRIMARY KEY, email TEXT);\n"
        "INSERT INTO users_new SELECT * FROM users;\nDROP TABLE users;\nALTER TABLE users_new RENAME TO users;\n"
    )
    files = FIRST | {
        "0002_posts.sql": "CREATE TABLE posts (author INTEGER NOT NULL REFERENCES users ON DELETE RESTRICT);\n"
        "INSERT INTO users VALUES (1, 'a');\nINSERT INTO posts VALUES (1);\n",
        "rollback/0002_posts.sql": "DROP TABLE posts;\nDELETE FROM users;\n",
        "0003_rebuild.sql": rebuild,
        "rollback/0003_rebuild.sql": "SELECT 1;\n",
    }
    report = await tried(connection, tmp_path, files)
    assert rules(report) == ["does-not-run"]
    files["0003_rebuild.sql"] = f"-- dal:foreign-keys=off\n{rebuild}"
    assert (await tried(connection, tmp_path, files)).ok


async def test_a_set_may_build_upon_the_librarys_tables(connection: Connection, tmp_path: Path) -> None:
    kind = "TEXT" if connection.engine == "sqlite" else "UUID"
    files = {
        "0001_notes.sql": f"CREATE TABLE notes (author {kind} REFERENCES users (id) ON DELETE CASCADE);\n"
        "CREATE VIEW authors AS SELECT email FROM users;\n",
        "rollback/0001_notes.sql": "DROP VIEW authors;\nDROP TABLE notes;\n",
    }
    migrations = write_set(tmp_path / "notes", connection.engine, files)
    if connection.engine == "postgresql":
        assert rules(await validate(connection, migrations)) == ["does-not-run"]
    await up(connection)
    report = await validate(connection, migrations)
    assert report.ok, [str(finding) for finding in report.findings]
    await up(connection, migrations)
    assert (await verify(connection, migrations)).ok


async def test_progress_and_the_report_can_be_shown(connection: Connection, tmp_path: Path) -> None:
    told: list[Progress] = []
    migrations = write_set(tmp_path / "set", connection.engine, FIRST)
    report = await validate(connection, migrations, on_progress=told.append)
    # Forward, back, forward; at the end back and forward once more.
    names = ["0001_users.sql", "rollback/0001_users.sql", "0001_users.sql"]
    names += ["rollback/0001_users.sql", "0001_users.sql"]
    assert [step.name for step in told if step.phase == "done"] == names
    written = json.loads(json.dumps(report.to_dict()))
    assert written["ok"] is True
    assert written["schema_set"] == "set"
    assert written["objects"]["tables"] == 1
