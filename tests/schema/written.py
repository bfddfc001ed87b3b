"""Small schemas and sets of migrations for the tests, written where they are needed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from dal.schema import Connection
from dal.schema.connection import EngineName
from dal.schema.files import MigrationSet, read_set
from dal.schema.inspection.objects import Snapshot, snapshot
from dal.schema.statements import split_statements


async def make(connection: Connection, script: str) -> None:
    """Runs a script as one transaction."""
    await connection.run([(statement.sql, ()) for statement in split_statements(script, connection.engine)])


async def made(connection: Connection, script: str) -> Snapshot:
    """What a script gives on an empty database of the same engine."""
    async with connection.scratch() as scratch:
        await make(scratch, script)
        return await snapshot(scratch)


def write_set(directory: Path, engine: EngineName, files: Mapping[str, str]) -> MigrationSet:
    """A set of these files, `rollback/…` and `checks/…` among them, by name."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_set(directory, engine)


def write_past_index(path: Path, index: str, insert: str) -> None:
    """Rows that an index of a SQLite file lacks: nobody knew of it while they were written."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        (entry,) = db.execute("SELECT * FROM sqlite_master WHERE name = ?", (index,)).fetchall()
        db.execute("DELETE FROM sqlite_master WHERE name = ?", (index,))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(insert)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", entry)
