"""Every row of a store, or some of them, held against what its columns declare and another store can keep.

Foreign writers may have left anything: what the library itself would refuse is found here, named by table, column and
id. Rows are only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

import orjson

from dal.errors import DalError, InvalidInputError, LimitExceededError
from dal.limits import D1_MAX_VALUE_BYTES, PLAN_PAGE_ROWS, PLAN_PAUSE_S, PLAN_SAMPLES
from dal.move.obstacles import Obstacle, ObstacleKind
from dal.move.orphans import Orphans
from dal.move.reading import Reader
from dal.ops import Row, Select, Value
from dal.store import Store
from dal.tables import Kind, Table
from dal.values import check_column

_ROW_BYTES: Final = 120  # ids, times and numbers of a row
#: Stores that keep almost any value.
_LENIENT: Final = frozenset({"sqlite", "file"})


class Reading(NamedTuple):
    """Where a plan is: rows of the table that were read, of how many."""

    table: str
    rows: int
    total: int


OnReading: TypeAlias = Callable[[Reading], None]


class Inspection:
    """Reads tables of one store, for a target of that backend.

    obstacles, notes  what was found; a note is in nobody's way.
    read              rows that were looked at.
    """

    def __init__(self, source: Store, target_backend: str, on_reading: OnReading) -> None:
        self.obstacles: list[Obstacle] = []
        self.notes: list[str] = []
        self.read = 0
        self._source = source
        self._reader = Reader("source", source)
        self._target_backend = target_backend
        self._on_reading = on_reading
        self._orphans = Orphans(self._reader)
        self._found: dict[tuple[str, str], Obstacle] = {}

    async def look(self, table: Table, total: int, sampled: int | None, random: Random) -> int:
        """Every row of the table, or about so many of its `total`; about how many bytes all of them take."""
        places = [""] if sampled is None or total <= sampled else await self._places(table, random)
        read = size = 0
        seen: set[str] = set()
        for place in places:
            left = None if len(places) == 1 else sampled and sampled // len(places)
            after = place
            while left is None or left > 0:
                limit = PLAN_PAGE_ROWS if left is None else min(left, PLAN_PAGE_ROWS)
                rows, last = await self._page(table, after, limit)
                if not last:
                    break
                after = last
                if len(places) > 1:
                    rows = [row for row in rows if row[0] not in seen]
                    seen.update(str(row[0]) for row in rows)
                for row in rows:
                    size += self._inspect(table, row)
                await self._orphans.look(table, rows)
                read += len(rows)
                left = None if left is None else left - limit
                self._on_reading(Reading(table.name, read, max(total, read)))
        self.read += read
        await self._confirm_orphans(table)
        return size if len(places) == 1 or not read else size * total // read

    async def _places(self, table: Table, random: Random) -> list[str]:
        """Ids to begin at; only the beginning, where ids are no UUIDs."""
        try:
            first, last = (UUID(text).int for text in await self._ends(table))
        except ValueError:
            return [""]
        return ["", *[str(UUID(int=random.randint(first, last))) for _ in range(9)]]

    async def _ends(self, table: Table) -> tuple[str, str]:
        first = await self._reader.rows(table, "", 1)
        return (str(first[0][0]) if first else ""), await self._reader.last_id(table)

    async def _page(self, table: Table, after: str, limit: int) -> tuple[list[Row], str]:
        """The next rows and the last id looked at; empty at the end. A row that cannot be read is an obstacle."""
        try:
            rows = await self._reader.rows(table, after, limit)
        except DalError as error:
            if error.retryable:
                raise
            if limit > 1:
                return await self._page(table, after, limit // 2)
            return [], await self._pass_over(table, after)
        return rows, str(rows[-1][0]) if rows else ""

    async def _pass_over(self, table: Table, after: str) -> str:
        """Takes note of the row behind this id, which cannot be read; its id."""
        place = (after,) if after else None
        query = Select(table.name, order=("id",), after=place, limit=1, columns=("id",))
        row_id = "".join(str(row[0]) for row in await self._source.read(query))
        if row_id:
            text = f"{table.name}: rows that cannot be read, for a value is not what it must be"
            self._note(table, row_id, "unreadable", text)
        return row_id

    def _inspect(self, table: Table, row: Row) -> int:
        """About how many bytes the row takes."""
        row_id, size = str(row[0]), _ROW_BYTES
        for column, value in zip(table.columns, row, strict=True):
            try:
                checked = check_column(table, column.name, value)
            except InvalidInputError as error:
                self._refused(table, row_id, column.name, error)
                continue
            if column.kind in (Kind.ID, Kind.IP) and checked != value:
                text = f"{table.name}.{column.name}: not written as this library writes it, and another store would"
                self._note(table, row_id, "value", text, is_kept=True)
            size += _size(value)
        if self._target_backend == "d1" and size - _ROW_BYTES > D1_MAX_VALUE_BYTES:
            text = f"{table.name}: rows of more than {D1_MAX_VALUE_BYTES:,} bytes, which D1 does not take"
            self._note(table, row_id, "too_large", text)
        return size

    def _refused(self, table: Table, row_id: str, column: str, error: InvalidInputError) -> None:
        """A value that the library would not take from anybody."""
        what = "text or a document that is too long" if isinstance(error, LimitExceededError) else _what(error.message)
        if what in _LENGTHS and self._target_backend != "postgresql":
            note = f"{table.name}.{column}: there is {what}; {self._target_backend} keeps it all the same"
            if note not in self.notes:
                self.notes.append(note)
            return
        text = f"{table.name}.{column}: {what}, which {self._target_backend} may not keep"
        self._note(table, row_id, "value", text, is_kept=what == _NUL)

    def _note(self, table: Table, row_id: str, kind: ObstacleKind, text: str, *, is_kept: bool = False) -> None:
        found = self._found.get((kind, text))
        if found is None:
            found = self._found[kind, text] = Obstacle(kind, text, table.name)
            found.is_kept = is_kept and self._target_backend in _LENIENT
            self.obstacles.append(found)
        found.rows += 1
        if len(found.samples) < PLAN_SAMPLES:
            found.samples.append(row_id)

    async def _confirm_orphans(self, table: Table) -> None:
        """Rows whose parent is still missing when they are asked for again: a chat that is being made is none."""
        if not self._orphans.any:
            return
        await asyncio.sleep(PLAN_PAUSE_S)
        for difference in await self._orphans.confirmed(table):
            column = difference.fields[0]
            parent = table.parent_of[column].table
            text = f"{table.name}.{column}: rows that refer to {parent} which are not there"
            self._note(table, difference.id, "orphan", text)


_NUL: Final = "text with U+0000"
_TOO_SHORT: Final = "text that is too short"
_LENGTHS: Final = frozenset({"text or a document that is too long", _TOO_SHORT})


def _what(message: str) -> str:
    """What is wrong with a value: what dal.values says of it, without its place and its numbers."""
    for sign, what in (
        ("U+0000", _NUL),
        ("lone surrogate", "text with lone surrogates"),
        ("signed 64 bits", "numbers outside 64 bits"),
        ("allowed are", "numbers out of the column's range"),
        ("at least", _TOO_SHORT),
        ("found None", "null where there must be a value"),
    ):
        if sign in message:
            return what
    return "not what the column is declared to hold"


def _size(value: Value) -> int:
    if type(value) is str:
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if type(value) is dict or type(value) is list:
        try:
            return len(orjson.dumps(value))
        except TypeError:
            return len(str(value))
    return 0
