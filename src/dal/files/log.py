"""The access log's writer: rows wait in a bounded queue and are written in batches, beside whatever goes on.

Writing the log never fails an operation and never holds one up. What may be lost: the queue of a process that is
killed, which is what happened within about FILE_LOG_PAUSE_S; what comes while FILE_LOG_ROWS wait already; and what the
store still refuses when the log is closed. Losses that a process lives to see are counted, and said in its log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context as Variables

from dal.errors import AlreadyExistsError, DalError, UnsupportedError
from dal.limits import FILE_LOG_BATCH_ROWS, FILE_LOG_PAUSE_S, FILE_LOG_RETRY_S, FILE_LOG_ROWS, FILE_LOG_WAIT_S
from dal.ops import Insert
from dal.store import ReadCommit
from dal.tasks import end

_logger = logging.getLogger("dal.files")


class AccessLog:
    """Rows of `file_access_logs` on their way. `lost` counts those that were given up."""

    def __init__(self, store: ReadCommit) -> None:
        self.lost = 0
        self._store = store
        self._rows: deque[Insert] = deque()
        self._task: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Rows not written yet."""
        return len(self._rows)

    def add(self, row: Insert) -> None:
        """Takes a row to be written soon. Never fails."""
        if len(self._rows) >= FILE_LOG_ROWS:
            self._lose(1, f"{FILE_LOG_ROWS} rows wait already")
            return
        self._rows.append(row)
        if self._task is None or self._task.done():
            self._hurried.clear()
            # In a context of its own: it works for everybody, not for the request that came first.
            self._task = asyncio.get_running_loop().create_task(self._write_all(), context=Variables())

    async def flush(self) -> None:
        """Returns when the rows added before are written, or after FILE_LOG_WAIT_S."""
        if self._task is not None and not self._task.done():
            self._hurried.set()
            await asyncio.wait({self._task}, timeout=FILE_LOG_WAIT_S)

    async def close(self) -> None:
        """Writes what waits, for at most FILE_LOG_WAIT_S; what is left then is lost."""
        await self.flush()
        if self._task is not None and not self._task.done():
            await end(self._task)
        self._task = None
        if self._rows:
            self._lose(len(self._rows), "it was closed before the store took them")
            self._rows.clear()

    async def _write_all(self) -> None:
        while self._rows:
            await self._pause()
            batch = [self._rows[i] for i in range(min(len(self._rows), FILE_LOG_BATCH_ROWS))]
            try:
                await self._store.commit(batch)
            except AlreadyExistsError:
                pass  # ids are made here: the batch is there, only its answer was lost
            except DalError as error:
                if error.retryable and not isinstance(error, UnsupportedError):
                    await asyncio.sleep(FILE_LOG_RETRY_S)
                    continue
                self._lose(len(batch), f"the store refused them: {error}")
            except Exception as error:  # a bug in the log must not take files down
                self._lose(len(batch), f"{type(error).__name__}: {error}")
            for _ in batch:
                self._rows.popleft()

    async def _pause(self) -> None:
        """Lets rows gather, unless somebody waits for the log."""
        try:
            async with asyncio.timeout(FILE_LOG_PAUSE_S):
                await self._hurried.wait()
        except TimeoutError:
            pass

    def _lose(self, rows: int, why: str) -> None:
        self.lost += rows
        _logger.warning("access log: %d rows lost: %s", rows, why)
