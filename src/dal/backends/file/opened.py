"""An open file store: one process's files, locks and threads, from opening to closing."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from time import perf_counter
from typing import Final, cast

from dal.backends import interpreter
from dal.backends.conditions import Tables
from dal.backends.file import recovery
from dal.backends.file.capture import captured, check_roles
from dal.backends.file.codec import AnyChange, encode_changes
from dal.backends.file.errors import opening_error, reading_error, reason, writing_error
from dal.backends.file.foreign import Foreign
from dal.backends.file.image import Image
from dal.backends.file.index import Index
from dal.backends.file.journal import Journal
from dal.backends.file.layout import BACKEND, LAYOUT_VERSION, Layout
from dal.backends.file.lock import FileLock
from dal.backends.file.locks import Locks
from dal.backends.file.logrows import KINDS
from dal.backends.file.registry import Marked
from dal.backends.file.registry_files import RegistryFiles
from dal.backends.file.settling import Settling
from dal.backends.file.waiting import finished, result_of
from dal.backends.memory import StagedTransaction, check_batch
from dal.backends.rows import Drop
from dal.errors import DalError, Outcome, UnavailableError
from dal.limits import (
    CLOSE_TIMEOUT_S,
    DEGRADED_DISK_FREE_BYTES,
    DEGRADED_LATENCY_MS,
    HEALTH_TIMEOUT_S,
    MAX_HISTORY_MESSAGES,
)
from dal.ops import Compare, JsonValue, Op, Query, Receipt, Row, Select
from dal.store import ReadCommit, StoreHealth

# A read that files were changed under is repeated; a scan of many files is long and accepts, in the end, that they are
# of different moments.
_MAX_REREADS: Final = 4
_FEW: Final = 20  # rows on disk that are read at once
_log = logging.getLogger("dal.file")


class Opened:
    """What is there between `open` and `close`. Reads and writes as `dal.store.Store` promises."""

    def __init__(
        self, layout: Layout, *, lock_timeout_s: float, segment_bytes: int, checkpoint_interval_s: float
    ) -> None:
        self.process_id = os.getpid()
        self.layout = layout
        self._segment_bytes = segment_bytes
        self._reloading = asyncio.Lock()
        self._reads: set[asyncio.Future[list[Row]]] = set()
        self._is_closing = False
        self._is_written = asyncio.Event()
        self._is_written.set()
        self.foreign = Foreign(self)
        self.image: Image
        with ExitStack() as resources:
            self.locks = Locks(layout, lock_timeout_s, follow=self.follow, check=self._check_writable)
            resources.callback(self.locks.close)
            checkpoint_lock = FileLock(layout.journal / "checkpoint.lock")
            resources.callback(checkpoint_lock.close)
            self._index = Index(layout.index)
            resources.callback(self._index.close)
            self.registry_files = RegistryFiles(layout, lock_timeout_s)
            resources.callback(self.registry_files.close)
            self.journal = Journal(layout)
            resources.callback(lambda: self.journal.close())
            self._writer = ThreadPoolExecutor(1, "dal-file-journal")
            resources.callback(self._writer.shutdown)
            self._settling = Settling(
                layout,
                self,
                checkpoint_lock,
                self._writer,
                timeout_s=lock_timeout_s,
                interval_s=checkpoint_interval_s,
            )
            resources.callback(self._settling.shutdown)
            self._resources = resources.pop_all()

    # -- opening and closing

    async def start(self) -> None:
        """Recovers the journal and loads the documents."""
        try:
            await self._recover()
            self.image = await self._load(self.journal)
        except (OSError, sqlite3.Error) as error:
            raise opening_error(self.layout, error) from error
        for note in (*self.journal.notes, *self.image.problems(), *self.journal.problems):
            _log.warning("%s: %s", self.layout.root, note)
        if self.image.sealed():
            self._settling.begin()
        elif self.journal.segment_bytes():
            self._settling.begin_later()

    async def _recover(self) -> None:
        """Finds the journal's end. Whole records stay what they are, and are passed over without holding up writers."""
        whole = await result_of(asyncio.ensure_future(asyncio.to_thread(self.journal.whole)))
        if self.journal.is_sound(whole):
            return
        async with self.locks.alone("open", following=False):
            recovering = asyncio.ensure_future(asyncio.to_thread(self.journal.recover, whole))
            self.journal.state.published = await result_of(recovering)

    async def _load(self, journal: Journal) -> Image:
        """Reads everything, together with others who do; alone where something has to be put in order first."""
        with suppress(recovery.DisorderError):
            return await self._loaded(journal, alone=False)
        return await self._loaded(journal, alone=True)

    async def _loaded(self, journal: Journal, *, alone: bool) -> Image:
        async with self.locks.still_files("open", shared=not alone):
            load = partial(recovery.load, self.layout, self._index, self.registry_files, journal, alone=alone)
            return await result_of(asyncio.ensure_future(asyncio.to_thread(load)))

    async def close(self) -> None:
        """Brings the documents up to date and lets go of everything.

        What does not end in CLOSE_TIMEOUT_S finds the store closed, but for a thread that is writing: it is waited for.
        """
        self._is_closing = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.locks.last_turn()
                if self._reads:
                    await asyncio.wait(self._reads)
                await self._settling.finish()
                async with self.locks.alone("close"):
                    await self._settling.rotate()
                await self._settling.settle()
        except (TimeoutError, DalError) as error:
            _log.warning("%s: closed with its documents behind the journal: %s", self.layout.root, reason(error))
        finally:
            await self._settling.stop()
            await self._is_written.wait()
            await asyncio.to_thread(self.release)

    async def settle(self, operation: str) -> None:
        """Brings the documents up to everything that was written before the call."""
        await self._settling.catch_up(operation)

    def release(self) -> None:
        """Lets go of files, locks and threads without writing anything more."""
        self._resources.close()

    # -- reading

    async def read(self, query: Query) -> list[Row]:
        try:
            for _ in range(_MAX_REREADS):
                if self.journal.has_news():
                    await self.follow()
                position = self.journal.position
                answer = await self.answer(self.image.tables, query)
                if query.table not in KINDS or self.journal.state.horizon <= position:
                    break
                # Files were brought to a state that this process had not followed yet: the answer may be a mixture.
            return answer
        except (OSError, sqlite3.Error) as error:
            raise reading_error(self.layout, "read", error) from error

    async def answer(self, tables: Tables, query: Query) -> list[Row]:
        """The answer from these tables: at once where it is quick, else from a thread."""
        if _is_quick(query):
            return interpreter.read(tables, query)
        finish = interpreter.prepare(tables, query, detached=True)
        reading = asyncio.ensure_future(asyncio.to_thread(finish))
        self._reads.add(reading)
        reading.add_done_callback(self._reads.discard)
        return await asyncio.shield(reading)

    async def follow(self) -> None:
        """Takes in what other processes have committed."""
        while True:
            settled = self.journal.state.settled
            try:
                recovery.follow(self.image, self.journal)
            except FileNotFoundError:
                await self._reload()
            else:
                self.image.retire(settled)
                return

    async def catch_up_with_others(self) -> None:
        """As `follow`, where there is anything: commits, or a checkpoint that has taken some up."""
        if self.journal.has_news() or self.image.is_settled(self.journal.state.settled):
            await self.follow()

    async def _reload(self) -> None:
        """Reads the documents again: this process was away for so long that the journal it had to read is gone."""
        behind = self.journal
        async with self._reloading:
            if self.journal is not behind:
                return
            journal = Journal(self.layout)
            try:
                self.image = await self._load(journal)
                self.journal, journal = journal, behind
            finally:
                journal.close()

    # -- writing

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        check_batch(ops, BACKEND)
        await self._settling.wait_for_room("commit")
        async with self.locks.exclusive("commit"):
            if self.image.registry.gates:
                check_roles(self.image.registry, ops)
            return await self.carry_out(ops, "commit")

    async def carry_out(
        self, ops: Sequence[Op], operation: str, also: Sequence[AnyChange] = (), *, with_fenced: bool = False
    ) -> Receipt:
        """Commits a batch while nobody else writes, whatever the roles.

        also         goes into the same journal record.
        with_fenced  what it changes behind a fence is registered.
        """
        try:
            receipt, changes = interpreter.apply(self.image.tables, ops, backend=BACKEND)
            applied = {(m.table, row_id) for m in also if isinstance(m, Marked) for row_id, _ in m.entries}
            registry = self.image.registry
            every = await captured(registry, changes, self._children, applied=applied, with_fenced=with_fenced)
        except (OSError, sqlite3.Error) as error:
            raise reading_error(self.layout, operation, error) from error
        await self.write([*also, *every], operation)
        return receipt

    async def _children(self, drop: Drop) -> list[str]:
        """The ids of the rows that a drop takes away."""
        query = Select(drop.table, (Compare(drop.column, "=", drop.parent_id),), columns=("id",))
        return [str(row[0]) for row in await self.answer(self.image.tables, query)]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[ReadCommit]:
        await self._settling.wait_for_room("transaction")
        async with self.locks.exclusive("transaction"):
            staged = _Transaction(self)
            try:
                yield staged
            finally:
                staged.is_over = True
            try:
                every = await captured(self.image.registry, staged.changes(), self._children)
            except (OSError, sqlite3.Error) as error:
                raise reading_error(self.layout, "transaction", error) from error
            await self.write(every, "transaction")

    async def write(self, changes: Sequence[AnyChange], operation: str) -> None:
        """Makes changes durable, then visible, while nobody else writes.

        A cancellation waits for the sync that is under way.
        """
        if not changes:
            return
        self._check_writable(operation)
        self._is_written.clear()
        try:
            is_cancelled = await self._write(changes, operation)
        finally:
            self._is_written.set()
        if is_cancelled:
            raise asyncio.CancelledError

    async def _write(self, changes: Sequence[AnyChange], operation: str) -> bool:
        """Whether the task was cancelled meanwhile."""
        writing = asyncio.wrap_future(self._writer.submit(self.journal.append, encode_changes(changes)))
        is_cancelled = await finished(writing)
        error = writing.exception()
        if isinstance(error, OSError):
            outcome: Outcome = "unknown" if self.journal.is_broken else "not_applied"
            raise writing_error(self.layout, operation, error, outcome) from error
        self.journal.publish(writing.result())
        self.image.apply(changes)
        if self.journal.segment_bytes() >= self._segment_bytes:
            is_cancelled |= await self._settling.rotate()
            self._settling.begin()
        else:
            self._settling.begin_later()
        return is_cancelled

    def _check_writable(self, operation: str) -> None:
        if self._is_closing:
            raise UnavailableError(
                f"{operation}: the store is closing", operation=operation, backend=BACKEND, retryable=False
            )
        if self.journal.is_broken:
            raise UnavailableError(
                f"{operation}: an earlier write to {self.layout.journal} failed and could not be taken back; "
                "close the store, look after the disk, open it again",
                operation=operation,
                backend=BACKEND,
                retryable=False,
            )

    # -- health

    async def health(self) -> StoreHealth:
        started = perf_counter()
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                disk_free_bytes = await asyncio.to_thread(self._probe)
        except (OSError, TimeoutError) as error:
            problem = f"{self.layout.root}: {reason(error)}"
            return StoreHealth(status="down", parts={"reachable": False, "problems": [problem]})
        latency_ms = (perf_counter() - started) * 1000
        damaged = [*self.image.problems(), *self.journal.problems, *self.layout.quarantined()]
        damaged += self.foreign.problems.values()
        problems = list(damaged)
        if self.journal.is_broken:
            problems.append("journal/: a write failed and could not be taken back; close the store and open it again")
        if self._settling.problem is not None:
            problems.append(self._settling.problem)
        if disk_free_bytes < DEGRADED_DISK_FREE_BYTES:
            problems.append(f"only {disk_free_bytes} bytes are free on the disk")
        if latency_ms > DEGRADED_LATENCY_MS:
            problems.append(f"the disk answered after {latency_ms:.0f} ms")
        parts: dict[str, JsonValue] = {
            "reachable": True,
            "schema": LAYOUT_VERSION,
            "latency_ms": latency_ms,
            "disk_free_bytes": disk_free_bytes,
            "waiting_segments": len(self.image.sealed()),
            "recovered": list(self.journal.notes),
            "damaged": list(damaged),
            "problems": list(problems),
        }
        return StoreHealth(status="degraded" if problems else "ok", parts=parts)

    def _probe(self) -> int:
        self.layout.marker.read_bytes()
        return shutil.disk_usage(self.layout.root).free


