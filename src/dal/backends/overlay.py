"""Rows as they will be: changes that nobody else sees yet, over other rows.

A batch works on an overlay of each table, a transaction on overlays that its batches are made permanent in, and the
file store keeps what is not in its line files yet in layers of them. What happened in an overlay comes back as a list
of changes, which can be made in the rows below, or be written down and repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge
from itertools import chain
from typing import Any

from dal.backends.rows import ID, Change, Drop, MemoryRows, Numbered, Rows, Scan, Stored, positions
from dal.ops import Compare, Value


class Overlay:
    """Other rows as they will be: what was put, removed or dropped here hides what is below."""

    def __init__(self, below: Rows) -> None:
        self.table = below.table
        self._below = below
        self._own = MemoryRows(below.table)
        self._touched: dict[str, None] = {}
        self._dropped: dict[tuple[str, str], int] = {}  # (column, parent) -> place of the column

    def _hides(self, row: Stored) -> bool:
        if row[ID] in self._touched:
            return True
        return any(row[place] == parent_id for (_, parent_id), place in self._dropped.items())

    def _hiding(self) -> Callable[[Stored], bool]:
        """`_hides` as it is now, whatever happens here later."""
        touched, dropped = set(self._touched), [(place, key[1]) for key, place in self._dropped.items()]
        return lambda row: row[ID] in touched or any(row[place] == parent_id for place, parent_id in dropped)

    def get(self, row_id: Value) -> Stored | None:
        row = self._own.get(row_id)
        if row is not None or row_id in self._touched:
            return row
        row = self._below.get(row_id)
        return None if row is None or (self._dropped and self._hides(row)) else row

    def find(self, key: tuple[str, ...], values: tuple[Value, ...]) -> Stored | None:
        if self._touched and (row := self._own.find(key, values)) is not None:
            return row
        row = self._below.find(key, values)
        return None if row is None or self._hides(row) else row

    def scan(self, plan: Scan) -> tuple[Iterable[Stored], bool]:
        below, ordered = self._below.scan(plan)
        if not self._touched and not self._dropped:
            return below, ordered
        numbered = None if plan.detached else self._own.numbered(plan)
        if numbered is not None:
            return self._around(numbered, plan), True
        own, own_ordered = self._own.scan(plan)
        hides: Callable[[Stored], bool] = self._hides
        if plan.detached:
            own, hides = list(own), self._hiding()
        visible = (row for row in below if not hides(row))
        own = iter(own)
        first = next(own, None)
        if first is None:
            return visible, ordered
        own = chain((first,), own)
        if ordered and plan.order:
            places = [positions(self.table)[column.lstrip("-")] for column in plan.order]
            descending = {column[0] == "-" for column in plan.order}
            if len(descending) == 1:
                is_descending = descending.pop()

                def key(row: Stored) -> list[Any]:
                    return [row[place] for place in places]

                if not own_ordered:
                    own = sorted(own, key=key, reverse=is_descending)
                return merge(visible, own, key=key, reverse=is_descending), True
        return chain(visible, own), False

    def _around(self, own: Numbered, plan: Scan) -> Iterator[Stored]:
        """Own rows of one parent, and between their numbers those below.

        What is below under a number that is taken here is hidden by it: it is passed over unread, however much it is.
        """
        column = own.unique.key[-1]
        behind = plan
        ahead, away = (">", "<") if own.is_descending else ("<", ">")
        for first, end in own.runs():
            near, far = (end - 1, first) if own.is_descending else (first, end - 1)
            gap = behind._replace(where=(*behind.where, Compare(column, ahead, own.order[near])))  # type: ignore[arg-type]
            yield from (row for row in self._below.scan(gap)[0] if not self._hides(row))
            yield from own.run(first, end)
            behind = plan._replace(where=(*plan.where, Compare(column, away, own.order[far])))  # type: ignore[arg-type]
        yield from (row for row in self._below.scan(behind)[0] if not self._hides(row))

    def put(self, row: Stored) -> None:
        self._touched[row[ID]] = None
        self._own.put(row)

    def remove(self, row_id: str) -> None:
        self._touched[row_id] = None
        self._own.remove(row_id)

    def drop(self, column: str, parent_id: str) -> None:
        self._own.drop(column, parent_id)
        self._dropped[column, parent_id] = positions(self.table)[column]

    def rest_on(self, below: Rows) -> None:
        """Shows other rows below: those it rested on, with what lay between made permanent there."""
        self._below = below

    def changes(self) -> Iterator[Change | Drop]:
        """What happened here, drops first: in this order it can be repeated on the rows below."""
        for column, parent_id in self._dropped:
            yield Drop(self.table.name, column, parent_id)
        for row_id in self._touched:
            yield Change(self.table.name, row_id, self._own.get(row_id))


def carry_out(tables: Mapping[str, Rows], changes: Iterable[Change | Drop]) -> None:
    """Makes changes that an overlay collected in the rows below it (or in a copy of them)."""
    for change in changes:
        rows = tables[change.table]
        if isinstance(change, Drop):
            rows.drop(change.column, change.parent_id)
        elif change.row is None:
            rows.remove(change.id)
        else:
            rows.put(change.row)
