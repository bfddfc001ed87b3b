"""Statements as D1's API takes them: values of a statement travel as one JSON parameter.

A number in the parameters of a request binds as REAL, so that `5 / 2` is 2.5 and integers beyond 2^53 are rounded;
taken out of a JSON text by SQLite itself, it is the integer that was written. One text for all values also leaves the
limit of 100 parameters behind, and lets any number of rows be one statement. Long texts go beside it as parameters of
their own, so that they are neither escaped twice nor squeezed into one value's limit together.
"""

# ruff: noqa: S608  (what is put together are texts of the compiler's, never values)
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, cast

import orjson

from dal.backends.d1.errors import BACKEND
from dal.backends.sql import Statement
from dal.errors import LimitExceededError
from dal.limits import D1_LONG_TEXT_CHARS, D1_MAX_PARAMS, D1_MAX_SQL_BYTES, D1_MAX_VALUE_BYTES, D1_PART_BYTES

_SHAPES: Final = 4096
_VALUES: Final = re.compile(r" VALUES \((.*)\)( RETURNING .*)?\Z", re.DOTALL)
_FROM: Final = " FROM messages WHERE "


class Entry(NamedTuple):
    """One statement of a request."""

    sql: str
    params: Sequence[object]


def entries_of(statement: Statement) -> list[Entry]:
    """The statement as D1 takes it; several where its rows do not fit into one. Raises LimitExceededError."""
    if not statement.params:
        return [] if statement.many else [Entry(statement.sql, ())]
    if statement.many:
        rows = cast("Sequence[Sequence[object]]", statement.params)
        return list(_rows(statement.sql, rows)) if len(rows) > 1 else [_single(statement.sql, rows[0])]
    return [_single(statement.sql, statement.params)]


def plain(sql: str, params: Sequence[object]) -> Entry:
    """A statement with its parameters as they are: for SQL of others, which may hold any character."""
    _check_sql(sql)
    if len(params) > D1_MAX_PARAMS:
        raise _exceeded(f"a statement with {len(params)} parameters; D1 takes {D1_MAX_PARAMS}")
    for value in params:
        if isinstance(value, str):
            check_text(value)
    return Entry(sql, params)


def body_of(entries: Sequence[Entry]) -> bytes:
    """The request's body."""
    if len(entries) == 1:
        return orjson.dumps({"sql": entries[0].sql, "params": entries[0].params})
    return orjson.dumps({"batch": [{"sql": sql, "params": params} for sql, params in entries]})


def check_text(text: str) -> None:
    """Raises LimitExceededError for a text that D1 does not take as one value."""
    if len(text) * 4 > D1_MAX_VALUE_BYTES and (size_bytes := len(text.encode())) > D1_MAX_VALUE_BYTES:
        raise _exceeded(f"a text of {size_bytes} bytes; D1 takes {D1_MAX_VALUE_BYTES} in a value")


def check_row(table: str, params: Sequence[object]) -> None:
    """Raises LimitExceededError for a row that D1 does not keep."""
    texts = [value for value in params if type(value) is str]
    if sum(map(len, texts)) * 4 <= D1_MAX_VALUE_BYTES:
        return
    # Its numbers and what SQLite writes before each value, amply.
    size_bytes = sum(len(text.encode()) for text in texts) + 20 * len(params)
    if size_bytes > D1_MAX_VALUE_BYTES:
        raise _exceeded(f"{table}: a row of {size_bytes} bytes; D1 takes {D1_MAX_VALUE_BYTES}")


def _single(sql: str, params: Sequence[object]) -> Entry:
    long = tuple(
        [place for place, value in enumerate(params) if type(value) is str and len(value) > D1_LONG_TEXT_CHARS]
    )
    if not long:
        return Entry(_numbered(sql, len(params), ()), (orjson.dumps(params).decode(),))
    if len(long) >= D1_MAX_PARAMS:
        raise _exceeded(f"{len(long)} long texts in one statement; D1 takes {D1_MAX_PARAMS} parameters")
    texts = [cast(str, params[place]) for place in long]
    for text in texts:
        check_text(text)
    short = [None if place in long else value for place, value in enumerate(params)]
    return Entry(_numbered(sql, len(params), long), (orjson.dumps(short).decode(), *texts))


def _rows(sql: str, rows: Sequence[Sequence[object]]) -> Iterator[Entry]:
    """The statement once for each row, in as few statements as parts of D1_PART_BYTES allow."""
    over_rows = _over_rows(sql, len(rows[0]))
    part: list[bytes] = []
    size_bytes = 0
    for row in rows:
        data = orjson.dumps(row)
        if part and size_bytes + len(data) > D1_PART_BYTES:
            yield Entry(over_rows, (_array(part),))
            part, size_bytes = [], 0
        if len(data) > D1_PART_BYTES:
            yield _single(sql, row)
            continue
        part.append(data)
        size_bytes += len(data) + 1
    if part:
        yield Entry(over_rows, (_array(part),))


def _array(parts: Sequence[bytes]) -> str:
    return f"[{b','.join(parts).decode()}]"


@lru_cache(_SHAPES)
def _numbered(sql: str, count: int, long: tuple[int, ...]) -> str:
    """The text with each placeholder as a value out of the first parameter, or as a later parameter."""
    pieces = sql.split("?")
    if len(pieces) != count + 1:
        raise ValueError(f"{len(pieces) - 1} placeholders for {count} values")
    made = [pieces[0]]
    for place, piece in enumerate(pieces[1:]):
        made.append(f"?{2 + long.index(place)}" if place in long else f"json_extract(?1, '$[{place}]')")
        made.append(piece)
    return _checked("".join(made))


@lru_cache(_SHAPES)
def _over_rows(sql: str, count: int) -> str:
    """The text for any number of rows, which come as one JSON array of arrays.

    The rows are materialised: taken straight from json_each, each of a row's values would print and parse it anew.
    """
    pieces = sql.split("?")
    if len(pieces) != count + 1:
        raise ValueError(f"{len(pieces) - 1} placeholders for {count} values")
    numbered = pieces[0] + "".join(f"(given.one ->> {place}){piece}" for place, piece in enumerate(pieces[1:]))
    values = _VALUES.search(numbered)
    if values is not None:
        numbered = f"{numbered[: values.start()]} SELECT {values[1]} FROM given{values[2] or ''}"
    elif _FROM in numbered:
        numbered = numbered.replace(_FROM, " FROM given CROSS JOIN messages WHERE ", 1)
    else:
        raise ValueError(f"no way to run {sql[:40]} over rows")
    return _checked(f"WITH given (one) AS MATERIALIZED (SELECT value FROM json_each(?1)) {numbered}")


def _checked(sql: str) -> str:
    _check_sql(sql)
    return sql


def _check_sql(sql: str) -> None:
    if len(sql) * 4 > D1_MAX_SQL_BYTES and (size_bytes := len(sql.encode())) > D1_MAX_SQL_BYTES:
        raise _exceeded(f"a statement of {size_bytes} bytes; D1 takes {D1_MAX_SQL_BYTES}")


def _exceeded(what: str) -> LimitExceededError:
    return LimitExceededError(what, operation="commit", backend=BACKEND)
