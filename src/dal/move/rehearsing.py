"""A rehearsal: a whole move to a scratch store, taken out of the source again, with times of everything.

The source's service goes on: its rows are only read, its writes registered as in a move. A cutover makes a source
refuse writes of applications that know of no move, so it is carried out, and rolled back, only where nobody has written
since the rehearsal began, or where that was asked for. Without it, what a cutover does behind the fence is done beside
the writers, and timed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from dal.errors import ConflictError, DalError
from dal.limits import MOVE_CATCH_UP_S, MOVE_LEASE_S, REHEARSAL_CLEANING_TRIES
from dal.move.cutover import Cutover, CutoverReport
from dal.move.ending import abort, abort_alone
from dal.move.mover import Mover, begin
from dal.move.operating import make_mover, sides_of, switch_units
from dal.move.patience import Patience
from dal.move.relay import drain
from dal.move.sides import Sides, UnitGates, read_gates
from dal.move.tail import compare_tail
from dal.ops import JsonValue
from dal.replica import EPOCH, UNITS, Gate, OneWay, Replica
from dal.store import Store
from dal.values import new_id

#: How the id of a move begins that is none: whoever finds it left behind may take it away.
MARK: Final = "rehearsal-"
_AFTER_BACKFILL: Final = ("SYNC", "VERIFIED")


@dataclass(slots=True)
class Rehearsal:
    """What a rehearsal measured.

    phases     seconds of each phase, in their order.
    rows       rows that were copied.
    switched   the cutovers, there and back; empty where none was carried out.
    drains_ms  of each unit, what is done behind the fence, done beside the writers.
    why        why no cutover was carried out; empty where one was.
    """

    phases: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    switched: list[CutoverReport] = field(default_factory=list)
    drains_ms: dict[str, float] = field(default_factory=dict)
    why: str = ""

    @property
    def rows_s(self) -> float:
        """Rows a second, from the first to the last copied."""
        return self.rows / max(self.phases.get("copy", 0.0), 1e-6)

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "phases_s": {name: round(seconds, 3) for name, seconds in self.phases.items()},
            "rows": self.rows,
            "rows_s": round(self.rows_s),
            "stalls_ms": [
                {"unit": one.unit, "to": one.to, "stall_ms": round(one.stall_ms, 1), "drained": one.drained}
                for one in self.switched
            ],
            "drains_ms": {unit: round(ms, 1) for unit, ms in self.drains_ms.items()},
            "no_cutover_because": self.why or None,
        }


def is_rehearsal(gates: Mapping[str, Gate]) -> bool:
    """Whether these gates are of a rehearsal, under way or killed."""
    return bool(gates) and all(gate.move.startswith(MARK) for gate in gates.values())


async def sweep(store: Replica) -> bool:
    """Takes out of a source what a killed rehearsal left in it; whether there was anything.

    Raises ConflictError where a unit is on the scratch store: only `rehearse` with the same one brings it back.
    """
    gates = await store.gates()
    if not is_rehearsal(gates):
        return False
    if any(gate.role != "primary" for gate in gates.values()):
        raise ConflictError(
            "a rehearsal was killed while a unit was on its scratch store; run `dal move rollback` with that store "
            "as --to, and abort then",
            operation="rehearse",
        )
    await abort_alone(store)
    return True


async def _is_at_work(store: Replica, present: Mapping[str, Gate]) -> bool:
    """Whether the mover that has the lease, if one has, renews it."""
    leases = {unit: (gate.lease_owner, gate.lease_until_ms) for unit, gate in present.items()}
    if not any(owner for owner, _ in leases.values()):
        return False
    patience = Patience()
    while patience.left_s("lease", "", MOVE_LEASE_S) > 0:
        await asyncio.sleep(0.1)
        found = await store.gates()
        if {unit: (gate.lease_owner, gate.lease_until_ms) for unit, gate in found.items()} != leases:
            return True
    return False


async def rehearse(
    source: Store,
    scratch: Store,
    units: Sequence[str],
    *,
    batch_rows: int,
    with_cutover: bool | None = None,
    on_phase: Callable[[str], None] = lambda _: None,
    on_mover: Callable[[Mover], None] = lambda _: None,
) -> Rehearsal:
    """Moves the units to the scratch store, which is open and empty, and takes the move back.

    with_cutover  True: switch each unit there and back, whoever writes. None: only if nobody did. False: do not.
    on_phase      is told what begins.
    However it ends, but for the end of the process, nothing of it is left in the source.
    """
    sides = sides_of(source, scratch)
    present = await sides.source.gates()
    if is_rehearsal(present) and await _is_at_work(sides.source, present):
        raise ConflictError(
            "another rehearsal is under way; try again when it has ended",
            operation="rehearse",
            retryable=True,
        )
    await sweep(sides.source)
    if await sides.source.gates():
        raise ConflictError("the source takes part in a move; rehearse before one, or abort it", operation="rehearse")
    work = _Rehearsing(sides, batch_rows, on_phase)
    try:
        on_phase("capture")
        await work.timed("capture", begin(sides, tuple(units), new_move=lambda: MARK + new_id()))
        mover = make_mover(source, scratch, sides, batch_rows=batch_rows)
        on_mover(mover)
        await work.copy(mover)
        await work.switch(tuple(units), with_cutover)
    finally:
        on_phase("clean up")
        await work.timed("clean up", work.clean_up())
    return work.found


class _Rehearsing:
    def __init__(self, sides: Sides, batch_rows: int, on_phase: Callable[[str], None]) -> None:
        self.found = Rehearsal()
        self._sides = sides
        self._batch_rows = batch_rows
        self._on_phase = on_phase

    async def timed(self, name: str, work: Awaitable[object]) -> None:
        started = monotonic()
        await work
        self.found.phases[name] = monotonic() - started

    async def copy(self, mover: Mover) -> None:
        """Copies and compares everything."""
        self._on_phase("copy")
        started = monotonic()
        copied_at: list[float] = []

        def until(gates: Mapping[str, UnitGates]) -> bool:
            if not copied_at and all(found.phase in _AFTER_BACKFILL for found in gates.values()):
                copied_at.append(monotonic())
                self._on_phase("compare")
            return all(found.phase == "VERIFIED" for found in gates.values())

        await mover.run(until)
        middle = copied_at[0] if copied_at else monotonic()
        self.found.phases["copy"] = middle - started
        self.found.phases["compare"] = monotonic() - middle
        self.found.rows = sum(mover.progress.copied.values())

    async def switch(self, units: tuple[str, ...], with_cutover: bool | None) -> None:
        """Measures what is done behind the fence, and switches there and back, where that may be."""
        self._on_phase("drain")
        for unit in units:
            self.found.drains_ms[unit] = await self._drain_ms(unit)
        if isinstance(self._sides.source, OneWay):
            self.found.why = self._sides.source.one_way
        elif with_cutover is False:
            self.found.why = "it was not asked for"
        elif with_cutover is None and await self._is_written_to():
            self.found.why = (
                "the source is being written to, and applications that know of no move would meet the fence"
            )
        else:
            self._on_phase("cutover and rollback")
            started = monotonic()
            for unit in units:
                # One after the other, there and back at once: a unit is away for as short as can be.
                for to in ("target", "source"):
                    async for report in switch_units(
                        self._sides, [unit], to, batch_rows=self._batch_rows, on_retry=lambda *_: None
                    ):
                        self.found.switched.append(report)
            self.found.phases["cutover and rollback"] = monotonic() - started

    async def _drain_ms(self, unit: str) -> float:
        """What a cutover of the unit does between fence and switch."""
        source, target = self._sides
        everything = frozenset(await read_gates(self._sides))
        started = monotonic()
        for table in UNITS[unit]:
            await drain(source, target, table, self._batch_rows, everything, started + MOVE_CATCH_UP_S)
        await source.backlog()
        for table in UNITS[unit]:
            await compare_tail(table, source, target)
        await read_gates(self._sides)
        return (monotonic() - started) * 1000

    async def _is_written_to(self) -> bool:
        """Whether anything was registered that the backfill did not register itself."""
        gates = await self._sides.source.gates()
        for unit, gate in gates.items():
            for table in UNITS[unit]:
                newest = max((bucket.newest for bucket in await self._sides.source.digest(table)), default=0)
                if newest > gate.epoch * EPOCH:
                    return True
        return False

    async def clean_up(self) -> None:
        """Takes the move out of both stores; brings back first what is away."""
        for attempt in range(REHEARSAL_CLEANING_TRIES):
            try:
                await self._bring_back()
                await abort(self._sides)
            except DalError as error:
                if not (error.retryable or isinstance(error, ConflictError)) or attempt == REHEARSAL_CLEANING_TRIES - 1:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def _bring_back(self) -> None:
        if not await self._sides.source.gates() or not await self._sides.target.gates():
            return
        gates = await read_gates(self._sides)
        cutover = Cutover(self._sides, batch_rows=self._batch_rows)
        for unit, found in gates.items():
            if found.primary == "target":
                with suppress(ConflictError):
                    await cutover.switch(unit, "source")
