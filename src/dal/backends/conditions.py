"""What conditions and orders mean for one row: the part of the interpreter that looks and never writes.

Conditions become tests, order columns a sort, Refs values; each is made once a query and then applied to every row that
the tables offer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, TypeAlias, cast

import orjson

from dal.backends.rows import Rows, Scan, Stored, json_positions, positions
from dal.ops import Compare, Ref, Value
from dal.search import SearchQuery, matches
from dal.tables import Kind, Table

Tables: TypeAlias = Mapping[str, Rows]
Getter: TypeAlias = Callable[[Stored], Any]
Test: TypeAlias = Callable[[Stored], bool]


def plan_scan(
    tables: Tables,
    name: str,
    where: tuple[Compare, ...],
    order: tuple[str, ...] = (),
    after: tuple[Value, ...] | None = None,
    search: SearchQuery | None = None,
    *,
    detached: bool = False,
) -> tuple[list[Test] | None, Scan]:
    """The tests a row must pass (None: no row can), and what the rows may use to offer fewer candidates."""
    table = tables[name].table
    tests: list[Test] | None = []
    resolved: list[Compare] = []
    for condition in where:
        value = condition.value
        if isinstance(value, Ref):
            value = _resolve(tables, value)
            if value is None:
                getter(tables, table, condition.column)
                tests = None
                continue
            condition = condition._replace(value=value)
        if tests is not None:
            tests.append(test_of(tables, table, condition))
        resolved.append(condition)
    if tests is not None and after is not None:
        tests.append(_behind(tables, table, order, after))
    if tests is not None and search is not None:
        content = getter(tables, table, cast(str, table.search))
        tests.append(lambda row: matches(search, content(row)))
    return tests, Scan(tuple(resolved), order, after, search, detached)


def getter(tables: Tables, table: Table, path: str) -> Getter:
    """Reads a column, or through one foreign key a column of the parent; KeyError for what is not declared."""
    first, _, rest = path.partition(".")
    if rest:
        parent = tables[table.parent_of[first].table]
        parent_id, value = getter(tables, table, first), getter(tables, parent.table, rest)

        def of_parent(row: Stored) -> Any:
            found = parent.get(parent_id(row))
            return None if found is None else value(found)

        return of_parent
    place = positions(table)[first]
    if place in json_positions(table):
        return lambda row: orjson.loads(row[place])
    return itemgetter(place)


def test_of(tables: Tables, table: Table, condition: Compare) -> Test:
    get = getter(tables, table, condition.column)
    if condition.column in table.by_name and table.by_name[condition.column].kind is Kind.JSON:
        raise ValueError(f"{condition.column} holds JSON documents, which no query compares")
    op, wanted = condition.op, cast(Any, condition.value)
    if wanted is None and op not in ("=", "!="):
        raise ValueError(f"{condition.column} {op} None has no meaning")
    match op:
        case "=":
            return lambda row: bool(get(row) == wanted)
        case "!=":
            return lambda row: bool(get(row) != wanted)
        case "in":
            values = set(wanted) - {None}
            return lambda row: get(row) in values
        case "null or >":
            return lambda row: (value := get(row)) is None or bool(value > wanted)
        case "<":
            return lambda row: (value := get(row)) is not None and bool(value < wanted)
        case "<=":
            return lambda row: (value := get(row)) is not None and bool(value <= wanted)
        case ">":
            return lambda row: (value := get(row)) is not None and bool(value > wanted)
        case ">=":
            return lambda row: (value := get(row)) is not None and bool(value >= wanted)
    raise ValueError(f"unknown comparator {op!r}")


def _behind(tables: Tables, table: Table, order: tuple[str, ...], after: tuple[Value, ...]) -> Test:
    """Whether a row comes later in the order than the place `after`."""
    columns = [(getter(tables, table, c.removeprefix("-")), c[0] == "-", v) for c, v in zip(order, after, strict=True)]

    def test(row: Stored) -> bool:
        for get, descending, last in columns:
            value = get(row)
            if value != last:
                return bool(value < last) if descending else bool(value > last)
        return False

    return test


def sort_key(tables: Tables, table: Table, order: tuple[str, ...]) -> Callable[[list[Stored]], list[Stored]]:
    """Sorts by columns of mixed direction: one stable pass for each, the least significant first. Null is least."""
    passes = [(getter(tables, table, column.removeprefix("-")), column[0] == "-") for column in reversed(order)]

    def in_order(rows: list[Stored]) -> list[Stored]:
        for get, descending in passes:
            rows = sorted(rows, key=lambda row: (get(row) is not None, get(row)), reverse=descending)
        return rows

    return in_order


def find(tables: Tables, name: str, key: Mapping[str, Value]) -> Stored | None:
    """The row a whole unique key names, in whatever order its columns were given."""
    rows = tables[name]
    if len(key) == 1 and "id" in key:
        return rows.get(key["id"])
    for declared in rows.table.unique_keys:
        if declared == tuple(key) or (len(declared) == len(key) and all(column in key for column in declared)):
            values = tuple([key[column] for column in declared])
            return None if None in values else rows.find(declared, values)
    raise ValueError(f"{name}: ({column_list(key)}) is not a declared unique key")


def _resolve(tables: Tables, ref: Ref) -> Any:
    """A Ref in a query: the value there plus its constant; None where there is no row or no value."""
    get = getter(tables, tables[ref.table].table, ref.column)
    row = find(tables, ref.table, ref.key)
    return None if row is None else plus(get(row), ref.plus)


def plus(value: Any, number: int) -> Any:
    return value + number if number and value is not None else value


def column_list(names: Iterable[str]) -> str:
    return ", ".join(names)
