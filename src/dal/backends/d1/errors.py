"""D1's answers in the library's words: one table by HTTP status, one by D1's documented texts.

D1 answers every trouble with a statement by code 7500, with status 400 or 500, and says which by its text alone; the
texts below are those of its documents and of SQLite's constraints. What came without a readable answer is told by how
far the request had come. Neither D1's text nor the token ever enters a message of ours; the text stays in the cause.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from dal.backends.sql import Violation
from dal.errors import (
    ConfigurationError,
    DalError,
    DalTimeoutError,
    FencedError,
    LimitExceededError,
    Outcome,
    SchemaError,
    UnavailableError,
    UnsupportedError,
)
from dal.limits import D1_MAX_COMPOUND_TERMS, D1_MAX_PARAMS, D1_MAX_SQL_BYTES, D1_MAX_VALUE_BYTES, STATEMENT_TIMEOUT_S
from dal.tables import TABLES
from dal.urls import SCHEMA_UP

BACKEND: Final = "d1"
GUARD: Final = "dal_guard"
#: What the triggers of a move's fence say (sql/sqlite_capture.py).
FENCED: Final = "dal: fenced"

_Kind = Literal["unique", "foreign key", "not null", "check"]


class Failure(Exception):
    """A request without its result. Never seen by callers but as the cause of an error.

    status         the answer's HTTP status; None where there was no answer.
    code           D1's error code; 0 where the answer held none.
    text           what D1 said, for the cause only.
    is_sent        the request, or a part of it, had left when it failed.
    retry_after_s  how long the server asks to be left alone; None where it did not say.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        code: int = 0,
        is_sent: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"status {status}, code {code}: {text}" if status is not None else text)
        self.status = status
        self.code = code
        self.text = text
        self.is_sent = is_sent
        self.retry_after_s = retry_after_s


class Meaning(NamedTuple):
    """What a failure comes to.

    error    its class in the taxonomy.
    words    what was found and what to do.
    outcome  of a write: `unknown` where it may have been carried out all the same.
    passes   trying again may help.
    """

    error: type[DalError]
    words: str
    outcome: Outcome = "not_applied"
    passes: bool = False


_LOST: Final = Meaning(UnavailableError, "the answer was lost on its way", "unknown", passes=True)
_UNREADABLE: Final = Meaning(UnavailableError, "the answer cannot be read", "unknown", passes=True)
_NOT_REACHED: Final = Meaning(
    UnavailableError, "no connection to the API; is the address right and the network up?", passes=True
)
_FULL: Final = Meaning(UnavailableError, "the database or the account is full; delete rows or raise the limit")
_SPENT: Final = Meaning(DalTimeoutError, "a statement used up the time or memory that D1 grants", "unknown")

#: By HTTP status where it says enough by itself.
_STATUSES: Final[dict[int, Meaning]] = {
    401: Meaning(ConfigurationError, "the token was refused; check D1_API_TOKEN, or D1_WORKER_TOKEN"),
    403: Meaning(ConfigurationError, "the token may not use this account or database; check D1_API_TOKEN"),
    404: Meaning(ConfigurationError, "there is no such account or database; check the URL or D1_DATABASE_ID"),
    405: Meaning(ConfigurationError, "this is not the API of D1; check D1_API_BASE, or D1_WORKER_URL"),
    408: _LOST,
    413: Meaning(LimitExceededError, "the request is larger than the API takes; write in smaller batches"),
    429: Meaning(UnavailableError, "too many requests", passes=True),
    500: Meaning(UnavailableError, "D1 met an error of its own", "unknown", passes=True),
    503: Meaning(UnavailableError, "D1 is overloaded or restarting", "unknown", passes=True),
}

#: By D1's documented texts, for answers of code 7500: the first that occurs.
_TEXTS: Final[tuple[tuple[str, Meaning], ...]] = (
    (FENCED, Meaning(FencedError, "a live move is on, and this database takes no writes of these rows now")),
    (
        "too many terms in compound SELECT",
        Meaning(LimitExceededError, f"more than {D1_MAX_COMPOUND_TERMS} terms in a compound SELECT"),
    ),
    ("too many SQL variables", Meaning(LimitExceededError, f"more than {D1_MAX_PARAMS} parameters in a statement")),
    ("statement too long", Meaning(LimitExceededError, f"a statement of more than {D1_MAX_SQL_BYTES} bytes")),
    ("SQLITE_TOOBIG", Meaning(LimitExceededError, f"a value of more than {D1_MAX_VALUE_BYTES} bytes")),
    ("string or blob too big", Meaning(LimitExceededError, f"a value of more than {D1_MAX_VALUE_BYTES} bytes")),
    ("no such table", Meaning(SchemaError, f"a table or column is not there; {SCHEMA_UP}")),
    ("no such column", Meaning(SchemaError, f"a table or column is not there; {SCHEMA_UP}")),
    ("has no column named", Meaning(SchemaError, f"a table or column is not there; {SCHEMA_UP}")),
    ("Exceeded maximum DB size", _FULL),
    ("maximum account storage limit", _FULL),
    ("SQLITE_FULL", _FULL),
    ("exceeded its CPU time limit", _SPENT),
    ("exceeded its memory limit", _SPENT),
    ("exceeded timeout", _SPENT),
    ("is overloaded", Meaning(UnavailableError, "D1 has too many requests queued", "unknown", passes=True)),
    ("Network connection lost", _LOST),
    ("caused object to be reset", Meaning(UnavailableError, "D1 reset the database's storage", "unknown", passes=True)),
    ("its code was updated", Meaning(UnavailableError, "D1 restarted the database", "unknown", passes=True)),
    ("transient issue", Meaning(UnavailableError, "D1 could not find the database just now", "unknown", passes=True)),
    ("SQLITE_AUTH", Meaning(UnsupportedError, "D1 does not allow this statement")),
    ("not authorized", Meaning(UnsupportedError, "D1 does not allow this statement")),
    ("SQLITE_ERROR", Meaning(SchemaError, "a statement does not fit the tables found there; run `dal schema status`")),
)
_REFUSED: Final = Meaning(DalError, "D1 refused the statement; the cause has its words")

