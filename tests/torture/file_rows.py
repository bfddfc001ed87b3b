"""What a lane does with the tables around files: quotas, uploads and their parts, grants, the access log.

They are written at the waist, as `dal.files` writes them: in one commit with a guard, an addition and what goes with
them, or several inserts that hang on each other. All are of the unit `files`, so a commit never spans two stores.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar

from dal import DataAccess
from dal.errors import AlreadyExistsError, ConflictError, DalError
from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Ref, Select, Update, Value
from dal.tables import TABLES
from dal.testing import rows
from dal.values import new_id, now
from tests.torture.ledger import Change, Content, RowKey, plain

T = TypeVar("T")

#: What a ledger calls rows of these tables, which go by their ids; quotas go by their users.
OF_FILES: Final = {
    "multipart_uploads": "upload",
    "multipart_parts": "part",
    "file_permissions": "grant",
    "file_access_logs": "access",
}
_TABLES: Final = {entity: table for table, entity in OF_FILES.items()} | {"quota": "user_quotas"}
_MAX_BYTES: Final = 10_000
_MOST_UPLOADS: Final = 4


class FileRows:
    """The calls of a lane on these tables; what it shares with the lane is declared here."""

    _dal: DataAccess
    _dice: Random
    _rows: dict[RowKey, dict[str, Any]]
    _any: Callable[[str], RowKey | None]
    _own: Callable[[str], list[RowKey]]
    _write: Callable[[str, Sequence[Change], Callable[[], Awaitable[object]]], Awaitable[object]]

    async def _take_room(self) -> None:
        """A user's quota is begun, or some of it is taken or given back, with an entry of the access log."""
        user = self._any("user")
        if user is None:
            return
        of: dict[str, Value] = {"user_id": user[1]}
        entry = _row("file_access_logs", file_id=new_id(), user_id=user[1])
        log: Change = Change(("access", str(entry["id"])), {"user_id": user[1]})
        quota = self._rows.get(("quota", user[1]))
        ops: list[Op]
        if quota is None:
            row = _row("user_quotas", **of, max_bytes=_MAX_BYTES, taken_bytes=0, taken_files=0)
            content = {"user_id": user[1], "taken_bytes": 0, "taken_files": 0}
            ops = [Insert("user_quotas", row), Insert("file_access_logs", entry)]
        else:
            size = self._dice.randrange(1, 3_000)
            if int(quota["taken_bytes"]) + size > _MAX_BYTES:
                size = -int(quota["taken_bytes"])
            room = Compare("taken_bytes", "<=", Ref("user_quotas", of, "max_bytes", -size))
            ops = [
                Guard("user_quotas", of, {}, (room,)),
                Update("user_quotas", of, add={"taken_bytes": size, "taken_files": 1, "version": 1}),
                Insert("file_access_logs", entry),
            ]
            content = {
                "user_id": user[1],
                "taken_bytes": int(quota["taken_bytes"]) + size,
                "taken_files": int(quota["taken_files"]) + 1,
            }
        changes = [Change(("quota", user[1]), content), log]
        await self._write("quota.take", changes, lambda: self._commit(ops, "file_access_logs", entry))
        self._rows.pop(log.key, None)

    async def _upload(self) -> None:
        """An upload with some parts, all at once; the oldest one goes where there are many."""
        user = self._any("user")
        if user is None:
            return
        if len(own := self._own("upload")) >= _MOST_UPLOADS:
            delete = Delete("multipart_uploads", (Compare("id", "=", own[0][1]),))
            changes = [Change(own[0], None), *self._hanging(own[0])]
            await self._write("upload.delete", changes, lambda: self._dal.store.commit([delete]))
            return
        upload = _row("multipart_uploads", user_id=user[1], storage_key=new_id())
        parts = [
            _row("multipart_parts", upload_id=upload["id"], part_number=number)
            for number in range(1, self._dice.randint(1, 6) + 1)
        ]
        ops = [Insert("multipart_uploads", upload), *(Insert("multipart_parts", part) for part in parts)]
        made = [Change(("upload", str(upload["id"])), {"id": upload["id"], "user_id": user[1]})]
        made += [
            Change(("part", str(p["id"])), {"upload_id": upload["id"], "part_number": p["part_number"]}) for p in parts
        ]
        await self._write("upload.create", made, lambda: self._commit(ops, "multipart_uploads", upload))

    async def _grant(self) -> None:
        """Somebody is granted something of a file."""
        file = self._any("file")
        if file is None:
            return
        row = _row("file_permissions", file_id=file[1], grantee_id=new_id(), token_hash=None)
        content: Content = {"file_id": file[1], "grantee_id": row["grantee_id"]}
        await self._write(
            "grant",
            [Change(("grant", str(row["id"])), content)],
            lambda: self._commit([Insert("file_permissions", row)], "file_permissions", row),
        )

    def _hanging(self, key: RowKey) -> list[Change]:
        """What goes with a row of these tables, or with a user or a file."""
        gone: list[RowKey] = []
        for other, content in self._rows.items():
            match key[0], other[0]:
                case ("user", "quota" | "upload"):
                    hangs = content["user_id"] == key[1]
                case ("upload", "part"):
                    hangs = content["upload_id"] == key[1]
                case ("file", "grant"):
                    hangs = content["file_id"] == key[1]
                case _:
                    hangs = False
            if hangs:
                gone.append(other)
        below = [change for other in gone for change in self._hanging(other)]
        return [*(Change(other, None) for other in gone), *below]

    async def _read_row(self, key: RowKey) -> dict[str, Any] | None:
        """A row of these tables, as the store has it."""
        table = _TABLES[key[0]]
        by = "user_id" if key[0] == "quota" else "id"
        found = await self._dal.store.read(Select(table, (Compare(by, "=", key[1]),)))
        return plain(dict(zip(TABLES[table].names, found[0], strict=True))) if found else None

    async def _commit(self, ops: Sequence[Op], table: str, row: dict[str, Value]) -> None:
        """A commit that holds this row's insert. What is repeated after a lost answer is refused for it."""
        try:
            await self._dal.store.commit(ops)
        except (AlreadyExistsError, ConflictError):
            try:
                found = await self._dal.store.read(Count(table, (Compare("id", "=", row["id"]),)))
            except DalError as error:
                error.outcome = "unknown"
                raise
            if found != [(1,)]:
                raise


def _row(table: str, **values: Value) -> dict[str, Value]:
    fresh: dict[str, Value] = {"id": new_id(), "created_at": now()}
    return rows.whole(table, 1, **(fresh | values))
