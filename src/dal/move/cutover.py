"""The cutover of one unit: announce, fence, drain, verify the tail, activate, settle; rolled back at every step.

The switch itself is one compare-and-set in the new primary's gate. Until it has happened, whatever goes wrong leaves
the old primary in charge: at once where this mover is alive to say so, else when somebody has seen the fence stand for
too long and takes it back. A rollback of a finished cutover is a cutover the other way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from dal.errors import ConflictError, DalError, DalTimeoutError, UnavailableError, UnsupportedError
from dal.limits import (
    GATE_IDLE_AGE_S,
    GATE_MAX_AGE_S,
    MOVE_CATCH_UP_S,
    MOVE_DRAIN_S,
    MOVE_FENCE_S,
    MOVE_FENCE_TRIES,
    MOVE_OLD_TRANSACTION_S,
)
from dal.move.patience import Patience
from dal.move.recovery import KNOWN, SETTLED, announced, announced_s, complete, recover, take_back, withdraw
from dal.move.relay import copy, drain, tables_to_copy, together
from dal.move.sides import Side, Sides, UnitGates, other, read_gates
from dal.move.tail import compare_tails
from dal.replica import UNITS, Gate, OneWay

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoverReport:
    """What a cutover did.

    stall_ms     how long writes of the unit waited: from the fence to the new primary.
    fence_ms     how much of it went by until writers under way had ended.
    drained      rows that were copied behind the fence.
    """

    unit: str
    to: Side
    epoch: int
    stall_ms: float
    fence_ms: float
    drained: int


class Cutover:
    """Switches units between the sides of one move.

    batch_rows  rows of a copy at most.
    """

    def __init__(
        self, sides: Sides, *, batch_rows: int, patience: Patience | None = None, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._sides = sides
        self._batch_rows = batch_rows
        self._patience = patience or Patience()
        self._sleep = sleep

    async def switch(self, unit: str, to: Side) -> CutoverReport:
        """Makes the other store the unit's primary.

        Raises ConflictError where the unit is not ready or somebody was faster, UnavailableError where the backlog does
        not drain, CorruptDataError where the tail differs; the old primary is in charge then.
        """
        old = await self._ready(unit, to)
        old = await self._announce(unit, old)
        try:
            seen_by_all = monotonic() + GATE_MAX_AGE_S * 1.1
            while (left_s := seen_by_all - monotonic()) > 0:
                await self._copy_once(unit)
                await self._compare(unit, to)  # the more is compared now, the less is left for the fence
                await self._sleep(min(left_s, 0.05))
            units = await self._copy_once(unit)
            started, fence_s, fenced = await self._fence(unit, to, old)
        except BaseException:
            await asyncio.shield(withdraw(self._sides.at(old.side), old))
            raise
        drained = 0
        try:
            drained = await self._settle_tail(unit, to, started, units)
            await self._activate(unit, to, fenced, started)
        except BaseException as error:
            await asyncio.shield(take_back(self._sides, other(to), fenced))
            if not isinstance(error, DalError) or (await self._sides.at(to).gates())[unit].role != "primary":
                raise
            # Only the answer was lost: the unit was switched.
        stall_ms = (monotonic() - started) * 1000
        activated = (await self._sides.at(to).gates())[unit]
        await complete(self._sides, other(to), fenced, activated)
        return CutoverReport(
            unit=unit, to=to, epoch=activated.epoch, stall_ms=stall_ms, fence_ms=fence_s * 1000, drained=drained
        )

    async def _ready(self, unit: str, to: Side) -> Gate:
        """The old primary's gate, once everything that can be asked before the fence is in order."""
        found = await self._settled(unit)
        side = other(to)
        if isinstance(receiver := self._sides.at(to), OneWay) and to == "source":
            raise UnsupportedError(f"{unit}: {receiver.one_way}", operation="rollback")
        old, new = found.at(side), found.at(to)
        if found.primary == to:
            raise ConflictError(f"{unit}: the {to} is its primary already", operation="cutover")
        if found.primary is None or old.phase == "ANNOUNCED":
            raise ConflictError(f"{unit}: another cutover is under way", operation="cutover", retryable=True)
        if old.phase != SETTLED[side]:
            raise ConflictError(
                f"{unit}: its phase is {old.phase}; it can be switched once it is {SETTLED[side]}", operation="cutover"
            )
        if new.role != "replica" or new.next_epoch != old.epoch + 1:
            raise ConflictError(f"{unit}: the {to} is not ready to take epoch {old.epoch + 1}", operation="cutover")
        age_s = await self._sides.at(side).oldest_writer_s()
        if age_s > MOVE_OLD_TRANSACTION_S:
            raise ConflictError(
                f"{unit}: a transaction has been open for {age_s:.1f} s; end it, or wait for it",
                operation="cutover",
                retryable=True,
            )
        if side == "source" and not json.loads(old.notes).get(KNOWN):
            # Instances that knew of no move look again only so often: by then they know of this one.
            while (left_s := self._known_in_s(old)) > 0:
                await self._sleep(left_s)
        await self._catch_up(unit)
        return old

    async def _settled(self, unit: str) -> UnitGates:
        """The unit's gates, outside a cutover: one that somebody else has under way is waited for, or taken back."""
        give_up = monotonic() + announced_s() + MOVE_FENCE_S + 1
        while True:
            found = (await read_gates(self._sides)).get(unit)
            if found is None:
                raise ConflictError(f"{unit}: no move is on; start it first", operation="cutover")
            self._known_in_s(found.source)
            if not await recover(self._sides, found, self._patience):
                if (found.primary is not None and found.phase != "ANNOUNCED") or monotonic() > give_up:
                    return found
                await self._sleep(0.05)

    def _known_in_s(self, gate: Gate) -> float:
        """In how many seconds every instance knows of the move, at the latest."""
        return self._patience.left_s(KNOWN, gate.move, GATE_IDLE_AGE_S)

    async def _catch_up(self, unit: str) -> None:
        """Copies until one pass over what is dirty is short enough to be done behind the fence."""
        started = monotonic()
        await read_gates(self._sides)
        allowed_s = max(MOVE_DRAIN_S, 8 * (monotonic() - started))
        give_up = monotonic() + MOVE_CATCH_UP_S
        while monotonic() < give_up:
            started = monotonic()
            await self._copy_once(unit)
            if monotonic() - started <= allowed_s:
                return
            await self._sleep(0.01)
        raise UnavailableError(
            f"{unit}: its backlog does not drain in {allowed_s * 1000:.0f} ms; let the move catch up first",
            operation="cutover",
        )

    async def _announce(self, unit: str, old: Gate) -> Gate:
        """From now on every instance looks at both gates before each call, so that no read is stale at the switch.

        The gate with this announcement's number: what follows holds for this one only, not for another's later one.
        """
        turn = old.turn + 1
        done = await self._sides.at(old.side).change_gate(
            unit,
            expect={"role": "primary", "epoch": old.epoch, "phase": old.phase, "turn": old.turn},
            change={"phase": "ANNOUNCED", "turn": turn},
        )
        if not done:
            raise ConflictError(f"{unit}: somebody else changed its gate", operation="cutover", retryable=True)
        return old._replace(phase="ANNOUNCED", turn=turn)

    async def _fence(self, unit: str, to: Side, old: Gate) -> tuple[float, float, Gate]:
        """When the fence came down, how long that took, and the fenced gate."""
        store = self._sides.at(other(to))
        for attempt in range(MOVE_FENCE_TRIES):
            started = monotonic()
            try:
                done = await store.change_gate(
                    unit,
                    expect=announced(old),
                    change={"role": "fenced", "phase": "FENCED"},
                )
            except DalTimeoutError:
                if attempt == MOVE_FENCE_TRIES - 1:
                    raise
                await self._sleep(0.1 * (attempt + 1))  # writers who waited behind the lock go first
                continue
            if not done:
                raise ConflictError(f"{unit}: somebody else changed its gate", operation="cutover", retryable=True)
            return started, monotonic() - started, old._replace(role="fenced", phase="FENCED")
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _settle_tail(self, unit: str, to: Side, started: float, units: frozenset[str]) -> int:
        """Copies what was written before the fence and makes sure that both sides hold the same; rows copied.

        Everybody waits for it: what can be known before is not asked again, and tables are looked at together.
        """
        store, peer = self._sides.at(other(to)), self._sides.at(to)
        tables = UNITS[unit]
        while await store.rescan():
            self._check_time(unit, started)
        drained = 0
        left = None
        while True:
            ours, theirs = await together(store.tables_with("dirty"), peer.tables_with("dirty"))
            if (ours | theirs).isdisjoint(tables):
                break
            found = await together(*[store.dirty(table, self._batch_rows) for table in tables if table in ours])
            entries = [entry for some in found for entry in some]
            copied = (await copy(store, peer, entries, units, rows=self._batch_rows)).copied
            self._check_time(unit, started)
            before, left = left, None if copied else {(entry.table, entry.id, entry.version) for entry in entries}
            # What a mover has just copied is gone at the next look. What stays cannot be copied; or, with nothing of
            # ours left, the peer waits for what a cascade took, and nobody sends it behind the fence.
            if left is not None and left == before:
                raise UnavailableError(f"{unit}: rows are left that cannot be copied", operation="cutover")
            drained += copied
        await self._compare(unit, to, marking=False)
        self._check_time(unit, started)
        return drained

    async def _compare(self, unit: str, to: Side, *, marking: bool = True) -> None:
        store, peer = self._sides.at(other(to)), self._sides.at(to)
        await compare_tails(UNITS[unit], store, peer, marking=marking)

    async def _activate(self, unit: str, to: Side, old: Gate, started: float) -> None:
        while True:
            try:
                done = await self._sides.at(to).change_gate(
                    unit,
                    expect={"role": "replica", "next_epoch": old.epoch + 1},
                    change={"role": "primary", "epoch": old.epoch + 1, "phase": SETTLED[to]},
                )
                break
            except DalTimeoutError:
                self._check_time(unit, started)
                await self._sleep(0.01)
        if done:
            return
        present = (await self._sides.at(to).gates())[unit]
        if present.role != "primary" or present.epoch != old.epoch + 1:  # else an answer was lost: it is ours
            raise ConflictError(
                f"{unit}: the fence was overdue and was taken back", operation="cutover", retryable=True
            )

    async def _copy_once(self, unit: str) -> frozenset[str]:
        """Copies what is dirty in the unit, once over each table; the units that live where it lives."""
        until = monotonic() + MOVE_CATCH_UP_S
        gates = await read_gates(self._sides)
        holder = gates[unit].holder
        units = frozenset(name for name, found in gates.items() if found.holder == holder)
        store, peer = self._sides.at(holder), self._sides.at(other(holder))
        for table in await tables_to_copy(store, peer, UNITS[unit]):
            await drain(store, peer, table, self._batch_rows, units, until)
        return units

    def _check_time(self, unit: str, started: float) -> None:
        if monotonic() - started > MOVE_FENCE_S * 0.75:
            raise UnavailableError(
                f"{unit}: what was written before the fence was not copied within its deadline; nothing was switched",
                operation="cutover",
            )
