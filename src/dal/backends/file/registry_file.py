"""The registry on disk: the entries of one live move in a SQLite file in `move/`, which all processes share.

What a write registers comes here with a checkpoint. What belongs to no write comes here at once, and never into the
journal: rows of the backfill, which nobody has written since the move began, and what is said of copies. Such a change
compares: it adds an entry where there is none, or changes the state of one that still has its version. So it needs not
know what the journal has meanwhile, for an entry of the journal hides that of the file, and overwrites it later.

One process writes at a time, under a lock of its own, which keeps clear of the WAL-reset fault of SQLite before 3.51.3.
Everything is durable before a call returns: the move's cursor goes on behind rows that are marked.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from dal.backends.file.index import is_damage
from dal.backends.file.layout import BACKEND, make_directory, open_file
from dal.backends.file.lock import FileLock
from dal.errors import CorruptDataError, DalTimeoutError, UnavailableError
from dal.replica import Copied, by_first
from dal.tables import TABLES

CHECKED: Final = 0
COPIED: Final = 1
DIRTY: Final = 2

SUFFIX: Final = ".sqlite"
LOCK: Final = "lock"
_SCHEMA: Final = """
CREATE TABLE entries (
    tbl INTEGER NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, deleted INTEGER NOT NULL, state INTEGER NOT NULL,
    hash INTEGER, PRIMARY KEY (tbl, id)
) WITHOUT ROWID;
CREATE INDEX dirty ON entries (tbl, id) WHERE state = 2;
CREATE INDEX copied ON entries (tbl, id) WHERE state = 1;
CREATE TABLE counts (
    tbl INTEGER PRIMARY KEY, dirty INTEGER NOT NULL, copied INTEGER NOT NULL, entries INTEGER NOT NULL
);
"""
_NUMBERS: Final = {name: number for number, name in enumerate(TABLES)}
_SELECT: Final = "SELECT id, version, deleted, state, hash FROM entries"
_BUSY_S: Final = 5.0
_PAGE_BYTES: Final = 4096
_PAGE_ROWS: Final = 1000
_WRITTEN_ROWS: Final = 2000


class Known(NamedTuple):
    """What the registry holds of one row. `state` is CHECKED, COPIED or DIRTY."""

    version: int
    deleted: bool
    state: int
    hash: int | None


class RegistryFile:
    """The entries in one file.

    timeout_s  how long a change waits for those of other processes.
    Every method raises, beside what it says, CorruptDataError: the file is damaged.  DalTimeoutError: others were
    changing it all the time.  UnavailableError: it cannot be read or written now.
    """

    def __init__(self, directory: Path, name: str, timeout_s: float) -> None:
        self.name = name
        self.path = directory / (name + SUFFIX)
        self._lock_path = directory / LOCK
        self._timeout_s = timeout_s
        # For one thread alone: what a statement of another is still reading would be what this one sees, however old.
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None  # used under the lock alone

    def create(self) -> None:
        """Makes the file, empty, where the lock between processes is the caller's."""
        make_directory(self.path.parent)
        with self._translated():
            os.close(open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
            with closing(self._connect()) as connection:
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
                connection.executemany("INSERT INTO counts VALUES (?, 0, 0, 0)", [(n,) for n in _NUMBERS.values()])

    def verify(self) -> None:
        """Raises CorruptDataError where the file is not there, is no registry, or has lost its end."""
        with self._translated():
            try:
                size = self.path.stat().st_size
                with closing(self._connect()) as connection:
                    ((tables,),) = connection.execute("SELECT count(*) FROM counts").fetchall()
            except FileNotFoundError as error:
                raise damaged(self.path) from error
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise  # a full disk, or another's lock: nothing is known of what the file holds
                raise damaged(self.path) from error
        if size % _PAGE_BYTES or tables != len(_NUMBERS):
            raise damaged(self.path)

    def close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    # -- looking up, in the thread of the event loop

    def many(self, table: str, ids: Collection[str]) -> dict[str, Known]:
        """The entries of these ids that are there."""
        query = f"{_SELECT} WHERE tbl = ? AND id IN (SELECT value FROM json_each(?))"  # noqa: S608  # no input
        with self._translated():
            return dict(map(_entry, self._read().execute(query, (_NUMBERS[table], _listed(ids)))))

    def dirty(self, table: str) -> Iterator[tuple[str, Known]]:
        """The dirty entries, in the order of ids."""
        return self._behind("dirty", "state = 2", table, "")

    def copied(self, table: str, after: str) -> Iterator[tuple[str, Known]]:
        """The entries behind this id that are copied and not checked, in the order of ids."""
        return self._behind("copied", "state = 1", table, after)

    def _behind(self, index: str, which: str, table: str, after: str) -> Iterator[tuple[str, Known]]:
        # Named: SQLite would take the primary key, for its order, and read every entry.
        query = f"{_SELECT} INDEXED BY {index} WHERE tbl = ? AND {which} AND id > ? ORDER BY id LIMIT {_PAGE_ROWS}"
        while True:
            with self._translated():
                rows = self._read().execute(query, (_NUMBERS[table], after)).fetchall()
            yield from map(_entry, rows)
            if len(rows) < _PAGE_ROWS:
                return
            after = rows[-1][0]

    def tables_with(self, state: int) -> set[str]:
        """The tables that have entries that are COPIED, or DIRTY; some of them may be hidden by the journal's."""
        column = {COPIED: "copied", DIRTY: "dirty"}[state]
        with self._translated():
            found = {number for (number,) in self._read().execute(f"SELECT tbl FROM counts WHERE {column} > 0")}  # noqa: S608
        return {name for name, number in _NUMBERS.items() if number in found}

    # -- many at a time, for a reader in any thread

    def alive(self, table: str) -> Iterator[str]:
        """The ids of all entries but tombstones."""
        query = "SELECT id FROM entries WHERE tbl = ? AND deleted = 0"
        with self._translated(), closing(self._connect()) as connection:
            for (row_id,) in connection.execute(query, (_NUMBERS[table],)):
                yield row_id

    def in_buckets(self, table: str, ends: Collection[str], hidden: Collection[str]) -> list[tuple[str, Known]]:
        """The entries whose ids end so, with equally many characters; without the hidden ones."""
        given = _NUMBERS[table], -len(next(iter(ends), "")), _listed(ends), _listed(hidden)
        which = "substr(id, ?) IN (SELECT value FROM json_each(?)) AND id NOT IN (SELECT value FROM json_each(?))"
        query = f"{_SELECT} WHERE tbl = ? AND {which}"
        with self._translated(), closing(self._connect()) as connection:
            return list(map(_entry, connection.execute(query, given)))

    def sums(self, table: str, chars: int, hidden: Collection[str]) -> list[tuple[str, int, int, int, int, int, int]]:
        """The entries but the hidden ones added up by the last characters of their ids, as in a Bucket."""
        query = (
            "SELECT substr(id, ?), sum(NOT deleted), sum(deleted), coalesce(sum(hash & 0xffffffff), 0), "
            "coalesce(sum(hash >> 32), 0), max(version), sum(NOT deleted AND hash IS NULL) FROM entries "
            "WHERE tbl = ? AND id NOT IN (SELECT value FROM json_each(?)) GROUP BY 1"
        )
        with self._translated(), closing(self._connect()) as connection:
            return connection.execute(query, (-chars, _NUMBERS[table], _listed(hidden))).fetchall()

    def counts(self, hidden: Mapping[str, Collection[str]]) -> dict[str, list[int]]:
        """How many entries of each table are dirty, copied and there at all, without the hidden ones."""
        found: dict[str, list[int]] = {}
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("BEGIN")  # one moment for all of it
            every = {number: counts for number, *counts in connection.execute("SELECT * FROM counts")}
            for table, number in _NUMBERS.items():
                own = _counted(connection, number, hidden[table])
                found[table] = [all_ - one for all_, one in zip(every[number], own, strict=True)]
        return found

    # -- changing, in a thread

    def seed(self, table: str, ids: Sequence[str], version: int) -> None:
        """Adds dirty entries at this version where there are none."""
        number = _NUMBERS[table]
        with self._writing() as connection, _counting(connection, number, ids):
            connection.executemany(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, 0, 2, NULL)", [(number, i, version) for i in ids]
            )

    def acknowledge(self, copied: Iterable[Copied]) -> None:
        """Marks entries as copied that are dirty at that version; as checked, and added, at the lowest of an epoch."""
        with self._writing() as connection:
            for table, group in groupby(sorted(copied, key=itemgetter(0)), key=itemgetter(0)):
                number, done = _NUMBERS[table], list(group)
                new, old = by_first(done)
                with _counting(connection, number, [one.id for one in done]):
                    connection.executemany(
                        "INSERT INTO entries VALUES (?, ?, ?, ?, 0, ?) ON CONFLICT DO UPDATE SET state = 0, "
                        "deleted = excluded.deleted, hash = excluded.hash "
                        "WHERE version = excluded.version AND state = 2",
                        [(number, one.id, one.version, one.hash is None, one.hash) for one in new],
                    )
                    connection.executemany(
                        "UPDATE entries SET state = 1, deleted = ?, hash = ? "
                        "WHERE tbl = ? AND id = ? AND version = ? AND state = 2",
                        [(one.hash is None, one.hash, number, one.id, one.version) for one in old],
                    )

    def check(self, table: str, versions: Sequence[tuple[str, int]]) -> None:
        """Marks entries as checked that are copied at that version."""
        number = _NUMBERS[table]
        with self._writing() as connection, _counting(connection, number, [row_id for row_id, _ in versions]):
            connection.executemany(
                "UPDATE entries SET state = 0 WHERE tbl = ? AND id = ? AND version = ? AND state = 1",
                [(number, row_id, version) for row_id, version in versions],
            )

    def put(self, entries: Mapping[str, Sequence[tuple[str, Known]]]) -> None:
        """Writes entries over what is there, some hundred at a time: others' changes come between."""
        for table, found in entries.items():
            for first in range(0, len(found), _WRITTEN_ROWS):
                some = found[first : first + _WRITTEN_ROWS]
                ids = [row_id for row_id, _ in some]
                number = _NUMBERS[table]
                with self._writing() as connection, _counting(connection, number, ids):
                    connection.executemany(
                        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
                        [(number, row_id, *known) for row_id, known in some],
                    )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._translated():
            lock = FileLock(self._lock_path)
            try:
                lock.wait(self._timeout_s)
                if self._writer is None:
                    self._writer = self._connect()
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.commit()
                except BaseException:
                    self._writer.rollback()
                    raise
            finally:
                lock.close()

    # -- connections

    def _read(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = self._connect()
        return self._reader

    def _connect(self) -> sqlite3.Connection:
        # Never made here: a file that is not there belongs to a move that has ended.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise DalTimeoutError(
                f"others changed the move's registry {self.path} for {self._timeout_s} s; retry",
                operation="move",
                backend=BACKEND,
            ) from error
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, sqlite3.Error) and is_damage(error):
                raise damaged(self.path) from error
            raise UnavailableError(
                f"the move's registry {self.path} does not answer: {error}; retry", operation="move", backend=BACKEND
            ) from error


