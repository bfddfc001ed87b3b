"""SQLite's way of changing a table: make a new one, copy, drop the old one, rename.

With foreign keys enforced, DROP TABLE first deletes every row, which deletes or empties the rows of other tables that
refer to them. Measured on SQLite 3.40 and on D1's engine, where `PRAGMA foreign_keys = off` does nothing (D1 runs
everything in a transaction) and `defer_foreign_keys` does not keep a CASCADE from acting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.schema.linting.acts import Act, AlterTable, CreateTable, Drop, ForeignKey, Insert
from dal.schema.linting.context import Context, Hit

_HARMS: Final = {"CASCADE": "is deleted", "SET NULL": "loses its reference", "SET DEFAULT": "loses its reference"}
_D1_ADVICE: Final = (
    "D1 cannot switch foreign keys off. Make the new parent under another name and copy; make each child anew with a "
    "reference to it and copy; drop the old children, then the old parent; rename the new ones"
)


def is_rebuild(name: str, context: Context) -> bool:
    """The dropped table's rows were copied before, and a table of its name is there when the file ends."""
    if not context.work.copied.get(name, set()) & context.work.created:
        return False
    original = context.work.renamed.get(name, name)
    if original != name and original in context.catalog.tables:
        return True
    return _made_later(original, context)


def check(act: Act, context: Context) -> Iterator[Hit]:
    if context.engine != "sqlite":
        return
    if isinstance(act, Drop) and act.kind == "TABLE":
        for name in filter(context.exists, act.names):
            if is_rebuild(name, context):
                yield from _children(name, act, context)
    elif isinstance(act, Insert) and act.replaces and not _unenforced(context):
        harmed = [(child, key) for child, key in context.catalog.children(act.table) if key.on_delete in _HARMS]
        if harmed:
            child, key = harmed[0]
            yield Hit(
                "replace-deletes-children",
                act.place,
                f"REPLACE deletes the row of {act.table} that it replaces, and what refers to it in {child} "
                f"{_HARMS[key.on_delete]} (ON DELETE {key.on_delete})",
            )


def _children(name: str, act: Drop, context: Context) -> Iterator[Hit]:
    children = context.catalog.children(name)
    if not children or _unenforced(context) or _filled_again(name, children, context):
        return
    told: list[str] = []
    for child, key in children:
        if key.on_delete in _HARMS:
            told.append(f"what refers to it in {child} {_HARMS[key.on_delete]} (ON DELETE {key.on_delete})")
        else:
            told.append(f"{child} refers to it, so it fails where there are rows")
    message = f"DROP TABLE {name} deletes its rows first, with foreign keys on: {'; '.join(dict.fromkeys(told))}"
    yield Hit("rebuild-deletes-children", act.place, message, _D1_ADVICE if context.place == "d1" else "")


def _unenforced(context: Context) -> bool:
    return context.place != "d1" and (context.work.unenforced or not context.foreign_keys)


def _filled_again(name: str, children: list[tuple[str, ForeignKey]], context: Context) -> bool:
    """Deferred keys that do not act on a delete come right when the rows are inserted into a table of that name."""
    return (
        context.work.deferred
        and not any(key.on_delete in _HARMS for _, key in children)
        and any(isinstance(act, Insert) and act.table == name for act in context.acts[context.index + 1 :])
    )


def _made_later(name: str, context: Context) -> bool:
    for act in context.acts[context.index + 1 :]:
        if isinstance(act, CreateTable) and act.name == name:
            return True
        if isinstance(act, AlterTable) and any(
            change.kind == "rename-table" and change.to == name for change in act.changes
        ):
            return True
    return False
