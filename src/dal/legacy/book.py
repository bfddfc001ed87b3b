"""What is known of the files: how each one looked when it was last taken in, and which chats and users are its.

A file of its own beside the image. It runs ahead of the image on purpose: a file's chats are noted before they are
written, and its state after that, so that a crash in between makes the file be looked at again and loses no trace of
what came from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from dal.legacy.directories import FileState

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, digest BLOB
);
CREATE TABLE IF NOT EXISTS owners (unit TEXT, key TEXT, path TEXT NOT NULL, PRIMARY KEY (unit, key));
CREATE INDEX IF NOT EXISTS idx_owners_path ON owners(path);
"""


class Known(NamedTuple):
    """A file as it was when it was taken in. digest: of its content; None where its chats were noted only."""

    state: FileState
    digest: bytes | None


_NOTED: Final = FileState(-1, 0, 0, 0)


class Book:
    """The open book. Its methods block; one thread at a time uses it."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        self._database.close()

    def known(self) -> dict[str, Known]:
        rows = self._database.execute("SELECT path, size, mtime_ns, ctime_ns, inode, digest FROM files")
        return {str(path): Known(FileState(*state), digest) for path, *state, digest in rows}

    def keys_of(self, path: str) -> set[str]:
        with closing(self._database.execute("SELECT key FROM owners WHERE path = ?", (path,))) as rows:
            return {str(key) for (key,) in rows}

    def claim(self, unit: str, path: str, keys: Iterable[str]) -> str | None:
        """Notes that these are the file's; the path of another file that has one of them, and nothing is noted."""
        wanted = list(keys)
        for key in wanted:
            row = self._database.execute("SELECT path FROM owners WHERE unit = ? AND key = ?", (unit, key)).fetchone()
            if row is not None and row[0] != path:
                return str(row[0])
        with self._database:
            self._database.execute("BEGIN")
            self._database.execute(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT (path) DO NOTHING", (path, *_NOTED)
            )
            self._database.executemany(
                "INSERT INTO owners VALUES (?, ?, ?) ON CONFLICT (unit, key) DO NOTHING",
                [(unit, key, path) for key in wanted],
            )
        return None

    def settle(self, path: str, known: Known | None, released: Iterable[str]) -> None:
        """Keeps what a file looks like now; None where it is gone. released: what it does not hold any more."""
        with self._database:
            self._database.execute("BEGIN")
            self._database.executemany(
                "DELETE FROM owners WHERE path = ? AND key = ?", [(path, key) for key in released]
            )
            if known is None:
                self._database.execute("DELETE FROM files WHERE path = ?", (path,))
            else:
                self._database.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", (path, *known.state, known.digest)
                )

    def remember(self, states: Mapping[str, Known]) -> None:
        """Keeps the states of files that hold what they held."""
        with self._database:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                [(path, *known.state, known.digest) for path, known in states.items()],
            )
