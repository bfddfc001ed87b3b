"""What the files of the legacy layout mean: each one as conversations or as what is remembered of a user.

Every message and every item comes from one place in one file, and its identity follows from there: a chat by its name,
a message by its chat and place, an item by its user, type and key. So a file that was written again gives the same rows
with new content, and a file that was read before it was whole gives them once it is.

data/chat_sessions/<chat>.json       the chat `chat_id` of the document, else the file's name
chat_history/<name>.json             the chat `chat_history/<name>`
conversations/<user>/<name>.json     the chat `conversations/<user>/<id, else name>` of this user, or several of them
data/memory/<user>.json              the memory of `user` of the document, else of the file's name

A chat is an object with `messages` (or `history`), a list of messages, JSON lines of messages, or an export that
`dal import` knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from dal.errors import InvalidInputError
from dal.importing.conversations import Conversation, read_conversation
from dal.importing.formats import FORMATS
from dal.importing.formats.fields import Fields, first_text, kept
from dal.importing.formats.times import export_time
from dal.importing.personas import Persona, read_persona
from dal.legacy.directories import CONVERSATIONS, MEMORY, SESSIONS, Directory
from dal.ops import JsonValue

_USER: Final = ("user", "user_id", "clerk_id")
_CHAT_ID: Final = ("chat_id", "session_id", "id")
_TITLE: Final = ("title", "name")
_STARTED: Final = ("started_at", "created_at", "create_time", "timestamp")
_MESSAGES: Final = ("messages", "history")
_ROLE: Final = ("role", "sender", "type")
_CONTENT: Final = ("content", "text", "message")
_AT: Final = ("at", "timestamp", "created_at", "time", "date")
_CHAT: Final = frozenset({*_USER, *_CHAT_ID, *_TITLE, *_STARTED, *_MESSAGES, "metadata", "profile"})
_MESSAGE: Final = frozenset({*_ROLE, *_CONTENT, *_AT, "metadata"})
_ROLES: Final = {"human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant"}
_MAX_PROFILE_CHARS: Final = 50
_GENERAL: Final = "general"


class Found(NamedTuple):
    """One chat or one user's memory, as a file has it. key names it among all files."""

    key: str
    fields: Fields
    profile: str = _GENERAL


class Content(NamedTuple):
    """What a file holds. is_torn: its last line is not whole yet."""

    found: list[Found]
    is_torn: bool


def read_file(directory: Directory, name: str, data: bytes) -> Content:
    """Raises InvalidInputError, naming the place and never its content, where the file cannot be taken in."""
    documents, is_torn = _documents(name, data)
    stem = PurePosixPath(name).with_suffix("")
    if directory == MEMORY:
        return Content([_memory(documents, stem)], is_torn)
    if documents == [[]] and directory != CONVERSATIONS:
        documents = []  # a chat that holds no messages yet
    found: list[Found] = []
    keys: set[str] = set()
    for number, (fields, profile) in enumerate(_chats(documents, stem.name), 1):
        own = first_text(fields, "chat_id")
        if directory == SESSIONS:
            key = own or str(stem)
        elif directory == CONVERSATIONS:
            owner = stem.parts[0]
            rest = own or (str(PurePosixPath(*stem.parts[1:])) if len(stem.parts) > 1 else "")
            key = f"{CONVERSATIONS.name}/{owner}" + (f"/{rest}" if rest else "")
            fields["user"] = fields.get("user") or owner
        else:
            key = f"{directory.name}/{stem}"
        if key in keys:
            key = f"{key}/{number}"
        keys.add(key)
        fields["chat_id"] = key
        fields["source"] = f"{directory.name}/{name}"
        found.append(Found(key, fields, profile))
    return Content(found, is_torn)


def conversation(found: Found, otherwise: datetime) -> Conversation:
    """The chat with its messages, checked. otherwise: when it began, where the file does not say."""
    return read_conversation(found.fields, line=0, size_bytes=0, vouched=False, replaced=0, file_time=otherwise)


