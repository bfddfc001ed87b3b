"""Open WebUI's chats: the list that it exports, or one chat as its database keeps it.

The messages are a tree (`history`) of which one branch is open; a chat without one has its `messages` as a list. A chat
that names no id is called after its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.errors import InvalidInputError
from dal.importing.formats.fields import Fields, a_list, a_text, an_object, first_text, kept, texts
from dal.importing.formats.times import export_time
from dal.importing.formats.trees import tree_records
from dal.ops import JsonValue

_WRAPPER: Final = frozenset({"id", "user_id", "title", "chat", "created_at"})
_CHAT: Final = frozenset({"id", "title", "history", "messages", "timestamp"})
_MESSAGE: Final = frozenset({"role", "content", "timestamp"})


def recognises(value: JsonValue) -> bool:
    if type(value) is not dict:
        return False
    history = value["chat"].get("history") if type(value.get("chat")) is dict else value.get("history")  # type: ignore[union-attr]
    return type(history) is dict and type(history.get("messages")) is dict


def convert(value: JsonValue, name: str) -> Iterator[Fields]:
    """The chat and its other branches."""
    wrapper = an_object(value, "a chat")
    chat = an_object(wrapper["chat"], "chat") if "chat" in wrapper else wrapper
    history = chat.get("history")
    parents: dict[str, str | None] = {}
    messages: dict[str, Fields] = {}
    current: str | None = None
    if type(history) is dict and history.get("messages"):
        current = first_text(history, "currentId")
        for key, value in an_object(history["messages"], "history.messages").items():
            message = an_object(value, f"history.messages[{key!a}]")
            parents[key] = first_text(message, "parentId")
            messages[key] = _message(message, f"history.messages[{key!a}]")
    else:
        if "messages" not in chat and type(history) is not dict:
            raise InvalidInputError("history: missing")
        for number, value in enumerate(a_list(chat.get("messages", []), "messages")):
            message = an_object(value, f"messages[{number}]")
            key = first_text(message, "id") or f"messages[{number}]"
            parents[key] = current
            messages[key] = _message(message, f"messages[{number}]")
            current = key
    is_wrapped = chat is not wrapper
    rest = {**kept(chat, _CHAT).get("export", {}), **(kept(wrapper, _WRAPPER).get("export", {}) if is_wrapped else {})}  # type: ignore[dict-item]
    record: Fields = {
        "chat_id": first_text(wrapper, "id") or first_text(chat, "id") or name,
        "user": first_text(wrapper, "user_id"),
        "source": "openwebui",
        "title": first_text(wrapper, "title") or first_text(chat, "title"),
        "started_at": export_time(wrapper.get("created_at", chat.get("timestamp"))),
        "metadata": {"export": rest} if rest else {},
    }
    yield from tree_records(record, parents, current, messages)


def _message(message: Fields, where: str) -> Fields:
    content = message.get("content")
    is_plain = type(content) is str
    blocks = content if type(content) is list else []
    text = content if type(content) is str else texts([b.get("text") if type(b) is dict else b for b in blocks])
    return {
        "role": a_text(message.get("role"), f"{where}.role"),
        "content": text,
        "at": export_time(message.get("timestamp")),
        "metadata": kept(message, _MESSAGE if is_plain else _MESSAGE - {"content"}),
    }
