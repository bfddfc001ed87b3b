"""Where each message and log entry lies, by id: a cache in SQLite that can be thrown away and is then built again.

Lines are found by chat and sequence number or by day; an id says neither, and the ids of all messages would not fit in
memory. The index follows the files: one writer, the checkpoint, adds to it before it declares its work settled, and
every look-up is checked against the line it leads to. It also remembers size and time of every file it has read, so
that opening a store notices files that something else has changed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from dal.backends.file.layout import open_file

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS ids (
    kind INTEGER NOT NULL, id BLOB NOT NULL, place BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS newest (kind INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS settled (position INTEGER NOT NULL);
"""
MESSAGES: Final = 0
LOGS: Final = 1
ACCESSES: Final = 2
_KINDS: Final = (MESSAGES, LOGS, ACCESSES)
_BUSY_S: Final = 5.0
_PAGE_ROWS: Final = 512
_MANY_IDS: Final = 500
_RACY_NS: Final = 50_000_000


class Place(NamedTuple):
    """The line of one id: a chat's id and a sequence number, or a day and nothing."""

    id: str
    place: str
    number: int


class FileState(NamedTuple):
    """What tells that a file has not been touched."""

    size: int
    mtime_ns: int


#: No file's state: the file has to be read again.
UNSURE: Final = FileState(-1, -1)
#: The same of a document that a live move has not looked at yet: it should be there, and lies as it did before.
UNSEEN: Final = FileState(-2, -2)


class Index:
    """The ids of everything that lies in line files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._remove()
            self._connection = self._connect()
        self._inode = os.stat(path).st_ino
        self._newest = {kind: self._read_newest(kind) for kind in _KINDS}

    def _connect(self) -> sqlite3.Connection:
        # SQLite gives its other files the mode of this one. A file that is there is not opened: closing it would take
        # away the locks that SQLite holds on it in this process (POSIX locks belong to processes, not to descriptors).
        with suppress(FileExistsError):
            os.close(open_file(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            # Write-ahead logging, so that look-ups go on while a checkpoint writes. Only one process writes at a time,
            # under the checkpoint lock, which keeps clear of the WAL-reset fault of SQLite before 3.51.3.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._connection.close()

    def begin_anew(self) -> None:
        """An empty index in place of a damaged one. Other processes notice at their next `refresh`."""
        self._connection.close()
        self._remove()
        self._reconnect()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _reconnect(self) -> None:
        self._connection = self._connect()
        self._inode = os.stat(self._path).st_ino
        self._newest = {kind: self._read_newest(kind) for kind in self._newest}

    # -- looking up

    def find(self, kind: int, row_id: str) -> Place | None:
        """Where this id was last seen. An id made after everything that is indexed costs no look-up."""
        return None if self.is_newer(kind, row_id) else _find(self._connection, kind, row_id)

    def find_many(self, kind: int, ids: Iterable[str]) -> list[Place]:
        """The places of those of these ids that are indexed, in any order."""
        wanted = [_packed(row_id) for row_id in ids if not self.is_newer(kind, row_id)]
        found: list[Place] = []
        for first in range(0, len(wanted), _MANY_IDS):
            some = wanted[first : first + _MANY_IDS]
            query = f"SELECT id, place, number FROM ids WHERE kind = ? AND id IN ({','.join('?' * len(some))})"  # noqa: S608
            rows = self._connection.execute(query, (kind, *some))
            found += [Place(_unpacked(row_id), _unpacked(place), number) for row_id, place, number in rows]
        return found

    def is_newer(self, kind: int, row_id: str) -> bool:
        """Whether the id tells by itself that it is not in the index: ids of version 7 begin with the time."""
        return row_id > self._newest[kind] and _is_version_7(row_id)

    def behind(self, kind: int, after: str | None) -> Iterator[Place]:
        """Every id greater than `after`, in order; for a reader in any thread."""
        with closing(self._connect()) as connection:
            last = b"" if after is None else _packed(after)
            while True:
                rows = connection.execute(
                    "SELECT id, place, number FROM ids WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
                    (kind, last, _PAGE_ROWS),
                ).fetchall()
                for row_id, place, number in rows:
                    yield Place(_unpacked(row_id), _unpacked(place), number)
                if len(rows) < _PAGE_ROWS:
                    return
                last = rows[-1][0]

    def refresh(self) -> None:
        """Takes notice of what a checkpoint, of any process, has added."""
        if not self._path.exists() or os.stat(self._path).st_ino != self._inode:
            self._connection.close()
            self._reconnect()
        for kind in self._newest:
            self._newest[kind] = self._read_newest(kind)

    def _read_newest(self, kind: int) -> str:
        row = self._connection.execute("SELECT id FROM newest WHERE kind = ?", (kind,)).fetchone()
        return str(row[0]) if row else ""

    def ids_in(self, kind: int, places: Collection[str]) -> dict[str, list[str]]:
        """The ids that were last seen in these places. Without `watch` it reads the whole index for each."""
        found: dict[str, list[str]] = {}
        with closing(self._connect()) as connection:
            for place in places:
                rows = connection.execute("SELECT id FROM ids WHERE kind = ? AND place = ?", (kind, _packed(place)))
                found[place] = [_unpacked(row_id) for (row_id,) in rows]
        return found

    # -- following the files, under the checkpoint lock

    def settled(self) -> int:
        """Up to which position of the journal the index is complete; -1 for a new one."""
        row = self._connection.execute("SELECT position FROM settled").fetchone()
        return int(row[0]) if row else -1

    def files(self) -> dict[str, FileState]:
        """The files that were read, by their path within the store."""
        rows = self._connection.execute("SELECT path, size, mtime_ns FROM files")
        return {path: FileState(size, mtime_ns) for path, size, mtime_ns in rows}

    def file_states(self) -> dict[str, FileState]:
        """As `files`, for a reader in any thread."""
        with closing(self._connect()) as connection:
            rows = connection.execute("SELECT path, size, mtime_ns FROM files")
            return {path: FileState(size, mtime_ns) for path, size, mtime_ns in rows}

    def states_of(self, paths: Iterable[str]) -> dict[str, FileState]:
        """What is known of these files; for a reader in any thread."""
        with closing(self._connect()) as connection:
            return {path: state for path in paths if (state := _state(connection, path)) is not None}

    def writer(self) -> IndexWriter:
        """A connection of its own for the thread that writes."""
        return IndexWriter(self, self._connect())


class IndexWriter:
    """One change of the index: everything until `commit` is seen at once. A context manager."""

    def __init__(self, index: Index, connection: sqlite3.Connection) -> None:
        self._index = index
        self._connection = connection
        connection.execute("BEGIN IMMEDIATE")

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(sqlite3.Error):
            self._connection.rollback()
        self._connection.close()

    def find(self, kind: int, row_id: str) -> Place | None:
        """As `Index.find`."""
        return None if self._index.is_newer(kind, row_id) else _find(self._connection, kind, row_id)

    def clear(self) -> None:
        for table in ("ids", "files", "newest", "settled"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608  # names of our own

    def put(self, kind: int, places: Iterable[Place]) -> None:
        rows = [(kind, _packed(p.id), _packed(p.place), p.number, p.id) for p in places]
        self._connection.executemany("INSERT OR REPLACE INTO ids VALUES (?, ?, ?, ?)", [row[:4] for row in rows])
        newest = max((row[4] for row in rows if _is_version_7(row[4])), default=None)
        if newest is not None:
            self._connection.execute(
                "INSERT INTO newest VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET id = max(id, excluded.id)",
                (kind, newest),
            )

    def remove(self, kind: int, ids: Iterable[str]) -> None:
        self._connection.executemany(
            "DELETE FROM ids WHERE kind = ? AND id = ?", [(kind, _packed(row_id)) for row_id in ids]
        )

    def watch(self, documents: Iterable[str]) -> None:
        """A live move begins: these documents should be there, what is remembered of any is of an earlier one, and
        ids are found by their places too."""
        self._connection.execute("DELETE FROM files WHERE path LIKE '%.json'")
        rows = [(path, *UNSEEN) for path in documents]
        self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
        self._connection.execute("CREATE INDEX IF NOT EXISTS places ON ids (kind, place)")

    def unwatch(self) -> None:
        """The live move has ended."""
        self._connection.execute("DROP INDEX IF EXISTS places")

    def state(self, path: str) -> FileState | None:
        """What is known of a file."""
        return _state(self._connection, path)

    def put_file(self, path: str, state: FileState | None) -> None:
        """Remembers the file as it is now; None: it is gone."""
        if state is None:
            self._connection.execute("DELETE FROM files WHERE path = ?", (path,))
        else:
            self._connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (path, *state))

    def commit(self, position: int) -> None:
        """Makes the changes durable: the index is complete up to this position of the journal."""
        self._connection.execute("DELETE FROM settled")
        self._connection.execute("INSERT INTO settled VALUES (?)", (position,))
        self._connection.commit()
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no sound database, rather than busy or out of reach."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def file_state(path: Path) -> FileState | None:
    """Size and time of a file, None where it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return FileState(found.st_size, found.st_mtime_ns)


