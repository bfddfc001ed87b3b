"""SQLite's SQL: text times that sort, JSON documents as text, FTS5 for search terms.

Nothing here does I/O. SQLite and D1 share it: every statement is plain SQL and parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import orjson

from dal.backends.sql import Dialect, SearchSql
from dal.backends.sql.dialect import Planner
from dal.ops import JsonValue
from dal.search import OVERFLOW_TERM, SearchQuery
from dal.tables import Kind

_TIME_CHARS: Final = 27


def encode_time(value: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SS.ffffffZ`: text order is time order. The value is in UTC."""
    text = orjson.dumps(value, option=orjson.OPT_UTC_Z)[1:-1].decode()  # a third of the time of isoformat()
    return text if len(text) == _TIME_CHARS else f"{text[:-1]}.000000Z"


def encode_json(value: JsonValue) -> str:
    return orjson.dumps(value).decode()


def _contains(column: str, _kind: Kind) -> str:
    # One parameter however many values: one shape, and no limit on their number.
    return f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608


def _encode_list(values: list[object]) -> str:
    return orjson.dumps(values).decode()


def _encode_terms(terms: Sequence[str]) -> str:
    return " ".join(terms)


def _encode_query(query: SearchQuery) -> str:
    """The terms as an FTS5 query. They hold letters, marks and digits only; quoted, none of them is an operator."""
    terms = " AND ".join(f'"{term.text}"*' if term.prefix else f'"{term.text}"' for term in query.terms)
    return f'({terms}) OR "{OVERFLOW_TERM}"'


SEARCH: Final = SearchSql(
    present="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'message_search'",
    insert="INSERT INTO message_search (rowid, terms) SELECT doc_id, ? FROM messages",
    # FTS5 writes what it has gathered whenever another statement begins: 108 µs a row of twenty words, against 18.
    insert_many="INSERT INTO message_search (rowid, terms) SELECT doc_id, json_extract(given.value, '$[0]') "
    "FROM json_each(?) AS given CROSS JOIN messages WHERE messages.id = json_extract(given.value, '$[1]')",
    delete="DELETE FROM message_search WHERE rowid IN (SELECT doc_id FROM messages",
    candidate="doc_id IN (SELECT rowid FROM message_search WHERE message_search MATCH ?)",
    pending="NOT EXISTS (SELECT 1 FROM message_search WHERE message_search.rowid = messages.doc_id)",
    # Row by row it would take as long as building it. As 0002_search.sql makes it; the trigger stays.
    clear=(
        "DROP TABLE message_search",
        "CREATE VIRTUAL TABLE message_search USING fts5 (terms, detail = 'none', columnsize = 0, tokenize = 'ascii')",
    ),
    settle=(),
    encode_terms=_encode_terms,
    encode_query=_encode_query,
)


def sqlite_dialect(plan: Planner) -> Dialect:
    """SQLite's dialect with this way of planning a batch."""
    return Dialect(
        engine="sqlite",
        placeholder="?",
        placeholders={},
        encoders={Kind.TIME: encode_time, Kind.JSON: encode_json},
        decoders={Kind.TIME: datetime.fromisoformat, Kind.JSON: orjson.loads, Kind.BOOL: bool},
        contains=_contains,
        encode_list=_encode_list,
        distinct="IS NOT",
        search=SEARCH,
        plan=plan,
    )
