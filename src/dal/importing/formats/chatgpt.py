"""ChatGPT's `conversations.json`: a list of conversations, each a tree of messages with one branch that is open.

The text of a message is its parts; of code, results, thoughts and the user's own instructions what they say. What is
not plain text (images, audio, files) stays in the metadata under `export.content`. Empty system messages, which open
every conversation and are never shown, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.errors import InvalidInputError
from dal.importing.formats.fields import Fields, a_text, an_object, first_text, kept, texts
from dal.importing.formats.times import export_time
from dal.importing.formats.trees import tree_records
from dal.ops import JsonValue

_CHAT: Final = frozenset({"id", "conversation_id", "title", "create_time", "mapping", "current_node"})
_MESSAGE: Final = frozenset({"create_time", "content", "author"})
_SYSTEM: Final = "system"


def recognises(value: JsonValue) -> bool:
    return type(value) is dict and type(value.get("mapping")) is dict and "create_time" in value


def convert(value: JsonValue, _name: str) -> Iterator[Fields]:
    """The conversation and its other branches."""
    conversation = an_object(value, "a conversation")
    chat_id = first_text(conversation, "conversation_id", "id")
    if chat_id is None:
        raise InvalidInputError("conversation_id: missing")
    parents: dict[str, str | None] = {}
    messages: dict[str, Fields] = {}
    for node_id, value in an_object(conversation.get("mapping"), "mapping").items():
        node = an_object(value, f"mapping[{node_id!a}]")
        parents[node_id] = first_text(node, "parent")
        if node.get("message") is not None:
            message = an_object(node["message"], f"mapping[{node_id!a}].message")
            record = _message(message, f"mapping[{node_id!a}].message")
            if not (record["role"] == _SYSTEM and record["content"] == ""):
                messages[node_id] = record
    chat: Fields = {
        "chat_id": chat_id,
        "source": "chatgpt",
        "title": first_text(conversation, "title"),
        "started_at": export_time(conversation.get("create_time")),
        "metadata": kept(conversation, _CHAT),
    }
    yield from tree_records(chat, parents, first_text(conversation, "current_node"), messages)


def _message(message: Fields, where: str) -> Fields:
    author = an_object(message.get("author"), f"{where}.author")
    content = an_object(message.get("content"), f"{where}.content")
    text, is_plain = _text(content)
    rest: Fields = {**message, "author": {n: v for n, v in author.items() if n != "role" and v not in (None, {})}}
    metadata = kept(rest, _MESSAGE - {"author"} if is_plain else _MESSAGE - {"author", "content"})
    return {
        "role": a_text(author.get("role"), f"{where}.author.role"),
        "content": text,
        "at": export_time(message.get("create_time")),
        "metadata": metadata,
    }


def _text(content: Fields) -> tuple[str, bool]:
    """What a message says, and whether that is all of its content."""
    parts = content.get("parts")
    if type(parts) is list:
        said: list[JsonValue] = [part.get("text") if type(part) is dict else part for part in parts]
        is_plain = content.get("content_type") == "text" and all(type(part) is str for part in parts)
        return texts(said, "\n"), is_plain
    thoughts = content.get("thoughts")
    if type(thoughts) is list:
        return texts([first_text(t, "content", "summary") for t in thoughts if type(t) is dict]), False
    if content.get("content_type") == "user_editable_context":
        return texts([content.get("user_profile"), content.get("user_instructions")]), False
    return first_text(content, "text", "result", "content") or "", False
