"""Rows of one table with the access paths the interpreter needs, and the rows of one table in memory.

A stored row is a tuple in the table's declared order whose JSON documents are encoded: nobody can change a stored value
through a reference, on the way in or out. `MemoryRows` keeps every declared unique key and every foreign key indexed,
and checks nothing: what may be written is the interpreter's business.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast

import orjson

from dal.ops import Compare, Row, Value
from dal.tables import Kind, Table

if TYPE_CHECKING:
    from dal.search import SearchQuery

#: A row in declared order, JSON documents as UTF-8 JSON. `id` is the first column of every table.
Stored: TypeAlias = tuple[Any, ...]
ID = 0


class Scan(NamedTuple):
    """What a reader is after: `scan` may use any of it to return fewer rows, and must return all that match.

    where   conditions on the table's own columns, Refs already resolved.
    order   the order the rows are wanted in; a scan that delivers it says so, and is then read no further than needed.
    after   keyset place in that order.
    search  the query that the table's search column must match.
    detached  the rows are read in another thread, while those in memory may change.
    """

    where: tuple[Compare, ...] = ()
    order: tuple[str, ...] = ()
    after: tuple[Value, ...] | None = None
    search: SearchQuery | None = None
    detached: bool = False

    def equal(self) -> dict[str, Value]:
        """Columns that must hold one certain value other than null."""
        return {c.column: cast(Value, c.value) for c in self.where if c.op == "=" and c.value is not None}


class Change(NamedTuple):
    """A row as it is after a batch; None where it is gone."""

    table: str
    id: str
    row: Stored | None


class Drop(NamedTuple):
    """Every row of the table whose `column` points to this parent is gone."""

    table: str
    column: str
    parent_id: str


class Rows(Protocol):
    """One table's rows, by every path that a write or a frequent read takes."""

    @property
    def table(self) -> Table: ...

    def get(self, row_id: Value) -> Stored | None:
        """The row with this id."""
        ...

    def find(self, key: tuple[str, ...], values: tuple[Value, ...]) -> Stored | None:
        """The row that holds these values, none of them null, in a declared unique key."""
        ...

    def scan(self, plan: Scan) -> tuple[Iterable[Stored], bool]:
        """A superset of the rows that match, and whether they come in the order of the plan, behind its `after`."""
        ...

    def put(self, row: Stored) -> None:
        """Adds the row, or replaces the one with its id."""
        ...

    def remove(self, row_id: str) -> None:
        """Takes the row out, where it is there."""
        ...

    def drop(self, column: str, parent_id: str) -> None:
        """Takes out every row whose foreign key `column` holds this parent."""
        ...


def encode(table: Table, row: Mapping[str, Value]) -> Stored:
    """The stored form of a whole row. A missing or unknown column is a ValueError or KeyError."""
    if len(row) != len(table.columns):
        raise ValueError(f"{table.name}: a row names every column: {', '.join(table.names)}")
    values: list[Any] = [row[name] for name in table.names]
    for place in json_positions(table):
        values[place] = document_of(values[place])
    return tuple(values)


def document_of(value: object) -> bytes:
    """The stored form of a JSON document. A copy: what orjson gives takes a kilobyte at least, however short it is."""
    return bytes(memoryview(orjson.dumps(value)))


def decode(table: Table, stored: Stored) -> Row:
    """The row as readers get it: JSON documents as fresh Python values."""
    values = list(stored)
    for position in json_positions(table):
        values[position] = orjson.loads(values[position])
    return tuple(values)


@cache
def json_positions(table: Table) -> tuple[int, ...]:
    """Places of the JSON columns in a row."""
    return tuple(i for i, c in enumerate(table.columns) if c.kind is Kind.JSON)


@cache
def positions(table: Table) -> dict[str, int]:
    """The place of each column in a row."""
    return {name: place for place, name in enumerate(table.names)}


