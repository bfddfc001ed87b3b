"""The scanner of an application: every new file is quarantined, and a task in the queue, until it was found clean.

`files.scan` takes such tasks. Clean makes the file `active`; something found makes it `infected`, and its content is
given to nobody. A scanner that fails is tried again by the queue, with growing pauses; after the last attempt the task
is `dead` and the file stays quarantined: nothing is let through because nobody looked.
"""

from __future__ import annotations

from dal.errors import ConfigurationError, ConflictError, DalError, NotFoundError
from dal.file_models import FileTask
from dal.files.core import QUARANTINED, Core, Operation
from dal.files.entering import SCAN
from dal.files.reader import FileReader
from dal.limits import FILE_MAX_ERROR_CHARS, MAX_INT64
from dal.ops import Guard, Update, Value
from dal.repositories.file_queue import FileQueue
from dal.values import as_id, check_int

INFECTED = "infected"


class Scanning:
    """Looks into files that wait for it."""

    def __init__(self, core: Core, queue: FileQueue) -> None:
        self._core = core
        self._queue = queue

    async def scan(self, *, limit: int, worker: str, lease_s: float) -> int:
        """See `Files.scan`."""
        if self._core.options.scanner is None:
            raise ConfigurationError("scanner: none was given; pass one to create_data_access")
        _ = self._core.blobs
        check_int("limit", limit, 1, MAX_INT64)
        count = 0
        while count < limit:
            tasks = await self._queue.take(worker, tasks=(SCAN,), lease_s=lease_s)
            if not tasks:
                break
            count += 1
            await self._scan(tasks[0])
        return count

    async def _scan(self, task: FileTask) -> None:
        file_id = as_id(task.file_id or "")
        record = None if file_id is None else await self._core.record(file_id)
        # No file, deleted meanwhile, or looked at by a worker before.
        if file_id is None or record is None or record.status != QUARANTINED:
            await self._queue.finish(task)
            return
        operation = Operation(self._core, "scan", None, file_id, record.user_id)
        try:
            found = await self._verdict(file_id)
        except Exception as error:  # whatever a scanner raises: it has not said that the file is clean
            operation.end(error)
            await self._queue.fail(task, f"{type(error).__name__}: {error}"[:FILE_MAX_ERROR_CHARS])
            return
        status: dict[str, Value] = {
            "status": "active" if found is None else INFECTED,
            "updated_at": self._core.now(),
        }
        if found is not None:
            operation.metadata["found"] = found[:FILE_MAX_ERROR_CHARS]
        key = {"id": file_id}
        ops = (
            # It is refused without the lease: who was too slow leaves the verdict to whoever has the task now.
            *self._queue.finishing(task),
            Guard("files", key, {"status": QUARANTINED, "version": record.version}),
            Update("files", key, status, {"version": 1}),
            operation.entry(),
        )
        try:
            await self._core.store.commit(ops)
            operation.is_logged = True
        except ConflictError as error:
            operation.end(error)
            await self._again(task, error)

    async def _verdict(self, file_id: str) -> str | None:
        scanner = self._core.options.scanner
        assert scanner is not None  # noqa: S101  # `scan` has looked
        reader = FileReader(
            self._core, file_id, start=0, end=None, verify=False, by=None, action="scan_read", is_scan=True
        )
        async with reader:
            return await scanner(reader)

    async def _again(self, task: FileTask, error: DalError) -> None:
        """The file changed while it was looked at: soon again, where the task is still ours."""
        try:
            await self._queue.fail(task, error.message, retry_in_s=0.0)
        except (ConflictError, NotFoundError):
            return