def damaged(path: Path) -> CorruptDataError:
    """What to say of a damaged file of a move's state."""
    return CorruptDataError(
        f"{path.parent.name}/{path.name}: the move's state is damaged; restore it from a backup, "
        f"or remove {path.parent} and start the move again",
        operation="open",
        backend=BACKEND,
    )


def _entry(row: tuple[str, int, int, int, int | None]) -> tuple[str, Known]:
    row_id, version, deleted, state, hash_ = row
    return row_id, Known(version, bool(deleted), state, hash_)


def _listed(ids: Iterable[str]) -> str:
    return orjson.dumps(list(ids)).decode()


def _counted(connection: sqlite3.Connection, number: int, ids: Iterable[str]) -> tuple[int, int, int]:
    """How many of these are dirty, copied, and there at all."""
    found: tuple[int, int, int] = connection.execute(
        "SELECT count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 1), count(*) FROM entries "
        "WHERE tbl = ? AND id IN (SELECT value FROM json_each(?))",
        (number, _listed(ids)),
    ).fetchone()
    return found


@contextmanager
def _counting(connection: sqlite3.Connection, number: int, ids: Sequence[str]) -> Iterator[None]:
    """Keeps the counts while these entries change."""
    before = _counted(connection, number, ids)
    yield
    changes = [new - old for old, new in zip(before, _counted(connection, number, ids), strict=True)]
    if any(changes):
        connection.execute(
            "UPDATE counts SET dirty = dirty + ?, copied = copied + ?, entries = entries + ? WHERE tbl = ?",
            (*changes, number),
        )
