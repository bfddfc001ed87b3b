"""Rows and operations that these tests write."""

from __future__ import annotations

from datetime import UTC, datetime

from dal.ops import Insert, JsonValue, Op, Ref, Update, Value
from dal.values import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def user(*, profile: dict[str, JsonValue] | None = None, id: str | None = None) -> Insert:
    return Insert(
        "users",
        {
            "id": id or new_id(),
            "clerk_id": None,
            "email": None,
            "name": None,
            "profile": {} if profile is None else profile,
            "preferences": {},
            "status": "active",
            "created_at": NOW,
            "updated_at": NOW,
            "last_active_at": None,
            "version": 1,
        },
    )


def chat(chat_id: str, *, id: str | None = None) -> Insert:
    return Insert(
        "chat_sessions",
        {
            "id": id or new_id(),
            "chat_id": chat_id,
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
        },
    )


def message(session_id: str | Ref, number: int | Ref, *, content: str = "hello", search_later: bool = False) -> Insert:
    row: dict[str, Value | Ref] = {
        "id": new_id(),
        "chat_session_id": session_id,
        "role": "user",
        "content": content,
        "metadata": {},
        "sequence_number": number,
        "token_count": None,
        "abuse_flagged": False,
        "created_at": NOW,
        "version": 1,
    }
    return Insert("messages", row, ("sequence_number",), search_later)


def raise_count(chat_id: str, n: int = 1) -> Update:
    return Update("chat_sessions", {"chat_id": chat_id}, {"last_message_at": NOW}, {"message_count": n, "version": 1})


def append(chat_id: str, *, n: int = 1, content: str = "hello") -> list[Op]:
    """An append as the repository writes it: the chat's counter is raised, and the messages take their numbers."""
    key = {"chat_id": chat_id}
    session = Ref("chat_sessions", key, "id")
    return [
        raise_count(chat_id, n),
        *(message(session, Ref("chat_sessions", key, "message_count", i + 1 - n), content=content) for i in range(n)),
    ]
