"""Rows for tests that speak to the waist, or to a database past it; the plain rows come from `dal.testing`."""

from __future__ import annotations

from datetime import datetime

import orjson

from dal.ops import Insert, Op, Ref, Update, Value
from dal.testing import rows


def message_insert(number: int, key: dict[str, Value], plus: int = 0) -> Insert:
    """A message of the chat with this key, numbered from the chat's row."""
    row = rows.message(
        number,
        0,
        chat_session_id=Ref("chat_sessions", key, "id"),
        sequence_number=Ref("chat_sessions", key, "message_count", plus),
        metadata={"n": number},
    )
    return Insert("messages", row, ("sequence_number", "metadata"))


def append(number: int, key: dict[str, Value]) -> list[Op]:
    """What a repository sends to add a message."""
    return [Update("chat_sessions", key, {}, {"message_count": 1}), message_insert(number, key)]


def sql_literal(value: object, *, has_booleans: bool) -> str:
    """A value as another program writes it into its SQL.

    has_booleans  the engine knows true and false (PostgreSQL); else they are 1 and 0.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower() if has_booleans else str(int(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return f"'{value.isoformat(timespec='microseconds')[:26]}Z'"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return "'" + text.replace("'", "''") + "'"
