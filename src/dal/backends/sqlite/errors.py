"""SQLite's result codes in the words of the taxonomy: by code, never by message text."""

from __future__ import annotations

import sqlite3
from typing import Final, Literal

from dal.backends.sql import Violation
from dal.errors import (
    ConfigurationError,
    CorruptDataError,
    DalError,
    DalTimeoutError,
    FencedError,
    LimitExceededError,
    SchemaError,
    UnavailableError,
)
from dal.limits import LOCK_TIMEOUT_S

BACKEND: Final = "sqlite"

_Kind = Literal["unique", "foreign key", "not null", "check"]
_VIOLATIONS: Final[dict[int, _Kind]] = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "unique",
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign key",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "not null",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "check",
}
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ACCESS: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
)
_SCHEMA: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA})


def violation_of(error: sqlite3.Error, statement: int) -> Violation | None:
    """The broken constraint that the error reports, if it is one."""
    kind = _VIOLATIONS.get(getattr(error, "sqlite_errorcode", 0))
    return None if kind is None else Violation(kind, statement=statement)


def translate(error: sqlite3.Error, path: str, operation: str, *, committing: bool = False) -> DalError:
    """The error of the taxonomy; `committing` when COMMIT itself failed.

    A COMMIT that failed to write may have reached the disk all the same: a recovery after power loss can find it.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # The driver's own: a value of a type it does not take, a connection used after its end.
        return DalError(f"{path}: the sqlite3 module refused the call", operation=operation, backend=BACKEND)
    if code == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        # No trigger of the schema refuses anything: it is a move's fence.
        message = f"{path}: a live move is on, and this database takes no writes of these rows now"
        return FencedError(message, operation=operation, backend=BACKEND)
    primary = code & 0xFF
    name = getattr(error, "sqlite_errorname", str(code))
    if primary in _BUSY:
        message = f"{path}: another process held the database for {LOCK_TIMEOUT_S:g} s ({name}); try again"
        return DalTimeoutError(message, operation=operation, backend=BACKEND)
    if primary in _CORRUPT:
        message = f"{path} is damaged or no SQLite database ({name}); restore it from a backup"
        return CorruptDataError(message, operation=operation, backend=BACKEND)
    if primary in _NO_ACCESS:
        if operation == "open":
            message = (
                f"{path}: cannot be opened for writing ({name}); check that the file and its directory are writable"
            )
            return ConfigurationError(message, operation=operation, backend=BACKEND)
        message = f"{path} became unwritable or was moved ({name}); check the file, then open the store again"
        return UnavailableError(message, operation=operation, backend=BACKEND, retryable=False)
    if primary == sqlite3.SQLITE_FULL:
        message = f"{path}: the disk is full ({name}); free some space"
        return UnavailableError(message, operation=operation, backend=BACKEND)
    if primary == sqlite3.SQLITE_TOOBIG:
        return LimitExceededError(f"{path}: a value is too large for SQLite", operation=operation, backend=BACKEND)
    if primary in _SCHEMA:
        message = f"{path}: a statement does not fit the tables found there ({name}); run `dal schema status`"
        return SchemaError(message, operation=operation, backend=BACKEND)
    return UnavailableError(
        f"{path}: SQLite could not {operation} ({name})",
        operation=operation,
        backend=BACKEND,
        outcome="unknown" if committing else "not_applied",
    )
