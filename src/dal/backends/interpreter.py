"""The meaning of every word of dal.ops, in plain Python over the rows of declared tables.

It answers queries and carries out batches for the memory and the file store, and is the oracle that every other store
is tested against: where an engine and this module differ, the engine's compiler is wrong. A batch works on an overlay,
so a refusal leaves nothing behind; what it changed comes back as a list, for the store to make durable and permanent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import orjson

from dal.backends.conditions import Tables, Test, column_list, find, getter, plan_scan, plus, sort_key
from dal.backends.overlay import Overlay
from dal.backends.rows import (
    ID,
    Change,
    Drop,
    Scan,
    Stored,
    decode,
    document_of,
    encode,
    json_positions,
    positions,
)
from dal.errors import AlreadyExistsError, ConflictError, MissingReferenceError
from dal.ops import (
    Compare,
    Count,
    Delete,
    Guard,
    Insert,
    Op,
    Query,
    Receipt,
    Ref,
    Row,
    Search,
    Select,
    Sum,
    Update,
    Upsert,
    Value,
)
from dal.search import SearchQuery
from dal.tables import CHILDREN, Table

# A sorted page is kept in a buffer of at least so many rows, however many are read to find it.
_PAGE_BUFFER_ROWS = 1000


class Outcome(NamedTuple):
    """What a batch answers, and the changes that make it so: drops before rows, table by table."""

    receipt: Receipt
    changes: list[Change | Drop]


# -- reading


def read(tables: Tables, query: Query) -> list[Row]:
    """The answer to any query."""
    return prepare(tables, query)()


def prepare(tables: Tables, query: Query, *, detached: bool = False) -> Callable[[], list[Row]]:
    """A query whose rows are found; calling it reads them and gives the answer.

    detached  the call is made in another thread, while rows in memory may change: what it needs of them is kept now.
    """
    table = tables[query.table].table
    match query:
        case Select():
            columns = _columns_of(tables, table, query.columns)
            page = _page(tables, table, query, query.order, detached=detached)
            return lambda: [columns(row) for row in page()]
        case Search():
            if table.search is None:
                raise ValueError(f"{table.name} declares no search column")
            columns = _columns_of(tables, table, query.columns)
            page = _page(tables, table, query, table.search_order, query.query, detached=detached)
            return lambda: [columns(row) for row in page()]
        case Count():
            rows = _matching(tables, query.table, query.where, detached=detached)
            return lambda: [(sum(1 for _ in rows),)]
        case Sum():
            value = getter(tables, table, query.column)
            rows = _matching(tables, query.table, query.where, detached=detached)
            return lambda: [(sum(value(row) or 0 for row in rows),)]


def _columns_of(tables: Tables, table: Table, columns: tuple[str, ...]) -> Callable[[Stored], Row]:
    """Makes a reader's row of a stored one."""
    if not columns or columns == table.names:
        return lambda row: decode(table, row)
    getters = [getter(tables, table, column) for column in columns]
    return lambda row: tuple([get(row) for get in getters])


def _page(
    tables: Tables,
    table: Table,
    query: Select | Search,
    order: tuple[str, ...],
    search: SearchQuery | None = None,
    *,
    detached: bool,
) -> Callable[[], list[Stored]]:
    in_order = sort_key(tables, table, order)
    limit = query.limit
    if query.after is not None and len(query.after) != len(order):
        raise ValueError(f"{table.name}: `after` gives one value for each column of `order`")
    tests, plan = plan_scan(tables, table.name, query.where, order, query.after, search, detached=detached)
    if tests is None or limit == 0:
        return list
    found, is_ordered = tables[table.name].scan(plan)
    passed = _passed(found, tests)

    def first() -> list[Stored]:
        return list(passed) if limit is None else [row for _, row in zip(range(limit), passed, strict=False)]

    def least() -> list[Stored]:
        buffer: list[Stored] = []
        for row in passed:
            buffer.append(row)
            if limit is not None and len(buffer) >= _PAGE_BUFFER_ROWS + 2 * limit:
                buffer = in_order(buffer)[:limit]
        return in_order(buffer)[:limit]

    return first if is_ordered or not order else least


