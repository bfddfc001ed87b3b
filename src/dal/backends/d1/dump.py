"""Backups of a D1 database: a SQLite file with the same tables and rows, and the way back.

D1 copies nothing by itself where there are virtual tables, so rows are read in pages and written into the file. Several
requests see several moments: when all is copied, the digests of the database are compared with those of the file, and
what differs is copied again. Once they are equal, the file is what the database was between copying and comparing.

Values travel as texts that say their type, since JSON rounds integers, forgets 1.0 and has no blobs.
"""

# ruff: noqa: S608  (names are quoted, values are parameters)
from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import orjson

from dal.backends.d1.errors import BACKEND
from dal.backends.d1.objects import DbObject, DbTable, in_order_of_parents, objects_of, quote, tables_of
from dal.backends.d1.wire import Entry, body_of
from dal.errors import CorruptDataError, LimitExceededError, UnavailableError
from dal.limits import D1_MAX_REQUEST_BYTES, D1_PART_BYTES
from dal.schema.backups.digest import content_digests
from dal.schema.backups.new_file import make, settle, unwritable
from dal.schema.connection import EngineName, Reader, Run

_PAGE_ROWS: Final = 1000
_PAGE_BYTES: Final = 4 * 1024 * 1024
#: How often what changed meanwhile is copied again.
_ROUNDS: Final = 4


class D1(Protocol):
    """What is needed of a connection."""

    @property
    def engine(self) -> EngineName: ...

    @property
    def address(self) -> str: ...

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]: ...

    async def run(self, statements: Sequence[Run], *, foreign_keys: bool = True) -> None: ...


async def dump(connection: D1, path: Path, *, look: Callable[[Reader], Awaitable[None]] | None = None) -> None:
    """Copies the database into a new SQLite file of mode 0600. `look` is called with a Reader of the file.

    Raises  UnavailableError: it was written to all the time, or there is no room.
    """
    make(path, backend=BACKEND)
    try:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as file:
            file.execute("PRAGMA synchronous = OFF")
            await _copy(connection, file)
            if look is not None:
                await look(_FileReader(file, connection.address))
        await asyncio.to_thread(settle, path, backend=BACKEND)
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError | sqlite3.OperationalError):
            raise unwritable(path, error, backend=BACKEND) from error
        raise


async def _copy(connection: D1, file: sqlite3.Connection) -> None:
    reader = _FileReader(file, connection.address)
    for _ in range(_ROUNDS):
        objects = await objects_of(connection)
        if objects != await objects_of(reader):
            _make_objects(file, objects)
            wanted = None
        else:
            theirs, ours = await content_digests(connection), await content_digests(reader)
            wanted = {name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)}
            if not wanted:
                return
        for table in await tables_of(connection):
            if wanted is None or table.name in wanted:
                file.execute(f"DELETE FROM {quote(table.name)}")
                await _copy_rows(connection, file, table)
    raise UnavailableError(
        f"{connection.address}: was written to each time it was copied; back it up when the application is quieter, "
        "or rely on Time Travel",
        operation="backup",
        backend=BACKEND,
    )


def _make_objects(file: sqlite3.Connection, objects: Sequence[DbObject]) -> None:
    """Makes the file anew: the database's objects, without triggers' effects on the rows to come."""
    file.execute("PRAGMA foreign_keys = OFF")
    file.execute("PRAGMA writable_schema = RESET")
    for kind, name in file.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table')").fetchall():
        if file.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() and name != "sqlite_sequence":
            file.execute(f"DROP {kind} {quote(name)}")
    for one in objects:
        file.execute(one.sql)


class _Page(NamedTuple):
    rows: list[tuple[object, ...]]
    is_last: bool


