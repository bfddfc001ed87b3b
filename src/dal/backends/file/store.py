"""The file store: human-readable JSON documents, made durable by a journal, shared by any number of processes.

A commit is carried out on what is in memory, appended to the journal with one sync, and only then shown to anybody.
Every process follows the journal: a read first compares one number to see whether others have written. Documents are
brought up to date in the background. One machine, a local disk: locks and shared memory do not reach over a network.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar

from dal.backends import interpreter
from dal.backends.file import recovery
from dal.backends.file.checkpoint import Checkpoint, Work, take_up
from dal.backends.file.codec import encode_changes
from dal.backends.file.image import Image
from dal.backends.file.index import open_index
from dal.backends.file.journal import SEGMENT_BYTES, Journal
from dal.backends.file.layout import LAYOUT_VERSION, Layout
from dal.backends.file.lock import FileLock
from dal.backends.memory import StagedTransaction, check_batch
from dal.backends.rows import Change, Drop
from dal.errors import (
    ConfigurationError,
    CorruptDataError,
    DalError,
    DalTimeoutError,
    Outcome,
    UnavailableError,
)
from dal.limits import (
    CLOSE_TIMEOUT_S,
    DEGRADED_DISK_FREE_BYTES,
    DEGRADED_LATENCY_MS,
    HEALTH_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    MAX_BATCH_OPS,
    MAX_HISTORY_MESSAGES,
    MAX_TEXT_BYTES,
)
from dal.ops import JsonValue, Op, Query, Receipt, Row, Select
from dal.store import Capabilities, ReadCommit, StoreHealth

#: Documents lag behind the journal at most so long while the store is in use.
CHECKPOINT_INTERVAL_S: Final = 10.0
#: Closed segments that wait for a checkpoint; behind that, commits wait too.
MAX_WAITING_SEGMENTS: Final = 16

_BACKEND: Final = "file"
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger("dal.file")
T = TypeVar("T")


class FileStore:
    """A store in a directory.

    directory       made, closed to others, where it is missing or empty and `create` is set.
    lock_timeout_s  how long a write waits for other tasks and processes before DalTimeoutError.
    segment_bytes   how much the journal takes before its changes move into the documents.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        create: bool = True,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        segment_bytes: int = SEGMENT_BYTES,
        checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        self._layout = Layout(Path(directory).absolute())
        self._create = create
        self._lock_timeout_s = lock_timeout_s
        self._segment_bytes = segment_bytes
        self._checkpoint_interval_s = checkpoint_interval_s
        self._opened: _Opened | None = None
        self._opening = asyncio.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            backend=_BACKEND,
            durable=True,
            multi_process=True,
            interactive_transactions=True,
            search=True,
            triggers=False,
            commit_lanes=1,
            max_text_bytes=MAX_TEXT_BYTES,
            max_batch_ops=MAX_BATCH_OPS,
        )

    async def open(self) -> None:
        async with self._opening:
            if self._opened is None:
                opened = await asyncio.to_thread(self._start)
                try:
                    await opened.start()
                except BaseException:
                    opened.release()
                    raise
                self._opened = opened

    def _start(self) -> _Opened:
        try:
            self._layout.prepare(create=self._create)
            return _Opened(self._layout, self._lock_timeout_s, self._segment_bytes, self._checkpoint_interval_s)
        except OSError as error:
            raise _opening_error(self._layout, error) from error

    async def close(self) -> None:
        async with self._opening:
            opened, self._opened = self._opened, None
            if opened is not None:
                await opened.close()

    async def read(self, query: Query) -> list[Row]:
        return await self._get("read").read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        return await self._get("commit").commit(ops)

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        return self._get("transaction").transaction()

    async def health(self) -> StoreHealth:
        opened = self._opened
        if opened is None:
            return StoreHealth(status="down", parts={"reachable": False, "problems": ["the store is closed"]})
        return await opened.health()

    def _get(self, operation: str) -> _Opened:
        if self._opened is None:
            raise UnavailableError(
                f"{operation}: the store is not open; open it first", operation=operation, backend=_BACKEND
            )
        return self._opened


