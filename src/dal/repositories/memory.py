"""User memory: `dal.memory`, JSON values under a user, a type and a key, with an optional time to live.

An expired item is gone at once, whether its row has been purged or not: reads pass over it, and setting it again makes
a new item.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import datetime, timedelta

from dal.errors import ConflictError, InvalidInputError, MissingReferenceError
from dal.limits import MAX_BATCH_MESSAGES, MAX_INT64, MAX_PURGE_ROWS
from dal.models import MemoryItem
from dal.ops import Compare, Delete, Guard, JsonValue, Op, Select, Upsert, Value
from dal.repositories.base import Repository, known_id
from dal.tables import USER_MEMORY
from dal.values import check_column, check_expiry, check_int, check_limit

_KEY = ("user_id", "memory_type", "key")
_TAKEN_OVER = ("value", "expires_at", "updated_at")


class Memory(Repository):
    """Set, get, list and delete what is remembered of a user."""

    table = USER_MEMORY

    async def set(
        self,
        user_id: str,
        memory_type: str,
        key: str,
        value: JsonValue,
        *,
        ttl: float | timedelta | None = None,
        expires_at: datetime | None = None,
        expected_version: int | None = None,
    ) -> MemoryItem:
        """The item after it was stored; an item already there is replaced, its expiry included.

        value             any JSON value; it reads back equal.
        ttl               seconds (or a timedelta) from now, more than 0; or
        expires_at        the moment from which the item is gone; without either it stays.
        expected_version  replace only an item that is there at this version.
        Raises            MissingReferenceError: no such user.  ConflictError: another version, or no item.
        Cost              one round trip; two where an expired item stands in the way.
        """
        now = self._now()
        upsert = self._upsert(user_id, memory_type, key, value, check_expiry(now, "ttl", ttl, expires_at), now)
        guards: tuple[Op, ...] = ()
        if expected_version is not None:
            at = {c: upsert.row[c] for c in _KEY}
            guards = (
                Guard("user_memory", at, {"version": check_int("expected_version", expected_version, 1, MAX_INT64)}),
            )
        row = None
        try:
            row = (await self._store.commit((*guards, upsert))).rows[-1]
        except ConflictError as error:
            if error.retryable:
                raise
        if row is None and expected_version is not None:
            raise ConflictError(
                f"user_memory[{memory_type!r}, {key!r}] is not there at version {expected_version}; "
                "read it again and retry"
            )
        while row is None:  # an expired item holds the key: away with it, in the same commit
            row = (await self._store.commit((self._delete_expired(upsert, now, (key,)), upsert))).rows[-1]
        return self._record(MemoryItem, row)

    async def set_many(
        self, user_id: str, memory_type: str, items: Mapping[str, JsonValue]
    ) -> builtins.list[MemoryItem]:
        """The items after they were stored, in the mapping's order; all or none, and none of them expires.

        items   key to value, at most 10,000.
        Raises  MissingReferenceError: no such user.
        Cost    one round trip.
        """
        if not isinstance(items, Mapping):
            raise InvalidInputError(f"items: expected a mapping of key to value, found {type(items).__name__}")
        if not items:
            return []
        check_limit("items", len(items), MAX_BATCH_MESSAGES, instead="set them in several calls")
        now = self._now()
        upserts = [self._upsert(user_id, memory_type, key, value, None, now) for key, value in items.items()]
        away = self._delete_expired(upserts[0], now, tuple(items))
        rows = (await self._store.commit((away, *upserts))).rows[1:]
        return [self._record(MemoryItem, row) for row in rows if row is not None]

    async def get(self, user_id: str, memory_type: str, key: str, default: JsonValue = None) -> JsonValue:
        """The value, or `default` where there is none. Cost: one indexed read."""
        rows = await self._read(user_id, memory_type, key, columns=("value",))
        return rows[0][0] if rows else default  # type: ignore[return-value]  # the column holds JSON

    async def get_item(self, user_id: str, memory_type: str, key: str) -> MemoryItem | None:
        """The whole item, with its version and expiry, or None. Cost: one indexed read."""
        rows = await self._read(user_id, memory_type, key, columns=USER_MEMORY.names)
        return self._record(MemoryItem, rows[0]) if rows else None

    async def list(self, user_id: str, memory_type: str | None = None) -> builtins.list[MemoryItem]:
        """Everything remembered of a user, of one type or of all, ordered by type and key (by code point)."""
        user = known_id("user_id", user_id)
        if user is None:
            return []
        where = [Compare("user_id", "=", user), self._alive()]
        if memory_type is not None:
            where.append(Compare("memory_type", "=", check_column(USER_MEMORY, "memory_type", memory_type)))
        rows = await self._store.read(Select("user_memory", tuple(where), ("memory_type", "key")))
        return [self._record(MemoryItem, row) for row in rows]

    async def delete(self, user_id: str, memory_type: str, key: str | None = None) -> int:
        """Deletes one item, or all of a type: how many were there."""
        user = known_id("user_id", user_id)
        if user is None:
            return 0
        where = [
            Compare("user_id", "=", user),
            Compare("memory_type", "=", check_column(USER_MEMORY, "memory_type", memory_type)),
            self._alive(),
        ]
        if key is not None:
            where.append(Compare("key", "=", check_column(USER_MEMORY, "key", key)))
        return (await self._store.commit((Delete("user_memory", tuple(where)),))).counts[0]

    async def purge_expired(self, limit: int = 1000) -> int:
        """Removes up to `limit` (1..10,000) rows that have expired, oldest first: how many. Changes nothing visible."""
        count, now = check_limit("limit", limit, MAX_PURGE_ROWS), self._now()
        expired = Compare("expires_at", "<=", now)
        rows = await self._store.read(
            Select("user_memory", (expired,), ("expires_at", "id"), limit=count, columns=("id",))
        )
        if not rows:
            return 0
        ids = tuple(row[0] for row in rows)
        return (await self._store.commit((Delete("user_memory", (Compare("id", "in", ids), expired)),))).counts[0]

    async def _read(
        self, user_id: str, memory_type: str, key: str, *, columns: tuple[str, ...]
    ) -> builtins.list[tuple[Value, ...]]:
        user = known_id("user_id", user_id)
        where = (
            Compare("user_id", "=", user),
            Compare("memory_type", "=", check_column(USER_MEMORY, "memory_type", memory_type)),
            Compare("key", "=", check_column(USER_MEMORY, "key", key)),
            self._alive(),
        )
        return [] if user is None else await self._store.read(Select("user_memory", where, limit=1, columns=columns))

    def _alive(self) -> Compare:
        return Compare("expires_at", "null or >", self._now())

    def _upsert(
        self, user_id: str, memory_type: str, key: str, value: JsonValue, expires_at: datetime | None, now: datetime
    ) -> Upsert:
        user = known_id("user_id", user_id)
        if user is None:
            raise MissingReferenceError("user_memory.user_id: no user has this id; an id is a UUID")
        row: dict[str, Value] = {
            "id": self._new_id(),
            "user_id": user,
            "memory_type": check_column(USER_MEMORY, "memory_type", memory_type),
            "key": check_column(USER_MEMORY, "key", key),
            "value": check_column(USER_MEMORY, "value", value),
            "expires_at": expires_at,
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }
        alive = (Compare("expires_at", "null or >", now),)
        return Upsert("user_memory", row, _KEY, _TAKEN_OVER, {"version": 1}, alive, USER_MEMORY.names)

    def _delete_expired(self, like: Upsert, now: datetime, keys: tuple[str, ...]) -> Delete:
        return Delete(
            "user_memory",
            (
                Compare("user_id", "=", like.row["user_id"]),
                Compare("memory_type", "=", like.row["memory_type"]),
                Compare("key", "in", keys),
                Compare("expires_at", "<=", now),
            ),
        )
