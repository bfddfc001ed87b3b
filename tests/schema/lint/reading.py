"""Sets written for one test, and what lint says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dal.schema.connection import EngineName, Place
from dal.schema.files import MigrationSet, read_set
from dal.schema.findings import Finding
from dal.schema.linting import lint

_BASE: Final = """
CREATE TABLE users (id {id} PRIMARY KEY, name VARCHAR(20), email TEXT, amount NUMERIC(10, 2));
CREATE TABLE "Odd Name" ("Col A" TEXT);
CREATE TABLE orders (id {id} PRIMARY KEY, user_id {id} REFERENCES users(id) ON DELETE CASCADE);
CREATE TABLE notes (id {id} PRIMARY KEY, user_id {id} REFERENCES users(id) ON DELETE NO ACTION);
CREATE INDEX users_email ON users (email);
CREATE VIEW names AS SELECT name FROM users;
"""


def engine_of(place: Place) -> EngineName:
    return "postgresql" if place == "postgresql" else "sqlite"


def write_set(directory: Path, place: Place, files: dict[str, str]) -> MigrationSet:
    """A set of these files; names with a slash are ways back."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_set(directory, engine_of(place))


def base(place: Place) -> str:
    """The first file of each set: tables that exist when the next one comes."""
    return _BASE.format(id="BIGINT" if place == "postgresql" else "INTEGER")


def findings_of(directory: Path, place: Place, sql: str, *, name: str = "0002_change.sql") -> list[Finding]:
    """Of a file that follows `base`; squawk's are left out."""
    files = {"0001_base.sql": base(place), name: sql}
    if name.startswith("rollback/"):
        files[name.removeprefix("rollback/")] = "SELECT 1;"
    found = lint(write_set(directory, place, files), place)
    assert {finding.file for finding in found if not finding.rule.startswith("squawk")} <= {name}
    return [finding for finding in found if not finding.rule.startswith("squawk")]


def rules_of(directory: Path, place: Place, sql: str, *, name: str = "0002_change.sql") -> list[str]:
    """Each finding as `rule:line`, in the order of the file."""
    return [f"{finding.rule}:{finding.line}" for finding in findings_of(directory, place, sql, name=name)]