class _Opened:
    """An open store: its files, locks and threads."""

    def __init__(self, layout: Layout, lock_timeout_s: float, segment_bytes: int, checkpoint_interval_s: float) -> None:
        self._layout = layout
        self._lock_timeout_s = lock_timeout_s
        self._segment_bytes = segment_bytes
        self._checkpoint_interval_s = checkpoint_interval_s
        self._turn = asyncio.Lock()
        self._lock = FileLock(layout.journal / "lock")
        self._checkpoint_lock = FileLock(layout.journal / "checkpoint.lock")
        self._journal = Journal(layout)
        self._index = open_index(layout.index)
        self._image: Image
        self._writer = ThreadPoolExecutor(1, "dal-file-journal")
        self._checkpoints = ThreadPoolExecutor(1, "dal-file-checkpoint")
        self._checkpoint: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._checkpoint_problem: str | None = None
        self._is_closing = False

    # -- opening and closing

    async def start(self) -> None:
        """Recovers the journal and loads the documents."""
        try:
            await self._checkpoint_lock.acquire(self._lock_timeout_s)
            try:
                await self._lock.acquire(self._lock_timeout_s)
                try:
                    end = await asyncio.to_thread(self._journal.recover)
                    self._journal.state.published = end
                finally:
                    self._lock.release()
                self._image = await asyncio.to_thread(self._load)
            finally:
                self._checkpoint_lock.release()
        except TimeoutError as error:
            raise self._timed_out("open") from error
        except (OSError, sqlite3.Error) as error:
            raise _opening_error(self._layout, error) from error
        for note in (*self._journal.notes, *self._image.problems, *self._journal.problems):
            _log.warning("%s", note)
        if self._image.sealed():
            self._begin_checkpoint()
        elif self._journal.segment_bytes():
            self._set_timer()

    def _load(self) -> Image:
        return recovery.load(self._layout, self._index, self._journal, self._journal.state.published)

    async def close(self) -> None:
        """Brings the documents up to date and lets go of everything."""
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._turn.acquire()  # a commit under way ends first
                if self._checkpoint is not None:
                    await asyncio.wait([self._checkpoint])
                await self._settle_everything()
        except (TimeoutError, DalError, OSError) as error:
            _log.warning("%s: closed with its documents behind the journal: %s", self._layout.root, error)
        finally:
            self.release()

    async def _settle_everything(self) -> None:
        await self._lock.acquire(self._lock_timeout_s)
        try:
            self._follow()
            if self._journal.segment_bytes() and not self._journal.is_broken:
                await _in_thread(self._writer, self._journal.rotate)
                self._image.seal(self._journal.position)
        finally:
            self._lock.release()
        if self._checkpoint_lock.try_acquire():
            try:
                await self._checkpoint_once()
            finally:
                self._checkpoint_lock.release()

    def release(self) -> None:
        """Lets go of files, locks and threads without writing anything more."""
        self._writer.shutdown(wait=True)
        self._checkpoints.shutdown(wait=True)
        self._lock.close()
        self._checkpoint_lock.close()
        self._journal.close()
        self._index.close()

    # -- reading

    async def read(self, query: Query) -> list[Row]:
        while True:
            if self._journal.has_news():
                self._follow()
            position = self._journal.position
            if _is_quick(query):
                answer = interpreter.read(self._image.tables, query)
            else:
                finish = interpreter.prepare(self._image.tables, query, detached=True)
                answer = await asyncio.to_thread(finish)
            if query.table not in ("messages", "system_logs") or self._journal.state.horizon <= position:
                return answer
            # Files were brought to a state that this process had not followed yet: what was read may be a mixture.

    def _follow(self) -> None:
        """Takes in what other processes have committed."""
        settled = self._journal.state.settled
        try:
            recovery.follow(self._image, self._journal)
            self._image.retire(settled)
        except FileNotFoundError:
            self._image = self._load()

    # -- writing

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        check_batch(ops, _BACKEND)
        async with self._exclusive("commit"):
            receipt, changes = interpreter.apply(self._image.tables, ops, backend=_BACKEND)
            await self._write(changes, "commit")
            return receipt

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[ReadCommit]:
        async with self._exclusive("transaction"):
            staged = StagedTransaction(self._image.tables, _BACKEND)
            try:
                yield staged
            finally:
                staged.is_over = True
            await self._write(staged.changes(), "transaction")

    @asynccontextmanager
    async def _exclusive(self, operation: str) -> AsyncIterator[None]:
        """Nobody else writes, in this process or another, and everything committed so far is known."""
        try:
            async with asyncio.timeout(self._lock_timeout_s):
                await self._turn.acquire()
        except TimeoutError as error:
            raise self._timed_out(operation) from error
        try:
            self._check_writable(operation)
            await self._wait_for_checkpoint(operation)
            try:
                await self._lock.acquire(self._lock_timeout_s)
            except TimeoutError as error:
                raise self._timed_out(operation) from error
            try:
                if self._journal.has_news():
                    self._follow()
                yield
            finally:
                self._lock.release()
        finally:
            self._turn.release()

    async def _write(self, changes: list[Change | Drop], operation: str) -> None:
        """Makes changes durable, then visible. A cancellation waits for the sync that is under way."""
        if not changes:
            return
        payload = encode_changes(changes)
        writing = asyncio.wrap_future(self._writer.submit(self._append, payload))
        is_cancelled = await _settled(writing)
        error = writing.exception()
        if error is not None:
            if isinstance(error, OSError):
                raise self._writing_error(operation, error) from error
            raise error
        self._journal.publish(writing.result())
        self._image.apply(changes)
        if self._journal.segment_bytes() >= self._segment_bytes:
            await self._rotate()
        else:
            self._set_timer()
        if is_cancelled:
            raise asyncio.CancelledError

    def _append(self, payload: bytes) -> int:
        return self._journal.append(payload)

    def _check_writable(self, operation: str) -> None:
        if self._is_closing:
            raise UnavailableError(f"{operation}: the store is closing", operation=operation, backend=_BACKEND)
        if self._journal.is_broken:
            raise UnavailableError(
                f"{operation}: an earlier write to {self._layout.journal} failed and could not be taken back; "
                "close the store, look after the disk, open it again",
                operation=operation,
                backend=_BACKEND,
                retryable=False,
            )

    # -- checkpoints

    async def _rotate(self) -> None:
        """Ends the journal's segment and begins a checkpoint; where there is no room for a new one, it grows on."""
        rotating = asyncio.wrap_future(self._writer.submit(self._journal.rotate))
        await _settled(rotating)
        error = rotating.exception()
        if error is not None:
            self._checkpoint_problem = f"journal/: no new segment: {_reason(error)}"
            return
        self._image.seal(self._journal.position)
        self._begin_checkpoint()

    def _begin_checkpoint(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._checkpoint is None and not self._is_closing:
            self._checkpoint = asyncio.get_running_loop().create_task(self._run_checkpoints())
            self._checkpoint.add_done_callback(self._end_checkpoint)

    def _end_checkpoint(self, task: asyncio.Task[None]) -> None:
        self._checkpoint = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._checkpoint_problem = f"checkpoint: {_reason(error)}"
            _log.error("%s: checkpoint failed", self._layout.root, exc_info=error)

    async def _run_checkpoints(self) -> None:
        """Writes sealed layers to the files until none is left; leaves the work to another process that is at it."""
        while self._image.sealed() and self._checkpoint_lock.try_acquire():
            try:
                await self._checkpoint_once()
            finally:
                self._checkpoint_lock.release()
            if self._checkpoint_problem is not None:
                return

    async def _checkpoint_once(self) -> None:
        """One checkpoint, under the checkpoint lock."""
        self._image.retire(self._journal.state.settled)  # by another process
        work = take_up(self._image)
        if work is None:
            return
        self._journal.state.horizon = self._journal.position
        running = asyncio.wrap_future(self._checkpoints.submit(self._write_files, self._image, work))
        is_cancelled = await _settled(running)
        error = running.exception()
        if error is None:
            self._checkpoint_problem = None
            self._image.retire(self._journal.state.settled)
        elif isinstance(error, OSError | sqlite3.Error):
            self._checkpoint_problem = f"checkpoint: {_reason(error)}"
            _log.warning("%s: checkpoint failed: %s", self._layout.root, _reason(error))
        else:
            raise error
        if is_cancelled:
            raise asyncio.CancelledError

    def _write_files(self, image: Image, work: Work) -> None:
        Checkpoint(self._layout, image, work).run()
        self._journal.settle(work.target)
        self._journal.retire()

    def _set_timer(self) -> None:
        if self._timer is None and not self._is_closing:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._checkpoint_interval_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._checkpoint is None and not self._is_closing:
            self._checkpoint = asyncio.get_running_loop().create_task(self._timed_checkpoint())
            self._checkpoint.add_done_callback(self._end_checkpoint)

    async def _timed_checkpoint(self) -> None:
        async with self._exclusive("checkpoint"):
            if self._journal.segment_bytes():
                rotating = asyncio.wrap_future(self._writer.submit(self._journal.rotate))
                await _settled(rotating)
                rotating.result()
                self._image.seal(self._journal.position)
        await self._run_checkpoints()

    async def _wait_for_checkpoint(self, operation: str) -> None:
        """Back-pressure: commits wait while too much of the journal is not in the documents."""
        if len(self._image.layers) <= MAX_WAITING_SEGMENTS:
            return
        self._image.retire(self._journal.state.settled)
        self._begin_checkpoint()
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint], timeout=self._lock_timeout_s)
        if len(self._image.layers) > MAX_WAITING_SEGMENTS:
            raise UnavailableError(
                f"{operation}: the journal waits for its documents: {self._checkpoint_problem or 'the disk is slow'}; "
                "see health, then retry",
                operation=operation,
                backend=_BACKEND,
            )

    # -- health

    async def health(self) -> StoreHealth:
        started = perf_counter()
        problems: list[JsonValue] = []
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                disk_free_bytes = await asyncio.to_thread(self._probe)
        except (OSError, TimeoutError) as error:
            problem = f"{self._layout.root}: {_reason(error)}"
            return StoreHealth(status="down", parts={"reachable": False, "problems": [problem]})
        latency_ms = (perf_counter() - started) * 1000
        problems += [*self._image.problems, *self._journal.problems]
        if self._layout.quarantine.is_dir():
            problems += [f"quarantine/{p.name}: damaged; look at it, then remove it" for p in _kept(self._layout)]
        if self._journal.is_broken:
            problems.append("journal/: a write failed and could not be taken back; close the store and open it again")
        if self._checkpoint_problem is not None:
            problems.append(self._checkpoint_problem)
        if disk_free_bytes < DEGRADED_DISK_FREE_BYTES:
            problems.append(f"only {disk_free_bytes} bytes are free on the disk")
        if latency_ms > DEGRADED_LATENCY_MS:
            problems.append(f"the disk answered after {latency_ms:.0f} ms")
        parts: dict[str, JsonValue] = {
            "reachable": True,
            "schema": LAYOUT_VERSION,
            "latency_ms": latency_ms,
            "disk_free_bytes": disk_free_bytes,
            "waiting_segments": len(self._image.sealed()),
            "recovered": list(self._journal.notes),
            "problems": problems,
        }
        return StoreHealth(status="degraded" if problems else "ok", parts=parts)

    def _probe(self) -> int:
        self._layout.marker.read_bytes()
        return shutil.disk_usage(self._layout.root).free

    # -- errors

    def _timed_out(self, operation: str) -> DalTimeoutError:
        return DalTimeoutError(
            f"{operation}: others held {self._layout.root} for {self._lock_timeout_s} s; retry",
            operation=operation,
            backend=_BACKEND,
        )

    def _writing_error(self, operation: str, error: OSError) -> UnavailableError:
        outcome: Outcome = "unknown" if self._journal.is_broken else "not_applied"
        advice = "free some space and retry" if error.errno in _NO_SPACE else "look after the disk and retry"
        return UnavailableError(
            f"{operation}: writing to {self._layout.journal} failed: {_reason(error)}; {advice}",
            operation=operation,
            backend=_BACKEND,
            retryable=outcome == "not_applied",
            outcome=outcome,
        )


