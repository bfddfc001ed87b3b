"""Rows that refer to a parent which their own store has not: they cannot be copied where references are enforced.

Engines refuse them, unless somebody wrote with the checks off. Each store is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple, cast

from dal.limits import CHECK_KNOWN_PARENTS, CHECK_PAGE_ROWS
from dal.move.differences import Difference
from dal.move.reading import Reader
from dal.tables import CHILDREN, TABLES, Table


class _Orphan(NamedTuple):
    id: str
    column: str
    parent_id: str


class Orphans:
    """Looks for orphans in one side, page by page; those found are looked at again before they count."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[str, set[str]] = {name: set() for name in TABLES}
        self._suspects: list[_Orphan] = []

    async def look(self, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
        """Takes note of the rows, as possible parents and as children. Of their values, ids alone are looked at."""
        if CHILDREN[table.name]:
            self._remember(table.name, {str(row[0]) for row in rows})
        for parent in table.parents:
            place = table.names.index(parent.column)
            wanted = cast("set[str]", set(map(itemgetter(place), rows)) - self._known[parent.table] - {None})
            if not wanted:
                continue
            found = await self._reader.present(TABLES[parent.table], sorted(wanted))
            self._remember(parent.table, found)
            missing = wanted - found
            self._suspects += [
                _Orphan(str(row[0]), parent.column, str(row[place])) for row in rows if row[place] in missing
            ]

    def _remember(self, table: str, ids: set[str]) -> None:
        known = self._known[table]
        if len(known) + len(ids) > CHECK_KNOWN_PARENTS:
            known.clear()
        known |= ids

    @property
    def any(self) -> bool:
        """Whether rows wait to be looked at again."""
        return bool(self._suspects)

    async def confirmed(self, table: Table) -> list[Difference]:
        """Those that still refer to the same parent and still have none; to be asked a while after they were seen."""
        suspects, self._suspects = self._suspects, []
        differences: list[Difference] = []
        for start in range(0, len(suspects), CHECK_PAGE_ROWS):
            differences += await self._still(table, suspects[start : start + CHECK_PAGE_ROWS])
        return differences

    async def _still(self, table: Table, suspects: list[_Orphan]) -> list[Difference]:
        rows = await self._reader.look(table, sorted({suspect.id for suspect in suspects}))
        there = {
            parent.column: await self._reader.present(
                TABLES[parent.table], sorted({s.parent_id for s in suspects if s.column == parent.column})
            )
            for parent in table.parents
        }
        side = self._reader.side
        found: list[Difference] = []
        for row_id, column, parent_id in suspects:
            entry = rows[row_id]
            refers = entry.row is not None and entry.row[table.names.index(column)] == parent_id
            if refers and parent_id not in there[column]:
                ours, theirs = (entry, None) if side == "source" else (None, entry)
                found.append(Difference("orphan", table.name, row_id, side, (column,), (), ours, theirs))
        return found
