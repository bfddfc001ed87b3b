"""Full-text search over an engine's index of the library's own terms.

The index narrows, `dal.search.matches` decides, so that every backend gives the same hits. A row's terms are written in
the batch that writes the row and go with it; a bulk load may leave them for `index_pending`.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from dal import search
from dal.backends.sql.compiler import Compiler
from dal.backends.sql.dialect import Session, Statement, Step
from dal.ops import Insert, Op, Row, Search, Update, Upsert, Value
from dal.tables import TABLES, Table

#: The one table with a search index; its declaration says which column.
SEARCHED: Final[Table] = next(t for t in TABLES.values() if t.search is not None)
_COLUMN: Final = cast(str, SEARCHED.search)
_MORE_CANDIDATES: Final = 50
_MAX_CANDIDATES: Final = 1000


async def read_search(session: Session, compiler: Compiler, query: Search) -> list[Row]:
    """Matching rows, newest first. One indexed read for most queries; more only where candidates do not match."""
    if not query.query.patterns:
        return []
    table = compiler.tables[query.table]
    if table.search is None:
        raise ValueError(f"{query.table} has no search column")
    wanted = query.columns or table.names
    place = tuple(name.lstrip("-") for name in table.search_order)
    columns = tuple(dict.fromkeys((*wanted, table.search, *place)))  # each once: texts are long
    text_at, place_at = columns.index(table.search), [columns.index(name) for name in place]
    after, found = query.after, []
    # Nearly every candidate matches, so a page's worth is asked for: half as many more rows cost half as much again.
    size = query.limit
    while True:
        statement, read = compiler.candidates(query, after, size, columns)
        rows = read.decode(await session.fetch(statement))
        for row in rows:
            if search.matches(query.query, cast(str, row[text_at])):
                found.append(row[: len(wanted)])
                if len(found) == query.limit:
                    return found
        if len(rows) < size:
            return found
        after = tuple([rows[-1][at] for at in place_at])
        size = min(max(size * 2, _MORE_CANDIDATES), _MAX_CANDIDATES)


def index_steps(ops: Sequence[Op], compiler: Compiler) -> list[Step]:
    """What the batch means for the index, to be run behind it."""
    added: list[list[object]] = []
    replaced: dict[Value, list[object]] = {}
    changed: list[Step] = []
    sql = compiler.dialect.search
    for op in ops:
        if op.table != SEARCHED.name:
            continue
        if type(op) is Insert:
            if not op.search_later:
                terms = search.index_terms(cast(str, op.row[_COLUMN]))
                added.append([sql.encode_terms(terms), op.row[SEARCHED.key]])
        elif type(op) is Update:
            if _COLUMN in op.set:
                changed += _reindex(op.key, op.set[_COLUMN], compiler)
        elif type(op) is Upsert and op.on == (SEARCHED.key,) and _COLUMN in op.update and not op.where:
            terms = search.index_terms(cast(str, op.row[_COLUMN]))
            replaced[op.row[SEARCHED.key]] = [sql.encode_terms(terms), op.row[SEARCHED.key]]
        elif type(op) is Upsert:
            changed += _reindex({name: op.row[name] for name in op.on}, op.row[_COLUMN], compiler)
    steps = [Step(_add(added, compiler), 0, 0)] if added else []
    if replaced:
        held = compiler.dialect.contains(SEARCHED.key, SEARCHED.by_name[SEARCHED.key].kind)
        removed = Statement(f"{sql.delete} WHERE {held})", [compiler.dialect.encode_list([*replaced])])
        steps += [Step(removed, 0, 0), Step(_add([*replaced.values()], compiler), 0, 0)]
    return [*steps, *changed]


def _add(added: list[list[object]], compiler: Compiler, condition: str = "") -> Statement:
    """Adds rows to the index: the terms and the id of each."""
    sql = compiler.dialect.search
    if sql.insert_many and len(added) > 1:
        return Statement(f"{sql.insert_many}{condition}", [compiler.dialect.encode_list([*added])])
    mark = compiler.placeholder(SEARCHED, SEARCHED.key)
    return Statement(f"{sql.insert} WHERE {SEARCHED.key} = {mark}{condition}", added, many=True)


def _reindex(key: Mapping[str, Value], text: Value, compiler: Compiler) -> list[Step]:
    """Replaces the terms of the row with this key, where it holds this text after the batch."""
    sql = compiler.dialect.search
    names = [*key, _COLUMN]
    where = " AND ".join(f"{name} = {compiler.placeholder(SEARCHED, name)}" for name in names)
    params = [*compiler.encode(SEARCHED, {**key, _COLUMN: text})]
    terms = sql.encode_terms(search.index_terms(cast(str, text)))
    return [
        Step(Statement(f"{sql.delete} WHERE {where})", params), 0, 0),
        Step(Statement(f"{sql.insert} WHERE {where}", [terms, *params]), 0, 0),
    ]


async def index_pending(session: Session, compiler: Compiler, after: str | None, limit: int) -> tuple[int, str | None]:
    """Indexes up to `limit` rows behind this id that are not in the index: how many, and the last id."""
    sql = compiler.dialect.search
    mark = compiler.placeholder(SEARCHED, SEARCHED.key)
    behind = f"{SEARCHED.key} > {mark} AND " if after is not None else ""
    rows = await session.fetch(
        Statement(
            f"SELECT {SEARCHED.key}, {_COLUMN} FROM {SEARCHED.name} WHERE {behind}{sql.pending} "
            f"ORDER BY {SEARCHED.key} LIMIT {compiler.dialect.placeholder}",
            [limit] if after is None else [after, limit],
            returns=True,
        )
    )
    if not rows:
        return 0, None
    added = [[sql.encode_terms(search.index_terms(cast(str, text))), key] for key, text in rows]
    # Another indexer may have been faster with some of them.
    await session.batch([_add(added, compiler, f" AND {sql.pending}")])
    return len(rows), str(rows[-1][0])
