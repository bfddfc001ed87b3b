"""PostgreSQL's errors in the library's words: one table by SQLSTATE, and nothing by message text.

A broken constraint becomes `Violation`, which the store tells in the words of the operations. What the server did not
answer is `UnavailableError`; a write that was on its way then has the outcome "unknown". The driver's error stays as
the cause; its text never enters a message of ours, for it may quote values.
"""

from __future__ import annotations

from typing import Final, Literal

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from dal.backends.sql import Violation
from dal.errors import (
    ConfigurationError,
    ConflictError,
    CorruptDataError,
    DalError,
    DalTimeoutError,
    FencedError,
    InvalidInputError,
    LimitExceededError,
    Outcome,
    SchemaError,
    UnavailableError,
    UnsupportedError,
)
from dal.urls import SCHEMA_UP

BACKEND: Final = "postgresql"
#: The state of a write that a live move's fence refuses (capture.py). Its class is nobody else's.
FENCED: Final = "DALFD"

_Kind = Literal["unique", "foreign key", "not null", "check"]
_VIOLATIONS: Final[dict[str, _Kind]] = {
    "23505": "unique",
    "23503": "foreign key",
    "23502": "not null",
    "23514": "check",
}

#: SQLSTATE, or its class of two characters: error class, what was found and what to do.
_MEANINGS: Final[dict[str, tuple[type[DalError], str]]] = {
    "08": (UnavailableError, "the connection to the server was lost"),
    "0A": (UnsupportedError, "this server does not support the statement"),
    "22": (InvalidInputError, "the server refused a value as malformed or out of range"),
    "25006": (UnavailableError, "the server takes no writes now (a replica, or a primary being switched)"),
    "25P03": (UnavailableError, "the server ended a transaction that stayed idle too long"),
    "26000": (
        ConfigurationError,
        "the server does not keep prepared statements between transactions (a pooler?); add prepare_threshold=none "
        "to the URL",
    ),
    "28": (ConfigurationError, "the server refused the user or password; check DB_USER and DB_PASSWORD, or the URL"),
    "3D000": (ConfigurationError, "there is no such database on the server; check DB_NAME, or create it"),
    "3F000": (SchemaError, f"a table or column is not there; {SCHEMA_UP}"),
    "40": (ConflictError, "another transaction was in the way; retry"),
    "42501": (ConfigurationError, "the user lacks a privilege; grant it"),
    "42703": (SchemaError, f"a table or column is not there; {SCHEMA_UP}"),
    "42883": (SchemaError, "a function is not there; is this a PostgreSQL of version 13 or later?"),
    "42P01": (SchemaError, f"a table or column is not there; {SCHEMA_UP}"),
    "53100": (UnavailableError, "the server's disk is full"),
    "53200": (UnavailableError, "the server is out of memory"),
    "53300": (UnavailableError, "the server has no connection left; lower DB_MAX_CONNECTIONS or use a pooler"),
    "53": (UnavailableError, "the server lacks a resource"),
    "54": (LimitExceededError, "a value is larger than the server can keep"),
    "55P03": (DalTimeoutError, "another transaction held the row for too long"),
    "57014": (DalTimeoutError, "the statement took longer than the server allows"),
    "57": (UnavailableError, "the server is shutting down, starting up or was told to end the connection"),
    "58": (UnavailableError, "the server met an error of its file system"),
    FENCED: (FencedError, "a live move is on, and this database takes no writes of these rows now"),
    "XX001": (CorruptDataError, "the server found corrupt data"),
    "XX002": (CorruptDataError, "the server found a corrupt index"),
}
# A prepared statement that already exists under its name is the same trouble as one that does not.
_MEANINGS["42P05"] = _MEANINGS["26000"]

#: Where the server looks at grants. What it says then names the object and nothing else; its fields do not.
_PRIVILEGE_CHECK: Final = "aclcheck_error"
_RETRYABLE: Final = frozenset({"40001", "40P01"})
#: After these the connection is gone: what was under way may have been committed before the answer was lost.
_CONNECTION_ENDS: Final = ("08", "57P01", "57P02", "57P03", "57P05")


def translate(
    error: psycopg.Error, operation: str, *, sent: bool = False, statement: int | None = None
) -> DalError | Violation:
    """The error to raise `from` this one.

    operation  what was tried.
    sent       a write was on its way to being committed: when the answer was lost, it may have happened.
    statement  index in the batch of the statement that was refused, where known.
    """
    state = error.sqlstate or ""
    if state in _VIOLATIONS:
        return Violation(_VIOLATIONS[state], statement=statement, constraint=error.diag.constraint_name or "")
    if not state:
        return _without_code(error, operation, sent=sent)
    found, meaning = _meaning(state)
    if state == "42501" and error.diag.source_function == _PRIVILEGE_CHECK:
        meaning = f"the user lacks a privilege: {error.diag.message_primary}; grant it"
    return found(
        f"{operation}: {meaning} (SQLSTATE {state})",
        operation=operation,
        backend=BACKEND,
        retryable=True if state in _RETRYABLE else None,
        outcome=_outcome(sent and state.startswith(_CONNECTION_ENDS)),
    )


def translate_read(error: psycopg.Error) -> DalError:
    """The same for a reading statement, which no constraint refuses."""
    found = translate(error, "read")
    return found if isinstance(found, DalError) else DalError("read: a constraint refused it", backend=BACKEND)


def connection_refused(state: str, address: str, *, needs_password: bool) -> DalError:
    """The error for a connection that could not be opened, by the server's SQLSTATE; empty when it gave none."""
    found: type[DalError]
    if needs_password:
        found, meaning = ConfigurationError, "the server asks for a password and none was given; set DB_PASSWORD"
    elif state:
        found, meaning = _meaning(state)
    else:
        found, meaning = UnavailableError, "no answer; is the address right, the server up, TLS as it demands?"
    code = f" (SQLSTATE {state})" if state else ""
    return found(f"cannot connect to {address}: {meaning}{code}", operation="open", backend=BACKEND)


def timed_out(operation: str, what: str, *, sent: bool = False) -> DalTimeoutError:
    return DalTimeoutError(f"{operation}: {what}", operation=operation, backend=BACKEND, outcome=_outcome(sent))


def closed(operation: str) -> UnavailableError:
    return UnavailableError(f"{operation}: the store was closed", operation=operation, backend=BACKEND, retryable=False)


def _meaning(state: str) -> tuple[type[DalError], str]:
    return (
        _MEANINGS.get(state)
        or _MEANINGS.get(state[:2])
        or (DalError, "the server refused the statement; the cause has its words")
    )


def _without_code(error: psycopg.Error, operation: str, *, sent: bool) -> DalError:
    """Errors of the driver and the pool, told by their class: the server said nothing."""
    if isinstance(error, PoolTimeout | TooManyRequests):
        return timed_out(
            operation, "no connection became free in time; raise DB_MAX_CONNECTIONS, or look for long work"
        )
    if isinstance(error, PoolClosed):
        return closed(operation)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return UnavailableError(
            f"{operation}: the connection to the server was lost",
            operation=operation,
            backend=BACKEND,
            outcome=_outcome(sent),
        )
    if isinstance(error, psycopg.DataError):
        return InvalidInputError(
            f"{operation}: a value is none that the server can hold, as text with a zero byte",
            operation=operation,
            backend=BACKEND,
        )
    return DalError(
        f"{operation}: the driver refused the statement ({type(error).__name__})", operation=operation, backend=BACKEND
    )


def _outcome(lost: bool) -> Outcome:
    return "unknown" if lost else "not_applied"