def _passed(rows: Iterable[Stored], tests: list[Test]) -> Iterator[Stored]:
    if not tests:
        return iter(rows)
    return (row for row in rows if all(test(row) for test in tests))


def _matching(tables: Tables, name: str, where: tuple[Compare, ...], *, detached: bool = False) -> Iterator[Stored]:
    tests, plan = plan_scan(tables, name, where, detached=detached)
    return iter(()) if tests is None else _passed(tables[name].scan(plan)[0], tests)


# -- writing


class _Overlays(dict[str, Overlay]):
    """An overlay over each table that is asked for."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __missing__(self, name: str) -> Overlay:
        overlay = self[name] = Overlay(self._tables[name])
        return overlay


class Batch:
    """Operations carried out one after another over an overlay of the tables.

    `backend` is the name that errors carry. A refusal raises, and the overlay is then worth nothing.
    """

    def __init__(self, tables: Tables, backend: str) -> None:
        self.tables = _Overlays(tables)
        self._backend = backend

    def changes(self) -> list[Change | Drop]:
        """What the operations came to, as it can be carried out on the tables below."""
        return [change for overlay in self.tables.values() for change in overlay.changes()]

    def apply(self, op: Op) -> tuple[int, Row | None]:
        """Carries out one operation: how many rows it wrote, and the values of its `returning`."""
        match op:
            case Insert():
                return 1, self._returned(op.table, op.returning, self._insert(op.table, op.row))
            case Update():
                return self._update(op)
            case Upsert():
                return self._upsert(op)
            case Delete():
                return self._delete(op), None
            case Guard():
                self._guard(op)
                return 0, None

    def _insert(self, name: str, given: Mapping[str, Value | Ref]) -> Stored:
        table = self.tables[name].table
        values: dict[str, Value] = {}
        row: Stored | None = None
        found_by: Ref | None = None
        for column, value in given.items():
            if isinstance(value, Ref):
                if found_by is None or value.key is not found_by.key or value.table != found_by.table:
                    row, found_by = self._row_of(value), value  # the Refs of a row mostly share one key
                if row is None:
                    raise MissingReferenceError(
                        f"{name}: {value.table} has no row with this {column_list(value.key)}; create it first",
                        operation="commit",
                        backend=self._backend,
                    )
                value = plus(row[positions(self.tables[value.table].table)[value.column]], value.plus)
            values[column] = value
        stored = encode(table, values)
        self._check_keys(table, stored, None)
        self._check_parents(table, stored, None)
        self.tables[name].put(stored)
        return stored

    def _update(self, op: Update) -> tuple[int, Row | None]:
        table = self.tables[op.table].table
        row = find(self.tables, op.table, op.key)
        changes = _columns_known(table, {**op.set, **op.add})
        if table.key in changes:
            raise ValueError(f"{table.name}: an id never changes")
        if row is None:
            _columns_known(table, op.returning)
            return 0, None
        return 1, self._returned(op.table, op.returning, self._change(table, row, op.set, op.add))

    def _upsert(self, op: Upsert) -> tuple[int, Row | None]:
        table = self.tables[op.table].table
        row = find(self.tables, op.table, {column: op.row[column] for column in op.on})
        _columns_known(table, (*op.update, *op.add))
        if row is None:
            return 1, self._returned(op.table, op.returning, self._insert(op.table, op.row))
        tests, _ = plan_scan(self.tables, op.table, op.where)
        if tests is None or not all(test(row) for test in tests):
            return 0, None
        changed = self._change(table, row, {column: op.row[column] for column in op.update}, op.add)
        return 1, self._returned(op.table, op.returning, changed)

    def _change(self, table: Table, row: Stored, to: Mapping[str, Value], add: Mapping[str, int]) -> Stored:
        values, places, json = list(row), positions(table), json_positions(table)
        for column, value in to.items():
            place = places[column]
            values[place] = document_of(value) if place in json else value
        for column, number in add.items():
            values[places[column]] = plus(values[places[column]], number)
        stored = tuple(values)
        self._check_keys(table, stored, row)
        self._check_parents(table, stored, row)
        self.tables[table.name].put(stored)
        return stored

    def _delete(self, op: Delete) -> int:
        if not op.where:
            raise ValueError(f"{op.table}: a delete needs conditions; no word deletes a whole table")
        found = list(_matching(self.tables, op.table, op.where))
        for row in found:
            self._remove(op.table, row)
        return len(found)

    def _remove(self, name: str, row: Stored) -> None:
        """Takes out a row and, as declared, what hangs on it."""
        row_id: str = row[ID]
        for child, parent in CHILDREN[name]:
            if parent.on_delete == "cascade" and not CHILDREN[child.name]:
                self.tables[child.name].drop(parent.column, row_id)
                continue
            for orphan in list(self.tables[child.name].scan(Scan((Compare(parent.column, "=", row_id),)))[0]):
                place = positions(child)[parent.column]
                if orphan[place] != row_id:
                    continue
                if parent.on_delete == "cascade":
                    self._remove(child.name, orphan)
                else:
                    self.tables[child.name].put((*orphan[:place], None, *orphan[place + 1 :]))
        self.tables[name].remove(row_id)

    def _guard(self, op: Guard) -> None:
        if any("." in condition.column for condition in op.where):
            raise ValueError(f"Guard on {op.table}: conditions are on its own columns")
        expected = tuple([Compare(column, "=", value) for column, value in op.expect.items()])
        tests, _ = plan_scan(self.tables, op.table, (*expected, *op.where))
        row = find(self.tables, op.table, op.key)
        if row is None or tests is None or not all(test(row) for test in tests):
            columns = dict.fromkeys((*op.expect, *(condition.column for condition in op.where)))
            found = "is not there" if row is None else f"is not as expected in {column_list(columns)}"
            raise ConflictError(
                f"{op.table}: the row with this {column_list(op.key)} {found}; read it again and retry",
                operation="commit",
                backend=self._backend,
            )

    def _check_keys(self, table: Table, row: Stored, before: Stored | None) -> None:
        rows = self.tables[table.name]
        for key, places in _unique(table):
            values = tuple([row[place] for place in places])
            if None in values or (before is not None and values == tuple([before[place] for place in places])):
                continue
            if rows.find(key, values) is not None:
                raise AlreadyExistsError(
                    f"{table.name}: another row has this {column_list(key)}",
                    operation="commit",
                    backend=self._backend,
                )

    def _check_parents(self, table: Table, row: Stored, before: Stored | None) -> None:
        for parent in table.parents:
            place = positions(table)[parent.column]
            parent_id = row[place]
            if parent_id is None or (before is not None and parent_id == before[place]):
                continue
            if self.tables[parent.table].get(parent_id) is None:
                raise MissingReferenceError(
                    f"{table.name}: {parent.column} {parent_id} is not in {parent.table}; create it first",
                    operation="commit",
                    backend=self._backend,
                )

    def _row_of(self, ref: Ref) -> Stored | None:
        return find(self.tables, ref.table, ref.key)

    def _returned(self, name: str, columns: tuple[str, ...], row: Stored) -> Row | None:
        if not columns:
            return None
        table = self.tables[name].table
        places, json = positions(table), json_positions(table)
        return tuple([orjson.loads(row[places[c]]) if places[c] in json else row[places[c]] for c in columns])


def apply(tables: Tables, ops: Sequence[Op], *, backend: str) -> Outcome:
    """Carries out a batch over the tables without touching them: the receipt, and the changes to make.

    Raises the errors that `ReadCommit.commit` promises, with this backend's name.
    """
    batch = Batch(tables, backend)
    written = [batch.apply(op) for op in ops]
    return Outcome(Receipt(tuple([n for n, _ in written]), tuple([row for _, row in written])), batch.changes())


@cache
def _unique(table: Table) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
    """Each unique key with the places of its columns."""
    return tuple((key, tuple(positions(table)[column] for column in key)) for key in table.unique_keys)


def _columns_known(table: Table, names: Iterable[str]) -> set[str]:
    known = set(names)
    for name in known:
        if name not in table.by_name:
            raise KeyError(f"{table.name} has no column {name!r}")
    return known