class _Unique:
    """One unique key: ids by its values. Where it is a parent and a number, the number orders the parent's rows."""

    def __init__(self, table: Table, key: tuple[str, ...]) -> None:
        self.key = key
        self.places = tuple(positions(table)[column] for column in key)
        self.ids: dict[tuple[Value, ...], str] = {}
        is_number = table.by_name[key[-1]].kind in (Kind.INT, Kind.BIGINT)
        self.parent = key[0] if len(key) == 2 and key[0] in table.parent_of and is_number else None
        self.orders: dict[Value, list[Any]] = {}  # by parent; made when first asked for, and kept from then on

    def put(self, row: Stored) -> None:
        values = tuple([row[place] for place in self.places])
        if None in values:
            return
        if self.orders and values[0] in self.orders and values not in self.ids:
            insort(self.orders[values[0]], values[1])
        self.ids[values] = row[ID]

    def is_held_by(self, row: Stored) -> bool:
        """Whether the row is found by its values. A journal that is replayed over later rows may have let others in:
        rows that were to go, and took the key with them."""
        values = tuple([row[place] for place in self.places])
        return None in values or self.ids.get(values) == row[ID]

    def remove(self, row: Stored) -> None:
        values = tuple([row[place] for place in self.places])
        if self.ids.get(values) == row[ID]:  # another row may have taken the key over in the same batch
            del self.ids[values]
            order = self.orders.get(values[0])
            if order is not None:
                del order[bisect_left(order, values[1])]
                if not order:
                    del self.orders[values[0]]

    def between(self, order: list[Any], plan: Scan, *, descending: bool) -> tuple[int, int]:
        """Which stretch of an order the plan's bounds let through, as places."""
        column = self.key[-1]
        first, last = 0, len(order)
        bounds = list(plan.where)
        if plan.after is not None:
            bounds.append(Compare(column, "<" if descending else ">", plan.after[0]))
        for condition in bounds:
            if condition.column != column or condition.value is None:
                continue
            if condition.op == ">":
                first = max(first, bisect_right(order, condition.value))
            elif condition.op == ">=":
                first = max(first, bisect_left(order, condition.value))
            elif condition.op == "<":
                last = min(last, bisect_left(order, condition.value))
            elif condition.op == "<=":
                last = min(last, bisect_right(order, condition.value))
        return first, max(first, last)


