"""Verification: what the applied files make is looked for by name, and what is broken is said."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from dal.errors import SchemaError
from dal.factory import schema_connection
from dal.schema import Connection, MigrationSet, baseline, down, library_set, up
from dal.schema.checking.verify import drift, verify
from dal.schema.connection import StatementError
from dal.schema.ledger import LEDGER_TABLES, creation, enter
from tests.schema.written import make, write_past_index, write_set

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)

FILES = {
    "0001_users.sql": "CREATE TABLE users (id INTEGER PRIMARY KEY, email VARCHAR(255));\n"
    "CREATE INDEX by_email ON users (email);\nCREATE VIEW everybody AS SELECT id FROM users;\n",
    "rollback/0001_users.sql": "DROP VIEW everybody;\nDROP TABLE users;\n",
    "0002_posts.sql": "CREATE TABLE posts (id INTEGER PRIMARY KEY, author INTEGER REFERENCES users (id));\n",
    "rollback/0002_posts.sql": "DROP TABLE posts;\n",
}


@pytest.fixture
def migrations(connection: Connection, tmp_path: Path) -> MigrationSet:
    return write_set(tmp_path / "set", connection.engine, FILES)


def overwrite(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 64)


async def found_by_verify(connection: Connection, migrations: MigrationSet) -> list[str]:
    report = await verify(connection, migrations)
    sentences = [str(difference) for difference in report.differences] + [str(finding) for finding in report.findings]
    assert report.ok == (not sentences)
    return sentences


async def found_by_drift(connection: Connection, migrations: MigrationSet) -> list[str]:
    return [str(difference) for difference in await drift(connection, migrations)]


async def test_what_was_applied_is_there(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    report = await verify(connection, migrations)
    assert report.ok
    assert report.migrations == ("0001_users.sql", "0002_posts.sql")
    assert (report.objects["tables"], report.objects["indexes"], report.objects["views"]) == (2, 1, 1)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert await drift(connection, migrations) == []


async def test_the_librarys_own_schema_verifies(connection: Connection) -> None:
    await up(connection)
    assert await found_by_verify(connection, library_set(connection.engine)) == []
    assert await found_by_drift(connection, library_set(connection.engine)) == []


async def test_what_is_pending_is_not_missed(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations, to="0001_users.sql")
    assert await found_by_verify(connection, migrations) == []
    await up(connection, migrations)
    await down(connection, migrations)
    assert await found_by_verify(connection, migrations) == []
    assert await found_by_drift(connection, migrations) == []


async def test_a_database_with_nothing_applied_does_not_pass(connection: Connection, migrations: MigrationSet) -> None:
    report = await verify(connection, migrations)
    assert [finding.rule for finding in report.findings] == ["nothing-applied"]
    assert not report.ok


async def test_missing_and_different_objects_are_named(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    await make(connection, "DROP INDEX by_email; CREATE INDEX by_mail ON users (email); DROP VIEW everybody;")
    await make(connection, "ALTER TABLE users ADD COLUMN age INTEGER; DROP TABLE posts;")
    assert await found_by_verify(connection, migrations) == [
        "table posts: missing",
        "index by_email on users: missing",
        "view everybody: missing",
    ]


async def test_totals_that_agree_do_not_hide_a_difference(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    await make(connection, "DROP INDEX by_email; CREATE INDEX by_email ON users (id, email);")
    assert await found_by_verify(connection, migrations) == [
        "index by_email on users: parts (id, email), expected (email)"
    ]


async def test_drift_shows_what_nobody_declared(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    await make(
        connection,
        "CREATE TABLE theirs (a INTEGER); ALTER TABLE users ADD COLUMN age INTEGER; CREATE INDEX x ON users (id); "
        "DROP TABLE posts;",
    )
    assert await found_by_drift(connection, migrations) == [
        "table posts: missing",
        "table theirs: unexpected",
        "table users, column age: unexpected",
        "index x on users: unexpected",
    ]
    assert await found_by_verify(connection, migrations) == ["table posts: missing"]


async def test_the_librarys_tables_beside_a_set_are_no_drift(connection: Connection, tmp_path: Path) -> None:
    theirs = write_set(
        tmp_path / "theirs", connection.engine, {"0001_theirs.sql": "CREATE TABLE theirs (a INTEGER);\n"}
    )
    await up(connection)
    await up(connection, theirs)
    assert await found_by_drift(connection, theirs) == []
    assert await found_by_verify(connection, theirs) == []
    await make(connection, "DROP TABLE dal_guard")
    assert await found_by_verify(connection, theirs) == ["table dal_guard: missing"]


async def test_a_set_that_builds_on_something_else_says_so(connection: Connection, tmp_path: Path) -> None:
    files = {
        "0001_there.sql": "-- what was there\nALTER TABLE legacy ADD COLUMN x INTEGER;\n",
        "rollback/0001_there.sql": "ALTER TABLE legacy DROP COLUMN x;\n",
    }
    migrations = write_set(tmp_path / "set", connection.engine, files)
    await make(connection, "CREATE TABLE legacy (x INTEGER)")
    await baseline(connection, migrations, to="0001_there.sql")
    report = await verify(connection, migrations)
    assert [(f.rule, f.file, f.line) for f in report.findings] == [("cannot-replay", "0001_there.sql", 2)]
    assert not report.ok
    with pytest.raises(SchemaError, match=r"0001_there\.sql:2"):
        await drift(connection, migrations)


async def test_an_edited_file_is_said_beside_its_differences(connection: Connection, tmp_path: Path) -> None:
    migrations = write_set(tmp_path / "set", connection.engine, FILES)
    await up(connection, migrations)
    edited = FILES | {"0002_posts.sql": "CREATE TABLE posts (id INTEGER PRIMARY KEY);\n"}
    report = await verify(connection, write_set(tmp_path / "set", connection.engine, edited))
    assert [finding.rule for finding in report.findings] == ["edited-migration"]
    assert not report.ok


async def test_questions_of_the_set_are_asked(connection: Connection, tmp_path: Path) -> None:
    questions = """-- How many users
