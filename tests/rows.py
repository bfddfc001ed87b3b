"""Rows and operations for tests that speak to the waist, each made from a number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from dal.ops import Insert, Op, Ref, Update, Value

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def user_row(number: int, **changes: Value) -> dict[str, Value]:
    return {
        "id": f"00000000-0000-7000-a000-{number:012d}",
        "clerk_id": None,
        "email": None,
        "name": f"user {number}",
        "profile": {},
        "preferences": {},
        "status": "active",
        "created_at": NOW,
        "updated_at": NOW,
        "last_active_at": None,
        "version": 1,
        **changes,
    }


def chat_row(number: int, **changes: Value) -> dict[str, Value]:
    """The chat `chat-<number>`."""
    return {
        "id": f"00000000-0000-7000-8000-{number:012d}",
        "chat_id": f"chat-{number}",
        "user_id": None,
        "title": None,
        "profile": "general",
        "metadata": {},
        "status": "active",
        "message_count": 0,
        "created_at": NOW,
        "updated_at": NOW,
        "last_message_at": None,
        "last_activity_at": NOW,
        "version": 1,
        **changes,
    }


def message_insert(number: int, key: dict[str, Value], plus: int = 0) -> Insert:
    """A message of the chat with this key, numbered from the chat's row."""
    row: dict[str, Value | Ref] = {
        "id": f"00000000-0000-7000-9000-{number:012d}",
        "chat_session_id": Ref("chat_sessions", key, "id"),
        "role": "user",
        "content": f"message {number}",
        "metadata": {"n": number},
        "sequence_number": Ref("chat_sessions", key, "message_count", plus),
        "token_count": None,
        "abuse_flagged": False,
        "created_at": NOW,
        "version": 1,
    }
    return Insert("messages", row, ("sequence_number", "metadata"))


def append(number: int, key: dict[str, Value]) -> list[Op]:
    """What a repository sends to add a message."""
    return [Update("chat_sessions", key, {}, {"message_count": 1}), message_insert(number, key)]
