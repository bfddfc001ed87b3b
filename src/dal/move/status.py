"""How far a move has come, as data: what `dal move status` and `watch` show, whether or not a mover is running.

Everything is read from the gates and registries of both stores; nothing is written. Rates come from looking twice
(`Pace`), or, for a single look, from when the move began.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, cast

from dal.errors import DalError, SchemaError
from dal.limits import MOVE_PACE_S
from dal.move.sides import ClockMs, Side, Sides, UnitGates, now_ms, other, read_gates
from dal.ops import JsonValue
from dal.replica import UNITS, Backlog, Gate, Role

#: Phases in which rows are still on their first way.
UNDER_WAY: Final = frozenset({"CAPTURE", "BACKFILL", "SYNC"})
#: Rows of which nothing is known yet.
_NOTHING: Final = Backlog(0, 0, 0)
_TIMES: Final = 10  # cutovers of a unit that its notes keep


@dataclass(slots=True, kw_only=True)
class TableStatus:
    """One table of a unit.

    total   rows to copy, as far as is known: counted when the move began, or registered since.
    copied  those of them that are the same on both sides now.
    dirty   those that wait to be copied.
    """

    total: int
    copied: int
    dirty: int


@dataclass(slots=True, kw_only=True)
class UnitStatus:
    """One unit of a move.

    primary       the side that takes writes; None while it is fenced.
    rate          rows copied in a second; None where nobody knows yet.
    eta_s         seconds until nothing waits, at that rate.
    lag_s         about how far the replica is behind: what waits, at that rate; 0 when nothing does.
    check         when it was last compared whole (`at_ms`), and how many rows differed.
    cutovers      the last ones, the latest last, with `stall_ms`, `fence_ms`, `drained`, `to` and `at_ms`.
    shadow        percent of reads that are compared, and what came of it.
    problem       what a check behind the move found; empty when all is well.
    """

    unit: str
    phase: str
    primary: Side | None
    epoch: int
    tables: dict[str, TableStatus]
    rate: float | None = None
    eta_s: float | None = None
    lag_s: float | None = None
    check: dict[str, JsonValue] = field(default_factory=dict)
    cutovers: list[dict[str, JsonValue]] = field(default_factory=list)
    shadow_percent: int = 0
    shadow: dict[str, JsonValue] = field(default_factory=dict)
    problem: str = ""

    @property
    def total(self) -> int:
        return sum(table.total for table in self.tables.values())

    @property
    def copied(self) -> int:
        return sum(table.copied for table in self.tables.values())

    @property
    def dirty(self) -> int:
        return sum(table.dirty for table in self.tables.values())

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "unit": self.unit,
            "phase": self.phase,
            "primary": self.primary,
            "epoch": self.epoch,
            "total": self.total,
            "copied": self.copied,
            "dirty": self.dirty,
            "rate": None if self.rate is None else round(self.rate, 1),
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "lag_s": None if self.lag_s is None else round(self.lag_s, 2),
            "check": dict(self.check) or None,
            "cutovers": list(self.cutovers),
            "shadow_percent": self.shadow_percent,
            "shadow": dict(self.shadow) or None,
            "problem": self.problem or None,
            "tables": {
                name: {"total": table.total, "copied": table.copied, "dirty": table.dirty}
                for name, table in self.tables.items()
            },
        }


@dataclass(slots=True, kw_only=True)
class MoveStatus:
    """A move as of one look.

    move        its id; empty where none is on.
    lease_s     for how long the mover at work has said it will be; None where none is.
    is_retired  the move has ended, and the target is the store now.
    unseen      why the target's part could not be read; what is told is the source's word then.
    """

    move: str = ""
    units: dict[str, UnitStatus] = field(default_factory=dict)
    lease_owner: str = ""
    lease_s: float | None = None
    began_ms: int | None = None
    at_ms: int = 0
    is_retired: bool = False
    unseen: str = ""

    @property
    def is_on(self) -> bool:
        return bool(self.move) and not self.is_retired

    @property
    def is_verified(self) -> bool:
        """Every unit can be switched, or was."""
        return self.is_on and all(unit.phase in ("VERIFIED", "SWITCHED") for unit in self.units.values())

    def living_on(self, side: Side) -> tuple[str, ...]:
        return tuple(name for name, unit in self.units.items() if unit.primary == side)

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "move": self.move or None,
            "on": self.is_on,
            "retired": self.is_retired,
            "verified": self.is_verified,
            "at_ms": self.at_ms,
            "began_ms": self.began_ms,
            "mover": None if self.lease_s is None else {"owner": self.lease_owner, "lease_s": round(self.lease_s, 1)},
            "unseen": self.unseen or None,
            "units": [unit.as_dict() for unit in self.units.values()],
        }


async def look(sides: Sides, *, clock: ClockMs = now_ms) -> MoveStatus:
    """The move of these stores as it is now. Where the target does not answer, as far as the source knows.

    Raises ConflictError where the two stores do not belong to one move, and the source's own errors.
    """
    try:
        return await _look(sides, clock)
    except SchemaError:  # the move was ended between two reads, and its registry is gone
        return await _look(sides, clock)


async def _look(sides: Sides, clock: ClockMs) -> MoveStatus:
    source = await sides.source.gates()
    status = MoveStatus(at_ms=clock())
    if not source:
        return status
    status.move = next(iter(source.values())).move
    if all(gate.phase == "RETIRED" for gate in source.values()):
        status.is_retired = True
        return status
    backlogs: dict[Side, Mapping[str, Backlog]] = {"source": await sides.source.backlog()}
    try:
        gates = await read_gates(sides)
        if any(found.holder == "target" for found in gates.values()):
            backlogs["target"] = await sides.target.backlog()
    except DalError as error:
        if not error.retryable:
            raise
        status.unseen = error.message
        gates = {unit: UnitGates(source[unit], _unknown(source[unit])) for unit in UNITS if unit in source}
    if not gates:
        return await _look(sides, clock)  # ended meanwhile, and the source says so now
    lease = max((found.source for found in gates.values()), key=lambda gate: gate.lease_until_ms)
    if lease.lease_owner and lease.lease_until_ms > status.at_ms:
        status.lease_owner, status.lease_s = lease.lease_owner, (lease.lease_until_ms - status.at_ms) / 1000
    for unit, found in gates.items():
        status.units[unit] = _unit(unit, found, backlogs.get(found.holder, {}), bool(status.unseen))
    began = [_int(json.loads(found.source.notes).get("began_ms")) for found in gates.values()]
    status.began_ms = min((ms for ms in began if ms), default=None)
    return status


def _unknown(gate: Gate) -> Gate:
    """What the source's gate lets one suppose of a target that does not answer."""
    role: Role = "replica" if gate.role == "primary" else "primary"
    return gate._replace(side="target", role=role, epoch=0, notes="{}")


