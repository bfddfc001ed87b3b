"""The users that imported records belong to: found by the source's key, created where they are not there.

Remembers a bounded number of keys, so that a file of many conversations by few users asks once for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from dal.importing.ids import user_id
from dal.ops import Compare, Insert, Select
from dal.store import ReadCommit

_MAX_REMEMBERED: Final = 50_000


class Users:
    """The ids of users by the source's key, which is stored as their `clerk_id`."""

    def __init__(self, store: ReadCommit) -> None:
        self._store = store
        self._known: dict[str, str] = {}

    async def find(self, keys: Iterable[str]) -> dict[str, str]:
        """The ids of those users that are there already."""
        wanted = set(keys)
        found = {key: self._known[key] for key in wanted if key in self._known}
        if missing := tuple(sorted(wanted - found.keys())):
            query = Select("users", (Compare("clerk_id", "in", missing),), columns=("clerk_id", "id"))
            rows = {str(key): str(id) for key, id in await self._store.read(query)}
            found.update(rows)
            self.remember(rows)
        return found

    def knows(self, key: str) -> bool:
        """Whether this user is known to be stored, without asking."""
        return key in self._known

    def remember(self, ids: dict[str, str]) -> None:
        """Ids known to be stored. Called for created users only after their commit."""
        if len(self._known) + len(ids) > _MAX_REMEMBERED:
            self._known.clear()
        self._known.update(ids)

    def forget(self) -> None:
        """Asks the store again from now on: somebody else may have created or deleted users."""
        self._known.clear()


def new_user(key: str, created_at: datetime) -> Insert:
    """The insert of a user with this key, first met at this time."""
    return Insert(
        "users",
        {
            "id": user_id(key),
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
        },
    )
