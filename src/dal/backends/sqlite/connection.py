"""One SQLite connection in its thread: a call is one hop there and back, and leaves the connection clean.

aiosqlite owns the thread and the queue before it. Its usual idiom (execute, fetch, close) hops three to five times a
call; here the whole piece of work is one function that runs in the thread, so a cancelled caller leaves it to end by
itself: a batch is in the database whole or not at all. docs/decisions/0002-sqlite-threads.md has the measurements.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Final, TypeVar, TypeVarTuple, cast

import aiosqlite

from dal.backends.sql import Result, Statement, Violation
from dal.backends.sqlite.errors import BACKEND, translate, violation_of
from dal.errors import ConfigurationError, DalError, UnavailableError
from dal.limits import LOCK_TIMEOUT_S

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
Rows = list[tuple[object, ...]]

_CACHED_STATEMENTS: Final = 512
#: Between two looks at a lock that another process holds; at random, so that processes do not march in step.
_LOCK_POLL_S: Final = (0.0005, 0.003)
_WAL: Final = "PRAGMA journal_mode = WAL"
_SETTINGS: Final = ("PRAGMA foreign_keys = ON", "PRAGMA synchronous = FULL", "PRAGMA mmap_size = 0")


class SqliteThread:
    """A connection and its thread.

    writer  it writes and checkpoints; there is one in a store. Others read only.
    """

    def __init__(self, path: Path, *, writer: bool) -> None:
        self._path = path
        self._writer = writer
        self._db: aiosqlite.Connection | None = None
        self._raw: sqlite3.Connection
        #: Calls sent and not yet answered.
        self.waiting = 0

    async def open(self) -> None:
        """Connects. Raises ConfigurationError, CorruptDataError or DalTimeoutError."""
        failure: list[sqlite3.Error | DalError] = []

        def connect() -> sqlite3.Connection:
            try:
                self._raw = self._connect()
            except (sqlite3.Error, DalError) as error:
                # aiosqlite ends its thread untidily when this raises: it gets a connection that it can close.
                failure.append(error)
                self._raw = sqlite3.connect(":memory:")
            return self._raw

        db = aiosqlite.Connection(connect, iter_chunk_size=1)
        # A program that forgets close() must still be able to end. aiosqlite below 0.22 is a thread itself.
        cast(Thread, getattr(db, "_thread", db)).daemon = True
        self._db = db
        try:
            await to_the_end(_connected(db))
        except BaseException:
            await self.close()
            raise
        if failure:
            await self.close()
            if isinstance(failure[0], DalError):
                raise failure[0]
            raise translate(failure[0], str(self._path), "open") from failure[0]

    def _connect(self) -> sqlite3.Connection:
        raw = sqlite3.connect(
            self._path, timeout=LOCK_TIMEOUT_S, isolation_level=None, cached_statements=_CACHED_STATEMENTS
        )
        try:
            for setting in _SETTINGS:
                raw.execute(setting)
            if self._writer:
                self._use_wal(raw)
            else:
                raw.execute("PRAGMA query_only = ON")
            raw.execute("SELECT 1 FROM sqlite_master").fetchone()
            if self._writer:
                raw.execute("PRAGMA busy_timeout = 0")  # from here on it waits by itself, in _begin
        except BaseException:
            raw.close()
            raise
        return raw

    def _use_wal(self, raw: sqlite3.Connection) -> None:
        """WAL mode, kept in the file. Changing to it asks for the file alone, and SQLite does not wait for that."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                (mode,) = raw.execute(_WAL).fetchone()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise ConfigurationError(
                f"{self._path}: its file system cannot carry SQLite's WAL mode; put the database on a local disk",
                operation="open",
                backend=BACKEND,
            )

    async def close(self) -> None:
        """Ends the thread when everything sent before is done."""
        db, self._db = self._db, None
        if db is not None:
            await to_the_end(db.close())

    def interrupt(self) -> None:
        """Stops the statement that is running; its caller gets UnavailableError."""
        self._raw.interrupt()

    async def _run(self, function: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        db = self._db
        if db is None:
            raise UnavailableError(
                f"{self._path} is closed; open the store again", operation="read", backend=BACKEND, retryable=False
            )
        self.waiting += 1
        try:
            # The one way to run a whole piece of work in aiosqlite's thread; its public methods hop once a statement.
            return await cast("Awaitable[_T]", db._execute(function, *args))  # type: ignore[no-untyped-call]
        finally:
            self.waiting -= 1

    # Calls, each with the function that carries it out in the thread --------------------------------------------------

    async def fetch(self, statement: Statement) -> Rows:
        return await self._run(self._fetch, statement.sql, statement.params)

    def _fetch(self, sql: str, params: Sequence[object]) -> Rows:
        try:
            return self._raw.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise translate(error, str(self._path), "read") from error

    async def commit(self, statements: Sequence[Statement], patience_s: float) -> list[Result]:
        """The batch as a transaction of its own."""
        return await self._run(self._commit, statements, time.monotonic() + patience_s)

    def _commit(self, statements: Sequence[Statement], deadline: float) -> list[Result]:
        self._begin(deadline)
        try:
            results = self._execute(statements)
        except BaseException:
            self._rollback()
            raise
        self._end()
        return results

    async def begin(self) -> None:
        await self._run(self._begin, time.monotonic() + LOCK_TIMEOUT_S)

    def _begin(self, deadline: float) -> None:
        """Takes the write lock: asks once, and again until the deadline, which counts from when the call was made, so
        that calls which queued up behind another process wait together, not in turn.

        SQLite's own waiting looks ten times a second after a while; eight processes that write without a pause leave
        gaps of a tenth of a millisecond, which it missed for ten seconds on end.
        """
        while True:
            try:
                self._raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline:
                    raise translate(error, str(self._path), "commit") from error
            time.sleep(random.uniform(*_LOCK_POLL_S))  # noqa: S311

    async def end(self) -> None:
        await self._run(self._end_transaction)

    def _end_transaction(self) -> None:
        self._check_transaction()
        self._end()

    def _end(self) -> None:
        try:
            self._raw.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            raise translate(error, str(self._path), "commit", committing=True) from error

    async def rollback(self) -> None:
        await self._run(self._rollback)

    def _rollback(self) -> None:
        # Some errors (a full disk) have already rolled back.
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    async def fetch_inside(self, statement: Statement) -> Rows:
        """As `fetch`, in the open transaction."""
        return await self._run(self._fetch_inside, statement)

    def _fetch_inside(self, statement: Statement) -> Rows:
        self._check_transaction()
        return self._fetch(statement.sql, statement.params)

    async def savepoint(self, statements: Sequence[Statement]) -> list[Result]:
        """The batch as a part of the open transaction: refused, it alone has not happened."""
        return await self._run(self._savepoint, statements)

    def _savepoint(self, statements: Sequence[Statement]) -> list[Result]:
        self._check_transaction()
        self._raw.execute("SAVEPOINT batch")
        try:
            results = self._execute(statements)
        except BaseException:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK TO batch")
                self._raw.execute("RELEASE batch")
            raise
        self._raw.execute("RELEASE batch")
        return results

    def _check_transaction(self) -> None:
        """Without it, what follows an engine's own rollback would be committed statement by statement."""
        if not self._raw.in_transaction:
            raise UnavailableError(
                f"{self._path}: SQLite rolled the transaction back after an error", operation="commit", backend=BACKEND
            )

    def _execute(self, statements: Sequence[Statement]) -> list[Result]:
        raw = self._raw
        results: list[Result] = []
        try:
            for sql, params, returns, many, links, _, _ in statements:
                if links:
                    _fill(params, links, many, results)
                if many:
                    results.append(Result(raw.executemany(sql, cast("Sequence[Sequence[object]]", params)).rowcount))
                elif returns:
                    rows = raw.execute(sql, params).fetchall()
                    results.append(Result(len(rows), rows))
                else:
                    results.append(Result(raw.execute(sql, params).rowcount))
        except sqlite3.Error as error:
            violation = violation_of(error, len(results))
            if violation is not None:
                raise violation from error
            raise translate(error, str(self._path), "commit") from error
        return results


def _fill(params: Sequence[object], links: Sequence[object], many: bool, results: Sequence[Result]) -> None:
    """Puts what earlier statements returned into the places that wait for it."""
    for row, position, source, column, plus in cast("Sequence[tuple[int, int, int, int, int]]", links):
        rows = results[source].rows
        if not rows:
            raise Violation("missing", statement=len(results))
        value = rows[0][column]
        target = cast("list[object]", params[row] if many else params)
        target[position] = cast(int, value) + plus if plus else value


async def _connected(db: aiosqlite.Connection) -> None:
    await db


async def to_the_end(work: Awaitable[_T]) -> _T:
    """Awaits what must not be left half done; a cancellation in between is raised when it is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: S110  # the task holds it; `result` raises it below
            pass
    if cancelled is not None:
        raise cancelled
    return task.result()
