"""SQLite for `dal.schema`: one connection of its own, in a thread of its own, on which migrations run.

A batch is one BEGIN IMMEDIATE … COMMIT, statement by statement: `executescript` would end the open transaction first.
A statement that would end that transaction is refused. The file's journal mode is left as it is: it belongs to the
application.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from dal.backends.sqlite.connection import to_the_end
from dal.backends.sqlite.database_file import provide
from dal.backends.sqlite.errors import BACKEND, translate
from dal.errors import DalError, DalTimeoutError, SchemaError
from dal.limits import MIGRATION_LOCK_TIMEOUT_S
from dal.schema.connection import EngineName, Place, Reader, Run, StatementError
from dal.schema.statements import words_of

_T = TypeVar("_T")

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_UNIQUE: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
)
#: What says nothing about the statement but about the file, the disk or this process.
_TROUBLE: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    }
)
_CONTROL: Final = (["BEGIN"], ["COMMIT"], ["END"], ["ROLLBACK"], ["SAVEPOINT"], ["RELEASE"])
_LOCK_POLL_S: Final = (0.001, 0.005)
_STOP_POLL_S: Final = 0.02
#: Rows that a failed check of foreign keys names.
_SHOWN_ROWS: Final = 5


@asynccontextmanager
async def open_schema(path: Path, *, create: bool = False) -> AsyncIterator[SqliteSchemaConnection]:
    """The database in this file, for `dal.schema`, until the block ends.

    create  the file is made where it is missing, closed to others.
    Raises  SchemaError: there is no such file.  ConfigurationError, CorruptDataError: it cannot be opened.
    """
    whole = Path(os.path.abspath(path))  # noqa: ASYNC240  # asks the file system nothing
    provide(whole, create=create)
    async with _opened(whole, ("PRAGMA synchronous = FULL",)) as connection:
        yield connection


@asynccontextmanager
async def _opened(path: Path, settings: Sequence[str]) -> AsyncIterator[SqliteSchemaConnection]:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="dal-schema") as thread:
        connection = SqliteSchemaConnection(path, thread)
        try:
            await connection.open(settings)
            yield connection
        finally:
            await connection.close()


class SqliteSchemaConnection:
    """One SQLite file to be migrated, as `dal.schema.connection` promises."""

    def __init__(self, path: Path, thread: ThreadPoolExecutor) -> None:
        self._path = path
        self._thread = thread
        self._raw: sqlite3.Connection | None = None
        #: A file's own statement is running; never while one is rolled back or settings are put in order.
        self._may_be_stopped = False
        self._settings: Sequence[str] = ()

    @property
    def engine(self) -> EngineName:
        return "sqlite"

    @property
    def place(self) -> Place:
        return "sqlite"

    @property
    def address(self) -> str:
        return f"sqlite:{self._path}"

    @property
    def backup_suffix(self) -> str:
        return ".db"

    async def open(self, settings: Sequence[str]) -> None:
        self._settings = settings
        await self._call(lambda: self._connect(settings))

    async def close(self) -> None:
        await self._call(self._disconnect)

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        return await self._call(lambda: self._fetch(sql, params))

    async def explain(self, sql: str) -> Sequence[tuple[object, ...]]:
        return await self.fetch(f"EXPLAIN QUERY PLAN {sql}")

    async def run(self, statements: Sequence[Run], *, foreign_keys: bool = True) -> None:
        await self._call(lambda: self._run(statements, foreign_keys))

    async def run_alone(self, sql: str) -> None:
        await self._call(lambda: self._run_alone(sql))

    async def try_exclusive(self) -> bool:
        return True

    async def end_exclusive(self) -> None:
        return

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[SqliteSchemaConnection]:
        # A file, not memory: WAL, VACUUM and ATTACH behave as they will in earnest. It need not survive anything.
        with tempfile.TemporaryDirectory(prefix="dal-scratch-") as directory:
            async with _opened(Path(directory) / "scratch.db", ("PRAGMA synchronous = OFF",)) as connection:
                yield connection

    async def dump(self, path: Path, *, look: Callable[[Reader], Awaitable[None]] | None = None) -> None:
        from dal.backends.sqlite.dump import dump

        await dump(self._path, path, look=look)

    async def load(self, path: Path) -> None:
        from dal.backends.sqlite.dump import load

        # Closed meanwhile: a copy with pages of another size needs a WAL file for itself.
        await self.close()
        try:
            await load(self._path, path)
        finally:
            await self.open(self._settings)

    # In the thread ---------------------------------------------------------------------------------------------------

    async def _call(self, work: Callable[[], _T]) -> _T:
        """The work's result. A cancelled caller stops the statement that runs, and leaves when it has stopped."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with suppress(Exception):
                await to_the_end(self._stopped(future))
            raise

    async def _stopped(self, future: asyncio.Future[_T]) -> _T:
        """The end of the work. SQLite interrupts what runs at that moment and nothing later, so it is told again."""
        while not future.done():
            if self._raw is not None and self._may_be_stopped:
                self._raw.interrupt()
            await asyncio.wait({future}, timeout=_STOP_POLL_S)
        return future.result()

    def _connect(self, settings: Sequence[str]) -> None:
        with self._told("open"):
            # No statement is kept: a schema that changes has nothing to gain from it. Another thread interrupts.
            self._raw = sqlite3.connect(
                self._path,
                timeout=MIGRATION_LOCK_TIMEOUT_S,
                isolation_level=None,
                cached_statements=0,
                check_same_thread=False,
            )
            for setting in ("PRAGMA foreign_keys = ON", "PRAGMA mmap_size = 0", *settings):
                self._raw.execute(setting)
            self._raw.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _disconnect(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()

    def _fetch(self, sql: str, params: Sequence[object]) -> Sequence[tuple[object, ...]]:
        try:
            with self._stoppable():
                return self._opened().execute(sql, params).fetchall()
        except sqlite3.Error as error:
            code = _primary(error)
            if code in _BUSY:
                raise DalTimeoutError(
                    f"{self.address}: another process held the database for {MIGRATION_LOCK_TIMEOUT_S:g} s",
                    operation="read",
                    backend=BACKEND,
                ) from error
            if code in _TROUBLE:
                raise translate(error, str(self._path), "read") from error
            raise SchemaError(f"{self.address}: {_words(error)}", operation="read", backend=BACKEND) from error

    def _run(self, statements: Sequence[Run], foreign_keys: bool) -> None:
        raw = self._opened()
        if not foreign_keys:
            raw.execute("PRAGMA foreign_keys = OFF")  # inside a transaction it would do nothing
        try:
            self._begin(raw)
            try:
                self._execute(raw, statements)
                if not foreign_keys:
                    self._check_foreign_keys(raw, "")
                self._commit(raw)
            except BaseException:
                _roll_back(raw)
                raise
        finally:
            if not foreign_keys:
                raw.execute("PRAGMA foreign_keys = ON")

    def _begin(self, raw: sqlite3.Connection) -> None:
        """Takes the write lock. Asked for often: SQLite's own waiting looks ten times a second after a while."""
        deadline = time.monotonic() + MIGRATION_LOCK_TIMEOUT_S
        raw.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    raw.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.Error as error:
                    if _primary(error) not in _BUSY or time.monotonic() > deadline:
                        raise self._refusal(error, None) from error
                time.sleep(random.uniform(*_LOCK_POLL_S))  # noqa: S311
        finally:
            raw.execute(f"PRAGMA busy_timeout = {int(MIGRATION_LOCK_TIMEOUT_S * 1000)}")

    def _execute(self, raw: sqlite3.Connection, statements: Sequence[Run]) -> None:
        for index, (sql, params) in enumerate(statements):
            _refuse_transaction_control(index, sql)
            try:
                with self._stoppable():
                    for _ in raw.execute(sql, params):  # to its end, also where it returns rows
                        pass
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise self._refusal(error, index) from error
            if not raw.in_transaction:
                raise StatementError(index, "the statement ended the transaction in which the file is run")

    def _commit(self, raw: sqlite3.Connection) -> None:
        try:
            raw.execute("COMMIT")
        except sqlite3.Error as error:
            if _primary(error) == sqlite3.SQLITE_CONSTRAINT:
                self._check_foreign_keys(raw, f"{_words(error)}: ")
            if _primary(error) in _TROUBLE:
                raise translate(error, str(self._path), "commit", committing=True) from error
            raise self._refusal(error, None) from error

    def _check_foreign_keys(self, raw: sqlite3.Connection, words: str) -> None:
        try:
            rows = raw.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN_ROWS + 1)
        except sqlite3.Error as error:  # a reference that fits no key of its parent
            raise self._refusal(error, None) from error
        if not rows:
            return
        shown = ", ".join(
            f"{table}{'' if rowid is None else f' row {rowid}'} refers to a row of {parent} that is not there"
            for table, rowid, parent, _ in rows[:_SHOWN_ROWS]
        )
        more = ", and more" if len(rows) > _SHOWN_ROWS else ""
        reason = f"{words}foreign keys are broken: {shown}{more}"
        raise StatementError(None, reason, code="SQLITE_CONSTRAINT_FOREIGNKEY")

    def _run_alone(self, sql: str) -> None:
        raw = self._opened()
        _refuse_transaction_control(0, sql)
        try:
            with self._stoppable():
                for _ in raw.execute(sql):
                    pass
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._refusal(error, 0) from error
        finally:
            _roll_back(raw)
            raw.execute("PRAGMA foreign_keys = ON")

    def _refusal(self, error: Exception, index: int | None) -> StatementError | DalError:
        code = _primary(error)
        if isinstance(error, sqlite3.Error) and code in _TROUBLE:
            return translate(error, str(self._path), "commit")
        full = getattr(error, "sqlite_errorcode", 0)
        return StatementError(
            index,
            _words(error),
            code=getattr(error, "sqlite_errorname", ""),
            kind="busy" if code in _BUSY else "unique" if full in _UNIQUE else "other",
        )

    def _opened(self) -> sqlite3.Connection:
        if self._raw is None:
            raise DalError(f"{self.address} is closed", operation="schema", backend=BACKEND)
        return self._raw

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        self._may_be_stopped = True
        try:
            yield
        finally:
            self._may_be_stopped = False

    @contextmanager
    def _told(self, operation: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, str(self._path), operation) from error


def _refuse_transaction_control(index: int, sql: str) -> None:
    """By its first word: SQLite's authorizer would refuse VACUUM and full-text tables their own transactions too."""
    if words_of(sql, "sqlite", 1) in _CONTROL:
        raise StatementError(index, "the statement would end or split the transaction in which the file is run")


def _roll_back(raw: sqlite3.Connection) -> None:
    if raw.in_transaction:
        raw.execute("ROLLBACK")


def _primary(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())
