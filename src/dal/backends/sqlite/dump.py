"""Backups of a SQLite file: a page-by-page copy of one moment, and the way back into the live file.

Both use SQLite's backup API, not VACUUM INTO: that gives new row ids to tables without an integer key. The live file is
never replaced, since processes that have it open would go on with the old one: the copy is written into it as one
transaction. Readers keep what they saw until it commits; a crash in the middle leaves the old state, after it the new.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from dal.backends.sqlite.connection import to_the_end
from dal.backends.sqlite.errors import BACKEND, translate
from dal.errors import CorruptDataError, DalError, DalTimeoutError, UnavailableError
from dal.limits import LOCK_TIMEOUT_S
from dal.schema.backups.new_file import make, settle, unwritable
from dal.schema.connection import Reader

#: Between two looks at whether the caller still wants it.
_STEP_PAGES: Final = 4096
_WAITING: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
#: Where the header says how the file is written, and what it says without WAL.
_FORMAT_AT, _ROLLBACK_FORMAT = 18, b"\x01\x01"


async def dump(source: Path, path: Path, *, look: Callable[[Reader], Awaitable[None]] | None = None) -> None:
    """Copies the database, as of one moment, into a new file of mode 0600 that is on the disk on return.

    Others may write meanwhile (in WAL mode; else they wait). The copy is checked with `quick_check` and needs no file
    beside it. `look` is called with a Reader of the copy. A file begun and not finished is removed.
    Raises  CorruptDataError: the database is damaged.  UnavailableError: no room or no access there, or it is locked.
    """
    make(path, backend=BACKEND)
    try:
        await _in_thread(lambda stop: _copy_out(source, path, stop))
        await asyncio.to_thread(_check, source, path)
        if look is not None:
            with closing(_Copy(path)) as copy:
                await look(copy)
        await asyncio.to_thread(settle, path, backend=BACKEND)
    except BaseException:
        for left in (path, path.with_name(f"{path.name}-journal")):
            left.unlink(missing_ok=True)
        raise


async def load(target: Path, path: Path) -> None:
    """Makes the database at `target` what `dump` wrote to `path`, in one transaction; all or nothing, also at a crash.

    Raises  CorruptDataError: the file is no sound database.  DalTimeoutError: somebody held the target for too long.
    """
    await asyncio.to_thread(_check, path, path)
    await _in_thread(lambda stop: _copy_in(target, path, stop))


async def _in_thread(work: Callable[[threading.Event], None]) -> None:
    """Runs it in a thread; a caller that is cancelled makes it stop, and waits until it has."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        with suppress(DalError):
            await to_the_end(task)
        raise


def _copy_out(source: Path, path: Path, stop: threading.Event) -> None:
    with (
        _told(source, path, "backup"),
        closing(_connect(source, "mode=rw")) as live,
        closing(sqlite3.connect(path)) as new,
    ):
        # Nobody else has the new file: without journal and without waiting for the disk; `settle` does that once.
        new.execute("PRAGMA journal_mode = OFF")
        new.execute("PRAGMA synchronous = OFF")
        # The open transaction keeps one moment in sight over all steps, so that no writer makes the copy start again.
        live.execute("BEGIN")
        live.execute("SELECT 1 FROM sqlite_master").fetchone()
        live.backup(new, pages=_STEP_PAGES, progress=_Patience(source, "backup", stop), sleep=0.01)
    with path.open("r+b") as file:
        file.seek(_FORMAT_AT)
        if file.read(2) == b"\x02\x02":
            # The copy of a WAL database would ask for files beside it; committed as it is, it needs none.
            file.seek(_FORMAT_AT)
            file.write(_ROLLBACK_FORMAT)


def _copy_in(target: Path, path: Path, stop: threading.Event) -> None:
    # A file that is there is not opened: closing it would take away the locks that this process holds on it.
    with suppress(FileExistsError):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        _told(target, target, "restore"),
        closing(_connect(path, "mode=ro&immutable=1")) as copy,
        closing(_connect(target, "mode=rwc")) as live,
    ):
        live.execute("PRAGMA synchronous = FULL")
        was_wal = live.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        sizes = [db.execute("PRAGMA page_size").fetchone()[0] for db in (copy, live)]
        if was_wal and sizes[0] != sizes[1]:
            # Pages of another size do not fit into a WAL. Raises when another process has the file open.
            live.execute("PRAGMA journal_mode = DELETE").fetchone()
        copy.backup(live, pages=_STEP_PAGES, progress=_Patience(target, "restore", stop), sleep=0.01)
        if was_wal:
            # Both only tidy up: WAL comes back with the application, and the log shrinks when its readers have left it.
            with suppress(sqlite3.OperationalError):
                live.execute("PRAGMA journal_mode = WAL").fetchone()
                live.execute("PRAGMA busy_timeout = 0")
                live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


class _Patience:
    """Called after each step of a copy: ends it when its caller is gone, or when a lock is held for too long."""

    def __init__(self, path: Path, operation: str, stop: threading.Event) -> None:
        self._path = path
        self._operation = operation
        self._stop = stop
        self._waiting_since: float | None = None

    def __call__(self, status: int, _remaining: int, _total: int) -> None:
        if self._stop.is_set():
            raise UnavailableError(f"{self._path}: cancelled", operation=self._operation, backend=BACKEND)
        if status not in _WAITING:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
        elif time.monotonic() - self._waiting_since > LOCK_TIMEOUT_S:
            raise DalTimeoutError(
                f"{self._path}: another process held the database for {LOCK_TIMEOUT_S:g} s; stop it, or try again",
                operation=self._operation,
                backend=BACKEND,
            )


def _check(named: Path, path: Path) -> None:
    """Raises CorruptDataError, naming `named`, where the file at `path` is not a sound database."""
    with _told(named, named, "check"), closing(_connect(path, "mode=ro&immutable=1")) as copy:
        (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise CorruptDataError(f"{named} is damaged: {found}", operation="check", backend=BACKEND)


class _Copy:
    """A finished copy as a Reader. Nobody writes to it, so it is read without locks and without files beside it."""

    engine: Literal["sqlite"] = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = _connect(path, "mode=ro&immutable=1")
        self.address = f"sqlite:{path}"

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        return await asyncio.to_thread(self._fetch, sql, params)

    def _fetch(self, sql: str, params: Sequence[object]) -> Sequence[tuple[object, ...]]:
        with _told(self._path, self._path, "read"):
            return self._raw.execute(sql, params).fetchall()

    def close(self) -> None:
        self._raw.close()


def _connect(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(os.path.abspath(path)))}?{how}",
        uri=True,
        timeout=LOCK_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # one thread of a pool at a time
    )


@contextmanager
def _told(source: Path, target: Path, operation: str) -> Iterator[None]:
    """SQLite's errors in the words of the taxonomy: the source is locked or damaged, the target full."""
    try:
        yield
    except sqlite3.Error as error:
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_target = primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        raise translate(error, str(target if is_target else source), operation) from error
    except OSError as error:
        raise unwritable(target, error, backend=BACKEND) from error
