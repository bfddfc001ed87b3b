"""Transactions, repeatable statements, references, and how a rule is silenced."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg
import pytest

from dal.schema.connection import Place
from dal.schema.linting import explain_rules, lint
from dal.schema.linting.rules import BREAKS_RUNNING, RULES
from tests.engines.postgres import PostgresServer
from tests.schema.lint.reading import base, findings_of, rules_of, write_set

_ALONE: Final = "-- dal:no-transaction\n"

_IN_TRANSACTION: Final = [
    ("CREATE INDEX CONCURRENTLY i ON users (email);", "concurrently-in-transaction"),
    ("create unique index concurrently if not exists i\n on users (id);", "concurrently-in-transaction"),
    ("DROP INDEX CONCURRENTLY users_email;", "concurrently-in-transaction"),
    ("REINDEX INDEX CONCURRENTLY users_email;", "concurrently-in-transaction"),
    ("REINDEX (CONCURRENTLY) INDEX users_email;", "concurrently-in-transaction"),
    ("VACUUM users;", "needs-no-transaction"),
    ("CREATE DATABASE other;", "needs-no-transaction"),
    ("DROP DATABASE other;", "needs-no-transaction"),
    ("ALTER SYSTEM SET work_mem = '4MB';", "needs-no-transaction"),
    ("CREATE TABLE concurrently_made (\"concurrently\" int, a text DEFAULT 'CONCURRENTLY');", ""),
    (
        "CREATE MATERIALIZED VIEW v AS SELECT 1 AS a; CREATE UNIQUE INDEX vi ON v (a);"
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v;",
        "",
    ),
    ("ANALYZE users;", ""),
]

_REPEATABLE: Final = [
    ("CREATE TABLE t (a INTEGER);", False),
    ("CREATE TABLE IF NOT EXISTS t (a INTEGER);", True),
    ("CREATE INDEX i ON users (email);", False),
    ("CREATE INDEX IF NOT EXISTS i ON users (email);", True),
    ("CREATE VIEW v AS SELECT 'IF NOT EXISTS';", False),
    ("DROP VIEW names;", False),
    ("DROP VIEW IF EXISTS names;", True),
    ("INSERT INTO users (id) VALUES (1);", False),
    ("INSERT INTO users (id) VALUES (1) ON CONFLICT DO NOTHING;", True),
    ("INSERT INTO users (id) SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM users);", True),
    ("INSERT INTO users (name) VALUES ('ON CONFLICT');", False),
    ("UPDATE users SET name = 'x' WHERE id = 1;", True),
    ("UPDATE users SET amount = amount + 1 WHERE id = 1;", False),
    ("UPDATE users SET email = 'a', name = name || 'x' WHERE id = 1;", False),
    ("UPDATE users SET name = email || 'x' WHERE id = 1;", True),
    ("UPDATE users SET name = lower(name) WHERE id = 1;", True),
    ("DELETE FROM users WHERE id = 1;", True),
    ("ALTER TABLE users ADD COLUMN x TEXT;", False),
    ("ALTER TABLE users RENAME COLUMN email TO mail;", False),
]

_REPEATABLE_ON_POSTGRESQL: Final = [
    ("ALTER TABLE users ADD COLUMN IF NOT EXISTS x TEXT;", True),
    ("ALTER TABLE users ADD CONSTRAINT c CHECK (id > 0) NOT VALID;", False),
    ("ALTER TABLE users DROP CONSTRAINT IF EXISTS c, ADD CONSTRAINT c CHECK (id > 0) NOT VALID;", True),
    ("ALTER TABLE users DROP CONSTRAINT c;", False),
    ("ALTER TABLE users VALIDATE CONSTRAINT c;", True),
    ("CREATE INDEX CONCURRENTLY IF NOT EXISTS ON users (email);", False),
    ("CREATE OR REPLACE VIEW v AS SELECT 1;", True),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';", False),
    ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';", True),
    ("CREATE TYPE mood AS ENUM ('a');", False),
    ("ALTER TYPE mood ADD VALUE 'b';", False),
    ("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'b';", True),
    ("CREATE EXTENSION citext;", False),
    ("GRANT SELECT ON users TO PUBLIC;", True),
    ("VACUUM users;", True),
]

_REFERENCES: Final = [
    ("CREATE TABLE t (a INTEGER REFERENCES users(id));", ["1"]),
    ("CREATE TABLE t (a INTEGER REFERENCES users);", ["1"]),
    ("CREATE TABLE t (\n a INTEGER REFERENCES users(id) ON UPDATE CASCADE,\n b TEXT);", ["2"]),
    ("CREATE TABLE t (a INTEGER,\n FOREIGN KEY (a) REFERENCES users(id) DEFERRABLE INITIALLY DEFERRED);", ["2"]),
    ("CREATE TABLE t (a INTEGER REFERENCES users(id), b INTEGER REFERENCES orders(id));", ["1", "1"]),
    ("ALTER TABLE users ADD COLUMN o INTEGER REFERENCES orders(id);", ["1"]),
    ("CREATE TABLE t (a INTEGER REFERENCES users(id) ON DELETE NO ACTION);", []),
    ("CREATE TABLE t (a INTEGER REFERENCES users(id) ON UPDATE SET NULL ON DELETE SET NULL);", []),
    ("CREATE TABLE t (a INTEGER, CONSTRAINT \"k\" FOREIGN KEY (a) REFERENCES users ON DELETE RESTRICT);", []),
    ("CREATE TABLE t (a TEXT DEFAULT 'REFERENCES users(id)' /* REFERENCES users(id) */);", []),
    ("CREATE TABLE t (a TEXT CHECK (a <> 'x'), \"REFERENCES\" TEXT);", []),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "rule"), _IN_TRANSACTION)
def test_what_postgresql_refuses_in_a_transaction(
    postgres_server: PostgresServer, tmp_path: Path, sql: str, rule: str
) -> None:
    found = [one for one in rules_of(tmp_path, "postgresql", sql) if not one.startswith("drop-schema")]
    assert found == ([f"{rule}:1"] if rule else [])
    assert rules_of(tmp_path / "back", "postgresql", sql, name="rollback/0002_change.sql") == (
        [f"{rule}:1"] if rule else []
    )
    outside = [one.partition(":")[0] for one in rules_of(tmp_path / "alone", "postgresql", _ALONE + sql)]
    assert rule not in outside
    with psycopg.connect(postgres_server.create_database()) as connection:
        connection.execute(base("postgresql"))
        if rule:
            with pytest.raises(psycopg.errors.ActiveSqlTransaction):
                connection.execute(sql)
        else:
            connection.execute(sql)
        connection.rollback()


def test_vacuum_on_sqlite(tmp_path: Path) -> None:
    assert rules_of(tmp_path, "sqlite", "VACUUM;") == ["needs-no-transaction:1"]
    assert rules_of(tmp_path, "sqlite", _ALONE + "VACUUM;") == []


@pytest.mark.parametrize("place", ["sqlite", "d1", "postgresql"])
@pytest.mark.parametrize(("sql", "repeatable"), _REPEATABLE)
def test_statements_that_may_run_twice(tmp_path: Path, place: Place, sql: str, repeatable: bool) -> None:
    assert ("not-repeatable:2" in rules_of(tmp_path, place, _ALONE + sql)) is not repeatable
    assert "not-repeatable:1" not in rules_of(tmp_path, place, sql)
    back = rules_of(tmp_path / "back", place, _ALONE + sql, name="rollback/0002_change.sql")
    assert ("not-repeatable:2" in back) is not repeatable


@pytest.mark.parametrize(("sql", "repeatable"), _REPEATABLE_ON_POSTGRESQL)
def test_statements_that_may_run_twice_on_postgresql(tmp_path: Path, sql: str, repeatable: bool) -> None:
    assert ("not-repeatable:2" in rules_of(tmp_path, "postgresql", _ALONE + sql)) is not repeatable


def test_sqlite_has_or_ignore(tmp_path: Path) -> None:
    assert rules_of(tmp_path, "sqlite", _ALONE + "INSERT OR IGNORE INTO orders VALUES (1, 1);") == []
    assert rules_of(tmp_path, "sqlite", _ALONE + "INSERT OR ABORT INTO orders VALUES (1, 1);") == ["not-repeatable:2"]


@pytest.mark.parametrize("place", ["sqlite", "d1", "postgresql"])
@pytest.mark.parametrize(("sql", "lines"), _REFERENCES)
def test_references_without_on_delete(tmp_path: Path, place: Place, sql: str, lines: list[str]) -> None:
    assert rules_of(tmp_path, place, sql) == [f"foreign-key-without-on-delete:{line}" for line in lines]


def test_one_rule_is_silenced_in_one_file(tmp_path: Path) -> None:
    sql = "-- dal:allow drop-table truncate\n-- about it\nDROP TABLE orders;\nTRUNCATE notes;\nDELETE FROM users;"
    assert rules_of(tmp_path, "postgresql", sql) == ["delete-without-where:5"]
    files = {"0001_base.sql": base("sqlite"), "0002_a.sql": "-- dal:allow drop-table\nDROP TABLE orders;"}
    files["0003_b.sql"] = "DROP TABLE notes;"
    found = lint(write_set(tmp_path / "two", "sqlite", files), "sqlite")
    assert [(one.file, one.rule) for one in found] == [("0003_b.sql", "drop-table")]


def test_a_way_back_starts_from_what_its_file_left(tmp_path: Path) -> None:
    files = {
        "0001_base.sql": base("sqlite"),
        "0002_child.sql": "CREATE TABLE c (a INTEGER REFERENCES orders(id) ON DELETE CASCADE);",
        "rollback/0002_child.sql": "DROP TABLE c; CREATE TABLE o AS SELECT * FROM orders; DROP TABLE orders;"
        "ALTER TABLE o RENAME TO orders;",
        "0003_late.sql": "CREATE TABLE d AS SELECT * FROM orders; DROP TABLE orders; ALTER TABLE d RENAME TO orders;",
    }
    found = lint(write_set(tmp_path, "sqlite", files), "sqlite")
    # The drop in the way back is not known to the file that follows.
    assert [(one.file, one.rule) for one in found] == [("0003_late.sql", "rebuild-deletes-children")]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    sql = (
        "-- header\n\n/* a\n b */\nALTER TABLE users\n  -- about\n  ADD COLUMN a TEXT,\n  DROP COLUMN email;\n\n"
        "SELECT 1; DROP\nTABLE orders;"
    )
    assert rules_of(tmp_path, "postgresql", sql) == ["drop-column:8", "drop-table:10"]


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_any_text_is_read_without_falling_over(tmp_path: Path, place: Place) -> None:
    odd = [
        "ALTER TABLE", "CREATE TABLE", "CREATE", "DROP", "ALTER", "UPDATE", "DELETE FROM", "INSERT INTO", "TRUNCATE",
        "PRAGMA", "CREATE INDEX", "CREATE TABLE t (", "CREATE TABLE t (a", "ALTER TABLE users ADD",
        "ALTER TABLE users ADD COLUMN x CHECK (", "WITH", "WITH x AS (", "DO", "DO 'x'", "UPDATE users SET",
        "UPDATE users SET a", "CREATE TABLE t (a REFERENCES", "ALTER TABLE ALL", "ALTER TABLE users ALTER",
        "CREATE VIRTUAL TABLE", "DROP TABLE", ") ( )", "🦆", "CREATE TABLE 🦆 (🦆 🦆)", "INSERT OR", ",,,", "SET",
    ]  # fmt: skip
    for number, sql in enumerate(odd):
        findings_of(tmp_path / str(number), place, sql)


def test_every_rule_explains_itself() -> None:
    rules = explain_rules()
    assert len({rule.name for rule in rules}) == len(rules) == len(RULES)
    for rule in rules:
        assert rule.name == rule.name.lower()
        assert rule.why.endswith(".")
        assert rule.safe_way
        assert rule.places
    assert set(RULES) >= BREAKS_RUNNING


def test_a_large_set_is_read_file_by_file(tmp_path: Path) -> None:
    files = {
        f"{number:04}_t.sql": f"CREATE TABLE t{number} (id BIGINT PRIMARY KEY, a BIGINT REFERENCES t{number // 2}(id));"
        for number in range(1, 301)
    }
    found = lint(write_set(tmp_path, "sqlite", files), "sqlite")
    assert [one.file for one in found] == list(files)
