"""What can stand in the way of a move, as data: ids and names of fields, never content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from dal.ops import JsonValue

#: unreachable  the store does not answer, or cannot be opened.    schema      the target's is missing or older.
#: occupied     the target holds rows already.                      other_move  a store takes part in another move.
#: value        a value that the target cannot keep as it is.       too_large   a row beyond the target's limits.
#: orphan       a row whose parent is missing.                      unreadable  a row that cannot be read.
#: damage       data that the store itself leaves out.
#: store        what the store says of itself: rights, engine, triggers.       space       not enough of it.
ObstacleKind: TypeAlias = Literal[
    "unreachable",
    "schema",
    "occupied",
    "other_move",
    "unreadable",
    "value",
    "too_large",
    "orphan",
    "damage",
    "store",
    "space",
]
#: A move can begin in spite of these: what cannot be copied stays behind, and its unit is not switched.
_HARMLESS: Final = frozenset({"occupied", "orphan", "damage", "store"})


@dataclass(slots=True)
class Obstacle:
    """One thing in the way. `rows` were found to have it; `samples` are ids of some of them.

    is_kept  the target takes such a value as it is, although another store would not.
    """

    kind: ObstacleKind
    text: str
    table: str = ""
    rows: int = 0
    samples: list[str] = field(default_factory=list)
    is_kept: bool = False

    @property
    def may_be_allowed(self) -> bool:
        return self.kind in _HARMLESS or self.is_kept

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "kind": self.kind,
            "text": self.text,
            "table": self.table or None,
            "rows": self.rows,
            "samples": list(self.samples),
            "may_be_allowed": self.may_be_allowed,
        }
