"""Appends to chats under whichever key, for tests that speak to the waist; the plain rows come from `dal.testing`."""

from __future__ import annotations

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
