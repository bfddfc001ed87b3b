"""The migration files: where they are, what their names and headers say, and what their text is.

A file is `NNNN_name.sql`, plain SQL that psql and wrangler read as well; `rollback/NNNN_name.sql` is its way back.
Lines of its header that begin with `-- dal:` are directives. Nothing wrong with a file raises: a finding names it, so
that one run shows everything that is to be mended. The wheel carries the library's own files as `dal/_schema`; an
editable install reads the repository's `schema/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from dal.errors import SchemaError
from dal.schema.connection import EngineName
from dal.schema.directives import Directives, read_directives
from dal.schema.findings import Finding
from dal.schema.ordering import number_findings, number_of, ordered
from dal.schema.statements import ScriptError, Statement, read_script, tokens, words_of
from dal.schema.tool_tables import LEDGER_TABLES

#: The library's own set; no other has this name.
LIBRARY_SET: Final = "dal"
_ROLLBACK: Final = "rollback"
_BOM: Final = b"\xef\xbb\xbf"
_CONTROL: Final = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One file.

    name        as messages call it: `0001_x.sql` or `rollback/0001_x.sql`.
    checksum    SHA-256 of its text with LF line ends and without a byte-order mark, in hexadecimal.
    statements  in order; none where the file cannot be read (a finding says so).
    """

    path: Path
    name: str
    checksum: str
    statements: tuple[Statement, ...]
    directives: Directives


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of the schema.

    name    the whole file name: its identity in the ledger.
    number  the digits that it begins with.
    down    its way back; None where there is none.
    """

    name: str
    number: int
    up: Script
    down: Script | None

    @property
    def statements(self) -> tuple[Statement, ...]:
        return self.up.statements

    @property
    def checksum(self) -> str:
        return self.up.checksum

    @property
    def directives(self) -> Directives:
        return self.up.directives


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSet:
    """The files of one directory.

    name        what the ledger calls the set: `dal` for the library's own, else the directory's name.
    migrations  in the order in which they are applied: by `requires`, else by number and name.
    findings    what is wrong or odd with the files, by file and line.
    """

    name: str
    directory: Path
    engine: EngineName
    migrations: tuple[Migration, ...]
    findings: tuple[Finding, ...]

    def get(self, name: str) -> Migration | None:
        return next((migration for migration in self.migrations if migration.name == name), None)

    def position(self, name: str) -> int:
        """Place in the order of application. Raises SchemaError: no such file."""
        for place, migration in enumerate(self.migrations):
            if migration.name == name:
                return place
        raise SchemaError(f"{self.directory}: there is no {name}")


def schema_directory(engine: EngineName) -> Path:
    """The directory of the library's migrations. Raises SchemaError where the installation lacks it."""
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_schema", package.parent.parent / "schema"):
        if (root / engine).is_dir():
            return root / engine
    raise SchemaError(f"the installed package holds no schema/{engine}; install it again")


@cache
def library_set(engine: EngineName) -> MigrationSet:
    """The library's own migrations."""
    return _read(schema_directory(engine), engine, LIBRARY_SET)


def read_set(directory: Path, engine: EngineName) -> MigrationSet:
    """The migrations of a directory: of itself where it holds *.sql, else of its `sqlite` or `postgresql`.

    Raises SchemaError: the directory is not there.
    """
    whole = directory.resolve()
    found = whole if any(whole.glob("*.sql")) or not (whole / engine).is_dir() else whole / engine
    if not found.is_dir():
        raise SchemaError(f"{directory} is no directory; name the one that holds the migrations with --dir")
    name = whole.name or "migrations"
    return _read(found, engine, f"{whole.parent.name}/{name}" if name == LIBRARY_SET else name)


def _read(directory: Path, engine: EngineName, name: str) -> MigrationSet:
    findings: list[Finding] = []
    migrations: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        number = number_of(path.name, findings)
        if number is None:
            continue
        up = _read_script(path, path.name, engine, findings)
        down = None
        way_back = directory / _ROLLBACK / path.name
        if way_back.exists():
            down = _read_script(way_back, f"{_ROLLBACK}/{path.name}", engine, findings)
        else:
            message = f"there is no {_ROLLBACK}/{path.name}: `dal schema down` cannot take it back"
            _add(findings, up, Finding(rule="missing-rollback", severity="warning", file=path.name, message=message))
        migrations.append(Migration(name=path.name, number=number, up=up, down=down))
    findings += number_findings(migrations)
    findings += _orphans(directory, {migration.name for migration in migrations})
    in_order = ordered(migrations, findings)
    return MigrationSet(
        name=name, directory=directory, engine=engine, migrations=tuple(in_order), findings=tuple(findings)
    )


