"""The file store: human-readable JSON documents, made durable by a journal, shared by any number of processes.

A commit is carried out on what is in memory, appended to the journal with one sync, and only then shown to anybody.
Every process follows the journal: a read first compares one number to see whether others have written. Documents are
brought up to date in the background. One machine, a local disk: locks and shared memory do not reach over a network.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from dal.backends.file.errors import opening_error
from dal.backends.file.journal import SEGMENT_BYTES
from dal.backends.file.layout import BACKEND, Layout
from dal.backends.file.opened import Opened
from dal.backends.file.replica import FileReplica
from dal.backends.file.settling import CHECKPOINT_INTERVAL_S
from dal.errors import UnavailableError
from dal.limits import LOCK_TIMEOUT_S, MAX_BATCH_OPS, MAX_TEXT_BYTES
from dal.ops import Op, Query, Receipt, Row
from dal.replica import Replica
from dal.store import Capabilities, ReadCommit, StoreHealth


class FileStore:
    """A store in a directory.

    directory              made, closed to others, where it is missing or empty and `create` is set; brought to the
                           current layout where it has an older one and `upgrade` is set.
    lock_timeout_s         how long a write waits for other tasks and processes before DalTimeoutError.
    segment_bytes          how much the journal takes before its changes move into the documents.
    checkpoint_interval_s  how long the documents lag behind a journal that grows more slowly than that.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        create: bool = True,
        upgrade: bool = False,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        segment_bytes: int = SEGMENT_BYTES,
        checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        self._layout = Layout(Path(directory).absolute())
        self._create = create
        self._upgrade = upgrade
        self._lock_timeout_s = lock_timeout_s
        self._segment_bytes = segment_bytes
        self._checkpoint_interval_s = checkpoint_interval_s
        self._opened: Opened | None = None
        self._opening = asyncio.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            backend=BACKEND,
            durable=True,
            multi_process=True,
            interactive_transactions=True,
            search=True,
            triggers=True,
            commit_lanes=1,
            max_text_bytes=MAX_TEXT_BYTES,
            max_batch_ops=MAX_BATCH_OPS,
        )

    async def open(self) -> None:
        async with self._opening:
            if self._opened is None:
                opened = await asyncio.to_thread(self._acquire)
                try:
                    await opened.start()
                except BaseException:
                    await asyncio.to_thread(opened.release)
                    raise
                self._opened = opened

    def _acquire(self) -> Opened:
        try:
            self._layout.prepare(create=self._create, upgrade=self._upgrade)
            return Opened(
                self._layout,
                lock_timeout_s=self._lock_timeout_s,
                segment_bytes=self._segment_bytes,
                checkpoint_interval_s=self._checkpoint_interval_s,
            )
        except (OSError, sqlite3.Error) as error:
            raise opening_error(self._layout, error) from error

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

    def replica(self) -> Replica:
        """The moves' side of this store."""
        return FileReplica(lambda: self._get("replica"))

    def _get(self, operation: str) -> Opened:
        if self._opened is None:
            raise UnavailableError(
                f"{operation}: the store is not open; open it first",
                operation=operation,
                backend=BACKEND,
                retryable=False,
            )
        if self._opened.process_id != os.getpid():
            # A fork shares the locks of its parent: both would believe that they hold them.
            raise UnavailableError(
                f"{operation}: the store was opened before this process was forked; open one of its own",
                operation=operation,
                backend=BACKEND,
                retryable=False,
            )
        return self._opened
