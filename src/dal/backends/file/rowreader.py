"""Rows as a live move asks for them: many at a time, each with what the registry held of it at the same moment.

Documents are in memory. Lines are read in a thread, while others write, and the registry's file is shared: where a
checkpoint has brought files to a later state than this process knew when it began, it looks again, the last time while
no checkpoint is under way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

from dal.backends.file.errors import reading_error
from dal.backends.file.image import Image
from dal.backends.file.index import Place
from dal.backends.file.logrows import KINDS
from dal.backends.file.opened import Opened
from dal.backends.file.registry import STATES
from dal.backends.file.registry_file import Known
from dal.backends.rows import ID, Drop
from dal.errors import CorruptDataError
from dal.ops import Compare, Row, Select
from dal.replica import Entry

_FREE_LOOKS: Final = 2


class RowReader:
    """Reads entries and rows of one open store."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    async def entries(self, table: str, choose: Callable[[Image], Sequence[str]]) -> list[Entry]:
        """The entries of the ids that `choose` names, all as of one moment."""
        opened = self._opened
        try:
            for _ in range(_FREE_LOOKS):
                await opened.catch_up_with_others()
                position = opened.journal.position
                found = await self._entries(table, choose(opened.image))
                if opened.journal.state.horizon <= position:
                    return found
            async with opened.locks.still_files("read", shared=True):
                await opened.follow()
                return await self._entries(table, choose(opened.image))
        except (OSError, sqlite3.Error) as error:
            raise reading_error(opened.layout, "read", error) from error

    async def _entries(self, table: str, wanted: Sequence[str]) -> list[Entry]:
        known = self._opened.image.registry.many(table, wanted)
        rows = await self._rows(table, wanted)
        return [_entry(table, row_id, known.get(row_id), rows.get(row_id)) for row_id in wanted]

    async def _rows(self, table: str, wanted: Sequence[str]) -> dict[str, Row]:
        if not wanted:
            return {}
        query = Select(table, (Compare("id", "in", tuple(wanted)),))
        return {str(row[ID]): row for row in await self._opened.answer(self._opened.image.tables, query)}

    async def present(self, table: str, wanted: Sequence[str]) -> set[str]:
        """Those of these ids that have a row."""
        query = Select(table, (Compare("id", "in", tuple(wanted)),), columns=("id",))
        return {str(row[0]) for row in await self._opened.read(query)}

    async def behind(self, table: str, after: str, limit: int) -> list[str]:
        """The next ids behind this one, by code point; of lines also some whose row is gone."""
        opened = self._opened
        if opened.journal.has_news():
            await opened.follow()
        image = opened.image
        if table not in KINDS:
            return image.documents[table].ids_behind(after)[:limit]
        live, is_hidden = _in_layers(image, table)
        own = sorted(row_id for row_id in live if row_id > after)

        def take() -> list[str]:
            below = (p.id for p in image.index.behind(KINDS[table], after or None) if not is_hidden(p))
            return list(islice(_distinct(merge(below, own)), limit))

        try:
            return await asyncio.to_thread(take)
        except (OSError, sqlite3.Error) as error:
            raise reading_error(opened.layout, "read", error) from error


def is_unreadable(image: Image, entry: Entry) -> bool:
    """Whether the row should be there and is not, and something is damaged; else it went along with a parent."""
    if entry.row is not None or not image.registry.is_captured(entry.table):
        return False
    known = image.registry.get(entry.table, entry.id)
    return known is not None and not known.deleted and bool(image.problems())


def unreadable(image: Image, entry: Entry) -> CorruptDataError:
    """Says which row it is, and what is known to be damaged."""
    problems = "; ".join(image.problems()[:3]) or "see health"
    return CorruptDataError(
        f"{entry.table}: the row {entry.id} cannot be read: {problems}; restore the file from a backup, or remove the "
        "damaged part, and look again",
        operation="read",
        backend="file",
    )


def _entry(table: str, row_id: str, known: Known | None, row: Row | None) -> Entry:
    if known is None:
        return Entry(table, row_id, 0, row)
    return Entry(table, row_id, known.version, None if known.deleted else row, STATES[known.state], known.hash)


def _in_layers(image: Image, table: str) -> tuple[set[str], Callable[[Place], bool]]:
    """Ids of the rows that are not in the files yet, and which places in the files no longer count."""
    live: set[str] = set()
    touched: set[str] = set()
    dropped: set[str] = set()
    for layer in image.layers:
        rows = layer.lines[table]
        for change in rows.changes():
            if isinstance(change, Drop):
                dropped.add(change.parent_id)
                continue
            touched.add(change.id)
            if change.row is None:
                live.discard(change.id)
            else:
                live.add(change.id)
        live -= {row_id for row_id in live if rows.get(row_id) is None} if dropped else set()
    return live, lambda place: place.id in touched or place.place in dropped


def _distinct(items: Iterable[str]) -> Iterator[str]:
    last = ""
    for item in items:
        if item != last:
            yield item
        last = item
