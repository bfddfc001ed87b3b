"""Repair of what a check found, in a move: the primary gives the rows new versions, and they are copied as usual.

So a repair overwrites nothing by itself, a write that comes between wins, and doing it twice does no harm. Nothing is
changed unless asked, rows that the replica has too many go only where that is said, and every repair is in the
primary's audit trail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dal.errors import UnsupportedError
from dal.move.differences import Difference, Roles
from dal.move.stores import Stores
from dal.ops import Insert, JsonValue, Value
from dal.store import Store
from dal.tables import TABLES
from dal.values import Clock, IdMaker, new_id, now

ACTION: Final = "move.repair"
#: Rows of one entry in the audit trail, and of one statement.
_ROWS_AT_ONCE: Final = 500
_COPIED: Final = ("missing", "stale", "content_differs")


@dataclass(slots=True)
class Repair:
    """What a repair does, or would do.

    copied    rows to be copied again, by table.
    deleted   rows that the replica has too many, by table; they are deleted there only when that was asked for.
    left      extra rows that nobody asked to delete.
    doubtful  rows that are changed in the primary itself behind its registry: to copy them would spread the damage.
    orphans   rows whose parent is missing: only their writer knows what belongs there.
    """

    copied: dict[str, list[str]] = field(default_factory=dict)
    deleted: dict[str, list[str]] = field(default_factory=dict)
    left: int = 0
    doubtful: int = 0
    orphans: int = 0
    done: bool = False

    @property
    def rows(self) -> int:
        return sum(len(ids) for found in (self.copied, self.deleted) for ids in found.values())

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "done": self.done,
            "copied": {table: len(ids) for table, ids in self.copied.items()},
            "deleted": {table: len(ids) for table, ids in self.deleted.items()},
            "left": self.left,
            "doubtful": self.doubtful,
            "orphans": self.orphans,
        }


async def repair(
    source: Store,
    target: Store,
    differences: Sequence[Difference],
    *,
    delete_extra: bool = False,
    dry_run: bool = True,
    clock: Clock = now,
    new_id: IdMaker = new_id,
) -> Repair:
    """Has the rows copied again by whoever runs the move; it may take until its next round.

    delete_extra  rows that only the replica has are deleted there.
    dry_run       only say what would be done.
    Raises        UnsupportedError: the stores are in no move, or a table is not.  FencedError: the audit trail is being
                  switched to the other store; nothing, or a part, was registered, and doing it again does the rest.
    """
    stores = await Stores.of(source, target)
    roles = await stores.roles()
    plan = _plan(differences, roles, delete_extra=delete_extra)
    if dry_run or not plan.rows:
        return plan
    trail = _audit_store(roles, source, target)
    for table, ids, counts in _parts(plan):
        primary = stores.by_side()[roles[table].primary]
        context: dict[str, JsonValue] = {"copied": counts["copied"], "deleted": counts["deleted"], "ids": list(ids)}
        await trail.commit([Insert("system_logs", _log(new_id(), table, context, clock))])
        await primary.raise_versions(table, ids)
    plan.done = True
    return plan


def _plan(differences: Sequence[Difference], roles: Mapping[str, Roles], *, delete_extra: bool) -> Repair:
    plan = Repair()
    for difference in differences:
        held = roles.get(difference.table)
        if held is None:
            raise _in_no_move(difference.table)
        if difference.kind == "orphan":
            plan.orphans += 1
        elif held.primary in difference.altered:
            plan.doubtful += 1
        elif difference.kind in _COPIED:
            plan.copied.setdefault(difference.table, []).append(difference.id)
        elif delete_extra:
            plan.deleted.setdefault(difference.table, []).append(difference.id)
        else:
            plan.left += 1
    return plan


def _parts(plan: Repair) -> Iterator[tuple[str, list[str], Counter[str]]]:
    """Parents before children, whatever is to become of the rows."""
    for table in TABLES:
        rows = [(row_id, what) for what in ("copied", "deleted") for row_id in getattr(plan, what).get(table, ())]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            yield table, [row_id for row_id, _ in part], Counter(what for _, what in part)


def _audit_store(roles: Mapping[str, Roles], source: Store, target: Store) -> Store:
    """Where the trail is written now; a trail that takes no part in the move is the source's."""
    held = roles.get("system_logs")
    if held is None:
        return source
    return source if held.primary == "source" else target


def _log(row_id: str, table: str, context: dict[str, JsonValue], clock: Clock) -> dict[str, Value]:
    row: dict[str, Value] = dict.fromkeys(TABLES["system_logs"].names)
    return row | {
        "id": row_id,
        "action": ACTION,
        "entity_type": table,
        "level": "warning",
        "message": "rows that differed between the stores of a move are copied again from the primary",
        "context": context,
        "created_at": clock(),
    }


def _in_no_move(table: str) -> UnsupportedError:
    return UnsupportedError(
        f"{table}: a move repairs rows by copying them again, and this table is in none; start one, and check again",
        operation="repair",
    )
