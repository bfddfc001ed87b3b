"""A transaction's own writes under its own reads: tables as they will be, as common table expressions.

A statement that names `messages` sees, instead of the table, its rows without those the transaction has touched, and
the transaction's own in their place. The names are the tables', so the statement stays as the compiler wrote it.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import orjson

from dal.backends.overlay import Overlay
from dal.backends.rows import Change, Drop, decode
from dal.backends.sql import Compiler, Statement
from dal.backends.sql.search import SEARCHED
from dal.limits import D1_LONG_TEXT_CHARS, D1_MAX_COMPOUND_TERMS, D1_PART_BYTES
from dal.tables import Table

#: The number by which the search index knows a message; a row that is not stored yet has none.
_DOC_ID: Final = "doc_id"


def shadowed(
    statement: Statement,
    overlays: Iterable[Overlay],
    compiler: Compiler,
    *,
    but: Collection[str] = (),
    whole: bool = True,
) -> Statement:
    """The statement over the tables as these overlays will make them; tables in `but` stay as they are stored.

    whole  False: long texts of the transaction's own rows are left out, for a statement that only tells rows apart.
    """
    sql, params = statement.sql, list(statement.params)
    tables: list[str] = []
    given: list[object] = []
    for overlay in overlays:
        name = overlay.table.name
        if name in but or re.search(rf"\b{name}\b", statement.sql) is None:
            continue
        changes = list(overlay.changes())
        if changes:
            table_sql, table_params = _table(overlay.table, changes, compiler, whole)
            tables.append(table_sql)
            given += table_params
            if overlay.table is SEARCHED:
                candidate = compiler.dialect.search.candidate
                sql = sql.replace(candidate, f"({_DOC_ID} IS NULL OR {candidate})")
    if not tables:
        return statement
    return Statement(f"WITH {', '.join(tables)} {sql}", [*given, *params], returns=True)


def _table(table: Table, changes: Sequence[Change | Drop], compiler: Compiler, whole: bool) -> tuple[str, list[object]]:
    hidden = [change.id for change in changes if isinstance(change, Change)]
    conditions = [f"{table.key} NOT IN (SELECT value FROM json_each(?))"]
    params: list[object] = [_json(hidden)]
    for column in sorted({change.column for change in changes if isinstance(change, Drop)}):
        parents = [change.parent_id for change in changes if isinstance(change, Drop) and change.column == column]
        conditions.append(f"({column} IS NULL OR {column} NOT IN (SELECT value FROM json_each(?)))")
        params.append(_json(parents))
    extra = (_DOC_ID,) if table is SEARCHED else ()
    names = ", ".join((*table.names, *extra))
    stored = f"SELECT {names} FROM main.{table.name} WHERE {' AND '.join(conditions)}"
    rows = [change.row for change in changes if isinstance(change, Change) and change.row is not None]
    values = [compiler.encode(table, dict(zip(table.names, decode(table, row), strict=True))) for row in rows]
    if not whole:
        values = [[None if _is_long(value) else value for value in row] for row in values]
    arms, own = _arms(len(table.names), values, ", NULL" * len(extra))
    return f"{table.name} ({names}) AS NOT MATERIALIZED ({_union([stored, *arms])})", [*params, *own]


def _arms(width: int, rows: Sequence[Sequence[object]], extra: str) -> tuple[list[str], list[object]]:
    """SELECTs that give these rows: short rows together as JSON, each long one by itself."""
    arms: list[str] = []
    params: list[object] = []
    part: list[bytes] = []
    size_bytes = 0
    columns = ", ".join(f"value ->> {place}" for place in range(width))

    def end_part() -> None:
        if part:
            arms.append(f"SELECT {columns}{extra} FROM json_each(?)")
            params.append(f"[{b','.join(part).decode()}]")
            part.clear()

    for row in rows:
        if any(map(_is_long, row)):
            arms.append(f"SELECT {', '.join('?' * width)}{extra}")
            params += row
            continue
        data = orjson.dumps(row)
        if size_bytes + len(data) > D1_PART_BYTES:
            end_part()
            size_bytes = 0
        part.append(data)
        size_bytes += len(data)
    end_part()
    return arms, params


def _is_long(value: object) -> bool:
    return type(value) is str and len(value) > D1_LONG_TEXT_CHARS


def _union(arms: list[str]) -> str:
    """All of them, in groups of as many as a compound SELECT may have."""
    while len(arms) > D1_MAX_COMPOUND_TERMS:
        first, arms = arms[:D1_MAX_COMPOUND_TERMS], arms[D1_MAX_COMPOUND_TERMS:]
        arms.insert(0, f"SELECT * FROM ({' UNION ALL '.join(first)})")
    return " UNION ALL ".join(arms)


def _json(values: Sequence[object]) -> str:
    return orjson.dumps(values).decode()
