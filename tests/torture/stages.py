"""The quiet stages of a run: stores are prepared, the move comes to rest, and at last it is ended on one side."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Final

from dal.errors import ConflictError, DalError, FencedError
from dal.factory import create_data_access
from dal.move.cutover import Cutover
from dal.move.ending import abort, retire
from dal.move.mover import begin
from dal.move.sides import SIDES, Side, Sides, UnitGates, read_gates
from dal.replica import UNITS
from dal.store import Store
from tests.torture import legacy, verdict, workers
from tests.torture.lanes import HOT_CHATS, Lane, lane_slots
from tests.torture.ledger import Change, Ledger
from tests.torture.places import LegacyPlace, open_settings
from tests.torture.verdict import Held
from tests.torture.workers import Run

#: How long a move may take to come to rest.
SETTLE_S: Final = 60.0


async def prepare(run: Run) -> None:
    """The schema of both stores, and what the source holds before the move."""
    settings = open_settings(run.places, moving=False)
    for place in run.places:
        async with create_data_access(place.url, settings=settings, auto_migrate=True):
            pass
    async with create_data_access(run.places[0].url, settings=settings) as dal:
        ledger = Ledger(run.directory, "prepare-hot")
        for name in HOT_CHATS:
            ledger.intend("chats.create", [Change(("chat", name), {"chat_id": name, "user_id": None})])
            await dal.chats.create(name)
            ledger.acknowledge()
        lane = Lane(
            dal,
            Ledger(run.directory, "prepare-rows"),
            run.counters,
            run.dice("prepare"),
            name="prepare",
            process=run.counters.add_process(),
            slots=lane_slots(0, 1),
            reads_back=False,
        )
        for _ in range(120):
            await lane.step()


async def prepare_legacy(run: Run) -> None:
    """A directory of files, and the target's schema."""
    source, target = run.places
    assert isinstance(source, LegacyPlace)
    legacy.make_directory(source.directory)
    async with create_data_access(target.url, settings=open_settings(run.places, moving=False), auto_migrate=True):
        pass


async def settle(run: Run) -> None:
    """Works as a mover until every unit has one primary and nothing is left to copy, with nothing going wrong."""
    source, target = await workers.open_stores(run)
    sides = workers.sides_of(source, target)
    await begin(sides, tuple(UNITS))
    mover = workers.mover_of(run, sides, source, target, batch_rows=1000)
    try:
        async with asyncio.timeout(SETTLE_S):
            while True:
                await mover.run(_is_settled)
                for side in SIDES:  # a fence that was down until now kept the look at files to its own
                    await sides.at(side).rescan()
                if not await _left(sides):
                    break
                await mover.step(await read_gates(sides))
    except TimeoutError:
        print(f"not settled: {await _left(sides)}, {mover.progress}, {await read_gates(sides)}", file=sys.stderr)
        raise
    await source.close()
    await target.close()


def _is_settled(gates: Mapping[str, UnitGates]) -> bool:
    return all(found.phase in ("VERIFIED", "SWITCHED") for found in gates.values())


async def _left(sides: Sides) -> dict[str, int]:
    """Rows not yet copied, by table, on the side that each unit lives on; and units without a primary."""
    left: dict[str, int] = {}
    gates = await read_gates(sides)
    backlogs = {side: await sides.at(side).backlog() for side in ("source", "target")}
    for unit, found in gates.items():
        if found.primary is None:
            left[unit] = -1
        for table in UNITS[unit]:
            if dirty := backlogs[found.holder][table].dirty:
                left[table] = dirty
    return left


async def end(run: Run, sides: Sides, source: Store, target: Store, to: Side) -> list[str]:
    """Takes every unit to one side and ends the move there; what is not as it should be then."""
    problems: list[str] = []
    cutover = Cutover(sides, batch_rows=500)
    for unit, gates in (await read_gates(sides)).items():
        if gates.primary != to:
            try:
                await cutover.switch(unit, to)
            except DalError as error:
                problems.append(f"the last cutover of {unit} to the {to}: {error!r}")
    if problems:
        return problems
    mover = workers.mover_of(run, sides, source, target, batch_rows=1000)
    while await _left(sides):
        await mover.step(await read_gates(sides))
    held = await Held.of(source, target)
    problems += verdict.differences(held)
    try:
        await (retire(sides) if to == "target" else abort(sides))
    except ConflictError as error:
        return [*problems, f"the move did not end: {error!r}"]
    settings = open_settings(run.places, moving=False)
    for place, is_primary in zip(run.places, (to == "source", to == "target"), strict=True):
        async with create_data_access(place.url, settings=settings, auto_migrate=False) as dal:
            try:
                await dal.users.create(clerk_id="the end")
                refused = False
            except FencedError:
                refused = True
        must_refuse = to == "target" and not is_primary
        if refused != must_refuse:
            problems.append(f"after the end, {place.backend} {'refused' if refused else 'took'} a write")
    return problems