async def _copy_rows(connection: D1, file: sqlite3.Connection, table: DbTable) -> None:
    triggers = [sql for (sql,) in file.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    names = ", ".join(map(quote, table.stored))
    marks = ", ".join("?" * len(table.stored))
    seen = 0
    # A trigger of the copy must not do again what it has done in the database.
    for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        file.execute(f"DROP TRIGGER {quote(name)}")
    try:
        while True:
            page = await _page(connection, table, seen)
            await asyncio.to_thread(
                _write, file, f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})", page.rows
            )
            seen += len(page.rows)
            if page.is_last:
                return
    finally:
        for sql in triggers:
            file.execute(sql)


def _write(file: sqlite3.Connection, sql: str, rows: Sequence[Sequence[object]]) -> None:
    file.execute("BEGIN")
    file.executemany(sql, [[_value(value) for value in row] for row in rows])
    file.execute("COMMIT")


async def _page(connection: D1, table: DbTable, seen: int) -> _Page:
    columns = [quote(column) for column in table.stored]
    order = f" ORDER BY {', '.join(table.order)}" if table.order else ""
    chosen = f"FROM {quote(table.name)}{order} LIMIT {_PAGE_ROWS} OFFSET {seen}"
    size = " + ".join(f"ifnull(length(CAST({column} AS BLOB)), 0)" for column in columns)
    ((fitting, found),) = await connection.fetch(
        f"SELECT count(*) FILTER (WHERE total <= {_PAGE_BYTES}), count(*) FROM (SELECT sum(size) OVER "
        f"(ROWS UNBOUNDED PRECEDING) AS total FROM (SELECT {size} AS size {chosen}))"
    )
    count = max(int(str(fitting)), 1)
    values = ", ".join(map(_tagged, columns))
    rows = await connection.fetch(f"SELECT {values} FROM {quote(table.name)}{order} LIMIT {count} OFFSET {seen}")
    return _Page(list(rows), int(str(found)) < _PAGE_ROWS and len(rows) >= int(str(found)))


def _tagged(column: str) -> str:
    """A value as text: its type's letter, then itself."""
    return (
        f"CASE typeof({column}) WHEN 'integer' THEN 'i' || {column} WHEN 'real' THEN 'r' || printf('%!.17g', {column}) "
        f"WHEN 'blob' THEN 'b' || hex({column}) WHEN 'text' THEN CASE WHEN instr({column}, char(0)) "
        f"THEN 'x' || hex({column}) ELSE 't' || {column} END END"
    )


#: The way back: SQL over one element of a JSON array.
_UNTAGGED: Final = (
    "CASE substr({0}, 1, 1) WHEN 'i' THEN CAST(substr({0}, 2) AS INTEGER) WHEN 'r' THEN CASE substr({0}, 2) "
    "WHEN 'Inf' THEN 9e999 WHEN '-Inf' THEN -9e999 ELSE CAST(substr({0}, 2) AS REAL) END "
    "WHEN 'b' THEN unhex(substr({0}, 2)) WHEN 'x' THEN CAST(unhex(substr({0}, 2)) AS TEXT) "
    "WHEN 't' THEN substr({0}, 2) END"
)


def _value(tagged: object) -> object:
    if tagged is None:
        return None
    kind, rest = str(tagged)[0], str(tagged)[1:]
    match kind:
        case "i":
            return int(rest)
        case "r":
            return float(rest)
        case "b":
            return bytes.fromhex(rest)
        case "x":
            return bytes.fromhex(rest).decode("utf-8", "surrogateescape")
    return rest


def _tag(kind: object, value: object) -> str | None:
    """The value as `_UNTAGGED` takes it. Python writes a float with all its digits, which an older SQLite does not."""
    if isinstance(value, bytes):
        return ("b" if kind == "blob" else "x") + value.hex()
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return f"t{value}"
        data = value.encode("utf-8", "surrogateescape")
        return f"x{data.hex()}" if "\0" in value or data != value.encode("utf-8", "replace") else f"t{value}"
    if isinstance(value, float):
        return f"r{str(value).replace('inf', 'Inf')}"
    return None if value is None else f"i{value}"


