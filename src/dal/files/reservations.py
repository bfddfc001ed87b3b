"""Room for an upload under way: a row that holds it in its user's quota until the upload ends, is given up, or expires.

Whole uploads (`storing`) reserve here what is large or of unknown size, and the latter more as it comes; uploads in
parts and signed ones (`active`) are the same rows. Whoever ends a row does so under a guard on its status and its
room, so room is given back once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from dal.errors import ConflictError, DalError, NotFoundError, QuotaExceededError
from dal.file_tables import MULTIPART_UPLOADS
from dal.files.core import Core
from dal.files.entering import NewFile, Reserved
from dal.files.quotas import Quotas
from dal.limits import FILE_COMMIT_TRIES, FILE_RESERVE_BYTES, FILE_UPLOAD_LIFE_S
from dal.ops import Compare, Delete, Guard, JsonValue, Op, Update, Value
from dal.repositories.base import whole_row


class UploadRow(NamedTuple):
    """What the row of an upload under way says."""

    id: str
    new: NewFile
    storage_key: str
    total_size: int | None
    part_size: int | None
    parts_uploaded: int
    reserved_bytes: int
    session: dict[str, JsonValue]
    status: str
    version: int
    values: dict[str, Value]


class Reservations:
    """Makes, enlarges and ends the rows of uploads."""

    def __init__(self, core: Core, quotas: Quotas) -> None:
        self._core = core
        self._quotas = quotas

    async def begin(
        self,
        new: NewFile,
        storage_key: str,
        size: int,
        *,
        status: str,
        total_size: int | None,
        part_size: int | None = None,
        session: dict[str, JsonValue] | None = None,
        expires_in_s: float = FILE_UPLOAD_LIFE_S,
        upload_id: str | None = None,
        also: tuple[Op, ...] = (),
    ) -> UploadRow:
        """Reserves room for a file. Raises QuotaExceededError, MissingReferenceError: no such user."""
        now = self._core.now()
        insert = whole_row(
            MULTIPART_UPLOADS,
            {
                "id": upload_id or self._core.new_id(),
                "file_id": new.id,
                "user_id": new.user_id,
                "storage_key": storage_key,
                "filename": new.filename,
                "mime_type": new.mime_type,
                "total_size": total_size,
                "part_size": part_size,
                "parts_uploaded": 0,
                "reserved_bytes": size,
                "metadata": new.metadata,
                "session_data": session or {},
                "status": status,
                "created_at": now,
                "updated_at": now,
                "expires_at": now + timedelta(seconds=expires_in_s),
                "completed_at": None,
                "version": 1,
            },
        )
        ops = [*self._quotas.take(new.user_id, size, reserve=True), insert, *also]
        try:
            await self._quotas.commit(new.user_id, size, 1, ops)
        except DalError as error:
            if error.outcome != "unknown" or await self.find(str(insert.row["id"])) is None:
                raise
        return upload_row({c: insert.row[c] for c in MULTIPART_UPLOADS.names})  # type: ignore[misc]  # no Ref in it

    async def find(self, upload_id: str) -> UploadRow | None:
        """The row of an upload, whatever its status."""
        row = await self._core.one(MULTIPART_UPLOADS, Compare("id", "=", upload_id))
        return None if row is None else upload_row(row)

    async def grow(self, row: UploadRow, size: int) -> UploadRow:
        """The row after it has room for `size` bytes: for as much again as before, where the quota leaves so much.

        Raises QuotaExceededError; ConflictError: the upload is gone.
        """
        if size <= row.reserved_bytes:
            return row
        wanted = max(size, min(2 * row.reserved_bytes, row.reserved_bytes + 64 * FILE_RESERVE_BYTES))
        try:
            return await self._grow_to(row, wanted)
        except QuotaExceededError:
            if wanted == size:
                raise
        return await self._grow_to(row, size)

    async def add(self, row: UploadRow, more: int) -> UploadRow:
        """The row after it has room for so much more. Raises as `grow`."""
        return await self._grow_to(row, row.reserved_bytes + more)

    async def release(self, row: UploadRow, status: str, *also: Op) -> bool:
        """Ends an upload and gives its room back; False where somebody else has ended it."""
        for _ in range(FILE_COMMIT_TRIES):
            back = self._quotas.change(row.new.user_id, -row.reserved_bytes, -1, reserve=True)
            try:
                await self._core.store.commit((*self._end(row, {"status": status}), back, *also))
            except ConflictError:
                found = await self.find(row.id)
                if found is None or found.status != row.status:
                    return False
                row = found
                continue
            return True
        raise ConflictError("files: the upload was changed again and again by others", retryable=True)

    def settled(self, row: UploadRow) -> Reserved:
        """The room of this row as the file's commit takes it over."""
        held = (Compare("id", "=", row.id), *(Compare(c, "=", v) for c, v in self._held(row).items()))
        ops = self._end(row, {"status": "completed", "completed_at": self._core.now()})
        return Reserved(row.reserved_bytes, ops, held)

    def _end(self, row: UploadRow, values: dict[str, Value]) -> tuple[Op, Op]:
        """Ends the row, if it is as it was seen. Of a whole upload nobody asks afterwards."""
        key = {"id": row.id}
        changed = {**values, "updated_at": self._core.now()}
        end: Op = Update("multipart_uploads", key, changed, {"version": 1})
        if row.status == "storing":
            end = Delete("multipart_uploads", (Compare("id", "=", row.id),))
        return Guard("multipart_uploads", key, self._held(row)), end

    async def _grow_to(self, row: UploadRow, size: int) -> UploadRow:
        more = size - row.reserved_bytes
        key = {"id": row.id}
        ops: list[Op] = [
            *self._quotas.take(row.new.user_id, more, files=0, reserve=True),
            Guard("multipart_uploads", key, self._held(row)),
            Update("multipart_uploads", key, {"updated_at": self._core.now()}, {"reserved_bytes": more, "version": 1}),
        ]
        try:
            await self._quotas.commit(row.new.user_id, more, 0, ops, guarded=True)
        except ConflictError as error:
            found = await self.find(row.id)
            if found is None or found.status != row.status:
                raise ConflictError("files: the upload is gone: it expired or was aborted") from error
            return await self._grow_to(found, found.reserved_bytes + more)
        return row._replace(reserved_bytes=size, version=row.version + 1)

    def _held(self, row: UploadRow) -> dict[str, Value]:
        """What is true as long as the upload goes on and holds so much room; parts that arrive do not change it."""
        return {"status": row.status, "reserved_bytes": row.reserved_bytes}


def upload_row(values: dict[str, Value]) -> UploadRow:
    """The row, from its columns."""
    new = NewFile(
        str(values["file_id"]),
        str(values["user_id"]),
        str(values["filename"]),
        str(values["mime_type"]),
        values["metadata"],  # type: ignore[arg-type]  # documents that were checked when they were written
    )
    return UploadRow(
        str(values["id"]),
        new,
        str(values["storage_key"]),
        values["total_size"],  # type: ignore[arg-type]
        values["part_size"],  # type: ignore[arg-type]
        values["parts_uploaded"],  # type: ignore[arg-type]
        values["reserved_bytes"],  # type: ignore[arg-type]
        values["session_data"],  # type: ignore[arg-type]
        str(values["status"]),
        values["version"],  # type: ignore[arg-type]
        values,
    )


def no_upload(upload_id: object) -> NotFoundError:
    """The error for an upload that is not under way."""
    return NotFoundError(
        f"files: no upload under way has the id {str(upload_id)[:40]!r}: it was completed, aborted, or has expired"
    )
