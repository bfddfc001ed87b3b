"""Operations that these tests write, with ids of their own making."""

from __future__ import annotations

from dal.ops import Insert, JsonValue, Op, Ref, Update
from dal.testing import rows
from dal.values import new_id


def user(*, profile: dict[str, JsonValue] | None = None) -> Insert:
    return Insert("users", rows.user(0, id=new_id(), profile=profile or {}))


def chat(chat_id: str) -> Insert:
    return Insert("chat_sessions", rows.chat(0, id=new_id(), chat_id=chat_id))


def message(session_id: str | Ref, number: int | Ref, *, content: str = "hello", search_later: bool = False) -> Insert:
    row = rows.message(0, 0, id=new_id(), chat_session_id=session_id, sequence_number=number, content=content)
    return Insert("messages", row, ("sequence_number",), search_later)


def raise_count(chat_id: str, n: int = 1) -> Update:
    changes = {"last_message_at": rows.START}
    return Update("chat_sessions", {"chat_id": chat_id}, changes, {"message_count": n, "version": 1})


def append(chat_id: str, *, n: int = 1, content: str = "hello") -> list[Op]:
    """An append as the repository writes it: the chat's counter is raised, and the messages take their numbers."""
    key = {"chat_id": chat_id}
    session = Ref("chat_sessions", key, "id")
    numbers = [Ref("chat_sessions", key, "message_count", i + 1 - n) for i in range(n)]
    return [raise_count(chat_id, n), *(message(session, number, content=content) for number in numbers)]
