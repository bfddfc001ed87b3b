"""Work to be done on files: `dal.files.queue`. Taken under a lease, tried again when it fails, `dead` at last.

A task is `pending` until its time comes, `running` while somebody holds its lease, then `done`, or `pending` again, or
`dead` after its last attempt. A worker that dies keeps its task until the lease is over; then another takes it. So a
task may be done twice, never by two who both hold its lease.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from dal.errors import ConflictError, InvalidInputError
from dal.file_models import FileTask
from dal.file_tables import FILE_PROCESSING_QUEUE
from dal.limits import FILE_TASK_MAX_LEASE_S, FILE_TASK_MAX_TAKEN, FILE_TASK_RETRY_MAX_S, FILE_TASK_RETRY_S, MAX_INT32
from dal.models import Page
from dal.ops import Compare, Delete, Guard, Insert, JsonValue, Op, Select, Update, Value
from dal.repositories.base import Repository, known_id
from dal.values import check_int, check_limit, check_object, check_text, check_time, moment_after, seconds_of

_NAME = FILE_PROCESSING_QUEUE.name
_URGENT = ("-priority", "run_at", "id")


class FileQueue(Repository):
    """Add, take, finish and look up tasks."""

    table = FILE_PROCESSING_QUEUE

    async def enqueue(
        self,
        task: str,
        *,
        file_id: str | None = None,
        payload: dict[str, JsonValue] | None = None,
        priority: int = 0,
        run_at: datetime | None = None,
        max_attempts: int = 5,
        id: str | None = None,
    ) -> FileTask:
        """The new task.

        task      what is to be done, 1..100 characters; workers take tasks by it.
        priority  higher ones are taken first.
        run_at    not before this moment; None: now.
        id        a UUID of your own making, which makes a repeat of the call harmless.
        Raises    AlreadyExistsError: `id` is another task.
        Cost      one round trip.
        """
        insert = self.insertion(
            task,
            file_id=file_id,
            payload=payload,
            priority=priority,
            run_at=run_at,
            max_attempts=max_attempts,
            id=id,
        )
        return await self._create(FileTask, insert.row, given_id=id is not None)  # type: ignore[arg-type]  # no Ref

    def insertion(
        self,
        task: str,
        *,
        file_id: str | None = None,
        payload: dict[str, JsonValue] | None = None,
        priority: int = 0,
        run_at: datetime | None = None,
        max_attempts: int = 5,
        id: str | None = None,
    ) -> Insert:
        """The task's insert, for a commit that holds more than it."""
        now = self._now()
        return self._insert(
            {
                "id": self._new_id() if id is None else id,
                "file_id": file_id,
                "task": task,
                "payload": check_object("payload", payload),
                "status": "pending",
                "priority": priority,
                "attempts": 0,
                "max_attempts": check_int("max_attempts", max_attempts, 1, MAX_INT32),
                "run_at": now if run_at is None else check_time("run_at", run_at),
                "lease_owner": None,
                "lease_until": None,
                "last_error": None,
                "created_at": now,
                "updated_at": now,
                "completed_at": None,
                "version": 1,
            }
        )

    async def take(
        self, worker: str, *, tasks: Sequence[str] | None = None, lease_s: float = 60.0, limit: int = 1
    ) -> builtins.list[FileTask]:
        """Tasks that are this worker's for `lease_s` seconds, most urgent first; fewer than `limit` only where no more
        wait, also beside others who take at the same time.

        worker   who takes them, 1..255 characters.   tasks  only these; None takes any.   limit  1..100.
        Cost     one or two reads, and one commit for each task; more for those that others were faster to take.
        """
        owner = check_text("worker", worker, max_chars=255, min_chars=1)
        count = check_limit("limit", limit, FILE_TASK_MAX_TAKEN)
        now = self._now()
        until = now + self._lease(lease_s)
        only = () if tasks is None else (Compare("task", "in", tuple(check_text("task", t) for t in tasks)),)
        lease: dict[str, Value] = {"status": "running", "lease_owner": owner, "lease_until": until}
        taken: builtins.list[FileTask] = []
        for where in self._waiting(now, only):
            # What was found is not found again: it is ours, somebody else's, or dead. So each look finds the next ones.
            while len(taken) < count and (found := await self._urgent(where, count - len(taken))):
                for task in found:
                    if task.attempts >= task.max_attempts:  # its worker died with its last attempt
                        await self._set(task, {"status": "dead", "lease_owner": None, "lease_until": None})
                    elif (mine := await self._set(task, lease, attempt=1)) is not None:
                        taken.append(mine)
        return taken

    async def extend(self, task: FileTask, *, lease_s: float = 60.0) -> FileTask:
        """The task, its lease to end `lease_s` seconds from now. Raises ConflictError: it is not ours any more."""
        return await self._ours(task, lease_until=self._now() + self._lease(lease_s))

    async def finish(self, task: FileTask) -> FileTask:
        """The task, done. Raises ConflictError: its lease was over and somebody else has it."""
        return await self._ours(task, **self._done())

    def finishing(self, task: FileTask) -> tuple[Op, ...]:
        """As `finish`, for a commit that holds more than it: refused where the task is not ours any more."""
        return self._edit(task, self._done())

    async def fail(self, task: FileTask, error: str, *, retry_in_s: float | None = None) -> FileTask:
        """The task, to be tried again later, or `dead` after its last attempt.

        retry_in_s  from 0; None: after half a minute, and twice as long after each attempt, at most an hour.
        Raises      ConflictError: its lease was over and somebody else has it.
        """
        told = check_text("error", error)
        if task.attempts >= task.max_attempts:
            return await self._ours(task, status="dead", lease_owner=None, lease_until=None, last_error=told)
        wait = min(FILE_TASK_RETRY_S * 2 ** min(task.attempts - 1, 30), FILE_TASK_RETRY_MAX_S)
        run_at = moment_after(self._now(), "retry_in_s", wait if retry_in_s is None else retry_in_s)
        return await self._ours(
            task, status="pending", lease_owner=None, lease_until=None, last_error=told, run_at=run_at
        )

    async def revive(self, task_id: str) -> FileTask | None:
        """A dead task, to be tried again from the start; None where there is none such."""
        found = await self.get(task_id)
        if found is None or found.status != "dead":
            return None
        return await self._set(found, {"status": "pending", "attempts": 0, "run_at": self._now()})

    async def get(self, task_id: str) -> FileTask | None:
        """The task with this id, or None. Cost: one indexed read."""
        key = known_id("task_id", task_id)
        return None if key is None else await self._one(FileTask, "id", key)

    async def list(
        self,
        *,
        status: str | None = None,
        task: str | None = None,
        file_id: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[FileTask]:
        """A page of tasks, newest first. limit: 1..1000."""
        filters = self._filters(status=status, task=task, file_id=file_id)
        return await self._page(FileTask, ("-created_at", "-id"), filters, limit=limit, after=after)

    async def purge(self, *, before: datetime, status: str = "done") -> int:
        """Deletes tasks that are `done` (or `dead`) and did not change since `before`: how many."""
        if status not in ("done", "dead"):
            raise InvalidInputError(f"status: {status[:20]!r} tasks are not over; done and dead ones can be purged")
        where = (Compare("status", "=", status), Compare("updated_at", "<", check_time("before", before)))
        return (await self._store.commit((Delete(_NAME, where),))).counts[0]

    def _waiting(self, now: datetime, only: tuple[Compare, ...]) -> tuple[tuple[Compare, ...], ...]:
        """What can be taken: leases that are over first, for they were taken first, then what is due."""
        return (
            (Compare("status", "=", "running"), Compare("lease_until", "<=", now), *only),
            (Compare("status", "=", "pending"), Compare("run_at", "<=", now), *only),
        )

    async def _urgent(self, where: tuple[Compare, ...], limit: int) -> builtins.list[FileTask]:
        """The most urgent of these tasks, at most so many."""
        rows = await self._store.read(Select(_NAME, where, _URGENT, limit=limit, columns=self.table.names))
        return [self._record(FileTask, row) for row in rows]

    async def _ours(self, task: FileTask, **values: Value) -> FileTask:
        changed = await self._set(task, values)
        if changed is None:
            raise ConflictError(f"queue: task {task.id} is not held any more; its lease was over, and somebody took it")
        return changed

    async def _set(self, task: FileTask, values: Mapping[str, Value], *, attempt: int = 0) -> FileTask | None:
        """The task after a change, or None where somebody was faster, or there is none."""
        if known_id("task.id", task.id) is None:
            return None
        try:
            row = (await self._store.commit(self._edit(task, values, attempt))).rows[1]
        except ConflictError as error:
            if error.retryable:
                raise
            return None
        return None if row is None else self._record(FileTask, row)

    def _edit(self, task: FileTask, values: Mapping[str, Value], attempt: int = 0) -> tuple[Op, ...]:
        """A change of the task, refused where somebody was faster."""
        key = {"id": task.id}
        changed = {**values, "updated_at": self._now()}
        add = {"version": 1, **({"attempts": attempt} if attempt else {})}
        return Guard(_NAME, key, {"version": task.version}), Update(_NAME, key, changed, add, self.table.names)

    def _done(self) -> dict[str, Value]:
        ended: dict[str, Value] = {"lease_owner": None, "lease_until": None, "last_error": None}
        return {"status": "done", "completed_at": self._now(), **ended}

    def _lease(self, seconds: float) -> timedelta:
        seconds = seconds_of("lease_s", seconds)
        if not 1e-6 <= seconds <= FILE_TASK_MAX_LEASE_S:  # a microsecond: times have no finer parts
            raise InvalidInputError(
                f"lease_s: more than 0 and at most {FILE_TASK_MAX_LEASE_S} seconds, got {seconds!r}"
            )
        return timedelta(seconds=seconds)