class _FileReader:
    """The copy as `dal.schema` reads a database, in D1's way."""

    engine: EngineName = "sqlite"

    def __init__(self, file: sqlite3.Connection, address: str) -> None:
        self._file = file
        self.address = address

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        return await asyncio.to_thread(lambda: self._file.execute(sql, params).fetchall())


# The way back ---------------------------------------------------------------------------------------------------------


async def load(connection: D1, path: Path) -> None:
    """Makes the database what the file holds: in one batch, where it fits into one request; else in several, and a
    failure in between leaves a part, which loading again completes.

    Raises CorruptDataError: the file is no SQLite database.
    """
    try:
        with closing(sqlite3.connect(_read_only(path), uri=True, check_same_thread=False)) as file:
            file.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            reader = _FileReader(file, connection.address)
            objects = await objects_of(reader)
            tables = in_order_of_parents(await tables_of(reader))
            gone = await _clearing(connection)
            rows = [(table, entry) for table in tables for entry in _rows(file, table)]
    except sqlite3.DatabaseError as error:
        raise CorruptDataError(f"{path} is no SQLite database that can be read", operation="restore") from error
    first = [*gone, *(one.sql for one in objects if one.kind == "table")]
    last = [one.sql for one in objects if one.kind != "table"]
    batch: list[Entry] = [*map(_plain, first), *(entry for _, entry in rows), *map(_plain, last)]
    for part in _parts(batch):
        await connection.run([(entry.sql, entry.params) for entry in part], foreign_keys=True)


async def _clearing(connection: D1) -> list[str]:
    """Statements that take away what is there, children before parents."""
    objects = await objects_of(connection)
    found = ["PRAGMA defer_foreign_keys = on"]
    found += [f"DROP {one.kind.upper()} {quote(one.name)}" for one in objects if one.kind in ("trigger", "view")]
    tables = in_order_of_parents(await tables_of(connection))
    found += [f"DROP TABLE {quote(table.name)}" for table in reversed(tables) if table.name != "sqlite_sequence"]
    return found


def _rows(file: sqlite3.Connection, table: DbTable) -> Iterator[Entry]:
    """Statements that insert the rows of the table."""
    names = ", ".join(map(quote, table.stored))
    values = ", ".join(_UNTAGGED.format(f"(given.value ->> {place})") for place in range(len(table.stored)))
    insert = f"INSERT INTO {quote(table.name)} ({names}) SELECT {values} FROM json_each(?1) AS given WHERE true"
    if table.name == "sqlite_sequence":
        yield _plain("DELETE FROM sqlite_sequence")
    order = f" ORDER BY {', '.join(table.order)}" if table.order else ""
    columns = ", ".join(f"typeof({quote(column)}), {quote(column)}" for column in table.stored)
    part: list[bytes] = []
    size_bytes = 0
    for row in file.execute(f"SELECT {columns} FROM {quote(table.name)}{order}"):
        data = orjson.dumps([_tag(row[place], row[place + 1]) for place in range(0, len(row), 2)])
        if part and size_bytes + len(data) > D1_PART_BYTES:
            yield Entry(insert, (f"[{b','.join(part).decode()}]",))
            part, size_bytes = [], 0
        part.append(data)
        size_bytes += len(data) + 1
    if part:
        yield Entry(insert, (f"[{b','.join(part).decode()}]",))


def _parts(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size_bytes = 0
    for entry in entries:
        size = len(body_of([entry]))
        if size > D1_MAX_REQUEST_BYTES:
            raise LimitExceededError(f"a row of {size} bytes does not fit into a request", operation="restore")
        if part and size_bytes + size > D1_MAX_REQUEST_BYTES * 9 // 10:
            yield part
            part, size_bytes = [], 0
        part.append(entry)
        size_bytes += size
    if part:
        yield part


def _plain(sql: str) -> Entry:
    return Entry(sql, ())


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"
