"""The two stores of a move, and which of them is whose primary.

Both stores hold a gate for each unit; they are read one after the other, so they may be of different moments. What
counts is settled here once: the new primary's own gate is the commit point of a cutover, and the old one's follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time
from typing import Final, Literal, NamedTuple, TypeAlias

from dal.errors import ConflictError, UnavailableError
from dal.replica import UNIT_OF, UNITS, Gate, Replica
from dal.tables import TABLES

Side: TypeAlias = Literal["source", "target"]
SIDES: Final[tuple[Side, Side]] = ("source", "target")
_TRIES: Final = 100
#: Milliseconds since 1970, of this machine.
ClockMs: TypeAlias = Callable[[], int]


def now_ms() -> int:
    """The wall clock, for what people are shown; nothing of a move is decided by it (dal.move.patience)."""
    return int(time() * 1000)


class Sides(NamedTuple):
    """The moves' side of both stores."""

    source: Replica
    target: Replica

    def at(self, side: Side) -> Replica:
        return self.source if side == "source" else self.target


class UnitGates(NamedTuple):
    """One unit's gates in both stores."""

    source: Gate
    target: Gate

    def at(self, side: Side) -> Gate:
        return self.source if side == "source" else self.target

    @property
    def holder(self) -> Side:
        """The side that the unit lives on: primary now, or fenced. Rows are copied from there.

        Gates read one after the other may be of different moments; the one of the later epoch knows better.
        """
        return "target" if self.target.epoch > self.source.epoch else "source"

    @property
    def is_settled(self) -> bool:
        """Whether these gates can be told from: a later epoch's replica has been overtaken since it was read."""
        return self.at(self.holder).role != "replica"

    @property
    def primary(self) -> Side | None:
        """The side that takes writes; None while the unit is fenced."""
        return self.holder if self.at(self.holder).role == "primary" else None

    @property
    def fenced(self) -> Side | None:
        """The side whose fence is down, while neither is primary."""
        return self.holder if self.at(self.holder).role == "fenced" else None

    @property
    def phase(self) -> str:
        """How far the unit has come: what the gate of its holder says."""
        return self.at(self.holder).phase


def other(side: Side) -> Side:
    return "target" if side == "source" else "source"


async def read_gates(sides: Sides) -> Mapping[str, UnitGates]:
    """Every unit's gates, in the order of UNITS; empty where no move is on. A retired move is on no more.

    Raises ConflictError where the two stores do not belong to one move.
    """
    for _ in range(_TRIES):
        source = {unit: gate for unit, gate in (await sides.source.gates()).items() if gate.phase != "RETIRED"}
        target = await sides.target.gates() if source else {}
        found = {unit: UnitGates(source[unit], target[unit]) for unit in UNITS if unit in source and unit in target}
        if source and (len(found) != len(source) or len(found) != len(target)):
            raise ConflictError("the target is not part of the source's move; start the move, or abort it")
        for gates in found.values():
            if gates.source.move != gates.target.move:
                raise ConflictError("source and target belong to different moves")
        if all(gates.is_settled for gates in found.values()):
            return found
    raise UnavailableError("the gates of both stores changed under every look at them", operation="move")


def with_parents(units: frozenset[str]) -> tuple[str, ...]:
    """These units and those that their rows refer to, in the order of UNITS."""
    wanted, added = set(units), set(units)
    while added:
        tables = [TABLES[name] for unit in added for name in UNITS[unit]]
        added = {UNIT_OF[parent.table] for table in tables for parent in table.parents} - wanted
        wanted |= added
    return tuple(unit for unit in UNITS if unit in wanted)