def persona(found: Found) -> Persona:
    return read_persona(found.fields, line=0, size_bytes=0, replaced=0)


def _documents(name: str, data: bytes) -> tuple[list[JsonValue], bool]:
    """The documents of a file: one, or those of its lines. Whether the last line is still being written."""
    try:
        if not name.endswith(".jsonl"):
            return [json.loads(data)], False
        *whole, last = data.split(b"\n")
        found: list[JsonValue] = [json.loads(line) for line in whole if line.strip()]
        if not last.strip():
            return found, False
        try:
            return [*found, json.loads(last)], False
        except ValueError:
            return found, True
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("not JSON, or not whole yet") from error


def _memory(documents: list[JsonValue], stem: PurePosixPath) -> Found:
    if len(documents) != 1 or type(documents[0]) is not dict:
        raise InvalidInputError("expected one JSON object with what is remembered of a user")
    fields = documents[0]
    key = first_text(fields, *_USER) or str(stem)
    rest: Fields = {name: value for name, value in fields.items() if name not in _USER}
    return Found(key, {**rest, "user": key})


def _chats(documents: list[JsonValue], stem: str) -> Iterator[tuple[Fields, str]]:
    """The chats of a file as records of the import, each with its profile."""
    if len(documents) == 1 and not _is_message(documents[0]):
        value = documents[0]
        if type(value) is list and value and all(map(_is_message, value)):
            documents = value
        elif type(value) is list:
            for entry in value:
                yield from _chat(entry, stem)
            return
        else:
            yield from _chat(value, stem)
            return
    if documents and all(map(FORMATS["langchain"].recognises, documents)):
        yield from ((record, _GENERAL) for record in FORMATS["langchain"].convert(documents, ""))
        return
    if not all(map(_is_message, documents)):
        for entry in documents:
            yield from _chat(entry, stem)
        return
    yield {"messages": [_message(entry) for entry in documents]}, _GENERAL


def _chat(value: JsonValue, stem: str) -> Iterator[tuple[Fields, str]]:
    if type(value) is not dict:
        raise InvalidInputError("expected a chat: a JSON object with messages")
    for export in FORMATS.values():
        if not export.is_whole and export.recognises(value):
            yield from ((record, _GENERAL) for record in export.convert(value, stem))
            return
    messages = next((value[name] for name in _MESSAGES if type(value.get(name)) is list), None)
    if type(messages) is not list:
        raise InvalidInputError("expected a chat: messages missing")
    profile = first_text(value, "profile") or _GENERAL
    own = value.get("metadata")
    metadata: Fields = {**(own if type(own) is dict else {}), **kept(value, _CHAT)}
    fields: Fields = {
        "chat_id": first_text(value, *_CHAT_ID),
        "user": first_text(value, *_USER),
        "title": first_text(value, *_TITLE),
        "started_at": export_time(_first(value, _STARTED)),
        "metadata": metadata,
        "messages": [_message(entry) for entry in messages],
    }
    yield fields, profile if len(profile) <= _MAX_PROFILE_CHARS else _GENERAL


def _is_message(value: JsonValue) -> bool:
    if type(value) is not dict or any(type(value.get(name)) is list for name in _MESSAGES):
        return False
    if FORMATS["langchain"].recognises(value):
        return True
    return any(type(value.get(name)) is str for name in _ROLE) and any(name in value for name in _CONTENT)


def _message(value: JsonValue) -> JsonValue:
    if type(value) is not dict:
        return value  # refused by who reads it, with its place
    role, content = first_text(value, *_ROLE), _first(value, _CONTENT)
    metadata = value.get("metadata")
    own: Fields = metadata if type(metadata) is dict else {}
    message: Fields = {"at": export_time(_first(value, _AT)), "metadata": {**own, **kept(value, _MESSAGE)}}
    if role is not None:
        message["role"] = _ROLES.get(role, role)
    if content is not None:
        message["content"] = content
    return message


def _first(fields: Fields, names: tuple[str, ...]) -> JsonValue:
    return next((fields[name] for name in names if fields.get(name) is not None), None)
