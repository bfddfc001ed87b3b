"""Grants to others and public links: who besides its owner may do what with a file, and until when."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from dal.errors import InvalidInputError, LimitExceededError, NotFoundError
from dal.file_models import Caller, FilePermission, Permission
from dal.file_tables import FILE_PERMISSIONS
from dal.files.core import Core
from dal.files.rights import HOLDERS, find, token_hash
from dal.limits import FILE_MAX_PERMISSIONS, MAX_KEY_CHARS
from dal.models import build
from dal.ops import Compare, Count, Delete, Guard, Row, Select, Upsert, Value
from dal.repositories.base import known_id, whole_row
from dal.values import check_expiry, check_text

_FIELDS = tuple(name for name in FilePermission.model_fields if name != "token")


class Granting:
    """Gives, takes and lists permissions."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def grant(
        self,
        file_id: str,
        grantee_id: str,
        permission: Permission,
        *,
        expires_in: float | timedelta | None,
        expires_at: datetime | None,
        by: Caller | None,
    ) -> FilePermission:
        """See `Files.grant`."""
        async with self._core.operation("grant", by, file_id) as operation:
            grantee = check_text("grantee_id", grantee_id, max_chars=MAX_KEY_CHARS, min_chars=1)
            row = self._row(permission, check_expiry(self._core.now(), "expires_in", expires_in, expires_at), by)
            record = await find(self._core, operation, file_id, "admin")
            await self._check_room(record.id, grantee)
            operation.metadata |= {"grantee": grantee, "permission": permission}
            row |= {"file_id": record.id, "grantee_id": grantee}
            update = ("permission", "granted_by", "expires_at", "updated_at")
            upsert = Upsert(
                "file_permissions", row, ("file_id", "grantee_id"), update, {"version": 1}, (), FILE_PERMISSIONS.names
            )
            receipt = await self._core.commit(operation, (Guard("files", {"id": record.id}), upsert))
            if receipt is not None:
                return _permission(receipt.rows[1])
            where = (Compare("file_id", "=", record.id), Compare("grantee_id", "=", grantee))
            rows = await self._core.store.read(Select("file_permissions", where, columns=FILE_PERMISSIONS.names))
            if not rows:
                raise NotFoundError(f"files: {record.id} was granted to {grantee}, and it was revoked since")
            return _permission(rows[0])

    async def link(
        self,
        file_id: str,
        permission: Permission,
        *,
        expires_in: float | timedelta | None,
        expires_at: datetime | None,
        by: Caller | None,
    ) -> FilePermission:
        """See `Files.link`."""
        async with self._core.operation("link", by, file_id) as operation:
            row = self._row(permission, check_expiry(self._core.now(), "expires_in", expires_in, expires_at), by)
            if permission == "admin":
                raise InvalidInputError("permission: a link allows read or write; whoever has it could not be told")
            record = await find(self._core, operation, file_id, "admin")
            await self._check_room(record.id)
            token = secrets.token_urlsafe(32)
            operation.metadata |= {"link": str(row["id"]), "permission": permission}
            row |= {"file_id": record.id, "token_hash": token_hash(token)}
            insert = whole_row(FILE_PERMISSIONS, row)
            await self._core.commit(operation, (Guard("files", {"id": record.id}), insert))
            return build(FilePermission, {**{c: insert.row[c] for c in _FIELDS}, "token": token})

    async def revoke(
        self, file_id: str, grantee_id: str | None, *, permission_id: str | None, by: Caller | None
    ) -> bool:
        """See `Files.revoke`."""
        async with self._core.operation("revoke", by, file_id) as operation:
            if (grantee_id is None) == (permission_id is None):
                raise InvalidInputError("revoke: give the grantee_id of a grant, or the permission_id of a link")
            if grantee_id is None:
                column, value = "id", known_id("permission_id", permission_id)
            else:
                column, value = "grantee_id", check_text("grantee_id", grantee_id, max_chars=MAX_KEY_CHARS)
            record = await find(self._core, operation, file_id, "admin")
            if value is None:
                return False
            operation.metadata[column] = value
            where = (Compare("file_id", "=", record.id), Compare(column, "=", value))
            receipt = await self._core.commit(operation, (Delete("file_permissions", where),))
            return receipt is None or receipt.counts[0] > 0

    async def permissions(self, file_id: str, *, by: Caller | None) -> list[FilePermission]:
        """See `Files.permissions`."""
        async with self._core.operation("permissions", by, file_id) as operation:
            record = await find(self._core, operation, file_id, "admin")
            where = (Compare("file_id", "=", record.id), Compare("expires_at", "null or >", self._core.now()))
            order = ("created_at", "id")
            rows = await self._core.store.read(
                Select("file_permissions", where, order, None, FILE_MAX_PERMISSIONS, FILE_PERMISSIONS.names)
            )
            return [_permission(row) for row in rows]

    async def _check_room(self, file_id: str, grantee: str | None = None) -> None:
        """Whether there may be one more, of those that have not expired; the grant of who has one is no more."""
        where = (Compare("file_id", "=", file_id), Compare("expires_at", "null or >", self._core.now()))
        [(count,)] = await self._core.store.read(Count("file_permissions", where))
        if not isinstance(count, int) or count < FILE_MAX_PERMISSIONS:
            return
        if grantee is not None:
            theirs = (*where, Compare("grantee_id", "=", grantee))
            if await self._core.store.read(Select("file_permissions", theirs, limit=1, columns=("id",))):
                return
        raise LimitExceededError(f"files: {file_id} has {count} grants and links; revoke some")

    def _row(self, permission: Permission, expires_at: datetime | None, by: Caller | None) -> dict[str, Value]:
        if permission not in HOLDERS:
            raise InvalidInputError(f"permission: {str(permission)[:20]!r} is none; use read, write or admin")
        now = self._core.now()
        return {
            "id": self._core.new_id(),
            "grantee_id": None,
            "permission": permission,
            "token_hash": None,
            "granted_by": None if by is None else by.user_id,
            "expires_at": expires_at,
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }


def _permission(row: Row | None) -> FilePermission:
    assert row is not None  # noqa: S101  # an upsert without conditions always writes
    values = dict(zip(FILE_PERMISSIONS.names, row, strict=True))
    return build(FilePermission, {**{c: values[c] for c in _FIELDS}, "token": None})
