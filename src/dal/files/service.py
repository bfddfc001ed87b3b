"""`dal.files` outside a transaction: what is known of files, and their contents.

Rows lie in the data store and bytes in the blob store that BLOB_URL names. A file's row is committed after its bytes
are durable, together with what it takes of its owner's quota and its line in the access log: whatever crashes, there is
no file or a whole one. Within a transaction `tx.files` is the rows alone (`dal.files.rows`).

`by` says on whose behalf a call is made: None is the application itself, which may do everything; a Caller is held to
what they own and were granted, and is named in the access log with address and agent. Who has no right to a file gets
AccessDeniedError, the same whether it is there or not. Every call with `by` writes one row to the access log, also when
it is refused or fails.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dal.blobs.base import BlobStore
from dal.blobs.counted import counted_in
from dal.file_models import (
    Caller,
    FileAccess,
    Quota,
    SweepReport,
    Usage,
)
from dal.files import rows
from dal.files.changing import Changing
from dal.files.completing import Completing
from dal.files.core import Core, Operation
from dal.files.entering import Entering
from dal.files.granting import Granting
from dal.files.incoming import Content
from dal.files.monitoring import Monitoring
from dal.files.options import FileOptions
from dal.files.parts import Parts
from dal.files.quotas import Quotas
from dal.files.reader import FileReader
from dal.files.recording import UsageRecorder
from dal.files.reservations import Reservations
from dal.files.saving import save
from dal.files.scanning import Scanning
from dal.files.sending import Sending
from dal.files.sharing import Sharing
from dal.files.signing import Signing
from dal.files.sweeping import Sweeping
from dal.files.uploading import Uploading
from dal.models import FileRecord, Page
from dal.ops import JsonValue
from dal.repositories.base import Context
from dal.repositories.file_accesses import FileAccesses
from dal.repositories.file_queue import FileQueue
from dal.repositories.multipart_uploads import MultipartUploads

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter


class Files(Sending, Sharing, rows.Files):
    """Create, find, change and delete files: what is known of them, and their contents."""

    def __init__(
        self, context: Context, blobs: BlobStore | None, options: FileOptions, meter: Meter | None = None
    ) -> None:
        super().__init__(context, has_blobs=blobs is not None)
        counted = counted_in(blobs)
        #: What is stored, what it costs, how it grows.
        self.monitoring = Monitoring(context, counted[0].provider if counted else "none", meter)
        self._usage = UsageRecorder(self.monitoring.metrics, counted, context.clock)
        core = self._core = Core(context, blobs, options)
        self._quotas = Quotas(core)
        #: Work to be done on files, by workers of the application.
        self.queue = FileQueue(context)
        entering = Entering(core, self._quotas, self.queue)
        reservations = Reservations(core, self._quotas)
        self._uploading = Uploading(core, entering, reservations)
        self._changing = Changing(core, self._quotas, entering)
        self._granting = Granting(core)
        self._parts = Parts(core, reservations)
        self._completing = Completing(core, reservations, entering, self._parts)
        self._signing = Signing(core, reservations)
        self._sweeping = Sweeping(core, reservations)
        self._scanning = Scanning(core, self.queue)
        self._uploads = MultipartUploads(context)
        self._accesses = FileAccesses(context)

    @property
    def blobs(self) -> BlobStore:
        """Where the contents lie, for `dal.blobs.asgi.BlobApp` and for tools; its requests are counted with the others.

        Open as long as the DataAccess is. Raises ConfigurationError: BLOB_URL is not set.
        """
        return self._core.blobs

    # -- what is known of files

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
        """The record of a file whose bytes somebody else has stored; of contents, `upload` stores both.

        storage_key  where its bytes lie, 1..255 characters, unique. They can be read, and are never removed.
        file_size    bytes; no quota counts them.
        checksum     `sha256:…`.
        id           a UUID of your own making, which makes a repeat of the call harmless; None makes one.
        Raises       AlreadyExistsError: `storage_key` or `id` is taken.  MissingReferenceError: no such user.
        Cost         one round trip.
        """
        async with self._logged("create", id) as operation:
            record = await super().create(
                user_id,
                filename,
                storage_key=storage_key,
                file_size=file_size,
                mime_type=mime_type,
                checksum=checksum,
                metadata=metadata,
                status=status,
                id=id,
            )
            if operation is not None:
                operation.file_id, operation.owner = record.id, record.user_id
            return record

    async def update(self, file_id: str, *, expected_version: int | None = None, **changes: object) -> FileRecord:
        """As without contents; but of a file that was uploaded, what says where the bytes are and what they are
        (storage_key, file_size, checksum, status) cannot be changed, and its name only by `rename`.

        Raises NotFoundError, also of a deleted file. Cost: one round trip, one more for these columns and the name.
        """
        async with self._logged("update", file_id) as operation:
            record = await super().update(file_id, expected_version=expected_version, **changes)
            if operation is not None:
                operation.owner = record.user_id
            return record

    @asynccontextmanager
    async def _logged(self, action: str, file_id: object) -> AsyncIterator[Operation | None]:
        """An operation of the application's, with its row in the access log where there is a blob store."""
        if not self._core.has_blobs:
            yield None
            return
        async with self._core.operation(action, None, file_id) as operation:
            yield operation

    # -- whole files

    async def upload(
        self,
        user_id: str,
        filename: str,
        data: Content,
        *,
        mime_type: str | None = None,
        metadata: dict[str, JsonValue] | None = None,
        if_absent: bool = False,
        by: Caller | None = None,
        id: str | None = None,
    ) -> FileRecord:
        """The record of a new file with this content.

        filename   shown and searched for, never a path; made fit for that (dal.files.names).
        data       bytes, a path (os.PathLike), or an async iterator of bytes, taken as it comes.
        mime_type  what it is, refused where the content shows something else; None tells it from the content.
        if_absent  AlreadyExistsError where the user has a file of that name, also against others at that moment.
        id         a UUID of your own making, which makes a repeat of the call harmless.
        Raises     InvalidInputError: a type that is not allowed or not what the content is, a bomb, a polyglot.
                   LimitExceededError: larger than a file may be.  QuotaExceededError.  MissingReferenceError: no such
                   user.  AccessDeniedError: for somebody else.  UnavailableError (outcome "unknown": repeat with `id`).
        Cost       up to 1 MiB: the bytes, and one commit; above, and for more than 1 MiB of unknown size, one commit
                   more at the start. `id` and `deduplicate` take one read each, `if_absent` two by indexes.
        """
        return await self._uploading.upload(
            user_id, filename, data, mime_type=mime_type, metadata=metadata, if_absent=if_absent, by=by, id=id
        )

    def open(
        self, file_id: str, *, start: int = 0, end: int | None = None, verify: bool = False, by: Caller | None = None
    ) -> FileReader:
        """The content of a file, or the bytes `start` up to, not including, `end`: `async with dal.files.open(…) as f`.

        verify  compare SHA-256 at the end: the last piece came, and then CorruptDataError says that they were wrong.
        Raises  (when it is entered) NotFoundError; AccessDeniedError: no right, or quarantined; InvalidInputError: no
                such range; CorruptDataError: the bytes are gone, or not as many as the row says.
        Cost    one indexed read and one request; a range of compressed content two or three requests.
        """
        return FileReader(self._core, file_id, start=start, end=end, verify=verify, by=by)

    async def read(
        self, file_id: str, *, start: int = 0, end: int | None = None, verify: bool = False, by: Caller | None = None
    ) -> bytes:
        """The content at once, for what is known to be small. Everything else as `open`."""
        async with self.open(file_id, start=start, end=end, verify=verify, by=by) as reader:
            return await reader.read()

    async def download_to(
        self, file_id: str, path: str | os.PathLike[str], *, verify: bool = False, by: Caller | None = None
    ) -> FileRecord:
        """Writes the content to a path: whole and durable (mode 0600), or, whatever happens, not at all.

        Raises as `open`; InvalidInputError: the path cannot be written.
        """
        reader = FileReader(self._core, file_id, start=0, end=None, verify=verify, by=by, action="download")
        async with reader:
            await save(reader, Path(path))
            return reader.record

    async def copy(
        self,
        file_id: str,
        *,
        filename: str | None = None,
        user_id: str | None = None,
        by: Caller | None = None,
        id: str | None = None,
    ) -> FileRecord:
        """The record of a copy, made within the blob store; shared content is only counted once more.

        user_id  whose it is; None: the caller's own, or for the application the same owner's.
        Raises   as `open` and `upload`.
        """
        return await self._uploading.copy(file_id, filename=filename, user_id=user_id, by=by, id=id)

    async def rename(
        self, file_id: str, filename: str, *, expected_version: int | None = None, by: Caller | None = None
    ) -> FileRecord:
        """The record under another name (`write`). Raises NotFoundError, AccessDeniedError, ConflictError: another
        version. Cost: one read, one commit."""
        return await self._changing.rename(file_id, filename, expected_version=expected_version, by=by)

    async def delete(self, file_id: str, *, by: Caller | None = None) -> bool:
        """Deletes a file (`write`): True if it was there. It is no longer found, and its room is free; until its
        retention is over and the sweeper has come, `restore` brings it back. Without a blob store the record goes now.

        Raises AccessDeniedError. Cost: one read, one commit.
        """
        if not self._core.has_blobs:
            return await super().delete(file_id)
        return await self._changing.delete(file_id, by=by)

    async def restore(self, file_id: str, *, by: Caller | None = None) -> FileRecord:
        """The record of a file that was deleted (`write`), back again. Raises NotFoundError: not deleted, or swept;
        QuotaExceededError: its room was taken meanwhile."""
        return await self._changing.restore(file_id, by=by)

    # -- quotas, the log, and what was left behind

    async def quota(self, user_id: str) -> Quota:
        """What a user may store, and has. Cost: one indexed read."""
        return await self._quotas.quota(user_id)

    async def set_quota(self, user_id: str, *, max_bytes: int | None, max_files: int | None) -> Quota:
        """Gives a user a quota; None is no limit. One below what is stored refuses what comes, and removes nothing.

        Raises MissingReferenceError: no such user.
        """
        return await self._quotas.set(user_id, max_bytes, max_files)

    async def usage(self, user_id: str) -> Usage:
        """What a user stores, and what is left. Deleted files do not count. Cost: one indexed read."""
        return await self._quotas.usage(user_id)

    async def access_log(
        self,
        *,
        file_id: str | None = None,
        user_id: str | None = None,
        action: str | None = None,
        success: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[FileAccess]:
        """A page of the access log, newest first: what was done, by whom, whether it went well. limit: 1..1000.

        since, until  from this moment on, up to, not including, that one.
        What this process did shows at once; what others did within a fraction of a second. A row in which the
        application acted names the file's owner as `user_id` and `{"by": "application"}` in its metadata.
        """
        await self._core.log.flush()
        return await self._accesses.list(
            file_id=file_id,
            user_id=user_id,
            action=action,
            success=success,
            since=since,
            until=until,
            limit=limit,
            after=after,
        )

    async def scan(self, *, limit: int = 100, worker: str = "scanner", lease_s: float = 600.0) -> int:
        """Lets the scanner look into files that wait for it: how many it looked at. Run it in a loop, by any workers.

        limit    from 1.   lease_s  how long one look may take; after that another worker looks.
        Raises   ConfigurationError: no scanner was given.
        """
        return await self._scanning.scan(limit=limit, worker=worker, lease_s=lease_s)

    async def sweep(self, *, dry_run: bool = False) -> SweepReport:
        """Removes what was left behind, and reports what cannot be right: expired uploads, deleted files past their
        retention, bytes without a row, counters that are wrong; rows without bytes are named and left alone.

        dry_run  change nothing.
        Cost     both stores listed once, in pages. Run it every hour or so, from one process or several.
        """
        return await self._sweeping.sweep(dry_run=dry_run)

    async def open_contents(self) -> None:
        """Makes the blob store ready; DataAccess calls it."""
        if self._core.has_blobs:
            await self._core.blobs.open()
            self._usage.start()

    async def close_contents(self) -> None:
        """Writes what waits and lets go of the blob store; DataAccess calls it before it closes its store."""
        await self._core.log.close()
        await self._usage.close()
        if self._core.has_blobs:
            await self._core.blobs.close()

    async def contents_problem(self) -> str | None:
        """None, or a sentence about what is wrong with the blob store."""
        return await self._core.blobs.health() if self._core.has_blobs else None