-- expect: 2
SELECT count(*) FROM users;
-- expect: 1, 'a'
SELECT id, email FROM users WHERE id = 1;
-- expect-rows: 0
SELECT id FROM users WHERE email IS NULL;
-- Too many
-- expect: < 2
SELECT count(*) FROM users;
SELECT 1;
-- expect: 1
SELECT nonsense FROM users;
-- expect-rows: 0
DELETE FROM users;
"""
    migrations = write_set(tmp_path / "set", connection.engine, FILES | {"checks/verify.sql": questions})
    await up(connection, migrations)
    await make(connection, "INSERT INTO users (id, email) VALUES (1, 'a'), (2, 'b')")
    report = await verify(connection, migrations)
    assert [check.ok for check in report.checks] == [True, True, True, False, False, False, False]
    assert not report.ok
    assert report.checks[0].query.name == "How many users"
    assert report.checks[3].query.place == "checks/verify.sql:10"
    assert report.checks[3].problem == "< 2 expected, found 2"
    assert "nothing is expected" in report.checks[4].problem
    assert "nonsense" in report.checks[5].problem
    assert "would write" in report.checks[6].problem
    assert await connection.fetch("SELECT count(*) FROM users") == [(2,)]


@on_sqlite
async def test_pragmas_that_only_tell_may_be_asked(connection: Connection, tmp_path: Path) -> None:
    questions = "-- expect-rows: 0\nPRAGMA foreign_key_check;\n-- expect-rows: 0\nPRAGMA user_version = 7;\n"
    migrations = write_set(tmp_path / "set", connection.engine, FILES | {"checks/verify.sql": questions})
    await up(connection, migrations)
    assert [check.ok for check in (await verify(connection, migrations)).checks] == [True, False]
    assert await connection.fetch("SELECT user_version FROM pragma_user_version") == [(0,)]


async def test_verifying_writes_nothing(connection: Connection, migrations: MigrationSet) -> None:
    await verify(connection, migrations)
    await drift(connection, migrations)
    table = "sqlite_master" if connection.engine == "sqlite" else "pg_tables WHERE schemaname = 'public'"
    assert await connection.fetch(f"SELECT 1 FROM {table}") == []


async def test_a_ledger_that_wrangler_wrote_is_enough(connection: Connection, migrations: MigrationSet) -> None:
    await connection.run(creation(connection.engine))
    for migration in migrations.migrations:
        await connection.run([(statement.sql, ()) for statement in migration.statements])
        await connection.run([enter(connection.engine, migration.name)])
    for table in LEDGER_TABLES & {"dal_migration_details", "dal_migration_lock"}:
        await make(connection, f"DROP TABLE {table}")
    assert await found_by_verify(connection, migrations) == []


@on_sqlite
async def test_rows_that_point_to_nothing_are_found(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    await connection.run([("INSERT INTO users (id) VALUES (1)", ()), ("INSERT INTO posts VALUES (1, 1), (2, 1)", ())])
    with sqlite3.connect(connection.address.removeprefix("sqlite:")) as other:
        other.execute("DELETE FROM users")
    other.close()
    assert await found_by_verify(connection, migrations) == [
        "foreign-key-violation: rows of posts point to rows of users that are not there: 2"
    ]


@on_sqlite
async def test_a_damaged_file_is_found(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    ((page, size),) = await connection.fetch(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'by_email'"
    )
    path = Path(connection.address.removeprefix("sqlite:"))
    overwrite(path, (int(str(page)) - 1) * int(str(size)))
    async with schema_connection(f"sqlite://{path}") as fresh:  # the other one has the page in its cache
        report = await verify(fresh, migrations)
    assert [finding.rule for finding in report.findings] == ["damaged"]
    assert f"page {page}:" in report.findings[0].message.lower()
    assert not report.ok


@on_sqlite
async def test_an_index_that_lacks_a_row_is_found(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    path = Path(connection.address.removeprefix("sqlite:"))
    write_past_index(path, "by_email", "INSERT INTO users VALUES (1, 'ada@example.com')")
    report = await verify(connection, migrations)
    assert [finding.rule for finding in report.findings] == ["broken-index"]
    assert "row 1 missing from index by_email" in report.findings[0].message
    assert not report.ok
    await connection.run_alone("REINDEX")
    assert await found_by_verify(connection, migrations) == []


@on_postgresql
async def test_an_index_that_is_of_no_use_is_found(connection: Connection, migrations: MigrationSet) -> None:
    await up(connection, migrations)
    await make(connection, "INSERT INTO users (id, email) VALUES (1, 'a'), (2, 'a')")
    with pytest.raises(StatementError):
        await connection.run_alone("CREATE UNIQUE INDEX CONCURRENTLY one_email ON users (email)")
    (sentence,) = await found_by_verify(connection, migrations)
    assert sentence.startswith("invalid-index: index one_email on users is invalid")
    await make(connection, "DROP INDEX by_email")
    with pytest.raises(StatementError):
        await connection.run_alone("CREATE UNIQUE INDEX CONCURRENTLY by_email ON users (email)")
    assert "index by_email on users: unique, expected not unique" in await found_by_verify(connection, migrations)
    assert any("by_email on users: invalid" in said for said in await found_by_verify(connection, migrations))


@on_postgresql
async def test_a_constraint_that_was_never_validated_is_found(connection: Connection, tmp_path: Path) -> None:
    meant = "ALTER TABLE users ADD CONSTRAINT mail CHECK (email <> '') NOT VALID;\n"
    migrations = write_set(tmp_path / "set", "postgresql", FILES | {"0003_mail.sql": meant})
    await up(connection, migrations)
    report = await verify(connection, migrations)
    assert [(f.rule, f.severity) for f in report.findings] == [("unvalidated-constraint", "warning")]
    assert report.ok
    await make(connection, "ALTER TABLE users ADD CONSTRAINT other CHECK (id > 0) NOT VALID")
    report = await verify(connection, migrations)
    assert [f.severity for f in report.findings] == ["warning", "error"]
    assert not report.ok
    await make(connection, "ALTER TABLE users VALIDATE CONSTRAINT mail")
    report = await verify(connection, migrations)
    assert [f.severity for f in report.findings] == ["error"]
