"""What a live move asks of every write: that its unit is this store's to write, and that it is registered.

Both happen under the store's lock, where the changes are known and before they are written: the entries go into the
journal record of the write itself. Roles are told by the operations of a batch, so that a refused batch writes nothing
and one that would have written nothing is refused too. What hangs on a row goes with it whatever its own unit's role:
where that is not primary it is not registered, for the primary's own cascade is copied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from dal.backends.file.codec import AnyChange
from dal.backends.file.layout import BACKEND
from dal.backends.file.registry import DIRTY, Known, Marked, Registry, Versions
from dal.backends.rows import Change, Drop
from dal.errors import FencedError
from dal.ops import Guard, Op
from dal.replica import UNIT_OF


def check_roles(registry: Registry, ops: Sequence[Op]) -> None:
    """Raises FencedError for operations on a unit that this store does not take writes for now."""
    for op in ops:
        gate = registry.gates.get(UNIT_OF[op.table])
        if gate is not None and gate.role != "primary" and not isinstance(op, Guard):
            raise FencedError(
                f"commit: this store is {gate.role} for {gate.unit} in the move {gate.move}; "
                "write to the store that is primary",
                operation="commit",
                backend=BACKEND,
            )


async def captured(
    registry: Registry,
    changes: list[Change | Drop],
    children: Callable[[Drop], Awaitable[list[str]]],
    *,
    with_fenced: bool = False,
) -> list[AnyChange]:
    """The changes with what the registry learns of them.

    children  the ids of the rows that a drop takes away, as they are before it.
    """
    if not registry.is_capturing:
        return [*changes]
    changed: list[tuple[str, str, bool]] = []
    for change in changes:
        if not registry.is_captured(change.table, with_fenced=with_fenced):
            continue
        if isinstance(change, Change):
            changed.append((change.table, change.id, change.row is None))
        else:
            changed += [(change.table, row_id, True) for row_id in await children(change)]
    return [*changes, *registered(registry, changed)]


def registered(registry: Registry, changed: Iterable[tuple[str, str, bool]]) -> list[Marked]:
    """Entries under new versions for these rows: table, id, and whether it is gone; of a row the last word counts."""
    versions = Versions(registry)
    entries: dict[str, dict[str, Known]] = {}
    for table, row_id, is_gone in changed:
        entries.setdefault(table, {})[row_id] = Known(versions.next(table), is_gone, DIRTY, None)
    return [Marked(table, list(found.items())) for table, found in entries.items()]
