"""Statements that lose data: allowed in ways back, where they are the point, and on what the same file made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.schema.linting.acts import Act, AlterOther, AlterTable, Change, Delete, Drop, Truncate, Update
from dal.schema.linting.context import Context, Hit
from dal.schema.linting.rebuild import is_rebuild

_TABLES: Final = ("TABLE", "FOREIGN TABLE")
#: Where CASCADE takes columns, and what is in them, along.
_HOLD_COLUMNS: Final = frozenset({"TYPE", "DOMAIN", "EXTENSION", "FUNCTION", "ROUTINE", "SEQUENCE"})
_RENAMED: Final = frozenset({"VIEW", "MATERIALIZED VIEW", "TYPE", "FUNCTION", "SCHEMA", "SEQUENCE"})
#: What an older version of the application still uses.
_INTERFACES: Final = frozenset({"VIEW", "MATERIALIZED VIEW", "FUNCTION", "PROCEDURE", "ROUTINE", "TYPE", "SEQUENCE"})


def check(act: Act, context: Context) -> Iterator[Hit]:
    match act:
        case Drop():
            yield from _drop(act, context)
        case AlterTable():
            for change in act.changes:
                yield from _change(act, change, context)
        case AlterOther(kind=kind, what="RENAME" | "RENAME VALUE") if kind in _RENAMED and context.exists(act.name):
            what = "a value of " if act.what == "RENAME VALUE" else ""
            yield Hit(
                "rename", act.place, f"{what}{act.name} gets another name; a running version still uses the old one"
            )
        case Truncate():
            for table in filter(context.exists, act.tables):
                yield Hit("truncate", act.place, f"TRUNCATE deletes every row of {table}")
        case Delete(every_row=True) if context.exists(act.table):
            yield Hit("delete-without-where", act.place, f"DELETE without WHERE deletes every row of {act.table}")
        case Update(every_row=True) if context.exists(act.table):
            yield from _update(act, context)
        case _:
            pass


def breaks_readers(act: Act, context: Context) -> Iterator[Hit]:
    """What loses no data, and still must wait for the contract phase."""
    if isinstance(act, Drop) and act.kind in _INTERFACES:
        for name in filter(context.exists, act.names):
            if not _made_again(name, context):
                yield Hit("phase-mismatch", act.place, f"DROP {act.kind} {name} takes it from a running version")


def _made_again(name: str, context: Context) -> bool:
    return any(getattr(act, "name", None) == name for act in context.acts[context.index + 1 :])


def _drop(act: Drop, context: Context) -> Iterator[Hit]:
    if act.kind in _TABLES:
        for name in filter(context.exists, act.names):
            if not is_rebuild(name, context) and not _clears_the_way(act, name, context):
                children = sorted({child for child, _ in context.catalog.children(name)})
                also = f"; {', '.join(children)} refers to it" if children else ""
                yield Hit("drop-table", act.place, f"DROP TABLE {name} deletes its rows{also}")
    elif act.kind in ("SCHEMA", "DATABASE", "OWNED"):
        for name in filter(context.exists, act.names):
            yield Hit("drop-schema", act.place, f"DROP {act.kind} {name} deletes every table in it")
    elif act.cascade and act.kind in _HOLD_COLUMNS:
        for name in filter(context.exists, act.names):
            message = f"DROP {act.kind} {name} CASCADE drops the columns that use it, with what is in them"
            yield Hit("drop-cascade", act.place, message)


def _clears_the_way(act: Drop, name: str, context: Context) -> bool:
    """DROP TABLE IF EXISTS of a name that no file has made and that this one makes next: a leftover of its own."""
    return act.if_exists and name not in context.catalog.tables and _made_again(name, context)


def _change(act: AlterTable, change: Change, context: Context) -> Iterator[Hit]:
    if change.kind == "drop-column":
        if context.exists(act.table) and not context.is_new(act, change.name):
            yield Hit("drop-column", change.place, f"{act.table}.{change.name} is deleted with everything in it")
    elif change.kind == "rename-table":
        if context.exists(act.table) and not _takes_its_place(act.table, context):
            message = f"table {act.table} becomes {change.to}; a running version still uses the old name"
            yield Hit("rename", change.place, message)
    elif change.kind == "rename-column" and context.exists(act.table) and not context.is_new(act, change.name):
        message = f"{act.table}.{change.name} becomes {change.to}; a running version still uses the old name"
        yield Hit("rename", change.place, message)


def _takes_its_place(table: str, context: Context) -> bool:
    """The table is put aside, and another (or a view) gets its name later in the file."""
    for act in context.acts[context.index + 1 :]:
        if getattr(act, "name", None) == table:
            return True
        if isinstance(act, AlterTable) and any(
            change.kind == "rename-table" and change.to == table for change in act.changes
        ):
            return True
    return False


def _update(act: Update, context: Context) -> Iterator[Hit]:
    if all((act.table, column) in context.work.added for column in act.columns):
        # Nothing is overwritten: the file added these columns itself.
        message = f"UPDATE of all rows of {act.table} in one statement locks each of them until the commit"
        yield Hit("update-every-row", act.place, message)
    else:
        columns = ", ".join(act.columns)
        yield Hit(
            "update-without-where", act.place, f"UPDATE without WHERE overwrites {columns} in every row of {act.table}"
        )
