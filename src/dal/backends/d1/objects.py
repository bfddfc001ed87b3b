"""What a D1 database (or a copy of one) consists of: its objects in an order that can make them, and its tables.

Cloudflare's own tables (`_cf_…`) and those that a virtual table keeps for itself are no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

_OBJECTS: Final = """SELECT m.type, m.name, m.sql FROM sqlite_master AS m
LEFT JOIN pragma_table_list AS t ON t.name = m.name AND t.schema = 'main'
WHERE m.sql IS NOT NULL AND substr(lower(m.name), 1, 7) <> 'sqlite_' AND substr(m.name, 1, 4) <> '_cf_'
AND ifnull(t.type, '') <> 'shadow' AND NOT (m.type <> 'table' AND substr(m.tbl_name, 1, 4) = '_cf_')
ORDER BY CASE m.type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, m.rowid"""
_TABLES: Final = """SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')
AND (name = 'sqlite_sequence' OR substr(lower(name), 1, 7) <> 'sqlite_') AND substr(name, 1, 4) <> '_cf_'
ORDER BY name"""


class Fetches(Protocol):
    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]: ...


class DbObject(NamedTuple):
    """kind  `table` (a virtual one too), `index`, `view` or `trigger`."""

    kind: str
    name: str
    sql: str


class DbTable(NamedTuple):
    """A table with rows of its own.

    stored   columns to copy, the row's number first where the table has one that no column shows.
    order    expressions that order its rows without ties.
    parents  tables that its foreign keys refer to.
    """

    name: str
    stored: tuple[str, ...]
    order: tuple[str, ...]
    parents: frozenset[str]


async def objects_of(reader: Fetches) -> list[DbObject]:
    """All objects, in an order in which they can be made."""
    return [DbObject(str(kind), str(name), str(sql)) for kind, name, sql in await reader.fetch(_OBJECTS)]


async def tables_of(reader: Fetches) -> list[DbTable]:
    """All tables, by name."""
    return [
        await _described(reader, str(name), without_rowid=bool(without_rowid))
        for name, _, without_rowid in await reader.fetch(_TABLES)
    ]


async def _described(reader: Fetches, name: str, *, without_rowid: bool) -> DbTable:
    rows = await reader.fetch("SELECT name, pk, type, hidden FROM pragma_table_xinfo(?)", (name,))
    columns = [str(column) for column, _, _, hidden in rows if hidden == 0]
    key = sorted((int(str(rank)), str(column)) for column, rank, _, _ in rows if rank)
    parents = await reader.fetch('SELECT DISTINCT "table" FROM pragma_foreign_key_list(?)', (name,))
    stored, order = columns, [f"{quote(column)} COLLATE BINARY" for _, column in key]
    if not without_rowid:
        taken = {column.lower() for column in columns}
        rowid = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in taken), None)
        is_shown = len(key) == 1 and any(rank and str(kind).upper() == "INTEGER" for _, rank, kind, _ in rows)
        order = [rowid] if rowid is not None else []
        if rowid is not None and not is_shown and name != "sqlite_sequence":
            stored = [rowid, *columns]
    return DbTable(name, tuple(stored), tuple(order), frozenset(str(parent) for (parent,) in parents) - {name})


def in_order_of_parents(tables: Sequence[DbTable]) -> list[DbTable]:
    """Parents before children; within a circle of references by name. `sqlite_sequence` comes last."""
    left = {table.name.lower(): table for table in tables if table.name != "sqlite_sequence"}
    found: list[DbTable] = []
    while left:
        free = [name for name, table in left.items() if not any(p.lower() in left for p in table.parents)]
        found += [left.pop(name) for name in sorted(free) or [min(left)]]
    return [*found, *(table for table in tables if table.name == "sqlite_sequence")]


def quote(name: str) -> str:
    """The name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'
