"""Both sides of one table, walked together in the order of ids, a page of each at a time.

The next pages are read while the last ones are compared. What comes out together covers the same range of ids on both
sides, so that a row without its like in it is missing on the other side, as far as two reads can say.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from operator import attrgetter
from random import Random
from typing import Final, NamedTuple, cast
from uuid import UUID

from dal.limits import CHECK_PAGE_ROWS
from dal.move.canonical import same_rows
from dal.move.reading import Reader
from dal.ops import Row
from dal.replica import Entry
from dal.tables import Table

#: Rows that lie together in a sample: small, so that many places are looked at.
_SAMPLE_RUN_ROWS: Final = 50


class Pages(NamedTuple):
    """The entries of both sides behind the last place and up to the id `last`."""

    source: list[Entry]
    target: list[Entry]
    last: str

    def are_alike(self, table: Table) -> bool:
        """Whether both sides hold the same rows, with the same content. False says nothing where there are
        tombstones."""
        ours, theirs = ([entry.row for entry in entries] for entries in (self.source, self.target))
        return len(ours) == len(theirs) and None not in ours and None not in theirs and _same(table, ours, theirs)

    def pairs(self, table: Table) -> list[tuple[Entry, Entry]]:
        """Each id with what either side has of it."""
        if [entry.id for entry in self.source] == [entry.id for entry in self.target]:
            return list(zip(self.source, self.target, strict=True))
        theirs = {entry.id: entry for entry in self.target}
        pairs: list[tuple[Entry, Entry]] = []
        for entry in self.source:
            other = theirs.pop(entry.id, None)
            pairs.append((entry, Entry(table.name, entry.id, 0, None) if other is None else other))
        pairs += [(Entry(table.name, row_id, 0, None), entry) for row_id, entry in theirs.items()]
        return pairs


def _same(table: Table, ours: Sequence[Row | None], theirs: Sequence[Row | None]) -> bool:
    return same_rows(table, cast("Sequence[Row]", ours), cast("Sequence[Row]", theirs))


async def walk(source: Reader, target: Reader, table: Table, after: str = "") -> AsyncGenerator[Pages, None]:
    """Every row of the table behind the id `after`."""
    ours, theirs = _Cursor(source, table, after), _Cursor(target, table, after)
    try:
        while True:
            await ours.fill()
            await theirs.fill()
            last = min((cursor.entries[-1].id for cursor in (ours, theirs) if cursor.entries), default=None)
            if last is None:
                return
            yield Pages(ours.take(last), theirs.take(last), last)
    finally:
        await ours.close()
        await theirs.close()


async def sample(
    source: Reader, target: Reader, table: Table, rows: int, random: Random
) -> AsyncGenerator[Pages, None]:
    """About so many rows of the table, in short runs at random places; all of them where there are no more."""
    last = max(await source.last_id(table), await target.last_id(table))
    if max(await source.count(table), await target.count(table)) <= rows:
        async for pages in walk(source, target, table):
            yield pages
        return
    first = min(entry.id for entry in [*await source.page(table, "", 1), *await target.page(table, "", 1)])
    low, high = UUID(first).int, UUID(last).int
    for start in range(0, rows, _SAMPLE_RUN_ROWS):
        limit = min(_SAMPLE_RUN_ROWS, rows - start)
        after = str(UUID(int=max(random.randint(low, high) - 1, 0)))
        ours, theirs = await source.page(table, after, limit), await target.page(table, after, limit)
        # A page that is full says nothing of what lies behind it.
        ends = [page[-1].id for page in (ours, theirs) if len(page) == limit]
        end = min(ends, default=last)
        yield Pages([e for e in ours if e.id <= end], [e for e in theirs if e.id <= end], end)


class _Cursor:
    """One side's place in the table, and the read that is under way behind it."""

    def __init__(self, reader: Reader, table: Table, after: str) -> None:
        self._reader = reader
        self._table = table
        self._coming: asyncio.Task[list[Entry]] | None = self._ask(after)
        self.entries: list[Entry] = []

    def _ask(self, after: str) -> asyncio.Task[list[Entry]]:
        return asyncio.create_task(self._reader.page(self._table, after, CHECK_PAGE_ROWS))

    async def fill(self) -> None:
        """Takes the next page where the last one is used up. Only a page without rows is the end."""
        if self.entries or self._coming is None:
            return
        self.entries = await self._coming
        self._coming = self._ask(self.entries[-1].id) if self.entries else None

    def take(self, last: str) -> list[Entry]:
        """Takes out the entries up to that id."""
        end = bisect_right(self.entries, last, key=attrgetter("id"))
        taken, self.entries = self.entries[:end], self.entries[end:]
        return taken

    async def close(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])
            if not self._coming.cancelled():
                self._coming.exception()  # nobody waits for this page any more, whatever it met
