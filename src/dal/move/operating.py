"""What the operator's commands share: a mover over two open stores, cutovers that are noted, shadow reads.

It takes bare stores and opens none. Nothing here decides anything that the gates do not say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from typing import Final

from dal.errors import ConfigurationError, ConflictError, DalError
from dal.limits import MOVE_NAMED_ROWS, MOVE_SWITCH_TRIES
from dal.move.check_report import CheckReport
from dal.move.checking import check
from dal.move.cutover import Cutover, CutoverReport, Sleep
from dal.move.mover import Mover
from dal.move.reading import Reader
from dal.move.sides import ClockMs, Side, Sides, now_ms, read_gates, with_parents
from dal.move.status import notes_with_cutover
from dal.ops import JsonValue
from dal.replica import UNITS, Movable, Replica
from dal.store import Store
from dal.tables import TABLES

#: Told before a switch is tried again: the unit, and why the last try did not go through.
OnRetry = Callable[[str, DalError], None]
_NOTE_TRIES: Final = 5


def sides_of(source: Store, target: Store) -> Sides:
    """The moves' side of both stores. Raises ConfigurationError where one has none."""
    return Sides(movable("source", source), movable("target", target))


def movable(name: str, store: Store) -> Replica:
    """The moves' side of the store. Raises ConfigurationError where it has none."""
    if not isinstance(store, Movable):
        raise ConfigurationError(f"the {name}: {store.capabilities.backend} cannot take part in a move")
    return store.replica()


def chosen_units(names: Sequence[str]) -> tuple[str, ...]:
    """Units by name, in the order of UNITS; none named means all. Raises ConfigurationError for one there is not."""
    if unknown := [name for name in names if name not in UNITS]:
        raise ConfigurationError(f"--only: there is no {', '.join(unknown)}; there are {', '.join(UNITS)}")
    return tuple(unit for unit in UNITS if not names or unit in names)


async def units_of_move(sides: Sides, names: Sequence[str]) -> tuple[str, ...]:
    """The units of the move that is on, or those of them that are named. Raises ConflictError where one is in none."""
    gates = await read_gates(sides)
    if not gates:
        raise ConflictError("no move is on between these stores; begin with `dal move start`", operation="move")
    wanted = chosen_units(names)
    if names and (missing := [unit for unit in wanted if unit not in gates]):
        raise ConflictError(f"{', '.join(missing)}: not part of this move, which is of {', '.join(gates)}")
    return tuple(unit for unit in wanted if unit in gates)


def closed_units(names: Sequence[str]) -> tuple[str, ...]:
    """The chosen units, with those that their rows refer to."""
    return with_parents(frozenset(chosen_units(names)))


def make_mover(source: Store, target: Store, sides: Sides, *, batch_rows: int) -> Mover:
    """A mover whose word VERIFIED rests on a deep check of both stores."""

    async def verify(unit: str) -> int:
        found = await check(source, target, mode="deep", units=[unit])
        mover.progress.differing[unit] = [
            f"{sample.table}['{sample.id}'] ({sample.kind.replace('_', ' ')} in the {sample.side})"
            for result in found.tables.values()
            for sample in result.samples
        ][:MOVE_NAMED_ROWS]
        return found.differences

    async def count(table: str) -> int:
        return await Reader("source", source).count(TABLES[table])

    mover = Mover(sides, verify=verify, count=count, batch_rows=batch_rows)
    return mover


async def switch_units(
    sides: Sides,
    units: Sequence[str],
    to: Side,
    *,
    batch_rows: int,
    on_retry: OnRetry,
    clock: ClockMs = now_ms,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[CutoverReport]:
    """Switches one unit after the other; each report when it is done. An error ends it, with the rest untouched.

    A try that failed for a reason that may pass is repeated, MOVE_SWITCH_TRIES times in all.
    """
    cutover = Cutover(sides, batch_rows=batch_rows)
    for unit in units:
        report = await _switch(cutover, unit, to, on_retry, sleep)
        await note_cutover(sides, report, clock)
        yield report


async def _switch(cutover: Cutover, unit: str, to: Side, on_retry: OnRetry, sleep: Sleep) -> CutoverReport:
    for attempt in range(1, MOVE_SWITCH_TRIES):
        try:
            return await cutover.switch(unit, to)
        except DalError as error:
            if not error.retryable:
                raise
            on_retry(unit, error)
            await sleep(0.5 * attempt)
    return await cutover.switch(unit, to)


async def note_cutover(sides: Sides, report: CutoverReport, clock: ClockMs = now_ms) -> None:
    """Keeps the report in the notes of the new primary's gate."""
    cutover: dict[str, JsonValue] = {
        "at_ms": clock(),
        **{name: round(value, 1) if isinstance(value, float) else value for name, value in asdict(report).items()},
    }
    await _note(sides.at(report.to), report.unit, lambda notes: notes_with_cutover(notes, cutover))


async def note_check(sides: Sides, report: CheckReport, units: Sequence[str], clock: ClockMs = now_ms) -> None:
    """Keeps what a whole check found in the notes of each unit's gate, where the unit lives."""
    gates = await read_gates(sides)
    for unit in units:
        differences = sum(report.tables[name].differences for name in UNITS[unit])
        found: JsonValue = {"at_ms": clock(), "differences": differences}

        def noted(notes: str, found: JsonValue = found) -> str:
            return json.dumps({**json.loads(notes), "check": found}, sort_keys=True)

        await _note(sides.at(gates[unit].holder), unit, noted)


async def _note(store: Replica, unit: str, noted: Callable[[str], str]) -> None:
    """Changes the notes of a gate, whoever else does at the same time; they are a help, not worth an error."""
    for _ in range(_NOTE_TRIES):
        notes = (await store.gates())[unit].notes
        if await store.change_gate(unit, expect={"notes": notes}, change={"notes": noted(notes)}):
            return


async def set_shadow(sides: Sides, units: Sequence[str], percent: int) -> None:
    """Asks applications to compare so many of a hundred reads of these units."""
    for unit in units:
        await sides.source.change_gate(unit, expect={}, change={"shadow_percent": percent})
