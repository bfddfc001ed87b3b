"""The plan of a batch of user memory: which items are new, which are there already.

A record whose items are stored with other values is a conflict as a whole: an import never overwrites what a user or
the application has changed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

import orjson

from dal.importing.ids import memory_item_id
from dal.importing.personas import Persona, SourceItem
from dal.importing.plan import Plan
from dal.importing.users import Users
from dal.ops import Compare, Insert, JsonValue, Op, Select
from dal.store import ReadCommit


async def plan_personas(store: ReadCommit, users: Users, batch: Sequence[Persona], file_time: datetime) -> Plan:
    """The plan of a batch in which every user occurs once. Two to three reads."""
    there_before = await users.find(persona.user for persona in batch)
    ids = await users.ensure({persona.user: file_time for persona in batch})
    stored = await _stored_items(store, list(there_before.values()))
    item_ops: list[Op] = []
    conflicts: dict[int, str] = {}
    unchanged = 0
    for persona in batch:
        id = ids[persona.user]
        there = stored.get(id, {})
        missing = [item for item in persona.items if (item.memory_type, item.key) not in there]
        if any(there.get((i.memory_type, i.key), _encoded(i.value)) != _encoded(i.value) for i in persona.items):
            conflicts[persona.line] = "user memory is stored with other content; nothing of this record was written"
            continue
        if not missing and persona.user in there_before:
            unchanged += 1
        item_ops += [_insert_item(persona.user, id, item, file_time) for item in missing]
    return Plan(
        item_ops,
        unchanged,
        conflicts,
        memory_items=len(item_ops),
    )


async def _stored_items(store: ReadCommit, user_ids: list[str]) -> dict[str, dict[tuple[str, str], bytes]]:
    if not user_ids:
        return {}
    query = Select(
        "user_memory",
        (Compare("user_id", "in", tuple(user_ids)),),
        columns=("user_id", "memory_type", "key", "value"),
    )
    found: dict[str, dict[tuple[str, str], bytes]] = {}
    for user, memory_type, key, value in await store.read(query):
        found.setdefault(cast(str, user), {})[cast(str, memory_type), cast(str, key)] = _encoded(cast(JsonValue, value))
    return found


def _encoded(value: JsonValue) -> bytes:
    """Equal for equal documents, and different for 1, 1.0 and true."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _insert_item(user_key: str, user_id: str, item: SourceItem, created_at: datetime) -> Insert:
    return Insert(
        "user_memory",
        {
            "id": memory_item_id(user_key, item.memory_type, item.key),
            "user_id": user_id,
            "memory_type": item.memory_type,
            "key": item.key,
            "value": item.value,
            "expires_at": None,
            "created_at": created_at,
            "updated_at": created_at,
            "version": 1,
        },
    )
