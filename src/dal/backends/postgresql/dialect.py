"""PostgreSQL's SQL: placeholders with the type where the place does not give it, arrays for lists, tsvector for search.

Nothing here does I/O. Parameters are text, or integers and truth values that the driver writes as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from types import NoneType
from typing import Final, cast

import orjson

from dal.backends.postgresql.document import encode_document
from dal.backends.sql import Dialect, SearchSql
from dal.backends.sql.dialect import Planner
from dal.search import OVERFLOW_TERM, SearchQuery
from dal.tables import Kind

#: The type of a column's values where SQL needs it said.
SQL_TYPES: Final = {
    Kind.ID: "uuid",
    Kind.TEXT: "text",
    Kind.INT: "integer",
    Kind.BIGINT: "bigint",
    Kind.BOOL: "boolean",
    Kind.TIME: "timestamptz",
    Kind.JSON: "jsonb",
    Kind.IP: "inet",
}
SEARCH_OPERATOR: Final = "@@"
#: Terms, written as one text with spaces, to what the index keeps.
TERMS: Final = "array_to_tsvector(string_to_array({}::text, ' '))"

_COPY_SPECIAL: Final = re.compile(r"[\\\n\r\t]").search
_COPY_SPECIALS: Final = ("\\", "\n", "\r", "\t")
_COPY_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
#: PostgreSQL's texts cannot hold it.
_BETWEEN: Final = "\0"
_MAX_TSVECTOR_BYTES: Final = (1 << 20) - 1


def encode_array(values: list[object]) -> str:
    """An array as PostgreSQL reads it; the type is said where it stands.

    A list of texts alone is looked at and escaped as one: that takes a quarter to half the time.
    """
    if set(map(type, values)) == {str}:
        texts = cast("list[str]", values)
        plain = "".join(texts)
        if '"' not in plain and "\\" not in plain:
            joined = '","'.join(texts)
            return f'{{"{joined}"}}'
        if _BETWEEN not in plain:
            escaped = _BETWEEN.join(texts).replace("\\", "\\\\").replace('"', '\\"').replace(_BETWEEN, '","')
            return f'{{"{escaped}"}}'
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    if type(value) is str:
        if '"' in value or "\\" in value:
            value = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{value}"'
    return str(value)  # int and bool


def encode_copy(columns: list[list[object]]) -> bytes:
    """Rows, given as columns, in the text format of COPY."""
    return ("\n".join(map("\t".join, zip(*map(_fields, columns), strict=True))) + "\n").encode()


def _fields(values: list[object]) -> list[str]:
    """A column. Most hold values of one type, and texts without anything to escape, which one look at all of them
    together tells."""
    types = set(map(type, values))
    if types == {str}:
        texts = cast("list[str]", values)
        together = "".join(texts)
        if not any(special in together for special in _COPY_SPECIALS):
            return texts
        return [text.translate(_COPY_ESCAPES) if _COPY_SPECIAL(text) is not None else text for text in texts]
    if types == {NoneType}:
        return ["\\N"] * len(values)
    if types.isdisjoint((str, NoneType)):
        if len(types) == 1 and values.count(values[0]) == len(values):
            return [str(values[0])] * len(values)
        return list(map(str, values))
    return [_field(value) for value in values]


def _field(value: object) -> str:
    if type(value) is str:
        return value.translate(_COPY_ESCAPES) if _COPY_SPECIAL(value) is not None else value
    return "\\N" if value is None else str(value)


def encode_terms(terms: Sequence[str]) -> str:
    """The terms as one text; more than a tsvector holds give the one term that says so."""
    text = " ".join(terms)
    if len(text) * 4 > _MAX_TSVECTOR_BYTES and len(text.encode()) > _MAX_TSVECTOR_BYTES:
        return OVERFLOW_TERM
    return text


def _encode_time(value: datetime) -> str:
    return orjson.dumps(value)[1:-1].decode()  # as isoformat() gives it, in a third of the time


def encode_query(query: SearchQuery) -> str:
    """The terms as a tsquery. They hold letters, marks and digits only; quoted, none of them is an operator."""
    terms = " & ".join(f"'{term.text}':*" if term.prefix else f"'{term.text}'" for term in query.terms)
    return f"({terms}) | '{OVERFLOW_TERM}'"


def _decode_time(text: str) -> datetime:
    """By its own offset: nothing has to be set in the session, which a pooler would hand to somebody else."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is UTC else found.astimezone(UTC)


def _contains(column: str, kind: Kind) -> str:
    return f"{column} = ANY (%s::{SQL_TYPES[kind]}[])"


SEARCH: Final = SearchSql(
    present="SELECT 1 WHERE to_regclass('message_search') IS NOT NULL",
    insert=f"INSERT INTO message_search (message_id, terms) SELECT id, {TERMS.format('%s')} FROM messages",  # noqa: S608
    delete="DELETE FROM message_search WHERE message_id IN (SELECT id FROM messages",
    candidate=f"id IN (SELECT message_id FROM message_search WHERE terms {SEARCH_OPERATOR} %s::tsquery)",  # noqa: S608
    pending="NOT EXISTS (SELECT 1 FROM message_search WHERE message_search.message_id = messages.id)",
    clear=("TRUNCATE message_search",),
    # Until autovacuum comes by, the planner takes a rare word for a common one and walks the whole table: 75 ms for 3.
    settle=("ANALYZE messages", "ANALYZE message_search"),
    encode_terms=encode_terms,
    encode_query=encode_query,
)


def postgresql_dialect(plan: Planner, plan_searched: Planner) -> Dialect:
    """PostgreSQL's dialect with these ways of planning a batch, without and with a search index."""
    return Dialect(
        engine="postgresql",
        placeholder="%s",
        placeholders={},
        encoders={Kind.TIME: _encode_time, Kind.JSON: encode_document},
        decoders={Kind.TIME: _decode_time, Kind.JSON: orjson.loads},
        contains=_contains,
        encode_list=encode_array,
        distinct="IS DISTINCT FROM",
        search=SEARCH,
        plan=plan,
        plan_searched=plan_searched,
        row_lock="FOR UPDATE",
    )
