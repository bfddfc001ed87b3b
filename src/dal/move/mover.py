"""The mover: the process that carries a move from capture to verified, and keeps the replica up to date after that.

Everything it knows lies in the gates, so it can be killed at any moment and run again; a lease lets any number be
started, of which one works and the others watch. It copies what is dirty, whoever wrote it, in the direction that each
unit's gates say; it never switches a unit by itself (dal.move.cutover does, when asked to).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

from dal.collector import rare_collections
from dal.errors import ConflictError, CorruptDataError, DalError, SchemaError
from dal.limits import (
    GATE_IDLE_AGE_S,
    MOVE_BATCH_ROWS,
    MOVE_IDLE_S,
    MOVE_LEASE_S,
    MOVE_MAX_PAUSE_S,
    MOVE_RESCAN_EVERY_S,
    MOVE_SLOW_S,
    MOVE_SLOWDOWN,
    MOVE_TAIL_EVERY_S,
    MOVE_VERIFY_AGAIN_S,
)
from dal.move.backfill import Backfill, Pace
from dal.move.patience import Patience
from dal.move.recovery import KNOWN, SETTLED, recover
from dal.move.relay import CopyResult, copy_dirty, tables_to_copy
from dal.move.sides import SIDES, ClockMs, Side, Sides, UnitGates, now_ms, other, read_gates
from dal.move.tail import compare_tails
from dal.ops import JsonValue, Value
from dal.replica import UNITS, Gate, Key, Phase, in_order
from dal.values import IdMaker, new_id

Sleep = Callable[[float], Awaitable[None]]
#: Compares a unit whole; the number of differences that stay. What VERIFIED rests on.
Verify = Callable[[str], Awaitable[int]]
CountRows = Callable[[str], Awaitable[int]]


@dataclass(slots=True)
class Progress:
    """How a mover is doing: what `watch` and the progress bars show.

    copied     rows copied by this mover since it began, by table.
    stuck      keys that could not be copied at the last try, each with the rows in its way.
    refused    keys whose content the replica cannot hold, each with what it says of it.
    different  keys that the replica gave back with other content.
    held_up    the same in words, by unit.
    differed   how many whole comparisons of a unit in a row found differences, by unit.
    differing  some of the rows that the last one found different.
    working    this mover holds the lease.
    """

    copied: dict[str, int] = field(default_factory=dict)
    stuck: dict[Key, tuple[Key, ...]] = field(default_factory=dict)
    refused: dict[Key, str] = field(default_factory=dict)
    different: list[Key] = field(default_factory=list)
    held_up: dict[str, str] = field(default_factory=dict)
    differed: dict[str, int] = field(default_factory=dict)
    differing: dict[str, list[str]] = field(default_factory=dict)
    working: bool = False


async def begin(sides: Sides, units: tuple[str, ...], *, new_move: IdMaker = new_id) -> Mapping[str, UnitGates]:
    """Installs a move of these units on both stores, or finds it installed; its gates.

    Raises ConflictError where either store takes part in another move. Any number may call it at once.
    """
    move = await _move_of(sides, units) or new_move()
    try:
        await _install(sides, units, move)
    except ConflictError:
        others = await _move_of(sides, units)
        if others is None or others == move:
            raise
        await _install(sides, units, others)  # somebody else began it meanwhile
    return await read_gates(sides)


async def _move_of(sides: Sides, units: tuple[str, ...]) -> str | None:
    """The id of the move of these units that is on, if one is. ConflictError: it is another move."""
    source, target = await sides.source.gates(), await sides.target.gates()
    if source and {gate.move for gate in target.values()} != {gate.move for gate in source.values()}:
        # Its registry says what another target holds; this one would be taken for a copy that it is not.
        raise ConflictError("the source is being moved to another target; finish or abort that move", operation="move")
    present = source or target
    if present and set(present) != set(units):
        raise ConflictError(
            f"a move of {', '.join(present)} is on; finish or abort it before one of {', '.join(units)}",
            operation="move",
        )
    return next(iter(present.values())).move if present else None


async def _install(sides: Sides, units: tuple[str, ...], move: str) -> None:
    # The target first: from the moment the source registers changes, there is somewhere for them to go.
    await sides.target.install(
        [Gate(unit, move, "target", role="replica", epoch=0, next_epoch=2, phase="CAPTURE") for unit in units]
    )
    await sides.source.install(
        [Gate(unit, move, "source", role="primary", epoch=1, next_epoch=2, phase="CAPTURE") for unit in units]
    )


class Mover:
    """One mover of a move that has begun.

    verify      compares a unit whole when its backlog is drained.
    count       how many rows a table of the source has: what progress is told against.
    batch_rows  rows of a copy at most; it begins with fewer, and shrinks where a copy takes longer than MOVE_BATCH_S,
                rows are large, or the source suffers.
    owner       name of this mover in the lease.
    """

    def __init__(
        self,
        sides: Sides,
        *,
        verify: Verify,
        count: CountRows,
        batch_rows: int = MOVE_BATCH_ROWS,
        owner: str | None = None,
        patience: Patience | None = None,
        clock: ClockMs = now_ms,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.progress = Progress()
        self._sides = sides
        self._verify = verify
        self._count = count
        self._pace = Pace(batch_rows)
        self._backfill = Backfill(sides, self._pace, self.progress.copied)
        self._owner = owner or new_id()
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._fastest_s = float("inf")
        self._lease_ends = 0.0
        self._verify_at: dict[str, float] = {}
        self._checking: _Checking | None = None
        self._tail_at: dict[str, float] = {}
        self._rescan_at: dict[Side, float] = {}

    async def run(self, until: Callable[[Mapping[str, UnitGates]], bool]) -> None:
        """Works, or watches another mover work, until the gates are as asked for.

        Errors that may pass are waited out; others end the run. Cancelling it leaves nothing half done.
        """
        try:
            await self._run(until)
        finally:
            await self._stop_checking()

    async def _run(self, until: Callable[[Mapping[str, UnitGates]], bool]) -> None:
        failures = 0
        looks_again = False
        while True:
            try:
                gates = await read_gates(self._sides)
                if not gates:
                    raise ConflictError("no move is on; start it first", operation="move")
                if until(gates):
                    await self._release(gates)
                    return
                self.progress.working = await self._lease(gates)
                busy = await self.step(gates) if self.progress.working else False
                failures, looks_again = 0, False
            except SchemaError:
                if looks_again:
                    raise
                looks_again = True  # the move was ended in the middle of a round, and its registry is gone
                continue
            except DalError as error:
                failures += 1
                if not error.retryable or failures > 1000:
                    raise
                await self._sleep(min(0.05 * 2.0 ** min(failures, 10), MOVE_MAX_PAUSE_S))
                continue
            if busy:
                await self._sleep(await self._pause_s())
            elif self._checking is not None and self.progress.working:
                await asyncio.wait([self._checking.task], timeout=MOVE_IDLE_S)
            else:
                await self._sleep(MOVE_IDLE_S)

    async def step(self, gates: Mapping[str, UnitGates]) -> bool:
        """One round over all units; whether there was anything to do."""
        with rare_collections():
            return await self._step(gates)

    async def _step(self, gates: Mapping[str, UnitGates]) -> bool:
        recovered = [await recover(self._sides, found, self._patience) for found in gates.values()]
        if any(recovered):
            return True
        busy = False
        clean: set[str] = set()
        total = CopyResult()
        for side in SIDES:
            units = frozenset(unit for unit, found in gates.items() if found.holder == side)
            if units:
                await self._rescan(side)
                result = await self._copy(side, units)
                total.add(result)
                busy |= bool(result.copied)
                clean |= {unit for unit in units if result.is_all and not result.held_up(unit)}
                for unit in units:
                    await self._note_held_up(gates[unit].at(side), result)
        self.progress.stuck, self.progress.refused = total.stuck, total.refused
        self.progress.different = total.different
        busy |= await self._backfill.go_on(gates)
        if self._checking is not None and gates[self._checking.unit].phase != "SYNC":
            await self._stop_checking()  # another mover took that unit on meanwhile
        for unit, found in gates.items():
            busy |= await self._advance(unit, found, is_clean=unit in clean)
        return busy

    async def _rescan(self, side: Side) -> None:
        """Looks for what others changed past the store, in a tenth of the time at most."""
        started = monotonic()
        if started < self._rescan_at.get(side, 0.0):
            return
        await self._sides.at(side).rescan()
        ended = monotonic()
        self._rescan_at[side] = ended + max(MOVE_RESCAN_EVERY_S, 9 * (ended - started))

    async def _copy(self, side: Side, units: frozenset[str]) -> CopyResult:
        """Copies what is dirty on this side, once over its tables."""
        store, replica = self._sides.at(side), self._sides.at(other(side))
        total = CopyResult()
        for table in await tables_to_copy(store, replica, in_order(units)):
            started = monotonic()
            result = await copy_dirty(store, replica, table, self._pace.rows, units)
            if self._pace.is_too_much(result, 0.0 if result.is_all else monotonic() - started):
                self._pace.slow_down()
            self.progress.copied[table] = self.progress.copied.get(table, 0) + result.copied
            total.add(result)
        return total

    # -- phases

    async def _advance(self, unit: str, gates: UnitGates, *, is_clean: bool) -> bool:
        """Takes the unit to its next phase, where it is time to; whether it did."""
        primary = gates.primary
        if primary is None:
            return False
        at = gates.at(primary)
        if primary == "source" and await self._note_known(at):
            return True
        if at.phase == "CAPTURE":
            rows: JsonValue = {table: await self._count(table) for table in UNITS[unit]}
            return await self._note(at, {"began_ms": self._clock(), "rows": rows}, phase="BACKFILL")
        if at.phase == "SYNC":
            return await self._check(unit, at, SETTLED[primary], is_clean=is_clean)
        if at.phase == SETTLED[primary] and is_clean and monotonic() >= self._tail_at.get(unit, 0.0):
            self._tail_at[unit] = monotonic() + MOVE_TAIL_EVERY_S
            store, replica = self._sides.at(primary), self._sides.at(other(primary))
            try:
                await compare_tails(UNITS[unit], store, replica)
            except CorruptDataError as error:
                await self._note(at, {"problem": error.message}, phase="SYNC")
        return False

    async def _note_known(self, gate: Gate) -> bool:
        """Notes that every instance knows of the move, once this mover has seen it for as long as they may not."""
        left_s = self._patience.left_s(KNOWN, gate.move, GATE_IDLE_AGE_S)
        if left_s > 0 or gate.phase == "ANNOUNCED" or json.loads(gate.notes).get(KNOWN):
            return False
        return await self._note(gate, {KNOWN: True})

    async def _check(self, unit: str, at: Gate, settled: Phase, *, is_clean: bool) -> bool:
        """Has the unit compared whole, beside the copying, and takes it on when it is equal; whether it did.

        One unit at a time. A check that began in another epoch says nothing of this one.
        """
        checking = self._checking
        if checking is None:
            if is_clean and monotonic() >= self._verify_at.get(unit, 0.0):
                self._checking = _Checking(unit, at.epoch, asyncio.create_task(_outcome(self._verify, unit)))
            return False
        if checking.unit != unit or not checking.task.done():
            return False
        self._checking = None
        self._verify_at[unit] = monotonic() + MOVE_VERIFY_AGAIN_S
        differences = checking.task.result()
        if isinstance(differences, DalError):
            raise differences
        if checking.epoch != at.epoch:
            return False
        self.progress.differed[unit] = self.progress.differed.get(unit, 0) + 1 if differences else 0
        check: JsonValue = {"at_ms": self._clock(), "differences": differences}
        return await self._note(at, {"check": check}, phase=None if differences else settled) and not differences

    async def _note_held_up(self, gate: Gate, result: CopyResult) -> None:
        """Says in the notes of a unit which of its rows cannot be copied, for whoever asks why it is not verified."""
        text = self.progress.held_up[gate.unit] = result.held_up(gate.unit)
        if gate.phase == "SYNC" and text != json.loads(gate.notes).get("held_up", ""):
            await self._note(gate, {"held_up": text})

    async def _stop_checking(self) -> None:
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.task.cancel()
            await asyncio.gather(checking.task, return_exceptions=True)

    async def _note(self, gate: Gate, more: Mapping[str, JsonValue], *, phase: Phase | None = None) -> bool:
        """Adds to the notes of the unit and changes its phase, unless somebody else changed that."""
        notes = json.dumps({**json.loads(gate.notes), **more}, sort_keys=True)
        change: dict[str, Value] = {"notes": notes} if phase is None else {"notes": notes, "phase": phase}
        return await self._sides.at(gate.side).change_gate(
            gate.unit,
            expect={"role": gate.role, "epoch": gate.epoch, "phase": gate.phase, "notes": gate.notes},
            change=change,
        )

    # -- the lease, and the pace

    async def _lease(self, gates: Mapping[str, UnitGates]) -> bool:
        """Whether this mover is the one at work. The lease only saves work: two movers do no harm."""
        if monotonic() < self._lease_ends - MOVE_LEASE_S / 2:
            return True
        gate = next(iter(gates.values())).source
        lease = (gate.lease_owner, gate.lease_until_ms)
        if gate.lease_owner not in ("", self._owner) and self._patience.left_s("lease", lease, MOVE_LEASE_S) > 0:
            return False
        taken = await self._sides.source.change_gate(
            gate.unit,
            expect={"lease_owner": gate.lease_owner, "lease_until_ms": gate.lease_until_ms},
            change={"lease_owner": self._owner, "lease_until_ms": self._clock() + int(MOVE_LEASE_S * 1000)},
        )
        if taken:
            self._lease_ends = monotonic() + MOVE_LEASE_S
        return taken

    async def _release(self, gates: Mapping[str, UnitGates]) -> None:
        unit = next(iter(gates))
        await self._sides.source.change_gate(
            unit, expect={"lease_owner": self._owner}, change={"lease_owner": "", "lease_until_ms": 0}
        )
        self._lease_ends = 0.0

    async def _pause_s(self) -> float:
        """How long to leave the source alone, from how fast it answers beside how fast it can."""
        started = monotonic()
        await self._sides.source.gates()
        took_s = monotonic() - started
        self._fastest_s = min(self._fastest_s, took_s)
        if took_s > max(MOVE_SLOW_S, MOVE_SLOWDOWN * self._fastest_s):
            self._pace.slow_down()
            return min(took_s, MOVE_MAX_PAUSE_S)
        self._pace.speed_up(1.25)
        return 0.0


class _Checking(NamedTuple):
    """A check under way: of this unit, begun in this epoch of its primary."""

    unit: str
    epoch: int
    task: asyncio.Task[int | DalError]


async def _outcome(verify: Verify, unit: str) -> int | DalError:
    """The result, or the error that whoever asks for it is to meet: nobody may ever ask."""
    try:
        return await verify(unit)
    except DalError as error:
        return error
