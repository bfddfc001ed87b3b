"""What closes a table of PostgreSQL is found where the table existed, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from dal.schema.findings import Finding
from dal.schema.linting import explain_rules, lint
from tests.schema.lint.reading import base, findings_of, rules_of, write_set

_ALTER: Final = "ALTER TABLE users "

_FOUND: Final = [
    ("CREATE INDEX i ON users (email);", "create-index-not-concurrent"),
    ("create unique index if not exists\n i on only_me.users (email);", "create-index-not-concurrent"),
    ("CREATE INDEX ON users USING gin (email);", "create-index-not-concurrent"),
    (
        'CREATE INDEX "I x" ON "Odd Name" (lower("Col A")) WHERE "Col A" <> \'CONCURRENTLY\';',
        "create-index-not-concurrent",
    ),
    ("DROP INDEX users_email;", "drop-index-not-concurrent"),
    ("DROP INDEX IF EXISTS a_name_nobody_knows;", "drop-index-not-concurrent"),
    (_ALTER + "ALTER COLUMN email TYPE BIGINT;", "change-column-type"),
    (_ALTER + "ALTER email SET DATA TYPE uuid USING email::uuid;", "change-column-type"),
    (_ALTER + "ALTER name TYPE VARCHAR(10);", "change-column-type"),
    (_ALTER + "ALTER email TYPE VARCHAR(500);", "change-column-type"),
    (_ALTER + "ALTER amount TYPE NUMERIC(12, 3);", "change-column-type"),
    (_ALTER + "ALTER name TYPE TEXT USING lower(name);", "change-column-type"),
    ("ALTER TABLE nobody_knows ALTER name TYPE TEXT;", "change-column-type"),
    (_ALTER + "ALTER COLUMN email SET NOT NULL;", "set-not-null"),
    (
        _ALTER + "ADD CONSTRAINT c CHECK (email IS NOT NULL) NOT VALID;" + _ALTER + "ALTER email SET NOT NULL;",
        "set-not-null",
    ),
    (_ALTER + "ADD CONSTRAINT c CHECK (id > 0);", "check-not-valid"),
    (_ALTER + "ADD CHECK (name <> 'NOT VALID');", "check-not-valid"),
    (_ALTER + "ADD COLUMN x INT CHECK (x > 0);", "check-not-valid"),
    (_ALTER + "ADD CONSTRAINT c CHECK (id > 0) NOT VALID;" + _ALTER + "VALIDATE CONSTRAINT c;", "check-not-valid"),
    (_ALTER + "ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES orders (id) ON DELETE CASCADE;", "foreign-key-not-valid"),
    (_ALTER + "ADD FOREIGN KEY (id) REFERENCES orders ON DELETE SET NULL ON UPDATE CASCADE;", "foreign-key-not-valid"),
    (_ALTER + "ADD COLUMN o BIGINT DEFAULT 3 REFERENCES orders ON DELETE CASCADE;", "foreign-key-not-valid"),
    (
        _ALTER
        + "ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES orders ON DELETE CASCADE NOT VALID;"
        + _ALTER
        + "VALIDATE CONSTRAINT k;",
        "foreign-key-not-valid",
    ),
    (_ALTER + "ADD CONSTRAINT u UNIQUE (email);", "unique-constraint-blocks"),
    (_ALTER + "ADD PRIMARY KEY (email);", "unique-constraint-blocks"),
    (_ALTER + "ADD COLUMN x TEXT UNIQUE;", "unique-constraint-blocks"),
    (_ALTER + "ADD CONSTRAINT e EXCLUDE USING gist (amount WITH =);", "unique-constraint-blocks"),
    (_ALTER + "SET UNLOGGED;", "table-rewrite"),
    (_ALTER + "SET ACCESS METHOD heap;", "table-rewrite"),
    ("REFRESH MATERIALIZED VIEW m;", "refresh-not-concurrent"),
    ("CLUSTER users USING users_email;", "cluster"),
    ("REINDEX TABLE users;", "reindex"),
    ("-- dal:no-transaction\nVACUUM FULL users;", "vacuum-full"),
    ("-- dal:no-transaction\nVACUUM (ANALYZE, FULL) users;", "vacuum-full"),
    ("DO $$ BEGIN ALTER TABLE users ADD CONSTRAINT u UNIQUE (email); END $$;", "unique-constraint-blocks"),
]

_HARMLESS: Final = [
    "-- dal:no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON users (email);",
    "CREATE INDEX i ON ONLY users (email);",
    "-- dal:no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS users_email;",
    _ALTER + "ALTER name TYPE VARCHAR(40);",
    _ALTER + "ALTER name TYPE CHARACTER VARYING(40);",
    _ALTER + "ALTER name TYPE TEXT;",
    _ALTER + "ALTER amount TYPE NUMERIC(12, 2);",
    _ALTER + "ALTER amount TYPE NUMERIC;",
    _ALTER + "ALTER email SET DEFAULT 'TYPE BIGINT';",
    _ALTER + "ALTER email DROP NOT NULL;",
    _ALTER + "ADD CONSTRAINT c CHECK (id > 0) NOT VALID;",
    _ALTER + "ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES orders ON DELETE CASCADE NOT VALID;",
    _ALTER + "ADD COLUMN o BIGINT REFERENCES orders ON DELETE CASCADE;",
    _ALTER + "ADD CONSTRAINT u UNIQUE USING INDEX users_email;",
    _ALTER + "SET (fillfactor = 70);",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m;",
    "-- dal:no-transaction\nREINDEX INDEX CONCURRENTLY users_email;",
    "-- dal:no-transaction\nREINDEX (VERBOSE, CONCURRENTLY) INDEX users_email;",
    "-- dal:no-transaction\nVACUUM (ANALYZE) users;",
    # Of this file's own table nobody knows yet.
    "CREATE TABLE t (a INT); CREATE INDEX i ON t (a); DROP INDEX i; ALTER TABLE t ADD UNIQUE (a), ALTER a TYPE BIGINT;",
    "CREATE TABLE t (a INT); ALTER TABLE t ALTER a SET NOT NULL; ALTER TABLE t ADD CHECK (a > 0);",
    "CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE UNIQUE INDEX i ON m (a);",
    _ALTER + "ADD COLUMN x TEXT, ALTER x TYPE BIGINT;",
]


@pytest.mark.parametrize(("sql", "rule"), _FOUND)
def test_a_table_that_existed(tmp_path: Path, sql: str, rule: str) -> None:
    assert [finding.rule for finding in findings_of(tmp_path, "postgresql", sql)] == [rule]


@pytest.mark.parametrize("sql", _HARMLESS)
def test_what_holds_up_nobody(tmp_path: Path, sql: str) -> None:
    assert findings_of(tmp_path, "postgresql", sql) == []


@pytest.mark.parametrize(("sql", "rule"), _FOUND)
def test_a_way_back_is_not_held_to_it(tmp_path: Path, sql: str, rule: str) -> None:
    assert rules_of(tmp_path, "postgresql", sql, name="rollback/0002_change.sql") == []


@pytest.mark.parametrize("sql", ["CREATE INDEX i ON users (email);", "DROP INDEX users_email;", "REINDEX users;"])
@pytest.mark.parametrize("place", ["sqlite", "d1"])
def test_sqlite_has_one_writer_anyway(tmp_path: Path, place: str, sql: str) -> None:
    assert rules_of(tmp_path, "d1" if place == "d1" else "sqlite", sql) == []


def test_a_validated_check_lets_set_not_null_pass_in_a_later_file(tmp_path: Path) -> None:
    files = {
        "0001_base.sql": base("postgresql"),
        "0002_check.sql": _ALTER + 'ADD CONSTRAINT "Has email" CHECK (("email" IS NOT NULL) AND id > 0) NOT VALID;',
        "0003_validate.sql": _ALTER + 'VALIDATE CONSTRAINT "Has email";',
        "0004_not_null.sql": _ALTER + "ALTER email SET NOT NULL;",
    }
    assert _rules(lint(write_set(tmp_path / "a", "postgresql", files), "postgresql")) == []
    without = {**files, "0003_validate.sql": "SELECT 1;"}
    assert _rules(lint(write_set(tmp_path / "b", "postgresql", without), "postgresql")) == ["set-not-null"]
    dropped = {**files, "0003_validate.sql": files["0003_validate.sql"] + _ALTER + 'DROP CONSTRAINT "Has email";'}
    assert _rules(lint(write_set(tmp_path / "c", "postgresql", dropped), "postgresql")) == ["set-not-null"]
    either = {**files, "0002_check.sql": files["0002_check.sql"].replace("AND", "OR")}
    assert _rules(lint(write_set(tmp_path / "d", "postgresql", either), "postgresql")) == ["set-not-null"]


def test_a_partitioned_table_gets_its_own_advice(tmp_path: Path) -> None:
    files = {
        "0001_base.sql": "CREATE TABLE logs (day date, a int) PARTITION BY RANGE (day);",
        "0002_index.sql": "CREATE INDEX i ON logs (a);",
    }
    (finding,) = [one for one in lint(write_set(tmp_path, "postgresql", files), "postgresql") if one.file]
    assert (finding.rule, "ATTACH" in finding.advice) == ("create-index-not-concurrent", True)


def test_errors_close_a_table_to_readers_and_warnings_to_writers_only() -> None:
    severity = {rule.name: rule.severity for rule in explain_rules()}
    assert severity["create-index-not-concurrent"] == severity["foreign-key-not-valid"] == "warning"
    for name in ("change-column-type", "set-not-null", "check-not-valid", "unique-constraint-blocks", "vacuum-full"):
        assert severity[name] == "error"


def test_tables_of_files_that_are_pending_together_are_nobodys_yet(tmp_path: Path) -> None:
    files = {
        "0001_base.sql": base("postgresql"),
        "0002_bad_but_done.sql": "DROP TABLE notes;",
        "0003_new.sql": "CREATE TABLE t (a INT);",
        "0004_index.sql": "CREATE INDEX i ON t (a);\nCREATE INDEX j ON users (email);\nDROP TABLE t;",
    }
    whole = write_set(tmp_path, "postgresql", files)
    judged = [(one.file[:4], one.rule, one.line) for one in lint(whole, "postgresql") if one.file]
    assert judged == [
        ("0002", "drop-table", 1),
        ("0004", "create-index-not-concurrent", 1),
        ("0004", "create-index-not-concurrent", 2),
        ("0004", "drop-table", 3),
    ]
    pending = lint(whole, "postgresql", applied=["0001_base.sql", "0002_bad_but_done.sql"])
    assert [(one.file[:4], one.rule, one.line) for one in pending if one.file] == [
        ("0004", "create-index-not-concurrent", 2)
    ]
    assert [one for one in lint(whole, "postgresql", applied=[*files]) if one.file] == []


def _rules(found: list[Finding]) -> list[str]:
    return [finding.rule for finding in found if not finding.rule.startswith("squawk")]