def settled_state(path: Path) -> FileState | None:
    """As `file_state`, of a file that was just written or is about to be read.

    One that was written a moment ago may be written again within the same tick of the disk's clock: its time is then
    remembered as a negative number, so that its content is looked at again.
    """
    found = file_state(path)
    if found is not None and time.time_ns() - found.mtime_ns < _RACY_NS:
        return FileState(found.size, -found.mtime_ns)
    return found


def _state(connection: sqlite3.Connection, path: str) -> FileState | None:
    row = connection.execute("SELECT size, mtime_ns FROM files WHERE path = ?", (path,)).fetchone()
    return None if row is None else FileState(*row)


def _find(connection: sqlite3.Connection, kind: int, row_id: str) -> Place | None:
    row = connection.execute(
        "SELECT place, number FROM ids WHERE kind = ? AND id = ?", (kind, _packed(row_id))
    ).fetchone()
    return None if row is None else Place(row_id, _unpacked(row[0]), row[1])


def _is_version_7(row_id: str) -> bool:
    return len(row_id) == 36 and row_id[14] == "7"


def _packed(text: str) -> bytes:
    """A UUID as 16 bytes, which sort as its text does; anything else as its text behind one more byte."""
    if len(text) == 36:
        with suppress(ValueError):
            packed = bytes.fromhex(text.replace("-", ""))
            if len(packed) == 16:
                return packed
    return b"\xff" + text.encode()


def _unpacked(packed: bytes) -> str:
    if len(packed) != 16:
        return packed[1:].decode()
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
