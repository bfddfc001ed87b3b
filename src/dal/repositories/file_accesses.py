"""The access log of files: what was done with them, by whom; it outlives the files and the people it speaks of."""

from __future__ import annotations

from datetime import datetime

from dal.file_models import FileAccess
from dal.file_tables import FILE_ACCESS_LOGS
from dal.models import Page
from dal.ops import Compare
from dal.repositories.base import Repository
from dal.values import check_bool, check_time


class FileAccesses(Repository):
    """Looks up what was done with files."""

    table = FILE_ACCESS_LOGS

    async def list(
        self,
        *,
        file_id: str | None,
        user_id: str | None,
        action: str | None,
        success: bool | None,
        since: datetime | None,
        until: datetime | None,
        limit: int,
        after: str | None,
    ) -> Page[FileAccess]:
        """A page of accesses, newest first. See `Files.access_log`."""
        filters = self._filters(file_id=file_id, user_id=user_id, action=action)
        if success is not None:
            filters.append(Compare("success", "=", check_bool("success", success)))
        if since is not None:
            filters.append(Compare("created_at", ">=", check_time("since", since)))
        if until is not None:
            filters.append(Compare("created_at", "<", check_time("until", until)))
        return await self._page(FileAccess, ("-created_at", "-id"), filters, limit=limit, after=after)
