"""Quotas: what a user may store, and the one commit in which a file and what it takes of it become true together.

`taken` counts what is stored and what is reserved, so one comparison in the commit of a file keeps the quota, on every
backend and among any number of processes: it is never passed, and nothing is refused while there is room. Deleted files
are not counted; restoring one takes its room again. Files that an application registered itself (`files.create`) are
not counted either: their bytes are its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Final

from dal.errors import ConflictError, MissingReferenceError, QuotaExceededError
from dal.file_models import Quota, Usage
from dal.file_tables import USER_QUOTAS
from dal.files.core import Core
from dal.limits import FILE_COMMIT_TRIES, MAX_INT64, RETRY_FIRST_WAIT_S
from dal.ops import Compare, Guard, Op, Receipt, Ref, Update, Upsert, Value
from dal.repositories.base import known_id
from dal.values import check_int

_NO_LIMIT: Final = MAX_INT64


class Quotas:
    """Takes, keeps and gives back room in users' quotas."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- what commits are made of

    def take(
        self, user_id: str, size: int, *, files: int = 1, reserve: bool = False, version: int | None = None
    ) -> list[Op]:
        """Operations that take room, or refuse their batch where there is none.

        reserve  the room is counted as reserved, too.
        version  refuse as well where the quota's row is at another version: some file of the user came or went.
        """
        key = {"user_id": user_id}
        room = (
            Compare("taken_bytes", "<=", Ref("user_quotas", key, "max_bytes", -size)),
            Compare("taken_files", "<=", Ref("user_quotas", key, "max_files", -files)),
        )
        expect: dict[str, Value] = {} if version is None else {"version": version}
        return [Guard("user_quotas", key, expect, room), self.change(user_id, size, files, reserve=reserve)]

    def change(self, user_id: str, size: int, files: int, *, reserve: bool = False) -> Op:
        """Adds to what is taken, or gives back (negative), without asking."""
        add = {"taken_bytes": size, "taken_files": files, "version": 1}
        if reserve:
            add |= {"reserved_bytes": size, "reserved_files": files}
        return Update("user_quotas", {"user_id": user_id}, {"updated_at": self._core.now()}, add)

    def settle(self, user_id: str, reserved: int, size: int) -> Op:
        """Turns the reservation of one file into the file, whose size is not more."""
        add = {"taken_bytes": size - reserved, "reserved_bytes": -reserved, "reserved_files": -1, "version": 1}
        return Update("user_quotas", {"user_id": user_id}, {"updated_at": self._core.now()}, add)

    async def commit(self, user_id: str, size: int, files: int, ops: Sequence[Op], *, guarded: bool = False) -> Receipt:
        """Commits a batch that takes room, beginning the user's quota where they have none yet.

        guarded  the batch has other guards: their ConflictError is the caller's to look into.
        Raises   QuotaExceededError.  MissingReferenceError: no such user.  What `commit` raises.
        """
        for attempt in range(FILE_COMMIT_TRIES):
            try:
                return await self._core.store.commit(ops)
            except ConflictError as error:
                last = error
                row = await self.row(user_id)
                if row is None:
                    await self._begin(user_id)
                    continue
                self._check_room(row, size, files, error)
                if guarded and not error.retryable:
                    raise
                await asyncio.sleep(random.uniform(0, RETRY_FIRST_WAIT_S * min(attempt, 5)))  # noqa: S311
        raise last

    # -- for callers

    async def quota(self, user_id: str) -> Quota:
        """What a user may store, and has."""
        row = await self._row_or_default(user_id)
        return Quota(
            user_id=str(row["user_id"]),
            max_bytes=_limit(row["max_bytes"]),
            max_files=_limit(row["max_files"]),
            used_bytes=_int(row["taken_bytes"]) - _int(row["reserved_bytes"]),
            used_files=_int(row["taken_files"]) - _int(row["reserved_files"]),
            reserved_bytes=_int(row["reserved_bytes"]),
            reserved_files=_int(row["reserved_files"]),
            updated_at=row["updated_at"],
        )

    async def usage(self, user_id: str) -> Usage:
        """What a user stores, and what is left."""
        return usage_of(await self._row_or_default(user_id))

    async def set(self, user_id: str, max_bytes: int | None, max_files: int | None) -> Quota:
        """Gives a user a quota; None is no limit."""
        limits = {
            "max_bytes": _NO_LIMIT if max_bytes is None else check_int("max_bytes", max_bytes, 0, MAX_INT64),
            "max_files": _NO_LIMIT if max_files is None else check_int("max_files", max_files, 0, MAX_INT64),
        }
        row = self._new_row(self._core.owner(user_id)) | limits
        update = ("max_bytes", "max_files", "updated_at")
        await self._core.store.commit((Upsert("user_quotas", row, ("user_id",), update, {"version": 1}),))
        return await self.quota(user_id)

    async def row(self, user_id: str) -> dict[str, Value] | None:
        """The quota's row by column, or None."""
        return await self._core.one(USER_QUOTAS, Compare("user_id", "=", user_id))

    async def version(self, user_id: str) -> int:
        """The version of the quota's row, which grows with every file that comes, goes or gets another name."""
        row = await self.row(user_id)
        if row is None:
            await self._begin(user_id)
            row = await self.row(user_id)
        return _int(None if row is None else row["version"])

    async def _begin(self, user_id: str) -> None:
        try:
            await self._core.store.commit((Upsert("user_quotas", self._new_row(user_id), ("user_id",), ()),))
        except MissingReferenceError as error:
            raise MissingReferenceError(
                f"files.user_id: no user has the id {user_id}", backend=error.backend
            ) from error

    async def _row_or_default(self, user_id: str) -> dict[str, Value]:
        known = known_id("user_id", user_id)
        row = None if known is None else await self.row(known)
        return {**self._new_row(known or user_id), "updated_at": None} if row is None else row

    def _new_row(self, user_id: str) -> dict[str, Value]:
        options, now = self._core.options, self._core.now()
        return {
            "id": self._core.new_id(),
            "user_id": user_id,
            "max_bytes": _NO_LIMIT if options.quota_bytes is None else options.quota_bytes,
            "max_files": _NO_LIMIT if options.quota_files is None else options.quota_files,
            "taken_bytes": 0,
            "taken_files": 0,
            "reserved_bytes": 0,
            "reserved_files": 0,
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }

    def _check_room(self, row: dict[str, Value], size: int, files: int, error: ConflictError) -> None:
        left_bytes = _int(row["max_bytes"]) - _int(row["taken_bytes"])
        left_files = _int(row["max_files"]) - _int(row["taken_files"])
        if size > left_bytes or files > left_files:
            what = (
                f"{size} bytes, {max(left_bytes, 0)} are left" if size > left_bytes else "one file more, none is left"
            )
            raise QuotaExceededError(
                f"files: the quota has no room for {what}; delete something or raise it", outcome=error.outcome
            ) from error


def usage_of(row: Mapping[str, Value]) -> Usage:
    """What a quota's row says of its user's use."""
    max_bytes, max_files = _limit(row["max_bytes"]), _limit(row["max_files"])
    taken_bytes, taken_files = _int(row["taken_bytes"]), _int(row["taken_files"])
    reserved_bytes, reserved_files = _int(row["reserved_bytes"]), _int(row["reserved_files"])
    return Usage(
        user_id=str(row["user_id"]),
        used_bytes=taken_bytes - reserved_bytes,
        used_files=taken_files - reserved_files,
        reserved_bytes=reserved_bytes,
        reserved_files=reserved_files,
        bytes_left=None if max_bytes is None else max(0, max_bytes - taken_bytes),
        files_left=None if max_files is None else max(0, max_files - taken_files),
    )


def _limit(value: Value) -> int | None:
    return None if value == _NO_LIMIT else _int(value)


def _int(value: Value) -> int:
    return value if isinstance(value, int) else 0
