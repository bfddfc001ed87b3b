"""`files.complete_upload`: makes a file of what was sent in parts or by a signed request, once it was looked at.

Nobody saw the whole content on its way, so it is read back: its length, its type, its SHA-256. What is not as announced
is refused and removed. Where equal contents are stored once, what is there already takes its place, now that its
SHA-256 is known. A repeat, also after a crash in the middle, ends with the one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing, suppress

from dal.blobs.base import BlobInfo
from dal.errors import ConflictError, CorruptDataError, DalError, InvalidInputError, NotFoundError
from dal.file_models import Caller
from dal.files.core import DELETED, Core, Operation
from dal.files.entering import Entering
from dal.files.incoming import Incoming
from dal.files.keys import SHARED
from dal.files.parts import Parts, active, check_checksum, check_etags, forget
from dal.files.reservations import Reservations, UploadRow, no_upload
from dal.files.storing import Stored, check_passed, check_type, discard, passing, unseen_key
from dal.models import FileRecord
from dal.repositories.base import known_id


class Completing:
    """Ends uploads with a file."""

    def __init__(self, core: Core, reservations: Reservations, entering: Entering, parts: Parts) -> None:
        self._core = core
        self._reservations = reservations
        self._entering = entering
        self._parts = parts

    async def complete(
        self, upload_id: str, *, checksum: str | None, etags: Mapping[int, str] | None, by: Caller | None
    ) -> FileRecord:
        """See `Files.complete_upload`."""
        async with self._core.operation("complete_upload", by) as operation:
            announced, tags = check_checksum(checksum), check_etags(etags)
            done = await self._done(upload_id, by)
            if done is None:
                try:
                    return await self._complete(operation, upload_id, announced, tags)
                except (ConflictError, NotFoundError, CorruptDataError):
                    # Somebody else may have completed it meanwhile; what was sent is then gone.
                    if (done := await self._done(upload_id, by)) is None:
                        raise
            operation.file_id, operation.owner = done.id, done.user_id
            return done

    async def _complete(
        self, operation: Operation, upload_id: str, announced: str | None, tags: Mapping[int, str]
    ) -> FileRecord:
        row = await active(self._core, self._reservations, operation, upload_id)
        is_parts = row.session.get("kind") == "parts"
        key = row.storage_key if is_parts else unseen_key(self._core)
        info = await (self._of_parts(row, tags) if is_parts else self._of_request(row, key))
        try:
            return await self._enter(operation, row, info, announced)
        except (InvalidInputError, CorruptDataError):
            # What was sent is not what may be kept, and nothing can be added to it.
            if await self._reservations.release(row, "aborted"):
                await discard(self._core, key, row.storage_key)
            raise
        except ConflictError:
            # Somebody else has ended it. In parts there is one blob, and it may be their file's.
            if not is_parts:
                await discard(self._core, key)
            raise

    async def _enter(self, operation: Operation, row: UploadRow, info: BlobInfo, announced: str | None) -> FileRecord:
        core = self._core
        async with aclosing(passing(core, info.key)) as content:
            incoming = await Incoming.of(content, max_bytes=core.options.max_file_bytes)
            if incoming.whole is None:
                async for _ in incoming.stream():
                    pass
        operation.bytes = incoming.passed
        size = row.total_size
        if incoming.passed != info.size or (size is not None and incoming.passed != size):
            raise CorruptDataError(f"files: {incoming.passed} bytes were sent, {size} were announced; nothing is kept")
        if size is None and incoming.passed > row.reserved_bytes:
            raise InvalidInputError(
                f"files: {incoming.passed} bytes were sent, room was reserved for {row.reserved_bytes}; nothing is kept"
            )
        for expected in (announced, row.session.get("checksum")):
            if expected is not None and expected != incoming.checksum:
                raise CorruptDataError(
                    f"files: what was sent has the checksum {incoming.checksum}, not {expected}; nothing is kept"
                )
        new = row.new._replace(mime_type=check_type(core, row.new.mime_type, incoming, row.new.filename))
        check_passed(incoming)
        stored = Stored(info.key, incoming.passed, incoming.checksum, info.size, info.key.startswith(SHARED))
        record = await self._entering.enter(
            operation,
            new,
            stored,
            size=stored.size,
            checksum=stored.checksum,
            reserved=self._reservations.settled(row),
            share=info.key.startswith(SHARED),
        )
        if info.key != row.storage_key:
            with suppress(DalError):  # what stays is the sweeper's
                await forget(core, row)
        return record

    async def _of_parts(self, row: UploadRow, tags: Mapping[int, str]) -> BlobInfo:
        blobs = self._core.blobs
        try:
            parts = await self._parts.arrived(row, tags)
            return await blobs.complete_parts(row.storage_key, str(row.session["upload"]), parts)
        except NotFoundError:
            info = await blobs.head(row.storage_key)  # completed before, by a call that did not come to its end
            if info is None:
                raise
            return info

    async def _of_request(self, row: UploadRow, key: str) -> BlobInfo:
        """A copy of what was sent: until the signed request expires, it can be sent again over the first."""
        sent = await self._core.blobs.head(row.storage_key)
        if sent is None:
            raise NotFoundError("files: nothing has been sent with the signed request yet")
        return await self._core.blobs.copy(row.storage_key, key)

    async def _done(self, upload_id: str, by: Caller | None) -> FileRecord | None:
        """The file of an upload that was completed; None for one that was not."""
        known = known_id("upload_id", upload_id)
        row = None if known is None else await self._reservations.find(known)
        if row is None or row.status != "completed" or (by is not None and by.user_id != row.new.user_id):
            return None
        record = await self._core.record(row.new.id)
        if record is None or record.status == DELETED:
            raise no_upload(upload_id)
        return record
