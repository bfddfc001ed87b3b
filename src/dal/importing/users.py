"""The users that imported records belong to: found by the source's key, created where they are not there.

Remembers a bounded number of keys, so that a file of many conversations by few users asks once for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, cast

from dal.importing.ids import user_id
from dal.ops import Compare, Insert, Select, Value
from dal.store import ReadCommit

_MAX_REMEMBERED: Final = 50_000


class Users:
    """The ids of users by the source's key, which is stored as their `clerk_id`. `created` counts those made here."""

    def __init__(self, store: ReadCommit) -> None:
        self._store = store
        self._known: dict[str, str] = {}
        self._creating = asyncio.Lock()
        self.created = 0

    async def find(self, keys: Iterable[str]) -> dict[str, str]:
        """The ids of those users that are there already."""
        wanted = set(keys)
        found = {key: self._known[key] for key in wanted if key in self._known}
        if missing := tuple(sorted(wanted - found.keys())):
            query = Select("users", (Compare("clerk_id", "in", missing),), columns=("clerk_id", "id"))
            rows = {str(key): str(id) for key, id in await self._store.read(query)}
            found.update(rows)
            self._remember(rows)
        return found

    async def ensure(self, met: Mapping[str, datetime]) -> dict[str, str]:
        """The ids of all these users, created where they are not there, with the time at which each was first met.

        They are created in a commit of their own, before any row that belongs to them: batches that are written side
        by side then never wait for each other's users. A crash behind it leaves a user who has nothing yet.
        """
        async with self._creating:
            found = await self.find(met)
            if missing := [_new_user(key, time) for key, time in met.items() if key not in found]:
                await self._store.commit(missing)
                self.created += len(missing)
                created = {cast(str, op.row["clerk_id"]): cast(str, op.row["id"]) for op in missing}
                self._remember(created)
                found.update(created)
            return found

    def forget(self) -> None:
        """Asks the store again from now on: somebody else may have created or deleted users."""
        self._known.clear()

    def _remember(self, ids: Mapping[str, str]) -> None:
        if len(self._known) + len(ids) > _MAX_REMEMBERED:
            self._known.clear()
        self._known.update(ids)


def _new_user(key: str, created_at: datetime) -> Insert:
    """The insert of a user with this key, first met at this time."""
    return Insert("users", user_fields(key, user_id(key), created_at))


def user_fields(key: str, id: str, created_at: datetime) -> dict[str, Value]:
    """The row of a user of whom a key is all that is known."""
    return {
        "id": id,
        "clerk_id": key,
        "email": None,
        "name": None,
        "profile": {},
        "preferences": {},
        "status": "active",
        "created_at": created_at,
        "updated_at": created_at,
        "last_active_at": None,
        "version": 1,
    }
