"""Statements that keep others from a table of PostgreSQL for as long as the table is large.

SQLite has one writer at a time whatever a migration does, so none of this is asked there. Tables that the file makes
itself are nobody's yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.schema.linting.acts import Act, AlterTable, Change, Constraint, CreateIndex, Drop, Plain
from dal.schema.linting.context import Context, Hit

_CLOSED: Final = "closed to readers and writers meanwhile"
#: Types that a column of the first may become without being written anew, whatever their lengths.
_TEXTS: Final = frozenset({"TEXT", "VARCHAR", "CHARACTER VARYING"})


def check(act: Act, context: Context) -> Iterator[Hit]:
    if context.engine != "postgresql":
        return
    match act:
        case CreateIndex(concurrently=False, only=False) if context.exists(act.table):
            yield _index(act, context)
        case Drop(kind="INDEX", concurrently=False):
            for name in filter(context.exists, act.names):
                yield Hit(
                    "drop-index-not-concurrent",
                    act.place,
                    f"DROP INDEX {name} waits for every query on its table and holds up those after it",
                )
        case AlterTable() if context.exists(act.table):
            for change in act.changes:
                yield from _change(act, change, context)
        case Plain():
            yield from _maintenance(act)
        case _:
            pass


def _index(act: CreateIndex, context: Context) -> Hit:
    table = context.catalog.tables.get(act.table)
    advice = ""
    if table is not None and table.partitioned:
        advice = "CREATE INDEX ON ONLY the parent, build it CONCURRENTLY on each partition, then ATTACH them"
    message = f"nobody can write to {act.table} until the index is built"
    return Hit("create-index-not-concurrent", act.place, message, advice)


def _change(act: AlterTable, change: Change, context: Context) -> Iterator[Hit]:
    table = act.table
    if change.kind == "change-type":
        if not context.is_new(act, change.name) and not _widens(table, change, context):
            kind = " ".join(change.type).replace(" ( ", "(").replace(" )", ")").replace(" , ", ", ")
            message = f"{table}.{change.name} becomes {kind}: the table is written anew with its indexes, {_CLOSED}"
            yield Hit("change-column-type", change.place, message)
    elif change.kind == "set-not-null":
        known = context.catalog.tables.get(table)
        if known is None or not known.proves(change.name):
            message = f"SET NOT NULL reads all of {table} for NULLs in {change.name}, {_CLOSED}, and fails at the first"
            yield Hit("set-not-null", change.place, message)
    elif change.kind == "rewrite":
        yield Hit("table-rewrite", change.place, f"SET {change.to} writes {table} anew, {_CLOSED}")
    elif change.kind == "validate" and context.in_transaction:
        added = context.work.not_valid.get((table, change.name))
        if added is not None:
            yield _validated_at_once(table, change, added)
    elif change.kind == "add-constraint" and change.constraint is not None:
        yield from _constraint(table, change.constraint)
    elif change.kind == "add-column" and change.column is not None:
        for constraint in change.column.constraints:
            # Without a default every row holds NULL, which refers to nothing.
            if constraint.kind != "foreign" or change.column.default is not None:
                yield from _constraint(table, constraint)


def _constraint(table: str, constraint: Constraint) -> Iterator[Hit]:
    if constraint.kind in ("unique", "primary", "exclude"):
        if not constraint.using_index:
            what = {"unique": "UNIQUE", "primary": "PRIMARY KEY", "exclude": "EXCLUDE"}[constraint.kind]
            message = f"{what} builds an index on {table}, {_CLOSED}"
            advice = "Add it while the table is small: an EXCLUDE constraint cannot take over an index"
            yield Hit(
                "unique-constraint-blocks", constraint.place, message, advice if constraint.kind == "exclude" else ""
            )
    elif constraint.not_valid:
        return
    elif constraint.kind == "check":
        yield Hit("check-not-valid", constraint.place, f"CHECK reads all of {table}, {_CLOSED}")
    elif constraint.foreign is not None:
        target = constraint.foreign.target
        message = f"nobody can write to {table} or {target} until every row of {table} is checked"
        yield Hit("foreign-key-not-valid", constraint.place, message)


def _validated_at_once(table: str, change: Change, kind: str) -> Hit:
    rule = "foreign-key-not-valid" if kind == "foreign" else "check-not-valid"
    message = (
        f"{change.name} is validated in the transaction that added it: the lock of ADD CONSTRAINT on {table} is held "
        "while every row is checked"
    )
    return Hit(
        rule, change.place, message, "VALIDATE CONSTRAINT in a file of its own, which lets others work meanwhile"
    )


def _widens(table: str, change: Change, context: Context) -> bool:
    """PostgreSQL changes the type without touching a row: a text gets more room or no limit, a number more digits."""
    known = context.catalog.tables.get(table)
    before = known.types.get(change.name) if known is not None else None
    if before is None or change.using:
        return False
    was, had = _family(before)
    becomes, has = _family(change.type)
    if was in _TEXTS and becomes in _TEXTS:
        return not has or bool(had and int(has[0]) >= int(had[0]))
    if was == becomes and was in ("NUMERIC", "DECIMAL", "VARBIT"):
        scale_stays = (had[1:] or ["0"]) == (has[1:] or ["0"])
        return not has or bool(had and int(has[0]) >= int(had[0]) and scale_stays)
    return False


def _family(kind: tuple[str, ...]) -> tuple[str, list[str]]:
    """Its name without lengths, and the lengths."""
    words = [word for word in kind if not word.isdigit() and word not in "(),"]
    return " ".join(words), [word for word in kind if word.isdigit()]


def _maintenance(act: Plain) -> Iterator[Hit]:
    words = act.words
    if words[:2] == ("VACUUM", "FULL"):
        yield Hit("vacuum-full", act.place, f"VACUUM FULL writes the table anew, {_CLOSED}")
    elif words[:1] == ("CLUSTER",):
        yield Hit("cluster", act.place, f"CLUSTER writes the table anew, {_CLOSED}")
    elif words[:1] == ("REINDEX",) and not act.concurrently:
        yield Hit(
            "reindex", act.place, "REINDEX keeps writers from the table, and readers from the index, until it is built"
        )
    elif words[:3] == ("REFRESH", "MATERIALIZED", "VIEW") and not act.concurrently:
        yield Hit("refresh-not-concurrent", act.place, "nobody can read the view until it is filled again")
