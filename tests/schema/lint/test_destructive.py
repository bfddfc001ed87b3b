"""What loses data is an error, wherever it stands and however it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from dal.schema.connection import Place
from tests.schema.lint.reading import findings_of, rules_of

_BOTH: Final[tuple[Place, ...]] = ("sqlite", "postgresql")

#: SQL that both engines take, and what is found in it.
_EVERYWHERE: Final = [
    ("DROP TABLE users;", ["drop-table:1"]),
    ("drop  table\n  if exists\n\tusers ;", ["drop-table:1"]),
    ("-- why\n/* and\nmore */ DrOp TaBlE users;", ["drop-table:3"]),
    ('DROP TABLE "Odd Name";', ["drop-table:1"]),
    ("DROP TABLE a_table_nobody_knows;", ["drop-table:1"]),
    ("ALTER TABLE users DROP COLUMN email;", ["drop-column:1"]),
    ("ALTER TABLE users DROP email;", ["drop-column:1"]),
    ("alter table users\n  drop column\n  email;", ["drop-column:2"]),
    ('ALTER TABLE "Odd Name" DROP COLUMN "Col A";', ["drop-column:1"]),
    ("DELETE FROM users;", ["delete-without-where:1"]),
    ("SELECT 1;\n\ndelete\nfrom users;", ["delete-without-where:3"]),
    ("DELETE FROM users WHERE true;", ["delete-without-where:1"]),
    ("DELETE FROM users WHERE (1 = 1);", ["delete-without-where:1"]),
    ("DELETE FROM users RETURNING id;", ["delete-without-where:1"]),
    ("DELETE FROM users -- WHERE id = 1\n;", ["delete-without-where:1"]),
    ("WITH gone AS (SELECT id FROM users WHERE id > 3) DELETE FROM users;", ["delete-without-where:1"]),
    ("UPDATE users SET name = 'x';", ["update-without-where:1"]),
    ("UPDATE users SET name = 'x where y';", ["update-without-where:1"]),
    ("UPDATE users SET name = (SELECT email FROM users WHERE id = 1);", ["update-without-where:1"]),
    ("UPDATE users SET (name, email) = ('a', 'b');", ["update-without-where:1"]),
    # Nothing is lost here.
    ("SELECT 'DROP TABLE users;';", []),
    ("-- DROP TABLE users;\nSELECT 1;", []),
    ("/* DELETE FROM users; */ SELECT 1;", []),
    ('SELECT "drop table" FROM (SELECT 1 AS "drop table") AS x;', []),
    ("DELETE FROM users WHERE id = 1;", []),
    ("DELETE FROM users WHERE true AND id = 1;", []),
    ("UPDATE users SET name = 'x' WHERE id = 1;", []),
    ("UPDATE users SET name = 'x' WHERE 1 = 1 AND email IS NULL;", []),
    ("INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'x';", []),
    ("CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x'); DELETE FROM t; DROP TABLE t;", []),
    ('CREATE TABLE "T x" (a TEXT); UPDATE "T x" SET a = 1; DROP TABLE "T x";', []),
    ("ALTER TABLE users ADD COLUMN x TEXT; ALTER TABLE users DROP COLUMN x;", []),
    ("DROP VIEW names;", []),
]

_POSTGRESQL: Final = [
    ("DROP TABLE users, orders CASCADE;", ["drop-table:1", "drop-table:1"]),
    ("DROP TABLE public.users;", ["drop-table:1"]),
    ("ALTER TABLE IF EXISTS ONLY users ADD COLUMN a TEXT,\n  DROP COLUMN IF EXISTS email CASCADE;", ["drop-column:2"]),
    ("TRUNCATE users;", ["truncate:1"]),
    ("TRUNCATE TABLE ONLY users, orders RESTART IDENTITY CASCADE;", ["truncate:1", "truncate:1"]),
    ("DELETE FROM ONLY users AS u USING orders;", ["delete-without-where:1"]),
    ("WITH gone AS (DELETE FROM users RETURNING *)\nSELECT count(*) FROM gone;", ["delete-without-where:1"]),
    ("UPDATE users u SET name = o.id FROM orders o;", ["update-without-where:1"]),
    ("DROP SCHEMA shop CASCADE;", ["drop-schema:1"]),
    ("DROP TYPE mood CASCADE;", ["drop-cascade:1"]),
    ("DROP EXTENSION IF EXISTS citext CASCADE;", ["drop-cascade:1"]),
    ("DO $$\nBEGIN\n  IF true THEN\n    DROP TABLE users;\n  END IF;\nEND $$;", ["drop-table:4"]),
    (
        "DO $body$ BEGIN DELETE FROM users; UPDATE users SET name = 'x' WHERE id = 1; END $body$;",
        ["delete-without-where:1"],
    ),
    ("DO $$ BEGIN\nEXECUTE 'DROP ' || 'TABLE users';\nEND $$;", ["dynamic-sql:2"]),
    ("DROP TYPE mood;", []),
    ("CREATE TEMP TABLE users_copy AS SELECT * FROM users; TRUNCATE users_copy; DROP TABLE users_copy;", []),
    ("CREATE TABLE public.t (a int); TRUNCATE t; DROP TABLE t;", []),
    ("SELECT $$DROP TABLE users;$$, E'\\'; DROP TABLE users; --';", []),
    ("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM users; END $$;", []),
    ('CREATE TABLE "Users" (a int); DROP TABLE "Users";', []),
    # "Users" and users are two tables.
    ('CREATE TABLE "Users" (a int); DROP TABLE users;', ["drop-table:1"]),
    ("CREATE TYPE mood AS ENUM ('a'); DROP TYPE mood CASCADE;", []),
]

_SQLITE: Final = [
    ("DROP TABLE [users];", ["drop-table:1"]),
    ("DROP TABLE `USERS`;", ["drop-table:1"]),
    ("DROP TABLE main.users;", ["drop-table:1"]),
    ("UPDATE OR IGNORE users SET name = 'x';", ["update-without-where:1"]),
    # Names have no case.
    ('CREATE TABLE "T" (a TEXT); DROP TABLE t;', []),
    ("CREATE TRIGGER g AFTER INSERT ON users BEGIN DELETE FROM notes; UPDATE orders SET id = 1; END;", []),
]


@pytest.mark.parametrize("place", _BOTH)
@pytest.mark.parametrize(("sql", "expected"), _EVERYWHERE)
def test_on_both_engines(tmp_path: Path, place: Place, sql: str, expected: list[str]) -> None:
    assert rules_of(tmp_path, place, sql) == expected


@pytest.mark.parametrize(("sql", "expected"), _POSTGRESQL)
def test_on_postgresql(tmp_path: Path, sql: str, expected: list[str]) -> None:
    assert rules_of(tmp_path, "postgresql", sql) == expected


@pytest.mark.parametrize(("sql", "expected"), _SQLITE)
@pytest.mark.parametrize("place", ["sqlite", "d1"])
def test_on_sqlite_and_d1(tmp_path: Path, place: Place, sql: str, expected: list[str]) -> None:
    assert rules_of(tmp_path, place, sql) == expected


@pytest.mark.parametrize("place", _BOTH)
def test_a_way_back_may_drop_and_delete(tmp_path: Path, place: Place) -> None:
    sql = "DROP TABLE orders; ALTER TABLE users DROP COLUMN email; DELETE FROM users; UPDATE users SET name = NULL;"
    assert rules_of(tmp_path, place, sql, name="rollback/0002_change.sql") == []


def test_filling_a_column_that_the_file_added_overwrites_nothing(tmp_path: Path) -> None:
    sql = "ALTER TABLE users ADD COLUMN nick TEXT;\nUPDATE users SET nick = name;"
    assert rules_of(tmp_path, "sqlite", sql) == []
    assert rules_of(tmp_path, "postgresql", sql) == ["update-every-row:2"]
    assert rules_of(tmp_path, "postgresql", sql.replace("nick = name", "nick = name, email = name")) == [
        "update-without-where:2"
    ]


@pytest.mark.parametrize(("place", "expected"), [("postgresql", 4), ("d1", 3), ("sqlite", 0)])
def test_new_names_are_reported_where_an_older_version_may_run(tmp_path: Path, place: Place, expected: int) -> None:
    sql = (
        "ALTER TABLE users RENAME TO people; ALTER TABLE orders RENAME COLUMN user_id TO person_id;\n"
        "ALTER TABLE notes RENAME id TO number;"
    )
    if place == "postgresql":
        sql += "ALTER VIEW names RENAME TO all_names; ALTER TABLE notes RENAME CONSTRAINT a TO b;"
    found = findings_of(tmp_path, place, sql)
    assert [finding.rule for finding in found] == ["rename"] * expected
    assert all(finding.severity == "warning" for finding in found)


def test_a_new_table_may_get_its_name(tmp_path: Path) -> None:
    assert rules_of(tmp_path, "postgresql", "CREATE TABLE t (a int); ALTER TABLE t RENAME TO u; DROP TABLE u;") == []


def test_messages_name_the_table_and_what_is_lost(tmp_path: Path) -> None:
    (finding,) = findings_of(tmp_path, "postgresql", "DROP TABLE users;")
    assert (
        str(finding) == "0002_change.sql:1: drop-table: DROP TABLE users deletes its rows; notes, orders refers to it"
    )
    assert finding.severity == "error"
    assert "allow" in finding.advice
