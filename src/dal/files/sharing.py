"""What `dal.files` offers of rights: grants to others, and public links."""

from __future__ import annotations

import builtins
from datetime import datetime, timedelta

from dal.file_models import Caller, FilePermission, Permission
from dal.files.granting import Granting


class Sharing:
    """Gives, takes and lists rights."""

    _granting: Granting

    async def grant(
        self,
        file_id: str,
        grantee_id: str,
        permission: Permission = "read",
        *,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
        by: Caller | None = None,
    ) -> FilePermission:
        """Allows somebody to read, write (read, rename, delete) or administer (grant, too) a file, instead of before.

        expires_in  seconds or a timedelta from now; or `expires_at`; without either until it is revoked.
        Raises      NotFoundError, AccessDeniedError: `admin` is needed. LimitExceededError: 1,000 others on one
                    file that have not expired.
        """
        return await self._granting.grant(
            file_id, grantee_id, permission, expires_in=expires_in, expires_at=expires_at, by=by
        )

    async def link(
        self,
        file_id: str,
        permission: Permission = "read",
        *,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
        by: Caller | None = None,
    ) -> FilePermission:
        """A public link: whoever shows its `token` (`Caller(token=…)`) may read, or write. The token is in this answer
        and nowhere else; only its hash is stored."""
        return await self._granting.link(file_id, permission, expires_in=expires_in, expires_at=expires_at, by=by)

    async def revoke(
        self,
        file_id: str,
        grantee_id: str | None = None,
        *,
        permission_id: str | None = None,
        by: Caller | None = None,
    ) -> bool:
        """Takes back a grant, or by its `permission_id` a link: True if it was there. Signed requests stay."""
        return await self._granting.revoke(file_id, grantee_id, permission_id=permission_id, by=by)

    async def permissions(self, file_id: str, *, by: Caller | None = None) -> builtins.list[FilePermission]:
        """The grants and links of a file that have not expired, oldest first (`admin`); without the links' tokens."""
        return await self._granting.permissions(file_id, by=by)
