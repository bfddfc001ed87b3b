"""`tx.files`: what is known of files, within a transaction, and what `dal.files` shares with it.

Of a file that was uploaded, what says where its bytes are and what they are follows from its content, and its owner's
quota counts it. So these columns are nobody's to change here, and it is deleted outside a transaction. With a blob
store, deleted files are found neither here nor there.
"""

from __future__ import annotations

from dal.errors import InvalidInputError, UnsupportedError
from dal.files.core import DELETED
from dal.files.keys import place_of
from dal.models import FileRecord, Page, page
from dal.ops import Compare
from dal.repositories import files as metadata
from dal.repositories.base import Context, known_id

#: Columns that say what the bytes are; where this library wrote them, only it changes those.
_CONTENT = ("storage_key", "file_size", "checksum", "status")


class Files(metadata.Files):
    """Create, find, change and delete what is known of files.

    has_blobs  whether there is a blob store.
    """

    def __init__(self, context: Context, *, has_blobs: bool) -> None:
        super().__init__(context)
        self._has_blobs = has_blobs
        if has_blobs:
            self._present = (Compare("status", "!=", DELETED),)

    async def get(self, file_id: str) -> FileRecord | None:
        """The file with this id, or None; a deleted one is not found. Cost: one indexed read."""
        return self._shown(await super().get(file_id))

    async def get_by_storage_key(self, storage_key: str) -> FileRecord | None:
        """The file whose bytes lie there, or None; a deleted one is not found. Cost: one indexed read."""
        return self._shown(await super().get_by_storage_key(storage_key))

    async def update(self, file_id: str, *, expected_version: int | None = None, **changes: object) -> FileRecord:
        """As without contents; but of a file that was uploaded, what says where the bytes are and what they are
        (storage_key, file_size, checksum, status) cannot be changed, and its name only by `dal.files.rename`.

        Raises NotFoundError, also of a deleted file. Cost: one round trip, one more for these columns and the name.
        """
        if not changes.keys().isdisjoint((*_CONTENT, "filename")) and _is_uploaded(await self.get(file_id)):
            raise InvalidInputError(
                f"files: {', '.join(_CONTENT)} of an uploaded file follow from its content; its name is changed by "
                "dal.files.rename"
            )
        return await super().update(file_id, expected_version=expected_version, **changes)

    async def delete(self, file_id: str) -> bool:
        """Deletes the record: True if it was there. The bytes are not touched.

        Raises UnsupportedError: it was uploaded; `dal.files.delete` does that, outside a transaction.
        Cost: one read, one round trip.
        """
        if self._has_blobs and _is_uploaded(await super().get(file_id)):
            raise UnsupportedError("files: an uploaded file is deleted by dal.files.delete, outside a transaction")
        return await super().delete(file_id)

    async def list(
        self, *, user_id: str | None = None, status: str | None = None, limit: int = 50, after: str | None = None
    ) -> Page[FileRecord]:
        """A page of files, newest first. limit: 1..1000. Deleted ones only with `status="deleted"`."""
        if status is not None or not self._has_blobs:
            return await super().list(user_id=user_id, status=status, limit=limit, after=after)
        if user_id is not None and (user_id := known_id("user_id", user_id)) is None:
            return page(FileRecord, [], None)
        filters = [*self._filters(user_id=user_id), *self._present]
        return await self._page(FileRecord, ("-created_at", "-id"), filters, limit=limit, after=after)

    def _shown(self, record: FileRecord | None) -> FileRecord | None:
        return None if record is None or (record.status == DELETED and self._has_blobs) else record


def _is_uploaded(record: FileRecord | None) -> bool:
    return record is not None and place_of(record.storage_key).is_own
