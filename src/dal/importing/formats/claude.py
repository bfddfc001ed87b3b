"""Claude's `conversations.json`: a list of conversations with their messages, which may name the one before them.

The text of a message is that of its text blocks, else its field `text`. Blocks of another kind (thinking, use of
tools), citations and attachments stay in the metadata under `export`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.importing.formats.fields import Fields, a_list, a_text, an_object, first_text, kept, texts
from dal.importing.formats.times import export_time
from dal.importing.formats.trees import tree_records
from dal.ops import JsonValue

_CHAT: Final = frozenset({"uuid", "name", "created_at", "account", "chat_messages"})
_MESSAGE: Final = frozenset({"text", "sender", "created_at", "content"})
_ROLES: Final = {"human": "user"}


def recognises(value: JsonValue) -> bool:
    return type(value) is dict and type(value.get("chat_messages")) is list and type(value.get("uuid")) is str


def convert(value: JsonValue, _name: str) -> Iterator[Fields]:
    """The conversation and, where it was written anew in places, its other branches."""
    conversation = an_object(value, "a conversation")
    account = conversation.get("account")
    parents: dict[str, str | None] = {}
    messages: dict[str, Fields] = {}
    last: str | None = None
    for number, value in enumerate(a_list(conversation.get("chat_messages"), "chat_messages")):
        where = f"chat_messages[{number}]"
        message = an_object(value, where)
        key = first_text(message, "uuid") or where
        # The first one names a parent that is no message.
        parents[key] = first_text(message, "parent_message_uuid") if "parent_message_uuid" in message else last
        messages[key] = _message(message, where)
        last = key
    chat: Fields = {
        "chat_id": a_text(conversation.get("uuid"), "uuid"),
        "user": first_text(account, "uuid") if type(account) is dict else None,
        "source": "claude",
        "title": first_text(conversation, "name"),
        "started_at": export_time(conversation.get("created_at")),
        "metadata": kept(conversation, _CHAT),
    }
    yield from tree_records(chat, parents, last, messages)


def _message(message: Fields, where: str) -> Fields:
    blocks = message.get("content")
    said: list[JsonValue] = []
    is_plain = True
    for block in blocks if type(blocks) is list else ():
        if type(block) is dict and block.get("type") == "text":
            said.append(block.get("text"))
            is_plain = is_plain and not block.get("citations")
        else:
            is_plain = False
    text = texts(said) or first_text(message, "text") or ""
    rest = message if text == message.get("text") else {**message, "plain": message.get("text")}
    sender = a_text(message.get("sender"), f"{where}.sender")
    return {
        "role": _ROLES.get(sender, sender),
        "content": text,
        "at": export_time(message.get("created_at")),
        "metadata": kept(rest, _MESSAGE if is_plain else _MESSAGE - {"content"}),
    }
