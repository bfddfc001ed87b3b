"""The SQL of PostgreSQL's batch statements, by shape: many rows, and the change they hang on, in one statement.

Rows come in as arrays, one for each column, so that the text and the prepared statement are the same for two rows and
for two thousand. Rows that are changed are locked in the order of their ids first: two such statements cannot deadlock.
Names come from the declared tables, values are parameters.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from dal.backends.postgresql.dialect import SQL_TYPES, TERMS
from dal.tables import TABLES, Kind

_SHAPES: Final = 1024
COUNTABLE: Final = (Kind.INT, Kind.BIGINT)


class UpdateShape(NamedTuple):
    """Updates of rows of one table that set and add to the same columns. Parameters: set, add, key."""

    table: str
    key: tuple[str, ...]
    set: tuple[str, ...]
    add: tuple[str, ...]


class InsertShape(NamedTuple):
    """Inserts into one table, with Refs in the same places, all of one insert into one row.

    refs      column here, and column of the row referred to.
    searched  the rows' terms go into the search index.
    Parameters: the other columns in order, `plus` of the Refs to numbers, terms, and then whatever links the row to the
    one it refers to.
    """

    table: str
    columns: tuple[str, ...]
    refs: tuple[tuple[str, str], ...]
    searched: bool

    @property
    def literals(self) -> tuple[str, ...]:
        referring = {name for name, _ in self.refs}
        return tuple(name for name in self.columns if name not in referring)

    @property
    def shifted(self) -> tuple[str, ...]:
        """Columns whose Ref has a number to add to."""
        return tuple(name for name, _ in self.refs if TABLES[self.table].by_name[name].kind in COUNTABLE)


@lru_cache(_SHAPES)
def insert_rows(shape: InsertShape, *, many: bool) -> str:
    """INSERT of rows without a Ref."""
    parts = [_given(shape, [], many=many), _added(shape, "")]
    if not shape.searched:
        return f"WITH {parts[0]} {_insert(shape, '')}"
    return f"WITH {', '.join(parts)} {_indexed()}"


@lru_cache(_SHAPES)
def insert_referring(shape: InsertShape, parent: str, key: tuple[str, ...], *, many: bool) -> str:
    """INSERT of rows that refer to rows of `parent` by that key; the links are the keys. Returns id and Ref columns."""
    links = [(f"key_{name}", SQL_TYPES[TABLES[parent].by_name[name].kind]) for name in key]
    join = " AND ".join(f"changed.{name} = given.key_{name}" for name in key)
    source = f" LEFT JOIN {parent} AS changed ON {join}"
    returned = ", ".join(["id", *(name for name, _ in shape.refs)])
    parts = [_given(shape, links, many=many), f"added AS ({_insert(shape, source)} RETURNING {returned})"]
    if shape.searched:
        parts.append(f"indexed AS ({_indexed()})")
    return f"WITH {', '.join(parts)} SELECT {returned} FROM added"


@lru_cache(_SHAPES)
def update_rows(shape: UpdateShape) -> str:
    """UPDATE of many rows. Returns the place of each row found, from 1."""
    return f"WITH {_changed_many(shape, ())} SELECT place FROM changed"


@lru_cache(_SHAPES)
def append(
    update: UpdateShape, insert: InsertShape, wanted: tuple[str, ...], *, updates: Literal["one", "many"], many: bool
) -> str:
    """UPDATE of rows and INSERT of rows that take values from them. Returns place and `wanted` of each row found."""
    links = [("link", "integer")] if updates == "many" else []
    source = f" LEFT JOIN changed ON {'changed.place = given.link' if links else 'TRUE'}"
    changed = _changed_many(update, wanted) if updates == "many" else _changed_one(update, wanted)
    parts = [changed, _given(insert, links, many=many), _added(insert, source)]
    if insert.searched:
        parts.append(f"indexed AS ({_indexed()})")
    return f"WITH {', '.join(parts)} SELECT {', '.join(['place', *wanted])} FROM changed"


def _given(shape: InsertShape, links: list[tuple[str, str]], *, many: bool) -> str:
    """The rows' parameters as a relation."""
    by_name = TABLES[shape.table].by_name
    columns = [(name, SQL_TYPES[by_name[name].kind]) for name in shape.literals]
    columns += [(f"plus_{name}", "integer") for name in shape.shifted]
    if shape.searched:
        columns.append(("search_terms", "text"))
    columns += links
    if many:
        names = ", ".join(name for name, _ in columns)
        return f"given AS (SELECT * FROM unnest({', '.join(f'%s::{t}[]' for _, t in columns)}) AS given ({names}))"
    return f"given AS (SELECT {', '.join(f'%s::{t} AS {name}' for name, t in columns)})"


def _added(shape: InsertShape, source: str) -> str:
    return f"added AS ({_insert(shape, source)})"


def _insert(shape: InsertShape, source: str) -> str:
    referred = dict(shape.refs)
    shifted = shape.shifted
    values = [
        f"given.{name}"
        if name not in referred
        else f"changed.{referred[name]}" + (f" + given.plus_{name}" if name in shifted else "")
        for name in shape.columns
    ]
    return f"INSERT INTO {shape.table} ({', '.join(shape.columns)}) SELECT {', '.join(values)} FROM given{source}"


def _indexed() -> str:
    return f"INSERT INTO message_search (message_id, terms) SELECT id, {TERMS.format('search_terms')} FROM given"


def _changed_one(shape: UpdateShape, wanted: tuple[str, ...]) -> str:
    changes = [f"{name} = %s" for name in shape.set] + [f"{name} = {name} + %s" for name in shape.add]
    key = " AND ".join(f"{name} = %s" for name in shape.key)
    returned = ", ".join(["1 AS place", *wanted])
    return f"changed AS (UPDATE {shape.table} SET {', '.join(changes)} WHERE {key} RETURNING {returned})"


def _changed_many(shape: UpdateShape, wanted: tuple[str, ...]) -> str:
    by_name = TABLES[shape.table].by_name
    columns = [(f"set_{name}", SQL_TYPES[by_name[name].kind]) for name in shape.set]
    columns += [(f"add_{name}", SQL_TYPES[by_name[name].kind]) for name in shape.add]
    columns += [(f"key_{name}", SQL_TYPES[by_name[name].kind]) for name in shape.key]
    arrays = ", ".join(f"%s::{kind}[]" for _, kind in columns)
    names = ", ".join([*(name for name, _ in columns), "place"])
    key = " AND ".join(f"{shape.table}.{name} = wanted.key_{name}" for name in shape.key)
    changes = [f"{name} = locked.set_{name}" for name in shape.set]
    changes += [f"{name} = {shape.table}.{name} + locked.add_{name}" for name in shape.add]
    returned = ", ".join(["locked.place::integer AS place", *(f"{shape.table}.{name}" for name in wanted)])
    return (
        f"wanted AS (SELECT * FROM unnest({arrays}) WITH ORDINALITY AS wanted ({names})), "
        f"locked AS (SELECT {shape.table}.id AS locked_id, wanted.* FROM {shape.table} JOIN wanted ON {key} "
        f"ORDER BY {shape.table}.id FOR UPDATE OF {shape.table}), "
        f"changed AS (UPDATE {shape.table} SET {', '.join(changes)} FROM locked "
        f"WHERE {shape.table}.id = locked.locked_id RETURNING {returned})"
    )
