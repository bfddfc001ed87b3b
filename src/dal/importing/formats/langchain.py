"""LangChain's message histories: one file for each session, or one SQLite table of all.

Messages know no time and no user: a session has the time of its file. A file is called after its name, a session in a
table by its `session_id`. Calls of tools and everything else a message holds stay in the metadata under `export`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from dal.errors import InvalidInputError
from dal.importing.formats.fields import Fields, a_list, a_text, an_object, first_text, kept, texts
from dal.ops import JsonValue

_DATA: Final = frozenset({"content", "type", "role"})
_ROLES: Final = {"human": "user", "HumanMessageChunk": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_TABLE: Final = "message_store"


def recognises(value: JsonValue) -> bool:
    if type(value) is not dict or value.keys() != {"type", "data"}:
        return False
    data = value["data"]
    return type(data) is dict and "content" in data and type(value["type"]) is str


def convert(value: JsonValue, name: str) -> Iterator[Fields]:
    """The session in this file."""
    yield _session(name, list(enumerate(a_list(value, "a session"), 1)))


def holds_table(path: Path) -> bool:
    """Whether an SQLite file has LangChain's table. Raises InvalidInputError where it cannot be read."""
    with closing(_open(path)) as database:
        try:
            names = {str(row[1]) for row in database.execute(f"PRAGMA table_info({_TABLE})")}
        except sqlite3.Error as error:
            raise InvalidInputError(f"{path}: cannot be read: {error}", operation="import") from error
    return {"id", "session_id", "message"} <= names


def sessions(path: Path) -> Iterator[tuple[Fields | None, str]]:
    """The sessions of an SQLite file, in the order of their first messages; or what is wrong with one."""
    with closing(_open(path)) as database:
        query = f"SELECT session_id FROM {_TABLE} GROUP BY session_id ORDER BY min(id)"  # noqa: S608  # a constant
        for (session,) in database.execute(query).fetchall():
            rows = database.execute(
                f"SELECT id, message FROM {_TABLE} WHERE session_id IS ? ORDER BY id",  # noqa: S608  # a constant
                (session,),
            )
            try:
                messages = [(id, _parsed(id, message)) for id, message in rows]
                yield _session(a_text(session, "session_id"), messages), ""
            except InvalidInputError as error:
                yield None, error.message


def _open(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}", operation="import") from error


def _parsed(id: object, message: object) -> JsonValue:
    try:
        value: JsonValue = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"message {id}: not JSON") from error
    return value


def _session(name: str, messages: list[tuple[object, JsonValue]]) -> Fields:
    found: list[JsonValue] = [_message(value, f"message {number}") for number, value in messages]
    return {"chat_id": name, "source": "langchain", "started_at": None, "messages": found}


def _message(value: JsonValue, where: str) -> Fields:
    message = an_object(value, where)
    kind, data = a_text(message.get("type"), f"{where}.type"), an_object(message.get("data"), f"{where}.data")
    content = data.get("content")
    blocks = content if type(content) is list else []
    text = content if type(content) is str else texts([b.get("text") if type(b) is dict else b for b in blocks])
    role = first_text(data, "role") if kind == "chat" else None
    return {
        "role": role or _ROLES.get(kind, kind),
        "content": text,
        "at": None,
        "metadata": kept(data, _DATA if type(content) is str else _DATA - {"content"}),
    }
