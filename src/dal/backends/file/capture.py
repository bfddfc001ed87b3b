"""What a live move asks of every write: that its unit is this store's to write, and that it is registered.

Both happen under the store's lock, where the changes are known and before they are written: the entries go into the
journal record of the write itself. Roles are told by the operations of a batch, so that a refused batch writes nothing
and one that would have written nothing is refused too. What hangs on a row goes with it also where its own unit is a
replica here: the primary's own cascade makes the same of it, and its entry is marked, for where it does not. Behind a
fence it does not go, and the whole batch is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from dal.backends.file.codec import AnyChange
from dal.backends.file.layout import BACKEND
from dal.backends.file.registry import Marked, Registry, Versions
from dal.backends.file.registry_file import DIRTY, Known
from dal.backends.rows import Change, Drop
from dal.errors import FencedError
from dal.ops import Guard, Op
from dal.replica import UNIT_OF, Gate


def check_roles(registry: Registry, ops: Sequence[Op]) -> None:
    """Raises FencedError for operations on a unit that this store does not take writes for now."""
    for op in ops:
        gate = registry.gates.get(UNIT_OF[op.table])
        if gate is not None and gate.role != "primary" and not isinstance(op, Guard):
            raise _refused(gate)


def _refused(gate: Gate) -> FencedError:
    return FencedError(
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
    applied: Collection[tuple[str, str]] = (),
    with_fenced: bool = False,
) -> list[AnyChange]:
    """The changes with what the registry learns of them.

    children     the ids of the rows that a drop takes away, as they are before it.
    applied      rows, by table and id, whose entries are written anyway.
    with_fenced  what happens behind a fence is registered; else FencedError: nobody would know of it if the fence were
                 taken back.
    """
    if not registry.gates:
        return [*changes]
    changed: list[tuple[str, str, bool]] = []
    marked: dict[str, dict[str, Known]] = {}
    for change in changes:
        gate = registry.gates.get(UNIT_OF[change.table])
        if gate is None:
            continue
        is_drop = isinstance(change, Drop)
        ids = await children(change) if isinstance(change, Drop) else [change.id]
        ids = [row_id for row_id in ids if (change.table, row_id) not in applied]
        if registry.is_captured(change.table, with_fenced=with_fenced):
            changed += [(change.table, row_id, is_drop or change.row is None) for row_id in ids]  # type: ignore[union-attr]
        elif gate.role == "fenced":
            raise _refused(gate)
        elif gate.role == "replica":
            _mark(registry, change.table, ids, marked)
    marks = [Marked(table, list(entries.items())) for table, entries in marked.items()]
    return [*changes, *marks, *registered(registry, changed)]


def _mark(registry: Registry, table: str, ids: Iterable[str], marked: dict[str, dict[str, Known]]) -> None:
    """Makes entries dirty as they are: the primary is to send the rows once more."""
    for row_id, known in registry.many(table, list(ids)).items():
        marked.setdefault(table, {})[row_id] = known._replace(state=DIRTY, hash=None)


def registered(registry: Registry, changed: Iterable[tuple[str, str, bool]]) -> list[Marked]:
    """Entries under new versions for these rows: table, id, and whether it is gone; of a row the last word counts."""
    versions = Versions(registry)
    entries: dict[str, dict[str, Known]] = {}
    for table, row_id, is_gone in changed:
        entries.setdefault(table, {})[row_id] = Known(versions.next(table), is_gone, DIRTY, None)
    return [Marked(table, list(found.items())) for table, found in entries.items()]
