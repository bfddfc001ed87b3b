"""The move of `dal demo`: files to SQLite while writers write, with a check, a cutover, the way back, and forth again.

It does what `dal move start`, `check`, `cutover` and `rollback` do, in one process, so that it can be watched at once.
A demo that was interrupted is gone on with, and one that was finished begins at the way back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from dal.cli.demo_screen import Screen
from dal.cli.move.stores import both_opened
from dal.limits import GATE_IDLE_AGE_S, GATE_MAX_AGE_S, MOVE_BATCH_ROWS
from dal.move.checking import check
from dal.move.mover import begin
from dal.move.operating import closed_units, make_mover, switch_units
from dal.move.sides import now_ms, read_gates
from dal.move.status import look

if TYPE_CHECKING:
    from rich.console import Console

    from dal.cli.demo_writers import Writers
    from dal.cli.move.stores import Places
    from dal.errors import DalError
    from dal.move.mover import Mover
    from dal.move.sides import Side, Sides, UnitGates
    from dal.move.status import MoveStatus
    from dal.store import Store

#: What goes back and forth again: what the writers write. Each unit has a state of its own.
_BACK: Final = ("chats", "memory")
_LOOK_S: Final = 0.02
_BETWEEN_S: Final = 0.5  # writers at work on one side, before the next switch


async def is_retired(places: Places) -> bool:
    """Whether the source was moved away for good by an earlier demo in the same place."""
    async with places.source.opened(auto_migrate=True) as source:
        from dal.replica import Movable

        gates = await source.replica().gates() if isinstance(source, Movable) else {}
        return any(gate.phase == "RETIRED" for gate in gates.values())


async def move(out: Console, places: Places, writers: Writers) -> bool:
    """Carries the move out and stops the writers. Whether both stores hold the same at the end."""
    async with (
        both_opened(places, make_target=True) as (source, target, sides),
        Screen(out, sides, writers) as screen,
    ):
        started = monotonic()
        await begin(sides, closed_units([]))
        async with _moving(make_mover(source, target, sides, batch_rows=MOVE_BATCH_ROWS), screen) as mover:
            await mover.verified.wait()
            status = await look(sides)
            rows = sum(unit.total for unit in status.units.values())
            took_s = monotonic() - started
            screen.line("copied", f"{rows:,} rows and deletions in {took_s:.1f} s; both stores hold the same")
            await _check(screen, source, target)
            await _wait_until_all_know(screen, status)
            await _switch(screen, sides, writers, "target", ())
            await asyncio.sleep(_BETWEEN_S)
            await _switch(screen, sides, writers, "source", _BACK)
            await asyncio.sleep(_BETWEEN_S)
            await _switch(screen, sides, writers, "target", _BACK[::-1])
            await asyncio.sleep(_BETWEEN_S)
            screen.step = "the writers stop; the files get what they wrote last, so that a way back stays"
            await writers.stop()
            await _drained(sides)
        return await _check(screen, source, target)


class _Mover(NamedTuple):
    verified: asyncio.Event
    stop: asyncio.Event


@asynccontextmanager
async def _moving(mover: Mover, screen: Screen) -> AsyncIterator[_Mover]:
    """The mover at work beside the block. What ends it ends the block."""
    moving = _Mover(asyncio.Event(), asyncio.Event())
    screen.step = "copying what is there, and what is written meanwhile"

    def until(gates: Mapping[str, UnitGates]) -> bool:
        if all(found.phase in ("VERIFIED", "SWITCHED") for found in gates.values()):
            moving.verified.set()
        return moving.stop.is_set()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(mover.run(until))
            yield moving
            moving.stop.set()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _drained(sides: Sides) -> None:
    """Returns when nothing waits to be copied any more."""
    while any(unit.dirty for unit in (await look(sides)).units.values()):  # noqa: ASYNC110 - a store tells of no event
        await asyncio.sleep(_LOOK_S)


async def _check(screen: Screen, source: Store, target: Store) -> bool:
    screen.step = "comparing every row of both stores"
    found = await check(source, target, mode="deep")
    way = f", {found.pending} on their way" if found.pending else ""
    rows = sum(table.source for table in found.tables.values())
    screen.line("DIFFERENT" if found.differences else "checked", f"{rows:,} rows, {found.differences} differ{way}")
    return found.is_equal


async def _wait_until_all_know(screen: Screen, status: MoveStatus) -> None:
    """The cutover waits for it by itself; here it is told."""
    left_s = (status.began_ms or 0) / 1000 + GATE_IDLE_AGE_S - now_ms() / 1000
    if left_s > 0:
        screen.step = f"who knew of no move looks again within {GATE_IDLE_AGE_S:g} s: no cutover before"
        screen.line("waited", f"{left_s:.1f} s more, until every instance must know of the move")
        await asyncio.sleep(left_s)


async def _switch(screen: Screen, sides: Sides, writers: Writers, to: Side, names: Sequence[str]) -> None:
    """Has these units live there, all of them if none is named; those that do already are left alone."""
    name = "SQLite" if to == "target" else "files"
    gates = await read_gates(sides)
    units = [unit for unit in names or gates if gates[unit].primary != to]
    if not units:
        screen.line("cutover", f"{', '.join(names or gates)}: on {name} already")
        return
    writers.slowest_s()

    def retried(unit: str, error: DalError) -> None:
        screen.line(unit, f"not yet: {error.message}; trying again")

    screen.step = f"{units[0]}: for {GATE_MAX_AGE_S * 1.1:.1f} s every instance hears that it is to be switched"
    command = "cutover" if to == "target" else "rollback"
    async for done in switch_units(sides, units, to, batch_rows=MOVE_BATCH_ROWS, on_retry=retried):
        call_ms = writers.slowest_s() * 1000
        screen.line(
            command,
            f"{done.unit:<7} lives on {name}; fenced for {done.stall_ms:.0f} ms; slowest call {call_ms:.0f} ms",
        )
        left = units[units.index(done.unit) + 1 :]
        screen.step = f"{left[0]}: to be switched next" if left else ""
