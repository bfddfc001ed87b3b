"""One line of the conversation format as values ready to be written.

`{"chat_id", "user", "source", "title", "started_at", "metadata", "messages": [{"role", "content", "at", "metadata"}]}`;
chat_id, messages, role and content must be there. The order of messages is the truth, whatever their times say.

Nothing the source says is lost: what has no column of its own goes under the key `import` of the metadata - of the
chat: `source`, `started_at` when it was missing or odd, and unknown fields; of a message: `at` when it was missing or
odd, and unknown fields.

A message without a readable time has that of the message before it; the first one that of the chat. A chat without a
start began with the first time any of its messages names, else with the time of the file.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple, cast

from dal.errors import InvalidInputError
from dal.importing.times import read_time
from dal.ops import JsonValue
from dal.tables import CHAT_SESSIONS, MESSAGES, USERS, Column
from dal.values import check_json, check_text

_CHAT_FIELDS: Final = frozenset({"chat_id", "user", "source", "title", "started_at", "metadata", "messages"})
_MESSAGE_FIELDS: Final = frozenset({"role", "content", "at", "metadata"})
_PROVENANCE: Final = "import"

_CHAT_ID: Final = CHAT_SESSIONS.by_name["chat_id"]
_TITLE: Final = CHAT_SESSIONS.by_name["title"]
_CLERK_ID: Final = USERS.by_name["clerk_id"]
_MAX_ROLE_CHARS: Final = cast(int, MESSAGES.by_name["role"].max_chars)


class SourceMessage(NamedTuple):
    role: str
    content: str
    metadata: dict[str, JsonValue]
    created_at: datetime


class Conversation(NamedTuple):
    """A conversation as it will be stored. Every value has passed the boundary.

    replaced  texts in it that had characters replaced.
    began     the start by the source's own word, None where it names no time at all; ids are made with it.
    """

    line: int
    size_bytes: int
    replaced: int
    chat_id: str
    user: str | None
    title: str | None
    metadata: dict[str, JsonValue]
    began: datetime | None
    created_at: datetime
    messages: list[SourceMessage]

    @property
    def key(self) -> str:
        return self.chat_id

    @property
    def rows(self) -> int:
        return 1 + len(self.messages)


def read_conversation(
    fields: dict[str, JsonValue], *, line: int, size_bytes: int, vouched: bool, replaced: int, file_time: datetime
) -> Conversation:
    """The conversation in these fields. Raises InvalidInputError naming the field, never its content.

    vouched  strings and numbers are known to be storable (dal.importing.document).
    """
    chat_id = _text(fields, "chat_id", _CHAT_ID)
    user = None if fields.get("user") is None else _text(fields, "user", _CLERK_ID)
    title = None if fields.get("title") is None else _text(fields, "title", _TITLE)
    started_at = fields.get("started_at")
    began, is_plain = read_time(started_at)
    provenance: dict[str, JsonValue] = {}
    if "source" in fields:
        provenance["source"] = fields["source"]
    if not is_plain:
        provenance["started_at"] = started_at
    raw = _list(fields, "messages")
    if began is None:
        began = _first_time(raw)
    created_at = file_time if began is None else began
    metadata = _metadata(fields, "", _CHAT_FIELDS, provenance, vouched=False)
    messages = _messages(raw, created_at, vouched)
    return Conversation(line, size_bytes, replaced, chat_id, user, title, metadata, began, created_at, messages)


def _messages(raw: list[JsonValue], time: datetime, vouched: bool) -> list[SourceMessage]:
    """The messages, in order. The loop that decides how fast an import is."""
    messages: list[SourceMessage] = []
    for index, fields in enumerate(raw):
        if type(fields) is not dict:
            raise InvalidInputError(f"messages[{index}]: expected a JSON object, found {_kind(fields)}")
        role, content = fields.get("role"), fields.get("content")
        if type(role) is not str or not 0 < len(role) <= _MAX_ROLE_CHARS or type(content) is not str or not vouched:
            where = f"messages[{index}]."
            role = _text(fields, "role", MESSAGES.by_name["role"], where)
            content = _text(fields, "content", MESSAGES.by_name["content"], where)
        at = fields.get("at")
        found, is_plain = read_time(at)
        if found is not None:
            time = found
        metadata = fields.get("metadata")
        if not (is_plain and vouched and type(metadata) is dict and len(fields) == 4 and _is_flat(metadata)):
            provenance = {} if is_plain else {"at": at}
            metadata = _metadata(fields, f"messages[{index}].", _MESSAGE_FIELDS, provenance, vouched)
        messages.append(SourceMessage(role, content, metadata, time))
    return messages


def _metadata(
    fields: dict[str, JsonValue],
    where: str,
    known: frozenset[str],
    provenance: dict[str, JsonValue],
    vouched: bool,
) -> dict[str, JsonValue]:
    """The metadata of a chat or message, with what the source says beyond its columns under the key `import`."""
    metadata = fields.get("metadata")
    if metadata is None:
        metadata = {}
    elif type(metadata) is not dict:
        raise InvalidInputError(f"{where}metadata: expected a JSON object, found {_kind(metadata)}")
    if not fields.keys() <= known:
        provenance["fields"] = {name: value for name, value in fields.items() if name not in known}
    if provenance:
        if _PROVENANCE in metadata:
            provenance["metadata"] = metadata[_PROVENANCE]
        metadata = {**metadata, _PROVENANCE: provenance}
    if not vouched or not _is_flat(metadata):
        check_json(f"{where}metadata", metadata)
    return metadata


def _is_flat(metadata: dict[str, JsonValue]) -> bool:
    for value in metadata.values():  # noqa: SIM110  # all() takes three times as long, for every message
        if type(value) is dict or type(value) is list:
            return False
    return True


def _first_time(raw: list[JsonValue]) -> datetime | None:
    for fields in raw:
        if type(fields) is dict and (time := read_time(fields.get("at"))[0]) is not None:
            return time
    return None


def _text(fields: dict[str, JsonValue], name: str, column: Column, where: str = "") -> str:
    if name not in fields:
        raise InvalidInputError(f"{where}{name}: missing")
    return check_text(f"{where}{name}", fields[name], max_chars=column.max_chars, min_chars=column.min_chars)


def _list(fields: dict[str, JsonValue], name: str) -> list[JsonValue]:
    if name not in fields:
        raise InvalidInputError(f"{name}: missing")
    value = fields[name]
    if type(value) is not list:
        raise InvalidInputError(f"{name}: expected a list, found {_kind(value)}")
    return value


def _kind(value: JsonValue) -> str:
    return "null" if value is None else type(value).__name__