def _orphans(directory: Path, names: set[str]) -> Iterator[Finding]:
    for path in sorted((directory / _ROLLBACK).glob("*.sql")):
        if path.name not in names:
            yield Finding(
                rule="orphan-rollback",
                severity="warning",
                file=f"{_ROLLBACK}/{path.name}",
                message=f"there is no {path.name} that it takes back",
            )


def _read_script(path: Path, name: str, engine: EngineName, findings: list[Finding]) -> Script:
    own: list[Finding] = []
    text = _read_text(path, name, own)
    directives = read_directives(name, text, own)
    statements: tuple[Statement, ...] = ()
    if not any(finding.rule == "unreadable" for finding in own):
        try:
            found, is_open = read_script(text, engine)
            statements = tuple(found)
            own += _statement_findings(name, statements, engine, is_open=is_open)
        except ScriptError as error:
            own.append(_unreadable(name, error.message, error.line))
    script = Script(
        path=path,
        name=name,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
        statements=statements,
        directives=directives,
    )
    for finding in own:
        _add(findings, script, finding)
    return script


def _read_text(path: Path, name: str, findings: list[Finding]) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        findings.append(_unreadable(name, f"it cannot be read ({type(error).__name__})"))
        return ""
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
        message = "it begins with a byte-order mark, which psql and sqlite3 take for SQL; save it without"
        findings.append(Finding(rule="byte-order-mark", severity="warning", file=name, line=1, message=message))
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
        message = "its lines end in CR LF; the checksum is taken with LF, but literals hold the CR elsewhere"
        findings.append(Finding(rule="crlf", severity="warning", file=name, line=1, message=message))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        findings.append(_unreadable(name, f"it is not UTF-8 (byte 0x{data[error.start]:02x})", line))
        return ""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        findings.append(_unreadable(name, "it holds the character U+0000, which no engine takes", line))
    return text


def _statement_findings(
    name: str, statements: tuple[Statement, ...], engine: EngineName, *, is_open: bool
) -> Iterator[Finding]:
    if not statements:
        message = "it holds no statement; it will be entered as applied and do nothing"
        yield Finding(rule="empty-file", severity="warning", file=name, message=message)
    elif is_open:
        message = "its last statement lacks the semicolon; psql leaves such a statement out"
        line = statements[-1].line
        yield Finding(rule="missing-final-semicolon", severity="warning", file=name, line=line, message=message)
    for statement in statements:
        if (table := _tool_table(statement.sql, engine)) is not None:
            message = f"{table} is a table of this tool: what a file does to it may undo its own ledger row"
            yield Finding(rule="tool-table", severity="error", file=name, line=statement.line, message=message)
        if (trouble := _transaction_control(words_of(statement.sql, engine, 2), engine)) is not None:
            yield Finding(
                rule="transaction-control",
                severity="error",
                file=name,
                line=statement.line,
                message=trouble[0],
                advice=trouble[1],
            )


def _transaction_control(words: list[str], engine: EngineName) -> tuple[str, str] | None:
    first = words[0] if words else ""
    if first in _CONTROL or words == ["PREPARE", "TRANSACTION"]:
        return (
            f"{first} inside a migration would end or split the transaction that holds the file and its ledger row",
            "leave it out: each file is one transaction, unless it says `-- dal:no-transaction`",
        )
    if engine == "sqlite" and words == ["PRAGMA", "FOREIGN_KEYS"]:
        return (
            "PRAGMA foreign_keys does nothing inside a transaction, so a table rebuild would delete the children",
            "write `-- dal:foreign-keys=off` into the header instead",
        )
    return None


def _tool_table(sql: str, engine: EngineName) -> str | None:
    if not any(name in sql.lower() for name in LEDGER_TABLES):
        return None
    for token in tokens(sql, engine):
        name = token.text.strip('"`[]').lower()
        if token.kind in ("word", "name") and name in LEDGER_TABLES:
            return name
    return None


def _unreadable(name: str, message: str, line: int | None = None) -> Finding:
    return Finding(rule="unreadable", severity="error", file=name, line=line, message=message)


def _add(findings: list[Finding], script: Script, finding: Finding) -> None:
    """Unless the file itself allows it; what makes it unreadable cannot be allowed."""
    if finding.rule == "unreadable" or finding.rule not in script.directives.allow:
        findings.append(finding)
