"""Files' metadata: `dal.files`. The bytes lie in a blob store, under `storage_key`."""

from __future__ import annotations

from dal.errors import MissingReferenceError
from dal.limits import MAX_INT64
from dal.models import FileRecord, Page, page
from dal.ops import Compare, Delete, JsonValue
from dal.repositories.base import Repository, known_id
from dal.tables import FILES
from dal.values import check_int, check_object, check_text

_CHANGEABLE = ("filename", "storage_key", "mime_type", "file_size", "checksum", "metadata", "status")


class Files(Repository):
    """Create, find, change and delete what is known of files."""

    table = FILES
    #: What a file meets that can be changed.
    _present: tuple[Compare, ...] = ()

    async def create(
        self,
        user_id: str,
        filename: str,
        *,
        storage_key: str,
        file_size: int,
        mime_type: str = "application/octet-stream",
        checksum: str | None = None,
        metadata: dict[str, JsonValue] | None = None,
        status: str = "active",
        id: str | None = None,
    ) -> FileRecord:
        """The new file's record.

        storage_key  where its bytes lie, 1..255 characters, unique.
        file_size    bytes.
        checksum     `sha256:…`.
        id           a UUID of your own making, which makes a repeat of the call harmless; None makes one.
        Raises       AlreadyExistsError: `storage_key` or `id` is taken.  MissingReferenceError: no such user.
        Cost         one round trip.
        """
        owner = known_id("user_id", user_id)
        if owner is None:
            raise MissingReferenceError("files.user_id: no user has this id; an id is a UUID")
        now = self._now()
        return await self._create(
            FileRecord,
            {
                "id": self._new_id() if id is None else id,
                "user_id": owner,
                "filename": filename,
                "storage_key": storage_key,
                "mime_type": mime_type,
                "file_size": check_int("file_size", file_size, 0, MAX_INT64),
                "checksum": checksum,
                "metadata": check_object("metadata", metadata),
                "status": status,
                "created_at": now,
                "updated_at": now,
                "version": 1,
            },
            given_id=id is not None,
        )

    async def get(self, file_id: str) -> FileRecord | None:
        """The file with this id, or None. Cost: one indexed read."""
        key = known_id("file_id", file_id)
        return None if key is None else await self._one(FileRecord, "id", key)

    async def get_by_storage_key(self, storage_key: str) -> FileRecord | None:
        """The file whose bytes lie there, or None. Cost: one indexed read."""
        key = check_text("storage_key", storage_key, max_chars=255, min_chars=1)
        return await self._one(FileRecord, "storage_key", key)

    async def update(self, file_id: str, *, expected_version: int | None = None, **changes: object) -> FileRecord:
        """The record after the change.

        changes           any of filename, storage_key, mime_type, file_size, checksum, metadata, status.
        expected_version  change only if the record is still at this version.
        Raises            NotFoundError; ConflictError: another version; AlreadyExistsError: `storage_key` is taken.
        Cost              one round trip.
        """
        key = known_id("file_id", file_id)
        if key is None:
            raise self._not_found({"id": file_id})
        if "file_size" in changes:
            check_int("file_size", changes["file_size"], 0, MAX_INT64)
        return await self._change(
            FileRecord,
            {"id": key},
            changes,
            allowed=_CHANGEABLE,
            expected_version=expected_version,
            where=self._present,
        )

    async def delete(self, file_id: str) -> bool:
        """Deletes the record: True if it was there. The bytes are not touched."""
        key = known_id("file_id", file_id)
        if key is None:
            return False
        return (await self._store.commit((Delete("files", (Compare("id", "=", key),)),))).counts[0] > 0

    async def list(
        self, *, user_id: str | None = None, status: str | None = None, limit: int = 50, after: str | None = None
    ) -> Page[FileRecord]:
        """A page of files, newest first. limit: 1..1000."""
        if user_id is not None and (user_id := known_id("user_id", user_id)) is None:
            return page(FileRecord, [], None)
        filters = self._filters(user_id=user_id, status=status)
        return await self._page(FileRecord, ("-created_at", "-id"), filters, limit=limit, after=after)
