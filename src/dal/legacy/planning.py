"""From what a file holds to the writes that make the image hold it: rows that are new, changed or gone.

A row that is as it was is not written, so that a file which grew by a line costs a line. Times that the file does not
tell are those of its first sight: they stay when the file is written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, cast

import orjson

from dal.importing.ids import chat_session_id, memory_item_id, message_ids, user_id
from dal.importing.users import user_fields
from dal.legacy.mapping import Found, conversation, persona
from dal.ops import Compare, Delete, Insert, Op, Row, Select, Upsert, Value
from dal.store import ReadCommit
from dal.tables import TABLES

#: What does not make a row another one: its version counts changes, and these times follow them.
_FOLLOWS: Final = frozenset({"version", "updated_at"})


class Planned(NamedTuple):
    """Writes of one file, in order, and how many rows they concern."""

    ops: list[Op]
    rows: int


Fields = dict[str, Value]


async def plan_chats(image: ReadCommit, found: Sequence[Found], gone: Iterable[str], seen: datetime) -> Planned:
    """The writes for the chats of a file.

    gone  chats that the file held before.
    seen  the time of the file.
    """
    ids = {one.key: chat_session_id(one.key, None) for one in found}
    stored = await _stored(image, "chat_sessions", "id", ids.values())
    plan = _Plan()
    for one in found:
        chat_id = ids[one.key]
        there = stored.get(chat_id)
        record = conversation(one, seen if there is None else cast(datetime, there["created_at"]))
        owner = None
        if record.user is not None:
            owner = user_id(record.user)
            plan.users.setdefault(owner, user_fields(record.user, owner, record.created_at))
        last = record.messages[-1].created_at if record.messages else None
        active = record.created_at if last is None else last
        plan.write(
            "chat_sessions",
            {
                "id": chat_id,
                "chat_id": one.key,
                "user_id": owner,
                "title": record.title,
                "profile": one.profile,
                "metadata": record.metadata,
                "status": "active",
                "message_count": len(record.messages),
                "created_at": record.created_at,
                "updated_at": active,
                "last_message_at": last,
                "last_activity_at": active,
                "version": 1,
            },
            there,
        )
        messages = {} if there is None else await _stored(image, "messages", "chat_session_id", [chat_id])
        for number, (id, message) in enumerate(zip(message_ids(one.key, None, 1), record.messages, strict=False), 1):
            plan.write(
                "messages",
                {
                    "id": id,
                    "chat_session_id": chat_id,
                    "role": message.role,
                    "content": message.content,
                    "metadata": message.metadata,
                    "sequence_number": number,
                    "token_count": None,
                    "abuse_flagged": False,
                    "created_at": message.created_at,
                    "version": 1,
                },
                messages.pop(id, None),
            )
        plan.delete("messages", messages)
    plan.delete("chat_sessions", [chat_session_id(key, None) for key in gone])
    return await plan.done(image)


async def plan_memory(image: ReadCommit, found: Sequence[Found], gone: Iterable[str], seen: datetime) -> Planned:
    """The writes for the memory of a file's user. `gone`: users whose memory the file held before, who stay."""
    plan = _Plan()
    for one in found:
        record = persona(one)
        owner = user_id(record.user)
        plan.users[owner] = user_fields(record.user, owner, seen)
        there = await _stored(image, "user_memory", "user_id", [owner])
        for item in record.items:
            id = memory_item_id(record.user, item.memory_type, item.key)
            before = there.pop(id, None)
            plan.write(
                "user_memory",
                {
                    "id": id,
                    "user_id": owner,
                    "memory_type": item.memory_type,
                    "key": item.key,
                    "value": item.value,
                    "expires_at": None,
                    "created_at": seen if before is None else before["created_at"],
                    "updated_at": seen,
                    "version": 1,
                },
                before,
            )
        plan.delete("user_memory", there)
    for key in gone:
        plan.delete("user_memory", await _stored(image, "user_memory", "user_id", [user_id(key)]))
    return await plan.done(image)


class _Plan:
    def __init__(self) -> None:
        self.users: dict[str, Fields] = {}
        self._deletes: list[Op] = []
        self._writes: list[Op] = []
        self._rows = 0

    def write(self, table: str, row: Fields, there: Fields | None) -> None:
        if there is None:
            self._writes.append(Insert(table, row, (), table == "messages"))
        elif any(_form(there[name]) != _form(value) for name, value in row.items() if name not in _FOLLOWS):
            changed = {**row, "version": cast(int, there["version"]) + 1}
            self._writes.append(Upsert(table, changed, ("id",), TABLES[table].names[1:]))
        else:
            return
        self._rows += 1

    def delete(self, table: str, ids: Iterable[str]) -> None:
        if gone := tuple(ids):
            self._deletes.append(Delete(table, (Compare("id", "in", gone),)))
            self._rows += len(gone)

    async def done(self, image: ReadCommit) -> Planned:
        there = await _stored(image, "users", "id", self.users)
        users: list[Op] = [Insert("users", row) for id, row in self.users.items() if id not in there]
        return Planned([*self._deletes, *users, *self._writes], self._rows + len(users))


async def _stored(image: ReadCommit, table: str, column: str, values: Iterable[str]) -> dict[str, Fields]:
    wanted = tuple(values)
    if not wanted:
        return {}
    names = TABLES[table].names
    rows: list[Row] = await image.read(Select(table, (Compare(column, "in", wanted),)))
    return {str(row[0]): dict(zip(names, row, strict=True)) for row in rows}


def _form(value: Value) -> object:
    """Equal for equal values, and different for the documents 1, 1.0 and true."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if isinstance(value, dict | list | float | bool) else value