def _is_quick(query: Query) -> bool:
    """Whether the answer is in memory or in a few lines of one file: a thread would cost more than it saves."""
    if query.table not in ("messages", "system_logs"):
        return True
    if query.table != "messages" or not isinstance(query, Select):
        return False
    columns = {c.column for c in query.where if c.op in ("=", "in")}
    if "id" in columns:
        return True
    if "chat_session_id" not in columns:
        return False
    by_number = bool(query.order) and query.order[0] in ("sequence_number", "-sequence_number")
    only = all(c.column in ("chat_session_id", "sequence_number") for c in query.where)
    return by_number and only and query.limit is not None and query.limit <= MAX_HISTORY_MESSAGES


async def _in_thread(executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    future = asyncio.wrap_future(executor.submit(function))
    is_cancelled = await _settled(future)
    result = future.result()
    if is_cancelled:
        raise asyncio.CancelledError
    return result


async def _settled(future: asyncio.Future[T]) -> bool:
    """Waits until the future has its result or error, however often the waiting is cancelled; whether it was."""
    is_cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled


def _opening_error(layout: Layout, error: OSError | sqlite3.Error) -> DalError:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return ConfigurationError(
            f"{layout.root}: {_reason(error)}; the store needs a directory it may write to",
            operation="open",
            backend=_BACKEND,
        )
    if isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError):
        return ConfigurationError(f"{layout.root}: {_reason(error)}", operation="open", backend=_BACKEND)
    if isinstance(error, FileNotFoundError):
        return CorruptDataError(
            f"{layout.root}: part of the journal is gone: {_reason(error)}; restore the directory from a backup",
            operation="open",
            backend=_BACKEND,
        )
    return UnavailableError(f"{layout.root}: {_reason(error)}", operation="open", backend=_BACKEND)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _kept(layout: Layout) -> list[Path]:
    return sorted(layout.quarantine.iterdir())
