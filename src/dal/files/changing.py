"""Another name for a file, its end, and its return: each in one commit with its line in the access log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from dal.errors import ConflictError, DalError, NotFoundError
from dal.file_models import Caller
from dal.file_tables import FILES
from dal.files.core import DELETED, QUARANTINED, Core, Operation, record_of
from dal.files.entering import Entering
from dal.files.keys import place_of
from dal.files.names import display_name
from dal.files.quotas import Quotas
from dal.files.rights import find
from dal.limits import FILE_COMMIT_TRIES, MAX_INT64
from dal.models import FileRecord
from dal.ops import Guard, Op, Receipt, Update, Value
from dal.values import check_int

Change: TypeAlias = "Callable[[FileRecord], tuple[dict[str, Value], list[Op]]]"


class Changing:
    """Renames, deletes and restores files."""

    def __init__(self, core: Core, quotas: Quotas, entering: Entering) -> None:
        self._core = core
        self._quotas = quotas
        self._entering = entering

    async def rename(
        self, file_id: str, filename: str, *, expected_version: int | None, by: Caller | None
    ) -> FileRecord:
        """See `Files.rename`."""
        async with self._core.operation("rename", by, file_id) as operation:
            name = display_name(filename)
            if expected_version is not None:
                check_int("expected_version", expected_version, 1, MAX_INT64)

            def change(record: FileRecord) -> tuple[dict[str, Value], list[Op]]:
                if expected_version is not None and record.version != expected_version:
                    raise ConflictError(
                        f"files: {record.id} is at version {record.version}, expected {expected_version}; "
                        "read it again and retry"
                    )
                # Nothing is taken, but the quota's version tells whoever is about to take a name (`if_absent`).
                return {"filename": name}, [self._quotas.change(record.user_id, 0, 0)]

            return await self._change(operation, file_id, change)

    async def delete(self, file_id: str, *, by: Caller | None) -> bool:
        """See `Files.delete`."""
        async with self._core.operation("delete", by, file_id) as operation:

            def change(record: FileRecord) -> tuple[dict[str, Value], list[Op]]:
                own = place_of(record.storage_key).is_own
                return {"status": DELETED}, [self._quotas.change(record.user_id, -record.file_size, -1)] if own else []

            try:
                await self._change(operation, file_id, change)
            except NotFoundError:
                operation.end(NotFoundError("files: it was not there"))
                return False
            return True

    async def restore(self, file_id: str, *, by: Caller | None) -> FileRecord:
        """See `Files.restore`."""
        async with self._core.operation("restore", by, file_id) as operation:
            status = "active" if self._core.options.scanner is None else QUARANTINED
            for _ in range(FILE_COMMIT_TRIES):
                record = await find(self._core, operation, file_id, "write", is_deleted=True)
                own = place_of(record.storage_key).is_own
                ops = self._ops(record, {"status": status})
                if status == QUARANTINED:
                    ops.append(self._entering.scan(record.id))
                if own:
                    ops = [*self._quotas.take(record.user_id, record.file_size), *ops]
                entry = operation.entry()
                ops.append(entry)
                place = next(i for i, op in enumerate(ops) if isinstance(op, Update) and op.table == "files")
                size, files = (record.file_size, 1) if own else (0, 0)
                receipt = None
                try:
                    receipt = await self._quotas.commit(record.user_id, size, files, ops, guarded=True)
                except DalError as error:
                    if not await self._core.is_written(entry, error):
                        if not isinstance(error, ConflictError):
                            raise
                        last = error
                        continue
                operation.is_logged = True
                return await self._after(record, receipt, place)
            raise last

    async def _change(self, operation: Operation, file_id: str, change: Change) -> FileRecord:
        """The file after a change, made again where somebody else changed it meanwhile."""
        for _ in range(FILE_COMMIT_TRIES):
            record = await find(self._core, operation, file_id, "write")
            values, also = change(record)
            try:
                receipt = await self._core.commit(operation, [*self._ops(record, values), *also])
            except ConflictError as error:
                last = error
                continue
            return await self._after(record, receipt, 1)
        raise last

    async def _after(self, record: FileRecord, receipt: Receipt | None, place: int) -> FileRecord:
        """The file after a commit: as it answered, or read again where the answer was lost."""
        row = None if receipt is None else receipt.rows[place]
        found = await self._core.record(record.id) if row is None else record_of(row)
        if found is None:
            raise NotFoundError(f"files: {record.id} was changed, and is gone since")
        return found

    def _ops(self, record: FileRecord, values: dict[str, Value]) -> list[Op]:
        key = {"id": record.id}
        changed = {**values, "updated_at": self._core.now()}
        return [
            Guard("files", key, {"version": record.version}),
            Update("files", key, changed, {"version": 1}, FILES.names),
        ]
