"""ADD COLUMN where it fails on a table that has rows, or computes a value for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from dal.schema.linting.acts import Act, AlterTable, Column
from dal.schema.linting.catalog import is_serial
from dal.schema.linting.context import Context, Hit
from dal.schema.linting.words import Token, joined, one_of

#: PostgreSQL's functions and types that stand before a bracket in a default and are not volatile. The engine computes
#: such a default once. Any other function is taken for volatile: only the database knows.
_STEADY: Final = one_of(
    "NOW TRANSACTION_TIMESTAMP STATEMENT_TIMESTAMP CURRENT_TIMESTAMP CURRENT_TIME LOCALTIME LOCALTIMESTAMP "
    "CURRENT_SETTING CURRENT_DATABASE CURRENT_SCHEMA LOWER UPPER TRIM BTRIM LTRIM RTRIM LENGTH CHAR_LENGTH CONCAT "
    "CONCAT_WS FORMAT REPEAT REPLACE SUBSTR SUBSTRING LEFT RIGHT LPAD RPAD MD5 SHA256 ENCODE DECODE CONVERT_TO "
    "CONVERT_FROM COALESCE NULLIF GREATEST LEAST CAST ROW ARRAY ARRAY_FILL STRING_TO_ARRAY ABS ROUND CEIL CEILING "
    "FLOOR POWER SQRT MOD TO_CHAR TO_DATE TO_NUMBER TO_TIMESTAMP TO_JSON TO_JSONB TO_TSVECTOR JSON_BUILD_OBJECT "
    "JSON_BUILD_ARRAY JSONB_BUILD_OBJECT JSONB_BUILD_ARRAY DATE_TRUNC DATE_PART EXTRACT MAKE_DATE MAKE_INTERVAL "
    "MAKE_TIMESTAMP MAKE_TIMESTAMPTZ TIMEZONE AGE INT4RANGE INT8RANGE NUMRANGE TSRANGE TSTZRANGE DATERANGE POINT "
    "BOX CIRCLE INTERVAL NUMERIC DECIMAL VARCHAR CHAR CHARACTER VARYING BPCHAR BIT VARBIT TIMESTAMP TIMESTAMPTZ "
    "TIME TIMETZ AND OR NOT IN ANY ALL CASE WHEN THEN ELSE SYMMETRIC BETWEEN"
)
_LITERALS: Final = frozenset({"NULL", "TRUE", "FALSE"})


def check(act: Act, context: Context) -> Iterator[Hit]:
    if not isinstance(act, AlterTable) or not context.exists(act.table):
        return
    for change in act.changes:
        if change.kind == "add-column" and change.column is not None:
            yield from _not_null(act.table, change.column)
            yield from _computed(act.table, change.column, context)
            if context.engine == "sqlite":
                yield from _reference(act.table, change.column)


def _not_null(table: str, column: Column) -> Iterator[Hit]:
    empty = column.default is None or _is_null(column.default)
    key = any(constraint.kind == "primary" for constraint in column.constraints)
    if empty and (column.not_null or key) and not column.generated and not is_serial(column):
        message = f"{table}.{column.name} is NOT NULL without a default: it fails where {table} has rows"
        yield Hit("not-null-without-default", column.place, message)


def _computed(table: str, column: Column, context: Context) -> Iterator[Hit]:
    name = f"{table}.{column.name}"
    if context.engine == "sqlite":
        if column.generated == "stored":
            message = f"{name} is generated and STORED: SQLite refuses it where {table} has rows"
            yield Hit("add-column-volatile-default", column.place, message, "Make it VIRTUAL, or rebuild the table")
        elif column.default is not None and not _constant(column.default):
            default = joined(column.default)
            message = f"{name} has the default {default}: SQLite refuses all but a literal where {table} has rows"
            yield Hit("add-column-volatile-default", column.place, message)
        return
    why = ""
    if column.generated == "stored":
        why = "is generated"
    elif column.generated == "identity" or is_serial(column):
        why = "takes its values from a sequence"
    elif column.default is not None and (function := _volatile(column.default)):
        why = f"has a default that calls {function}()"
    if why:
        message = f"{name} {why}, so {table} is written anew, closed to readers and writers meanwhile"
        yield Hit("add-column-volatile-default", column.place, message)


def _reference(table: str, column: Column) -> Iterator[Hit]:
    if column.default is None or _is_null(column.default):
        return
    if any(constraint.kind == "foreign" for constraint in column.constraints):
        message = (
            f"{table}.{column.name} has a reference and a default: SQLite refuses both together where {table} has rows"
        )
        yield Hit("reference-with-default", column.place, message)


def _is_null(default: Sequence[Token]) -> bool:
    return [(token.kind, token.text) for token in default] == [("word", "NULL")]


def _constant(default: Sequence[Token]) -> bool:
    """A literal, signed or in brackets: all that SQLite takes for a column added to a table with rows."""
    tokens = list(default)
    while len(tokens) > 2 and tokens[0].text == "(" and tokens[-1].text == ")":
        tokens = tokens[1:-1]
    if tokens and tokens[0].kind == "sign" and tokens[0].text in "+-":
        tokens = tokens[1:]
    if len(tokens) == 2 and tokens[0].text == "X":
        tokens = tokens[1:]  # X'00ff'
    return len(tokens) == 1 and (tokens[0].kind in ("string", "number", "name") or tokens[0].text in _LITERALS)


def _volatile(default: Sequence[Token]) -> str:
    """The first function it calls that is not known to be steady."""
    for token, following in pairwise(default):
        is_call = following.kind == "sign" and following.text == "(" and token.kind in ("word", "name")
        if is_call and token.text.upper() not in _STEADY:
            return token.raw
    return ""
