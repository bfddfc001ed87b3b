"""How one row can differ between two stores, and what is made of a pair of rows that were looked at together.

Between stores in a move a pair counts only where the primary's row waits for nobody to copy it: until then it is
pending. Outside a move the source is the reference.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from dal.move.canonical import differing_fields, row_hash, same_row
from dal.move.sides import Side, other
from dal.replica import Entry
from dal.tables import Table

#: missing         the side has no such row.
#: extra           the side has a row that the other one has not (any more).
#: stale           the side has an older version of the row.
#: content_differs  both say that they have the same version, and they hold different content.
#: orphan          the row refers to a parent that the side has not.
Kind: TypeAlias = Literal["missing", "extra", "stale", "content_differs", "orphan"]
KINDS: Final[tuple[Kind, ...]] = ("missing", "extra", "stale", "content_differs", "orphan")


class Difference(NamedTuple):
    """One row that differs, and stayed so while it was watched.

    side     where it is missing, extra, stale, different or an orphan: the replica, or the target outside a move.
    fields   names of the columns that differ; of an orphan, the column that refers to nothing.
    altered  sides whose row is not what their registry says was copied: it was changed behind the store's back.
    source, target  the rows, to be shown by those who may; None where there is none.
    """

    kind: Kind
    table: str
    id: str
    side: Side
    fields: tuple[str, ...] = ()
    altered: tuple[Side, ...] = ()
    source: Entry | None = None
    target: Entry | None = None


class Roles(NamedTuple):
    """Which of two stores in a move holds a unit, and how far its move has come."""

    primary: Side
    phase: str

    @property
    def is_backfilled(self) -> bool:
        return self.phase not in ("CAPTURE", "BACKFILL")


def judge(table: Table, roles: Roles | None, source: Entry, target: Entry) -> Difference | Literal["equal", "pending"]:
    """What a pair comes to that was read now, the primary's first.

    roles  None outside a move.
    """
    if _is_alike(table, source, target):
        return "equal"
    side: Side = "target" if roles is None else other(roles.primary)
    right, wrong = (source, target) if side == "target" else (target, source)
    if roles is not None and is_in_flight(roles, right, wrong):
        return "pending"
    kind: Kind
    if right.row is None:
        kind = "extra"
    elif wrong.row is None:
        kind = "missing"
    else:
        kind = "stale" if _version(table, wrong) < _version(table, right) else "content_differs"
    fields: tuple[str, ...] = ()
    if source.row is not None and target.row is not None:
        fields = differing_fields(table, source.row, target.row)
    entries: tuple[tuple[Side, Entry], ...] = (("source", source), ("target", target))
    altered = tuple(name for name, entry in entries if _is_altered(table, entry))
    return Difference(kind, table.name, source.id, side, fields, altered, source, target)


def is_in_flight(roles: Roles, primary: Entry, replica: Entry) -> bool:
    """Whether the row has yet to be copied. What a cascade took from the replica is marked there, to come back."""
    if any(entry.version and entry.state == "dirty" for entry in (primary, replica)):
        return True
    return primary.version == 0 and primary.row is not None and not roles.is_backfilled


def _is_alike(table: Table, source: Entry, target: Entry) -> bool:
    """Whether both sides hold the same content, or neither holds the row."""
    if source.row is None or target.row is None:
        return source.row is target.row
    return same_row(table, source.row, target.row)


def _version(table: Table, entry: Entry) -> int:
    """The registry's version; without one, the row's own, which grows with every change."""
    if entry.version or entry.row is None:
        return entry.version
    if table.columns[-1].name != "version":
        return 0
    own = entry.row[-1]
    return own if isinstance(own, int) else 0


def _is_altered(table: Table, entry: Entry) -> bool:
    return entry.hash is not None and entry.row is not None and row_hash(table, entry.row) != entry.hash