def _unit(unit: str, gates: UnitGates, backlog: Mapping[str, Backlog], is_unsure: bool) -> UnitStatus:
    notes = {side: json.loads(gates.at(side).notes) for side in (other(gates.holder), gates.holder)}
    counted = notes["source"].get("rows", {})
    tables: dict[str, TableStatus] = {}
    for name in UNITS[unit]:
        found = backlog.get(name, _NOTHING)
        # Tombstones are entries too: what is registered can be more than was counted.
        copied = found.entries - found.dirty
        still_coming = gates.holder == "source" and gates.phase in ("CAPTURE", "BACKFILL")
        total = max(_int(counted.get(name)), found.entries) if still_coming else found.entries
        tables[name] = TableStatus(total=total, copied=copied, dirty=found.dirty)
    checks = [c for c in (side.get("check") for side in notes.values()) if isinstance(c, dict)]
    cutovers = [c for side in notes.values() for c in side.get("cutovers", []) if isinstance(c, dict)]
    cutovers.sort(key=lambda cutover: _int(cutover.get("at_ms")))
    return UnitStatus(
        unit=unit,
        phase=gates.phase,
        primary=None if is_unsure and gates.source.role != "primary" else gates.primary,
        epoch=gates.at(gates.holder).epoch,
        tables=tables,
        check=max(checks, key=lambda check: _int(check.get("at_ms")), default={}),
        cutovers=cutovers[-_TIMES:],
        shadow_percent=gates.source.shadow_percent,
        shadow=notes["source"].get("shadow", {}),
        problem=_problem(notes[gates.holder]) if gates.phase in UNDER_WAY else "",
    )


def _problem(notes: Mapping[str, JsonValue]) -> str:
    """Why the unit is not verified: rows that cannot be copied now, or else what the last look at its tail met."""
    return str(notes.get("held_up") or notes.get("problem") or "")


def _int(value: object) -> int:
    return value if type(value) is int else 0


class Pace:
    """Rates from looks that follow one another: rows copied over the last MOVE_PACE_S seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque()

    def see(self, status: MoveStatus) -> MoveStatus:
        """Fills in rate, eta and lag of every unit."""
        now = monotonic()
        self._seen.append((now, {name: unit.copied for name, unit in status.units.items()}))
        while len(self._seen) > 2 and now - self._seen[0][0] > MOVE_PACE_S:
            self._seen.popleft()
        then, before = self._seen[0]
        for name, unit in status.units.items():
            rate: float | None = None
            if now - then > 0.1 and name in before:
                rate = max(0, unit.copied - before[name]) / (now - then)
            fill_in(unit, rate)
        return status


def since_it_began(status: MoveStatus) -> MoveStatus:
    """Fills in what one look can tell: the rate since the move began, while rows are on their first way."""
    for unit in status.units.values():
        rate = None
        if status.began_ms is not None and unit.phase in UNDER_WAY and status.at_ms > status.began_ms:
            rate = unit.copied / ((status.at_ms - status.began_ms) / 1000)
        fill_in(unit, rate)
    return status


def fill_in(unit: UnitStatus, rate: float | None) -> None:
    """The rate, and what follows from it."""
    unit.rate = rate
    left = max(unit.total - unit.copied, unit.dirty)
    unit.eta_s = 0.0 if left == 0 else left / rate if rate else None
    unit.lag_s = 0.0 if unit.dirty == 0 else unit.dirty / rate if rate else None


def notes_with_cutover(notes: str, cutover: Mapping[str, JsonValue]) -> str:
    """A gate's notes with one more cutover in them."""
    found = cast("dict[str, JsonValue]", json.loads(notes))
    before = found.get("cutovers")
    found["cutovers"] = [*(before if isinstance(before, list) else []), dict(cutover)][-_TIMES:]
    return json.dumps(found, sort_keys=True)
