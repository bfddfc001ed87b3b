"""squawk as a second reader: what it adds, what it is not asked, and that its absence is said."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from dal.schema.findings import Finding
from dal.schema.linting import lint, squawk
from dal.schema.linting.rules import RULES
from tests.schema.lint.reading import base, findings_of, write_set

pytestmark = pytest.mark.skipif(squawk.executable() is None, reason="squawk is not installed (extra `lint`)")

#: Statements about tables that exist; squawk and our rules must agree on each.
_STATEMENTS: Final = [
    "CREATE INDEX i ON users (email)",
    "SELECT 1; CREATE INDEX CONCURRENTLY i ON users (email)",
    "DROP INDEX users_email",
    "REINDEX TABLE users",
    "ALTER TABLE users ADD COLUMN x UUID DEFAULT gen_random_uuid()",
    "ALTER TABLE users ADD COLUMN x TIMESTAMPTZ DEFAULT now()",
    "ALTER TABLE users ADD COLUMN x BIGINT GENERATED ALWAYS AS (id * 2) STORED",
    "ALTER TABLE users ADD COLUMN x BIGINT GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE users ADD COLUMN x BIGINT NOT NULL",
    "ALTER TABLE users ADD COLUMN x BIGINT NOT NULL DEFAULT 1",
    "ALTER TABLE users ADD COLUMN x BIGINT DEFAULT 3 REFERENCES orders (id)",
    "ALTER TABLE users ADD COLUMN x TEXT UNIQUE",
    "ALTER TABLE users ALTER email SET NOT NULL",
    "ALTER TABLE users ALTER email TYPE BIGINT USING 1",
    "ALTER TABLE users ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES orders (id)",
    "ALTER TABLE users ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES orders (id) NOT VALID",
    "ALTER TABLE users ADD CONSTRAINT c CHECK (id > 0)",
    "ALTER TABLE users ADD CONSTRAINT c CHECK (id > 0) NOT VALID",
    "ALTER TABLE users ADD CONSTRAINT u UNIQUE (email)",
    "ALTER TABLE users ADD CONSTRAINT u UNIQUE USING INDEX users_email",
    "ALTER TABLE users ADD PRIMARY KEY (email)",
    "ALTER TABLE users RENAME COLUMN email TO mail",
    "ALTER TABLE users RENAME TO people",
    "ALTER VIEW names RENAME TO all_names",
    "ALTER TABLE users DROP COLUMN email",
    "DROP TABLE users",
    "DROP SCHEMA shop CASCADE",
    "SELECT 1",
]
#: What our rule is called where squawk has one for both.
_SAME: Final = {"check-not-valid": "foreign-key-not-valid"}


@pytest.mark.parametrize("sql", _STATEMENTS)
def test_our_rules_find_what_squawk_finds(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "one.sql"
    path.write_text(f"{sql};\n")
    program = squawk.executable()
    assert program is not None
    command = [str(program), "--reporter", "json", "--assume-in-transaction", "--config", str(squawk.CONFIG), str(path)]
    answer = subprocess.run(command, capture_output=True, check=False)
    theirs = {squawk.OURS[one["rule_name"]] for one in json.loads(answer.stdout) if one["rule_name"] in squawk.OURS}
    # One of its rules speaks of every constraint; ours tell them apart.
    if len(theirs) > 1:
        theirs.discard("foreign-key-not-valid")
    ours = {_SAME.get(one.rule, one.rule) for one in findings_of(tmp_path / "set", "postgresql", f"{sql};")}
    assert ours - {"foreign-key-without-on-delete"} == theirs - {"not-repeatable"}


def test_it_adds_what_it_alone_knows(tmp_path: Path) -> None:
    found = _lint(tmp_path, "SELECT 1;\nALTER TABLE users\n  ALTER COLUMN email DROP NOT NULL;")
    assert [(one.rule, one.severity, one.file, one.line) for one in found] == [
        ("squawk-ban-drop-not-null", "warning", "0002_change.sql", 3)
    ]


def test_its_findings_stand_among_ours_by_line(tmp_path: Path) -> None:
    nullable = "ALTER TABLE users ALTER email DROP NOT NULL;"
    sql = f"{nullable}\nDROP TABLE orders;\n{nullable}"
    assert [one.rule for one in _lint(tmp_path, sql)] == [
        "squawk-ban-drop-not-null",
        "drop-table",
        "squawk-ban-drop-not-null",
    ]


def test_its_findings_are_silenced_by_name(tmp_path: Path) -> None:
    sql = "-- dal:allow squawk-ban-drop-not-null\nALTER TABLE users ALTER COLUMN email DROP NOT NULL;"
    assert _lint(tmp_path, sql) == []


def test_what_it_cannot_read_is_said(tmp_path: Path) -> None:
    found = {(one.rule, one.severity, one.line) for one in _lint(tmp_path, "SELEC 1;")}
    assert found == {("squawk-syntax-error", "warning", 1)}


def test_files_without_a_transaction_are_read_as_such(tmp_path: Path) -> None:
    sql = "-- dal:no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON users (email);"
    assert _lint(tmp_path, sql) == []


def test_a_configuration_of_the_users_own_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".squawk.toml").write_text('excluded_rules = ["ban-drop-not-null"]\n')
    found = _lint(tmp_path / "set", "ALTER TABLE users ALTER COLUMN email DROP NOT NULL;")
    assert [one.rule for one in found] == ["squawk-ban-drop-not-null"]


def test_it_is_not_asked_about_sqlite(tmp_path: Path) -> None:
    assert lint(write_set(tmp_path, "sqlite", {"0001_a.sql": "PRAGMA x = 1;"}), "sqlite") == []


def test_a_set_of_many_files_is_asked_in_portions(tmp_path: Path) -> None:
    files = {f"{number:04}_n.sql": "ALTER TABLE t ALTER COLUMN a DROP NOT NULL;" for number in range(1, 151)}
    found = lint(write_set(tmp_path, "postgresql", files), "postgresql")
    assert [(one.file, one.rule) for one in found] == [(name, "squawk-ban-drop-not-null") for name in files]


def test_ways_back_are_left_out(tmp_path: Path) -> None:
    files = {"0001_a.sql": "SELECT 1;", "rollback/0001_a.sql": "ALTER TABLE t ALTER COLUMN a DROP NOT NULL;"}
    assert lint(write_set(tmp_path, "postgresql", files), "postgresql") == []


def test_its_absence_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squawk, "executable", lambda: None)
    (finding,) = _lint(tmp_path, "SELECT 1;")
    assert (finding.rule, finding.severity, finding.file) == ("squawk-missing", "warning", "")
    assert "dal[lint]" in finding.advice


@pytest.mark.parametrize("answer", ["exit 3", "echo nonsense", "echo '[{}]'", "exit 0", "kill -9 $$"])
def test_a_program_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    program = tmp_path / "squawk"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setattr(squawk, "executable", lambda: program)
    (finding,) = _lint(tmp_path / "set", "SELECT 1;")
    assert finding.rule == "squawk-missing"


def test_its_rules_are_ours_or_pass_through() -> None:
    assert set(squawk.OURS.values()) - {"transaction-control"} <= set(RULES)


def _lint(directory: Path, sql: str) -> list[Finding]:
    return lint(
        write_set(directory, "postgresql", {"0001_base.sql": base("postgresql"), "0002_change.sql": sql}), "postgresql"
    )
