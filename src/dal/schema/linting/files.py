"""What a file's own way of running asks of its statements, and foreign keys that say what a delete does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.schema.linting.acts import (
    Act,
    AlterOther,
    AlterTable,
    Change,
    Constraint,
    Create,
    CreateIndex,
    CreateTable,
    Drop,
    Insert,
    Plain,
    Pragma,
    Update,
)
from dal.schema.linting.context import Context, Hit

_ALONE: Final = (
    ("CREATE", "DATABASE"),
    ("CREATE", "TABLESPACE"),
    ("DROP", "DATABASE"),
    ("DROP", "TABLESPACE"),
)
_ALONE_PLAIN: Final = (("VACUUM",), ("REINDEX", "DATABASE"), ("REINDEX", "SYSTEM"))
_NO_GUARD: Final = "It cannot be written so that it may run twice: put it in a file that runs in a transaction"


def foreign_keys(act: Act, _: Context) -> Iterator[Hit]:
    """Each foreign key that leaves its ON DELETE to the default."""
    constraints: list[Constraint] = []
    if isinstance(act, CreateTable):
        constraints = [*act.constraints, *(one for column in act.columns for one in column.constraints)]
        table = act.name
    elif isinstance(act, AlterTable):
        table = act.table
        for change in act.changes:
            constraints += [change.constraint] if change.constraint is not None else []
            constraints += change.column.constraints if change.column is not None else ()
    for constraint in constraints:
        if constraint.foreign is not None and not constraint.foreign.on_delete:
            key = constraint.foreign
            message = (
                f"{table}.{', '.join(key.columns)} refers to {key.target} and does not say what a delete there does"
            )
            yield Hit("foreign-key-without-on-delete", key.place, message)


def transaction(act: Act, context: Context) -> Iterator[Hit]:
    """What cannot run in the transaction that the file is run in, or has no effect there."""
    if isinstance(act, Pragma) and act.name == "foreign_keys" and act.value and context.in_transaction:
        yield Hit("foreign-keys-pragma", act.place, "PRAGMA foreign_keys does nothing inside a transaction")
    if not context.in_transaction or context.place == "d1":
        return
    if context.engine == "postgresql" and _concurrently(act):
        yield Hit("concurrently-in-transaction", act.place, "CONCURRENTLY is refused inside a transaction")
    elif alone := _alone(act, context):
        yield Hit("needs-no-transaction", act.place, f"{alone} is refused inside a transaction")


def _concurrently(act: Act) -> bool:
    match act:
        case CreateIndex(concurrently=True) | Drop(concurrently=True):
            return True
        case AlterTable(changes=changes):
            return any(change.kind == "detach" and change.concurrently for change in changes)
        case Plain(words=("REINDEX", *_), concurrently=True):
            return True
        case _:
            return False


def _alone(act: Act, context: Context) -> str:
    match act:
        case Plain(words=words):
            plain = _ALONE_PLAIN if context.engine == "postgresql" else _ALONE_PLAIN[:1]
            return next((" ".join(one) for one in plain if words[: len(one)] == one), "")
        case Create(kind=kind) if ("CREATE", kind) in _ALONE:
            return f"CREATE {kind}"
        case Drop(kind=kind) if ("DROP", kind) in _ALONE:
            return f"DROP {kind}"
        case AlterOther(kind="SYSTEM"):
            return "ALTER SYSTEM"
        case _:
            return ""


def repeatable(act: Act, context: Context) -> Iterator[Hit]:
    """In a file without a transaction each statement may run twice: an answer can get lost after it has acted."""
    if context.in_transaction:
        return
    match act:
        case CreateTable(if_not_exists=False) | CreateIndex(if_not_exists=False):
            yield _again(act.place, f"CREATE of {act.name or 'an index'} fails the second time", "Write IF NOT EXISTS")
        case CreateIndex(name=""):
            message = "an index without a name gets another one each time"
            yield _again(act.place, message, "Give it a name")
        case Create(if_not_exists=False, or_replace=False):
            yield _create(act)
        case Drop(if_exists=False):
            yield _again(act.place, f"DROP of {', '.join(act.names)} fails the second time", "Write IF EXISTS")
        case AlterTable(changes=changes):
            for change in changes:
                yield from _change(act, change, context)
        case AlterOther(what="ADD VALUE", guarded=False):
            yield _again(act.place, "ADD VALUE fails the second time", "Write ADD VALUE IF NOT EXISTS")
        case AlterOther(what="RENAME" | "RENAME VALUE"):
            yield _again(act.place, f"the renaming of {act.name} fails the second time", _NO_GUARD)
        case Insert(guarded=False):
            message = f"INSERT INTO {act.table} inserts its rows a second time"
            yield _again(act.place, message, "Write ON CONFLICT DO NOTHING, or SELECT … WHERE NOT EXISTS (…)")
        case Update(counts=True):
            message = f"UPDATE of {act.table} sets a column from its own value, so a second run changes it again"
            yield _again(
                act.place, message, "Exclude in its WHERE the rows that are done, or use a file in a transaction"
            )
        case _:
            pass


def _create(act: Create) -> Hit:
    advice = "Write IF NOT EXISTS or OR REPLACE, whichever it has"
    if act.kind in ("TYPE", "DOMAIN", "POLICY", "ROLE", "USER", "PUBLICATION", "SUBSCRIPTION"):
        advice = _NO_GUARD
    return _again(act.place, f"CREATE {act.kind} {act.name} fails the second time", advice)


def _change(act: AlterTable, change: Change, context: Context) -> Iterator[Hit]:
    sqlite = context.engine == "sqlite"
    if change.kind == "add-column" and not change.guarded:
        advice = _NO_GUARD if sqlite else "Write ADD COLUMN IF NOT EXISTS"
        yield _again(change.place, f"ADD COLUMN {change.name} fails the second time", advice)
    elif change.kind in ("drop-column", "drop-constraint") and not change.guarded:
        yield _again(
            change.place, f"DROP of {change.name} fails the second time", _NO_GUARD if sqlite else "Write IF EXISTS"
        )
    elif change.kind == "add-constraint":
        dropped = any(
            one.kind == "drop-constraint" and one.guarded and one.name == change.name and change.name
            for one in act.changes
        )
        if not dropped:
            message = f"ADD CONSTRAINT {change.name} fails the second time".replace("  ", " ")
            yield _again(change.place, message, "Begin the same statement with DROP CONSTRAINT IF EXISTS of that name")
    elif change.kind.startswith("rename"):
        yield _again(change.place, f"the renaming of {change.name or act.table} fails the second time", _NO_GUARD)


def _again(place: int, message: str, advice: str) -> Hit:
    return Hit("not-repeatable", place, message, advice)
