"""Uploads under way and ended, as they are listed. `dal.files` writes them."""

from __future__ import annotations

from dal.file_models import MultipartUpload
from dal.file_tables import MULTIPART_UPLOADS
from dal.models import Page, build, page
from dal.ops import Row
from dal.repositories.base import R, Repository, known_id


class MultipartUploads(Repository):
    """Looks up uploads."""

    table = MULTIPART_UPLOADS

    async def list(self, *, user_id: str | None, status: str, limit: int, after: str | None) -> Page[MultipartUpload]:
        """A page of uploads, newest first. See `Files.list_uploads`."""
        if user_id is not None and (user_id := known_id("user_id", user_id)) is None:
            return page(MultipartUpload, [], None)
        filters = self._filters(user_id=user_id, status=status)
        return await self._page(MultipartUpload, ("-created_at", "-id"), filters, limit=limit, after=after)

    def _record(self, model: type[R], row: Row) -> R:
        values = dict(zip(self.table.names, row, strict=True))
        return build(model, {name: values["id" if name == "upload_id" else name] for name in model.model_fields})
