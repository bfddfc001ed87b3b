"""PostgreSQL's refusals of migrations: told by SQLSTATE, with the server's own words, which a migration's author needs.

The words may quote a key or a row (`Key (email)=(…) already exists`); they go to whoever runs the migration, and never
into an error of the waist (errors.py).
"""

from __future__ import annotations

from typing import Final, Literal

import psycopg

from dal.backends.postgresql.errors import BACKEND, translate, translate_read
from dal.errors import DalError
from dal.schema.connection import StatementError

_UNIQUE: Final = "23505"
#: lock_not_available, deadlock_detected, serialization_failure: the same batch may succeed later.
_BUSY: Final = frozenset({"55P03", "40P01", "40001"})
_FATAL: Final = ("FATAL", "PANIC")


def refusal(error: psycopg.Error, index: int | None, *, sent: bool) -> StatementError | DalError:
    """The error to raise `from` this one: StatementError where the server said no, else that it did not answer.

    index  which statement of the batch it was, where known.
    sent   the answer that was lost may have been that of a commit.
    """
    if is_lost(error):
        found = translate(error, "schema", sent=sent)
        return found if isinstance(found, DalError) else DalError("schema: no answer", backend=BACKEND)
    position = error.diag.statement_position
    return StatementError(
        index,
        words(error),
        code=error.sqlstate or "",
        kind=_kind(error.sqlstate),
        position=int(position) - 1 if position is not None and position.isdecimal() else None,
    )


def read_refusal(error: psycopg.Error) -> DalError:
    """The same for a statement that only reads: the taxonomy's error, with the server's words at its end."""
    found = translate_read(error)
    if is_lost(error):
        return found
    return type(found)(
        f"{found.message}: {words(error)}", operation="schema", backend=BACKEND, retryable=found.retryable
    )


def is_lost(error: psycopg.Error) -> bool:
    """The connection is gone, or never was: nobody said what became of the statement."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith("08") or error.diag.severity_nonlocalized in _FATAL


def words(error: psycopg.Error) -> str:
    """What the server said, on one line; of the driver's own errors, what the driver said."""
    said = error.diag
    parts = [said.message_primary or str(error) or type(error).__name__]
    more = (("DETAIL", said.message_detail), ("HINT", said.message_hint))
    parts += [f"{label}: {text}" for label, text in more if text]
    return " ".join(" ".join(parts).split())


def _kind(state: str | None) -> Literal["unique", "busy", "other"]:
    if state == _UNIQUE:
        return "unique"
    return "busy" if state in _BUSY else "other"
