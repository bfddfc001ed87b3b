"""`files.upload` and `files.copy`: new files, whole.

A small file costs one write of its bytes and one commit. What is large, or of unknown size, reserves its room first and
grows the reservation as it comes, so a quota is never passed and refused content stops early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from functools import partial
from weakref import WeakValueDictionary

from dal.errors import AlreadyExistsError, CorruptDataError, DalError, NotFoundError, QuotaExceededError
from dal.file_models import Caller
from dal.files.core import Core, Operation
from dal.files.entering import Entering, NewFile
from dal.files.incoming import Content, Incoming
from dal.files.keys import COMPRESSED, PLAIN, place_of
from dal.files.names import display_name
from dal.files.reservations import Reservations, UploadRow
from dal.files.rights import check_owner, check_readable, find
from dal.files.storing import Stored, check_passed, check_type, discard, new_key, put
from dal.limits import FILE_RESERVE_BYTES, FILE_SMALL_BYTES
from dal.models import FileRecord
from dal.ops import JsonValue
from dal.values import check_bool, check_id, check_object


class Uploading:
    """New files, from content that comes whole."""

    def __init__(self, core: Core, entering: Entering, reservations: Reservations) -> None:
        self._core = core
        self._entering = entering
        self._reservations = reservations
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def upload(
        self,
        user_id: str,
        filename: str,
        data: Content,
        *,
        mime_type: str | None,
        metadata: dict[str, JsonValue] | None,
        if_absent: bool,
        by: Caller | None,
        id: str | None,
    ) -> FileRecord:
        """See `Files.upload`."""
        async with self._core.operation("upload", by) as operation:
            _ = self._core.blobs  # a missing setting is said before anything is read
            owner = operation.owner = self._core.owner(user_id)
            check_owner(by, owner)
            name, document = display_name(filename), check_object("metadata", metadata)
            check_bool("if_absent", if_absent)
            file_id = operation.file_id = self._core.new_id() if id is None else check_id("id", id)
            incoming = await Incoming.of(data, max_bytes=self._core.options.max_file_bytes, is_hashed=False)
            try:
                if id is not None and (stored := await self._core.record(file_id)) is not None:
                    return await self._same(stored, owner, name, incoming)
                new = NewFile(file_id, owner, name, check_type(self._core, mime_type, incoming, name), document)
                try:
                    return await self._upload(operation, new, incoming, if_absent)
                except AlreadyExistsError:
                    if id is None or (stored := await self._core.record(file_id)) is None:
                        raise
                    return await self._same(stored, owner, name, incoming)
            finally:
                operation.bytes = incoming.passed
                await incoming.close()

    async def copy(
        self, file_id: str, *, filename: str | None, user_id: str | None, by: Caller | None, id: str | None
    ) -> FileRecord:
        """See `Files.copy`."""
        async with self._core.operation("copy", by, file_id) as operation:
            blobs = self._core.blobs
            record = await find(self._core, operation, file_id, "read")
            check_readable(record)
            owner = record.user_id if by is None or by.user_id is None else by.user_id
            owner = self._core.owner(owner if user_id is None else user_id)
            check_owner(by, owner)
            place = place_of(record.storage_key)
            name = record.filename if filename is None else display_name(filename)
            new_id = self._core.new_id() if id is None else check_id("id", id)
            if id is not None and (stored := await self._core.record(new_id)) is not None:
                if (stored.user_id, stored.filename, stored.checksum) == (owner, name, record.checksum):
                    return stored
                raise AlreadyExistsError(f"files: {new_id} is another file")
            operation.metadata["copy"] = new_id
            new = NewFile(new_id, owner, name, record.mime_type, record.metadata)
            key = f"{PLAIN}{self._core.new_id()}{COMPRESSED if place.is_compressed else ''}"

            async def bytes_of_its_own() -> Stored:
                if place.is_shared:
                    raise NotFoundError(f"files: {record.id} was removed while it was copied")
                try:
                    info = await blobs.copy(place.blob_key, key)
                except NotFoundError as error:
                    raise CorruptDataError(f"files: the bytes of {record.id} are gone") from error
                return Stored(key, record.file_size, record.checksum or "", info.size)

            try:
                return await self._entering.enter(
                    operation,
                    new,
                    bytes_of_its_own,
                    size=record.file_size,
                    checksum=record.checksum or "",
                    share=place.is_shared,
                )
            except DalError as error:
                await self._give_up(new, None, key, error)
                raise

    async def _upload(self, operation: Operation, new: NewFile, incoming: Incoming, if_absent: bool) -> FileRecord:
        key, room = new_key(self._core, incoming, new.mime_type), None
        if incoming.whole is not None:
            check_passed(incoming)
        if incoming.whole is None or incoming.passed > FILE_SMALL_BYTES:
            room = await self._reserve(new, key, incoming, if_absent)
        try:
            share = self._core.options.deduplicate
            stored: Stored | Callable[[], Awaitable[Stored]]
            if incoming.whole is None:
                stored = await put(self._core, key, incoming, new.mime_type)
                check_passed(incoming)
            else:
                stored = partial(put, self._core, key, incoming, new.mime_type)
                if share:
                    await incoming.hash_here()  # equal content is looked for before this is stored
            async with self._turn(new.user_id) if if_absent else nullcontext():
                return await self._entering.enter(
                    operation,
                    new,
                    stored,
                    size=incoming.passed,
                    checksum=incoming.checksum if incoming.knows_checksum else None,
                    reserved=None if room is None else self._reservations.settled(room.row),
                    if_absent=if_absent,
                    share=share,
                )
        except BaseException as error:
            await self._give_up(new, None if room is None else room.row, key, error)
            raise

    async def _reserve(self, new: NewFile, key: str, incoming: Incoming, if_absent: bool) -> Room:
        if if_absent:
            await self._entering.check_name(new)  # before it is sent; the commit looks again
        size = FILE_RESERVE_BYTES if incoming.size is None else incoming.size
        begin = partial(self._reservations.begin, new, key, status="storing", total_size=incoming.size)
        try:
            row = await begin(size)
        except QuotaExceededError:
            if incoming.size is not None:
                raise
            row = await begin(FILE_SMALL_BYTES)  # so much has come already, and more asks for more
        room = Room(self._reservations, row)
        incoming.allow = room.allow
        return room

    async def _give_up(self, new: NewFile, row: UploadRow | None, key: str, error: BaseException) -> None:
        """Gives room back and removes bytes, where no commit can have kept them; else both are the sweeper's."""
        with suppress(DalError):
            if row is not None:
                # Once the row of the upload is gone, no commit under way can make a file any more.
                if await self._reservations.release(row, "aborted") or await self._core.record(new.id) is None:
                    await discard(self._core, key)
            elif isinstance(error, DalError) and error.outcome == "not_applied":
                await discard(self._core, key)

    async def _same(self, stored: FileRecord, owner: str, name: str, incoming: Incoming) -> FileRecord:
        """The file that has this id, where it is what is uploaded: a repeat of the call."""
        await incoming.hash_here()
        async for _ in incoming.stream():
            pass
        if (stored.user_id, stored.filename, stored.checksum) == (owner, name, incoming.checksum):
            return stored
        raise AlreadyExistsError(f"files: {stored.id} is another file; an id is given once")

    def _turn(self, user_id: str) -> asyncio.Lock:
        """Those who ask for names of one user's, in this process: they would only be in each other's way."""
        turn = self._turns.get(user_id)
        if turn is None:
            turn = self._turns[user_id] = asyncio.Lock()
        return turn


class Room:
    """The reservation of content that comes in pieces."""

    def __init__(self, reservations: Reservations, row: UploadRow) -> None:
        self.row = row
        self._reservations = reservations

    async def allow(self, size: int) -> None:
        """Lets content pass up to so many bytes. Raises QuotaExceededError."""
        if size > self.row.reserved_bytes:
            self.row = await self._reservations.grow(self.row, size)