class Numbered(NamedTuple):
    """Rows of one parent by their numbers: those at the places from `first` to before `end` of the sorted `order`."""

    by_id: Mapping[str, Stored]
    unique: _Unique
    parent_id: Value
    order: list[Any]
    first: int
    end: int
    is_descending: bool

    def rows(self) -> Iterator[Stored]:
        return self.run(self.first, self.end)

    def run(self, first: int, end: int) -> Iterator[Stored]:
        """The rows at these places, in the order asked for."""
        places = range(end - 1, first - 1, -1) if self.is_descending else range(first, end)
        ids, parent_id, order = self.unique.ids, self.parent_id, self.order
        return (self.by_id[ids[parent_id, order[place]]] for place in places)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Stretches of numbers without a gap, each by its first place and the one behind it; in the order asked for."""
        low, high = self.first, self.end
        while low < high:
            if self.is_descending:
                first = bisect_left(range(low, high), self.order[high - 1] - (high - 1), key=self._offset) + low
                yield first, high
                high = first
            else:
                end = bisect_right(range(low, high), self.order[low] - low, key=self._offset) + low
                yield low, end
                low = end

    def _offset(self, place: int) -> int:
        return int(self.order[place] - place)


class MemoryRows:
    """The rows of one table in dictionaries: by id, by each unique key, by each parent."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows: dict[str, Stored] = {}
        self._ids: list[str] | None = None  # in order; made when first asked for, and kept from then on
        self._unique = {key: _Unique(table, key) for key in table.unique_keys if key != (table.key,)}
        self._parents = {parent.column: positions(table)[parent.column] for parent in table.parents}
        self._children: dict[str, dict[str, dict[str, None]]] = {column: {} for column in self._parents}
        indexed = {place for unique in self._unique.values() for place in unique.places}
        self._indexed = sorted(indexed.union(self._parents.values()))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Stored]:
        return iter(self._rows.values())

    def get(self, row_id: Value) -> Stored | None:
        return self._rows.get(cast(str, row_id))

    def find(self, key: tuple[str, ...], values: tuple[Value, ...]) -> Stored | None:
        if key not in self._unique:
            return self._rows.get(cast(str, values[0]))
        row_id = self._unique[key].ids.get(values)
        return None if row_id is None else self._rows[row_id]

    def ids_behind(self, after: str) -> list[str]:
        """The ids greater than this one, in order."""
        if self._ids is None:
            self._ids = sorted(self._rows)
        return self._ids[bisect_right(self._ids, after) :]

    def children(self, column: str, parent_id: str) -> list[Stored]:
        """The rows whose foreign key `column` holds this parent."""
        return [self._rows[row_id] for row_id in self._children[column].get(parent_id, ())]

    def scan(self, plan: Scan) -> tuple[Iterable[Stored], bool]:
        equal = plan.equal()
        for key in self.table.unique_keys:
            if all(column in equal for column in key):
                row = self.find(key, tuple(equal[column] for column in key))
                return ([] if row is None else [row]), True
        for condition in plan.where:
            if condition.column == self.table.key and condition.op == "in":
                wanted = dict.fromkeys(cast("Iterable[str]", condition.value))
                return [self._rows[row_id] for row_id in wanted if row_id in self._rows], False
        numbered = self.numbered(plan)
        if numbered is not None:
            return numbered.rows(), True
        for column in self._parents:
            if column in equal:
                return self.children(column, cast(str, equal[column])), False
        for condition in plan.where:
            if condition.column in self._parents and condition.op == "in":
                parents = dict.fromkeys(cast("Iterable[str]", condition.value))
                return [row for parent in parents for row in self.children(condition.column, parent)], False
        if plan.order == ("id",):
            ids = self.ids_behind(cast(str, plan.after[0]) if plan.after is not None else "")
            return ([self._rows[i] for i in ids] if plan.detached else (self._rows[i] for i in ids)), True
        return list(self._rows.values()), False

    def numbered(self, plan: Scan) -> Numbered | None:
        """What the plan asks for, where it is the rows of one parent by the column that orders them."""
        if not plan.order:
            return None
        for unique in self._unique.values():
            last = unique.key[-1]
            if unique.parent is None or plan.order[0] not in (last, "-" + last):
                continue
            parent_id = plan.equal().get(unique.parent)
            if parent_id is None:
                continue
            if parent_id not in unique.orders:
                rows = self.children(unique.parent, cast(str, parent_id))
                unique.orders[parent_id] = sorted(row[unique.places[-1]] for row in rows)
            order, is_descending = unique.orders[parent_id], plan.order[0][0] == "-"
            first, end = unique.between(order, plan, descending=is_descending)
            return Numbered(self._rows, unique, parent_id, order, first, end, is_descending)
        return None

    def put(self, row: Stored) -> None:
        row_id: str = row[ID]
        before = self._rows.get(row_id)
        if before is not None:
            for place in self._indexed:
                if before[place] != row[place]:
                    MemoryRows.remove(self, row_id)
                    break
            else:
                self._rows[row_id] = row
                for unique in self._unique.values():
                    if not unique.is_held_by(row):
                        unique.put(row)
                return
        self._rows[row_id] = row
        if self._ids is not None:
            insort(self._ids, row_id)
        for unique in self._unique.values():
            unique.put(row)
        for column, place in self._parents.items():
            if row[place] is not None:
                self._children[column].setdefault(row[place], {})[row_id] = None

    def remove(self, row_id: str) -> None:
        row = self._rows.pop(row_id, None)
        if row is None:
            return
        if self._ids is not None:
            del self._ids[bisect_left(self._ids, row_id)]
        for unique in self._unique.values():
            unique.remove(row)
        for column, place in self._parents.items():
            if row[place] is not None:
                siblings = self._children[column][row[place]]
                del siblings[row_id]
                if not siblings:
                    del self._children[column][row[place]]

    def drop(self, column: str, parent_id: str) -> None:
        for row_id in list(self._children[column].get(parent_id, ())):
            self.remove(row_id)
