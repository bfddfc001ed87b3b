"""The one commit with which a file comes into being: its row, its room in the quota, its share of the content, its line
in the access log and its scan, all or nothing, after its bytes are durable.

So whatever crashes, there is no file or a whole one. An answer that was lost is looked for; where it cannot be had, the
bytes stay, for the row may be there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, NamedTuple

from dal.errors import AlreadyExistsError, ConflictError, DalError, UnavailableError
from dal.file_tables import FILE_CONTENTS, FILES
from dal.files.core import DELETED, QUARANTINED, Core, Operation
from dal.files.quotas import Quotas
from dal.files.storing import Stored, discard
from dal.limits import FILE_COMMIT_TRIES, FILE_GRACE_S
from dal.models import FileRecord, build
from dal.ops import Compare, Guard, Insert, JsonValue, Op, Select, Update, Value
from dal.repositories.base import whole_row
from dal.repositories.file_queue import FileQueue

SCAN: Final = "scan"


class NewFile(NamedTuple):
    """What is known of a file before its bytes are."""

    id: str
    user_id: str
    filename: str
    mime_type: str
    metadata: dict[str, JsonValue]


class Reserved(NamedTuple):
    """Room that an upload's row holds in its user's quota; `ops` end that row, and `holds` is true of it until then."""

    bytes: int
    ops: tuple[Op, ...]
    holds: tuple[Compare, ...]


class Entering:
    """Makes files of bytes that are stored."""

    def __init__(self, core: Core, quotas: Quotas, queue: FileQueue) -> None:
        self._core = core
        self._quotas = quotas
        self._queue = queue

    async def enter(
        self,
        operation: Operation,
        new: NewFile,
        stored: Stored | Callable[[], Awaitable[Stored]],
        *,
        size: int,
        checksum: str | None,
        reserved: Reserved | None = None,
        if_absent: bool = False,
        share: bool = False,
    ) -> FileRecord:
        """The new file's record.

        checksum   of the content; None where `stored` will tell it, and nothing is shared.
        stored     its bytes; or a call that stores them, made only where no equal content is there to be shared.
        reserved   room it has taken already; else it is taken here.
        if_absent  refuse where the user has a file of that name.
        share      look for equal content, and let it be found.
        """
        latest = self._core.now() + timedelta(seconds=FILE_GRACE_S / 2)
        for _ in range(FILE_COMMIT_TRIES):
            content = await self._core.one(FILE_CONTENTS, Compare("checksum", "=", checksum)) if share else None
            if content is None and not isinstance(stored, Stored):
                stored = await stored()
                checksum = stored.checksum
            if reserved is None and self._core.now() > latest:  # the sweeper may take the bytes for orphans soon
                raise UnavailableError("files: storing took so long that it has to begin again; the machine slept?")
            version = await self.check_name(new) if if_absent else None
            blob_key = str(content["blob_key"]) if content is not None else stored.blob_key  # type: ignore[union-attr]
            row = self._row(new, f"{blob_key}@{new.id}" if share else blob_key, size, checksum)
            ops = [*self._room(new.user_id, size, reserved, version), row]
            if share:
                ops += self._share(content, stored)
            if self._core.options.scanner is not None:
                ops.append(self.scan(new.id))
            operation.bytes = size
            ops.append(operation.entry())
            record = build(FileRecord, {c: row.row[c] for c in FILES.names})
            try:
                if reserved is None:
                    await self._quotas.commit(new.user_id, size, 1, ops, guarded=share or if_absent)
                else:
                    await self._core.store.commit(ops)
            except DalError as error:
                found = await self._look(new.id, error)
                if found is None or found.storage_key != row.row["storage_key"]:
                    if found is not None or not await self._may_pass(error, reserved, share, if_absent):
                        raise
                    last = error
                    continue
                record = found
            operation.is_logged = True
            # Equal content was there. It may be these very bytes, where somebody else completed the same upload.
            if isinstance(stored, Stored) and blob_key != stored.blob_key:
                await discard(self._core, stored.blob_key)
            return record
        raise last

    def scan(self, file_id: str) -> Insert:
        """The task to look into a file."""
        return self._queue.insertion(SCAN, file_id=file_id)

    def _row(self, new: NewFile, storage_key: str, size: int, checksum: str | None) -> Insert:
        now = self._core.now()
        return whole_row(
            FILES,
            {
                "id": new.id,
                "user_id": new.user_id,
                "filename": new.filename,
                "storage_key": storage_key,
                "mime_type": new.mime_type,
                "file_size": size,
                "checksum": checksum,
                "metadata": new.metadata,
                "status": "active" if self._core.options.scanner is None else QUARANTINED,
                "created_at": now,
                "updated_at": now,
                "version": 1,
            },
        )

    def _room(self, user_id: str, size: int, reserved: Reserved | None, version: int | None) -> list[Op]:
        if reserved is None:
            return self._quotas.take(user_id, size, version=version)
        ops = [*reserved.ops, self._quotas.settle(user_id, reserved.bytes, size)]
        return ops if version is None else [Guard("user_quotas", {"user_id": user_id}, {"version": version}), *ops]

    def _share(self, content: dict[str, Value] | None, stored: object) -> list[Op]:
        """One file more that shares this content; or the content's row, of which there is one for each checksum."""
        now = self._core.now()
        if content is not None:
            key = {"id": content["id"]}
            return [
                Guard("file_contents", key),
                Update("file_contents", key, {"updated_at": now}, {"ref_count": 1, "version": 1}),
            ]
        assert isinstance(stored, Stored)  # noqa: S101  # without such content it was stored
        return [
            whole_row(
                FILE_CONTENTS,
                {
                    "id": self._core.new_id(),
                    "checksum": stored.checksum,
                    "file_size": stored.size,
                    "blob_key": stored.blob_key,
                    "stored_size": stored.stored_size,
                    "ref_count": 1,
                    "created_at": now,
                    "updated_at": now,
                    "version": 1,
                },
            )
        ]

    async def check_name(self, new: NewFile) -> int:
        """The version of the user's quota at which no file had this name: the commit holds only at that version."""
        version = await self._quotas.version(new.user_id)
        where = (
            Compare("user_id", "=", new.user_id),
            Compare("filename", "=", new.filename),
            Compare("status", "!=", DELETED),
        )
        if await self._core.store.read(Select("files", where, limit=1, columns=("id",))):
            raise AlreadyExistsError(f"files: the user has a file named {new.filename!r}; name it otherwise")
        return version

    async def _look(self, file_id: str, error: DalError) -> FileRecord | None:
        """The file after a commit that failed or whose answer was lost."""
        try:
            return await self._core.record(file_id)
        except DalError:
            raise error from None

    async def _may_pass(self, error: DalError, reserved: Reserved | None, share: bool, if_absent: bool) -> bool:
        """Whether the commit met somebody else's, and may go well when everything is looked at again."""
        if isinstance(error, AlreadyExistsError):
            return share  # the same content from another upload
        if not isinstance(error, ConflictError):
            return False
        if reserved is not None and not await self._core.store.read(
            Select("multipart_uploads", reserved.holds, limit=1, columns=("id",))
        ):
            raise ConflictError("files: the upload is gone: it expired, was aborted or completed elsewhere") from error
        return error.retryable or share or if_absent
