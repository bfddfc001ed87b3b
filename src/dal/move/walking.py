"""Both sides of one table, walked together in the order of ids, a page of each at a time.

What comes out together covers the same range of ids on both sides, so that a row without its like in it is missing on
the other side, as far as two reads can say. Pages are read one after the other: two threads that take rows out of
SQLite at once hand Python's lock to each other for each row, which costs five to ten times what it saves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator
from random import Random
from typing import Final, NamedTuple, cast
from uuid import UUID

from dal.limits import CHECK_PAGE_ROWS
from dal.move.columns import differing_rows
from dal.move.reading import Reader, ids_of
from dal.store import Stored
from dal.tables import Table

#: Rows that lie together in a sample: small, so that many places are looked at.
_SAMPLE_RUN_ROWS: Final = 50


class Pages(NamedTuple):
    """The rows of both sides behind the id `after` and up to the id `last`, as the stores have them."""

    source: Stored
    target: Stored
    after: str
    last: str

    def compare(self, table: Table) -> tuple[int, list[str]]:
        """How many rows are equal, and the ids of those that may differ."""
        ours, theirs, ids = self.source, self.target, ids_of(self.source)
        lone: set[str] = set()
        if ids != (ids_there := ids_of(theirs)):
            lone = set(ids).symmetric_difference(ids_there)
            ours, theirs = _without(ours, lone), _without(theirs, lone)
            ids = ids_of(ours)
        differing = [ids[place] for place in differing_rows(table, ours, theirs)]
        return len(ids) - len(differing), sorted([*lone, *differing])


def _without(page: Stored, ids: set[str]) -> Stored:
    return page._replace(rows=[row for row in page.rows if row[0] not in ids])


async def walk(source: Reader, target: Reader, table: Table, after: str = "") -> AsyncGenerator[Pages, None]:
    """Every row of the table behind the id `after`."""
    ours, theirs = _Cursor(source, table, after), _Cursor(target, table, after)
    while True:
        await ours.fill()
        await theirs.fill()
        last = min((cursor.last for cursor in (ours, theirs) if cursor.last), default="")
        if not last:
            return
        yield Pages(ours.take(last), theirs.take(last), after, last)
        after = last


async def sample(
    source: Reader, target: Reader, table: Table, rows: int, random: Random
) -> AsyncGenerator[Pages, None]:
    """About so many rows of the table, in short runs at random places; all of them where there are no more."""
    last = max(await source.last_id(table), await target.last_id(table))
    if max(await source.count(table), await target.count(table)) <= rows:
        async for pages in walk(source, target, table):
            yield pages
        return
    first = min([*ids_of(await source.page(table, "", 1)), *ids_of(await target.page(table, "", 1))])
    low, high = UUID(first).int, UUID(last).int
    for start in range(0, rows, _SAMPLE_RUN_ROWS):
        limit = min(_SAMPLE_RUN_ROWS, rows - start)
        after = str(UUID(int=max(random.randint(low, high) - 1, 0)))
        ours, theirs = await source.page(table, after, limit), await target.page(table, after, limit)
        # A page that is full says nothing of what lies behind it.
        end = min([_last_of(page) for page in (ours, theirs) if len(page.rows) == limit], default=last)
        yield Pages(_cut(ours, end)[0], _cut(theirs, end)[0], after, end)


def _last_of(page: Stored) -> str:
    return cast(str, page.rows[-1][0]) if page.rows else ""


def _cut(page: Stored, last: str) -> tuple[Stored, Stored]:
    """The page up to that id, and what is behind it."""
    end = bisect_right(ids_of(page), last)
    return page._replace(rows=page.rows[:end]), page._replace(rows=page.rows[end:])


class _Cursor:
    """One side's place in the table.

    last  the last id that was read; empty at the end.
    """

    def __init__(self, reader: Reader, table: Table, after: str) -> None:
        self._reader = reader
        self._table = table
        self._after = after
        self._page = Stored((), {})
        self._is_at_end = False

    @property
    def last(self) -> str:
        return _last_of(self._page)

    async def fill(self) -> None:
        """Takes the next page where the last one is used up. Only a page without rows is the end."""
        if self._page.rows or self._is_at_end:
            return
        self._page = await self._reader.page(self._table, self._after, CHECK_PAGE_ROWS)
        self._after, self._is_at_end = self.last, not self._page.rows

    def take(self, last: str) -> Stored:
        """Takes out the rows up to that id."""
        taken, self._page = _cut(self._page, last)
        return taken
