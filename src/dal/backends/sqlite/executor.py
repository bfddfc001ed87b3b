"""Statements on one SQLite file: one connection that writes, a few beside it that read.

All writes of a store go through one thread, in the order they came; SQLite's own lock is only ever met by other
processes, and waiting for it is bounded. Readers see the last committed state and never wait for the writer (WAL).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from dal.backends.sql import Result, Session, Statement
from dal.backends.sqlite.connection import Rows, SqliteThread, to_the_end
from dal.backends.sqlite.database_file import provide
from dal.backends.sqlite.errors import BACKEND
from dal.errors import DalTimeoutError, transaction_over
from dal.limits import CLOSE_TIMEOUT_S, DEGRADED_DISK_FREE_BYTES, LOCK_TIMEOUT_S
from dal.ops import JsonValue

_LOG: Final = logging.getLogger("dal.sqlite")
#: SQLite 3.7.0 to 3.51.2 can corrupt a database when two connections write and checkpoint it at the same moment.
_SOUND_VERSION: Final = (3, 51, 3)
#: More threads do not read faster under one interpreter lock; the second keeps short reads from waiting for long ones.
READERS: Final = 2


class SqliteExecutor:
    """An Executor on one file.

    create  the file and the directories above it are made where they are missing (0600 and 0700).
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = Path(os.path.abspath(path))
        self._create = create
        self._writer = SqliteThread(self._path, writer=True)
        self._readers = [SqliteThread(self._path, writer=False) for _ in range(READERS)]
        self._transaction = asyncio.Lock()
        self._is_open = False

    async def open(self) -> None:
        if self._is_open:
            return
        provide(self._path, create=self._create)
        _warn_of_old_sqlite()
        opened: list[SqliteThread] = []
        try:
            for thread in (self._writer, *self._readers):
                await thread.open()
                opened.append(thread)
        except BaseException:
            for thread in reversed(opened):
                await to_the_end(thread.close())
            raise
        self._is_open = True

    async def fetch(self, statement: Statement) -> Rows:
        readers = self._readers
        reader = readers[0]
        if reader.waiting:
            reader = min(readers, key=_waiting)
        return await reader.fetch(statement)

    async def batch(self, statements: Sequence[Statement], *, patience_s: float | None = None) -> list[Result]:
        """patience_s  how long it waits for other writers; None: LOCK_TIMEOUT_S."""
        patience_s = LOCK_TIMEOUT_S if patience_s is None else patience_s
        if self._transaction.locked():
            await self._turn(patience_s)
            self._transaction.release()
        # From here to the writer's queue nothing is awaited: a transaction that begins now comes behind this batch.
        return await self._writer.commit(statements, patience_s)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        await self._turn(LOCK_TIMEOUT_S)
        session = _Transaction(self._writer)
        try:
            try:
                await self._writer.begin()
                yield session
                session.is_open = False
                await self._writer.end()
            except BaseException:
                # Also where BEGIN was cancelled: the thread may still be at it, and this comes behind. It is queued
                # before anything is awaited, so not even a second cancellation lets another writer in before it.
                session.is_open = False
                await self._writer.rollback()
                raise
        finally:
            self._transaction.release()

    async def _turn(self, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                await self._transaction.acquire()
        except TimeoutError as error:
            raise DalTimeoutError(
                f"{self._path}: a transaction of this process held the database for {patience_s:g} s",
                operation="commit",
                backend=BACKEND,
            ) from error

    async def health(self) -> tuple[dict[str, JsonValue], list[str]]:
        return await asyncio.to_thread(self._measure)

    def _measure(self) -> tuple[dict[str, JsonValue], list[str]]:
        free_bytes = shutil.disk_usage(self._path.parent).free
        wal = self._path.with_name(f"{self._path.name}-wal")
        parts: dict[str, JsonValue] = {
            "disk_free_bytes": free_bytes,
            "wal_size_bytes": wal.stat().st_size if wal.exists() else 0,
            "sqlite_version": sqlite3.sqlite_version,
        }
        problems: list[str] = []
        if not self._path.exists():
            problems.append(f"{self._path} was moved or removed; its new rows will be lost with the process")
        if free_bytes < DEGRADED_DISK_FREE_BYTES:
            problems.append(f"{free_bytes // 1024 // 1024} MiB of disk space are left")
        return parts, problems

    async def close(self) -> None:
        """Waits for what is under way, at most CLOSE_TIMEOUT_S; readers go first, so that the writer tidies the WAL."""
        if not self._is_open:
            return
        self._is_open = False
        await to_the_end(self._close())

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for thread in (*self._readers, self._writer):
            stop = loop.call_later(CLOSE_TIMEOUT_S, thread.interrupt)
            try:
                await thread.close()
            finally:
                stop.cancel()


class _Transaction:
    """The writer while one transaction holds it."""

    def __init__(self, writer: SqliteThread) -> None:
        self._writer = writer
        self.is_open = True

    async def fetch(self, statement: Statement) -> Rows:
        self._check_open("read")
        return await self._writer.fetch_inside(statement)

    async def batch(self, statements: Sequence[Statement]) -> list[Result]:
        self._check_open("commit")
        return await self._writer.savepoint(statements)

    def _check_open(self, operation: str) -> None:
        if not self.is_open:
            raise transaction_over(operation, BACKEND)


def _waiting(reader: SqliteThread) -> int:
    return reader.waiting


_warned = False


def _warn_of_old_sqlite() -> None:
    """Once a process, in the log: a Python warning would be an error to those who turn warnings into errors."""
    global _warned
    if not _warned and sqlite3.sqlite_version_info < _SOUND_VERSION:
        _warned = True
        _LOG.warning(
            "SQLite %s can corrupt a database that several processes write at once (fixed in %s); "
            "keep one writing process, or update SQLite",
            sqlite3.sqlite_version,
            ".".join(map(str, _SOUND_VERSION)),
        )