_CONSTRAINT: Final = re.compile(r"(UNIQUE|FOREIGN KEY|NOT NULL|CHECK) constraint failed(?:: ([\w., ]*\w))?")
#: What D1 says where a constraint that was checked at the end of the batch has undone it.
_AT_THE_END: Final = "rolled back to its last known good state"
_KINDS: Final[dict[str, _Kind]] = {
    "UNIQUE": "unique",
    "FOREIGN KEY": "foreign key",
    "NOT NULL": "not null",
    "CHECK": "check",
}


class Broken(NamedTuple):
    """A constraint that refused a batch: its kind, and the table and columns (or the constraint's name) it names."""

    kind: _Kind
    table: str
    columns: tuple[str, ...]


def broken_constraint(failure: Failure) -> Broken | None:
    """The constraint that the failure reports, if it is one."""
    if failure.code != STATEMENT_ERROR or failure.status is None:
        return None
    if failure.status >= 500 and _AT_THE_END not in failure.text:
        return None
    found = _CONSTRAINT.search(failure.text)
    if found is None:
        return None
    kind, names = _KINDS[found[1]], [name.strip() for name in (found[2] or "").split(",")]
    table = names[0].partition(".")[0] if "." in names[0] else ""
    return Broken(kind, table, tuple(name.rpartition(".")[2] for name in names if name))


#: D1's code for whatever is wrong with a statement or the running of it.
STATEMENT_ERROR: Final = 7500


def meaning_of(failure: Failure) -> Meaning:
    """What the failure comes to; constraints are looked for before (`broken_constraint`)."""
    if failure.status is None:
        return _LOST if failure.is_sent else _NOT_REACHED
    if failure.code == STATEMENT_ERROR:
        for text, meaning in _TEXTS:
            if text in failure.text:
                return meaning
    if failure.status in _STATUSES:
        return _STATUSES[failure.status]
    if failure.status >= 500:
        return _STATUSES[503]
    return _UNREADABLE if failure.code == 0 and failure.status < 400 else _REFUSED


def error_of(failure: Failure, operation: str, address: str, *, writes: bool) -> DalError:
    """The error to raise `from` this failure."""
    meaning = meaning_of(failure)
    code = "" if failure.status is None else f" (status {failure.status}, code {failure.code})"
    return meaning.error(
        f"{address}: {operation}: {meaning.words}{code}",
        operation=operation,
        backend=BACKEND,
        retryable=meaning.passes or meaning.error is FencedError,  # not here, but at the new primary
        outcome=meaning.outcome if writes else "not_applied",
    )


def gave_up(failure: Failure, operation: str, address: str, *, tries: int, outcome: Outcome) -> DalTimeoutError:
    """The error when trying again did not help in time. Nobody above tries on: the time is used up."""
    code = "no answer" if failure.status is None else f"status {failure.status}, code {failure.code}"
    return DalTimeoutError(
        f"{address}: {operation}: gave up after {tries} tries within {STATEMENT_TIMEOUT_S:g} s; "
        f"at last {meaning_of(failure).words} ({code})",
        operation=operation,
        backend=BACKEND,
        outcome=outcome,
    )


def violation_of(broken: Broken, statements: list[str]) -> Violation:
    """The constraint in the shared store's words; the statement is known where only one of them could break it.

    A guard of the compiler's own, for a Ref that must find a row, inserts null where a Guard inserts 0.
    """
    if broken.kind == "not null" and broken.table == GUARD:
        return Violation("missing")
    table = GUARD if broken.kind == "check" else broken.table
    places = [
        place
        for place, sql in enumerate(statements)
        if table and (f"INSERT INTO {table} " in sql or sql.startswith(f"UPDATE {table} "))
    ]
    constraint = ""
    if broken.kind == "unique" and table in TABLES:
        names = [i.name for i in TABLES[table].indexes if i.unique and i.columns == broken.columns]
        constraint = names[0] if names else f"{table}_pkey"
    return Violation(broken.kind, statement=places[0] if len(places) == 1 else None, constraint=constraint)