class _Transaction(StagedTransaction):
    """Commits kept aside over the tables of an open store, which nobody else changes meanwhile."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened.image.tables, BACKEND)
        self._opened = opened

    async def read(self, query: Query) -> list[Row]:
        self.check("read")
        try:
            return await self._opened.answer(self.tables, query)
        except (OSError, sqlite3.Error) as error:
            raise reading_error(self._opened.layout, "read", error) from error

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        registry = self._opened.image.registry
        try:
            if registry.gates:
                self.check("commit")
                check_roles(registry, ops)
            return await super().commit(ops)
        except (OSError, sqlite3.Error) as error:
            raise reading_error(self._opened.layout, "commit", error) from error


def _is_quick(query: Query) -> bool:
    """Whether the answer is in memory or in a few lines of one file: a thread would cost more than it saves."""
    if query.table not in KINDS:
        return True
    if query.table != "messages" or not isinstance(query, Select):
        return False
    columns = {c.column for c in query.where if c.op in ("=", "in")}
    if "id" in columns:
        return all(c.op == "=" or len(cast("Sequence[str]", c.value)) <= _FEW for c in query.where if c.column == "id")
    if "chat_session_id" not in columns:
        return False
    by_number = bool(query.order) and query.order[0] in ("sequence_number", "-sequence_number")
    only = all(c.column in ("chat_session_id", "sequence_number") for c in query.where)
    return by_number and only and query.limit is not None and query.limit <= MAX_HISTORY_MESSAGES
