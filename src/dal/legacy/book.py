"""What is known of the files: how each one looked when it was last taken in, and which chats and users are its.

A file of its own beside the image. It runs ahead of the image on purpose: a file's chats are noted before they are
written, and its state after that, so that a crash in between makes the file be looked at again and loses no trace of
what came from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence, Set
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


_REPLACE: Final = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)"


class Known(NamedTuple):
    """A file as it was when it was taken in. digest: of its content; None where its chats were noted only."""

    state: FileState
    digest: bytes | None


class Claim(NamedTuple):
    """The chats or users that a file of this unit holds."""

    unit: str
    path: str
    keys: Set[str]


class Claimed(NamedTuple):
    """What became of a claim. released: what the file held before. holder: another file that has one of the keys; then
    nothing was noted."""

    released: set[str]
    holder: str | None


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

    def claim(self, wanted: Sequence[Claim]) -> list[Claimed]:
        """Notes, in one transaction, what these files hold; for each of them what became of it, in their order."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            return [self._claim(claim) for claim in wanted]

    def _claim(self, claim: Claim) -> Claimed:
        before = self._database.execute("SELECT key FROM owners WHERE path = ?", (claim.path,)).fetchall()
        held = {str(key) for (key,) in before}
        for key in claim.keys - held:
            row = self._database.execute(
                "SELECT path FROM owners WHERE unit = ? AND key = ?", (claim.unit, key)
            ).fetchone()
            if row is not None:
                return Claimed(set(), str(row[0]))
        self._database.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT (path) DO NOTHING", (claim.path, *_NOTED)
        )
        self._database.executemany(
            "INSERT INTO owners VALUES (?, ?, ?)", [(claim.unit, key, claim.path) for key in sorted(claim.keys - held)]
        )
        return Claimed(held - claim.keys, None)

    def settle(self, taken_in: Iterable[tuple[str, Known | None, Iterable[str]]]) -> None:
        """Keeps what files look like that were taken in: None where one is gone, and the keys it does not hold now."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for path, known, released in taken_in:
                self._database.executemany(
                    "DELETE FROM owners WHERE path = ? AND key = ?", [(path, key) for key in released]
                )
                if known is None:
                    self._database.execute("DELETE FROM files WHERE path = ?", (path,))
                else:
                    self._database.execute(_REPLACE, (path, *known.state, known.digest))

    def remember(self, states: Mapping[str, Known]) -> None:
        """Keeps the states of files that hold what they held."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_REPLACE, [(path, *known.state, known.digest) for path, known in states.items()])
