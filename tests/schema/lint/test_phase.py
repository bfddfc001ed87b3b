"""A file that promises to break nothing is held to it, whatever else it is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from dal.schema.connection import Place
from tests.schema.lint.reading import rules_of

_EXPAND: Final = "-- dal:phase=expand\n"

_BREAKS: Final = [
    "DROP TABLE orders;",
    "ALTER TABLE users DROP COLUMN email;",
    "DELETE FROM users;",
    "UPDATE users SET name = '';",
    "ALTER TABLE users ADD COLUMN x TEXT NOT NULL;",
]


@pytest.mark.parametrize("place", ["sqlite", "d1", "postgresql"])
@pytest.mark.parametrize("sql", _BREAKS)
def test_expand_refuses_what_a_running_version_needs(tmp_path: Path, place: Place, sql: str) -> None:
    found = rules_of(tmp_path, place, _EXPAND + sql)
    assert found.count("phase-mismatch:2") == 1
    assert len(found) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE users RENAME TO people;",
        "ALTER TABLE users ALTER email TYPE BIGINT;",
        "ALTER TABLE users ALTER email SET NOT NULL;",
        "TRUNCATE users;",
    ],
)
def test_expand_refuses_what_only_postgresql_has(tmp_path: Path, sql: str) -> None:
    assert rules_of(tmp_path, "postgresql", _EXPAND + sql).count("phase-mismatch:2") == 1


def test_renaming_breaks_an_expand_file_on_sqlite_too(tmp_path: Path) -> None:
    assert rules_of(tmp_path, "sqlite", _EXPAND + "ALTER TABLE users RENAME TO people;") == ["phase-mismatch:2"]


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_expand_keeps_views_or_makes_them_again(tmp_path: Path, place: Place) -> None:
    assert rules_of(tmp_path, place, _EXPAND + "DROP VIEW names;") == ["phase-mismatch:2"]
    again = "DROP VIEW names; CREATE VIEW names AS SELECT name, email FROM users;"
    assert rules_of(tmp_path, place, _EXPAND + again) == []


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_allowing_a_drop_does_not_change_the_phase(tmp_path: Path, place: Place) -> None:
    sql = "-- dal:allow drop-table\n" + _EXPAND + "DROP TABLE notes;"
    assert rules_of(tmp_path, place, sql) == ["phase-mismatch:3"]


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_contract_files_may_drop_or_not(tmp_path: Path, place: Place) -> None:
    assert rules_of(tmp_path, place, "-- dal:phase=contract\nSELECT 1;") == []
    assert rules_of(tmp_path, place, "-- dal:phase=contract\n-- dal:allow drop-table\nDROP TABLE notes;") == []
    assert rules_of(tmp_path, place, "-- dal:phase=contract\nDROP TABLE notes;") == ["drop-table:2"]
