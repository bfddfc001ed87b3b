"""What the parts of `dal.files` share: the stores, the options, and how an operation is timed, named and logged."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

from dal.blobs.base import BlobStore
from dal.blobs.urls import NO_BLOB_URL
from dal.errors import ConfigurationError, DalError, InvalidInputError, MissingReferenceError
from dal.file_models import Caller
from dal.file_tables import FILE_ACCESS_LOGS, FILES
from dal.files.log import AccessLog
from dal.files.options import FileOptions
from dal.files.paging import pages
from dal.limits import FILE_MAX_ERROR_CHARS, FILE_SWEEP_ROWS, MAX_INT32, MAX_KEY_CHARS
from dal.models import FileRecord, build
from dal.ops import Compare, Insert, JsonValue, Op, Receipt, Row, Select, Value
from dal.repositories.base import Context, known_id, whole_row
from dal.table import Table
from dal.values import as_id, canonical_ip

DELETED: Final = "deleted"
QUARANTINED: Final = "quarantined"
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


class Operation:
    """One operation under way: what its row in the access log will say.

    file_id, owner  set as soon as they are known. `bytes` are those of content that passed.
    is_logged       its row was in a commit that went well; else it is queued at the end.
    """

    def __init__(self, core: Core, action: str, by: Caller | None, file_id: object = None, owner: str | None = None):
        if by is not None and not isinstance(by, Caller):
            raise InvalidInputError(f"by: expected a Caller or None, found {type(by).__name__}")
        self.action = action
        self.by = by
        self.file_id = as_id(file_id) if isinstance(file_id, str) else None
        self.owner = owner
        self.bytes: int | None = None
        self.metadata: dict[str, JsonValue] = {}
        self.is_logged = False
        self._core = core
        self._began_s = perf_counter()

    def entry(self, error: BaseException | None = None) -> Insert:
        """Its row: done, or failed with this error. Nothing in it can make a commit fail."""
        by = self.by
        metadata = self.metadata if by is not None else {**self.metadata, "by": "application"}
        return whole_row(
            FILE_ACCESS_LOGS,
            {
                "id": self._core.new_id(),
                "file_id": self.file_id or "",
                "user_id": self.owner if by is None else plain(by.user_id, MAX_KEY_CHARS),
                "action": self.action,
                "success": error is None,
                "error_message": None if error is None else _told(error),
                "bytes_transferred": self.bytes,
                "duration_ms": min(round((perf_counter() - self._began_s) * 1000), MAX_INT32),
                "ip_address": None if by is None else _address(by.ip_address),
                "user_agent": None if by is None else plain(by.user_agent, FILE_MAX_ERROR_CHARS),
                "metadata": metadata,
                "created_at": self._core.now(),
            },
        )

    def end(self, error: BaseException | None) -> None:
        """Names the error, and queues the row where no commit held it."""
        if isinstance(error, DalError):
            error.operation = f"files.{self.action}"
            error.backend = error.backend or self._core.backend
        if not self.is_logged:
            self._core.log.add(self.entry(error))
            self.is_logged = True


class Core:
    """The stores and the options of one DataAccess, for the parts of its `files`."""

    def __init__(self, context: Context, blobs: BlobStore | None, options: FileOptions) -> None:
        self.store = context.store
        self.now = context.clock
        self.new_id = context.new_id
        self.backend = context.backend
        self.options = options
        self.log = AccessLog(context.store)
        self._blobs = blobs

    @property
    def has_blobs(self) -> bool:
        return self._blobs is not None

    @property
    def blobs(self) -> BlobStore:
        """The blob store. Raises ConfigurationError where none is configured."""
        if self._blobs is None:
            raise ConfigurationError(NO_BLOB_URL)
        return self._blobs

    @asynccontextmanager
    async def operation(
        self, action: str, by: Caller | None, file_id: object = None, *, owner: str | None = None
    ) -> AsyncIterator[Operation]:
        """An operation, logged at its end however it ends."""
        operation = Operation(self, action, by, file_id, owner)
        try:
            yield operation
        except BaseException as error:
            operation.end(error)
            raise
        operation.end(None)

    async def one(self, table: Table, *where: Compare) -> dict[str, Value] | None:
        """The row that meets the conditions, by column; None where there is none."""
        rows = await self.store.read(Select(table.name, where, limit=1, columns=table.names))
        return dict(zip(table.names, rows[0], strict=True)) if rows else None

    async def pages(
        self, table: str, columns: tuple[str, ...], order: str, *where: Compare
    ) -> AsyncIterator[list[dict[str, Value]]]:
        """The rows that meet the conditions, by column, FILE_SWEEP_ROWS at a time, in the order of a unique column."""
        async for page in pages(self.store, Select(table, where, (order,), columns=columns), FILE_SWEEP_ROWS):
            yield [dict(zip(columns, row, strict=True)) for row in page]

    async def record(self, file_id: str) -> FileRecord | None:
        """The file with this id, whatever its status."""
        rows = await self.store.read(Select("files", (Compare("id", "=", file_id),), limit=1, columns=FILES.names))
        return record_of(rows[0]) if rows else None

    async def commit(self, operation: Operation, ops: Sequence[Op]) -> Receipt | None:
        """Commits a batch together with the operation's line in the log; None where it was carried out and the answer
        lost: the line is looked for."""
        entry = operation.entry()
        try:
            receipt = await self.store.commit((*ops, entry))
        except DalError as error:
            if not await self.is_written(entry, error):
                raise
            receipt = None
        operation.is_logged = True
        return receipt

    async def is_written(self, entry: Insert, error: DalError) -> bool:
        """Whether a batch that ended with this error is there all the same. Raises `error` where nobody can say."""
        if error.outcome != "unknown":
            return False
        where = (Compare("id", "=", entry.row["id"]),)
        try:
            return bool(await self.store.read(Select("file_access_logs", where, limit=1, columns=("id",))))
        except DalError:
            raise error from None

    def owner(self, user_id: object) -> str:
        """The id of a user as it is stored. Raises MissingReferenceError for what no user can have."""
        owner = known_id("user_id", user_id)
        if owner is None:
            raise MissingReferenceError("files.user_id: no user has this id; an id is a UUID")
        return owner


def record_of(row: Row) -> FileRecord:
    """The record of a row in the table's declared order."""
    return build(FileRecord, zip(FILES.names, row, strict=True))


def _told(error: BaseException) -> str:
    if isinstance(error, DalError):
        return plain(f"{type(error).__name__}: {error.message}", FILE_MAX_ERROR_CHARS) or ""
    # Other people's errors may quote contents or secrets: the class says enough.
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__


def plain(text: str | None, max_chars: int) -> str | None:
    """What came from outside, as a row can hold it."""
    return None if text is None else _UNSTORABLE.sub("\ufffd", text[:max_chars])


def _address(text: str | None) -> str | None:
    """The address, or None for what is none: a proxy's odd header must not fail an operation."""
    try:
        return None if text is None else canonical_ip(text)
    except ValueError:
        return None
