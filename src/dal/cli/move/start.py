"""`dal move start`: carries a move to verified, and keeps the replica up to date until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.move.options import BatchSize, From, JsonLines, Only, Quick, To, names_of
from dal.cli.running import FAILED, INTERRUPTED, complain, run
from dal.errors import ConflictError, DalError
from dal.limits import MOVE_ENDING_S, MOVE_STOP_S

if TYPE_CHECKING:
    from dal.cli.move.show import MoveProgress
    from dal.cli.move.stores import Places
    from dal.move.mover import Mover
    from dal.move.sides import Sides, UnitGates
    from dal.move.status import MoveStatus
    from dal.store import Store

_SHOW_EVERY_S = 1.0
_SHOW_AT_END_S = 0.1
_DRAINED_LOOKS = 20
_SHOWN_KEYS = 5


def start(
    source: From = None,
    target: To = None,
    only: Only = None,
    batch_size: BatchSize = None,
    exit_when_verified: Annotated[
        bool,
        typer.Option(
            "--exit-when-verified",
            help="End when every unit is verified, or rows that stay behind prevent it; nothing is copied then.",
        ),
    ] = False,
    allow_obstacles: Annotated[
        bool,
        typer.Option("--allow-obstacles", help="Begin in spite of obstacles that lose nothing: such rows stay behind."),
    ] = False,
    quick: Quick = False,
    json: JsonLines = False,
) -> None:
    """Begin a move, or go on with it: copy everything, compare it, and follow what is written meanwhile.

    It runs until Ctrl-C. Killed at any moment it harms nothing: the same command goes on where it was. Several may run
    at once; one of them works. An embedded target is made, and brought up to the current schema.
    """

    async def work() -> int:
        from dal.cli.move.stores import both_opened, both_places
        from dal.config import Settings
        from dal.move.mover import begin
        from dal.move.operating import make_mover

        places = both_places(source, target)
        batch_rows = batch_size or Settings().migration_batch_size
        async with both_opened(places, make_target=True) as (source_store, target_store, sides):
            units, is_on = await _units(sides, names_of(only))
            if not units:
                return FAILED
            if not is_on and not await _may_begin(source_store, target_store, places, units, allow_obstacles, quick):
                return FAILED
            await begin(sides, units)
            mover = make_mover(source_store, target_store, sides, batch_rows=batch_rows)
            return await _Run(sides, mover, places, as_json=json, ends_verified=exit_when_verified).run()

    run(work())


async def _units(sides: Sides, names: list[str]) -> tuple[tuple[str, ...], bool]:
    """The units of the move, and whether it is on already. None: there is nothing to be moved any more."""
    from dal.move.operating import chosen_units, closed_units

    chosen_units(names)
    source, target = await sides.source.gates(), await sides.target.gates()
    if source and all(gate.phase == "RETIRED" for gate in source.values()):
        complain("this source was moved away and retired: the target is the store now")
        return (), False
    units = tuple(source) if source and not names else closed_units(names)
    if added := [unit for unit in units if names and unit not in names]:
        complain(f"{', '.join(added)} is copied as well, since rows of the others refer to it")
    is_on = bool(source) and {g.move for g in source.values()} == {g.move for g in target.values()}
    return units, is_on


async def _may_begin(
    source: Store, target: Store, places: Places, units: tuple[str, ...], allowed: bool, quick: bool
) -> bool:
    """Whether nothing is in the way that must not be."""
    from dal.cli.move.plan import plan_of, print_obstacles

    made = await plan_of(source, target, places, units, quick)
    if not made.obstacles:
        return True
    print_obstacles(made)
    if all(obstacle.may_be_allowed for obstacle in made.obstacles):
        if allowed:
            return True
        complain("nothing was begun; remove what is in the way, or say --allow-obstacles, and such rows stay behind")
    else:
        complain("nothing was begun; remove what is in the way first")
    return False


class _Run:
    """One mover at work, and what is shown of it."""

    def __init__(self, sides: Sides, mover: Mover, places: Places, *, as_json: bool, ends_verified: bool) -> None:
        from dal.cli.move.held_up import HeldUp
        from dal.move.status import MoveStatus, Pace

        self._sides = sides
        self._mover = mover
        self._places = places
        self._as_json = as_json
        self._ends_verified = ends_verified
        self._pace = Pace()
        self._stop = asyncio.Event()
        self._is_verified = False
        self._is_drained = False
        self._looks = 0
        self._has_said_verified = False
        self._said: set[str] = set()
        self._status = MoveStatus()
        self._held_up = HeldUp()
        self._reasons: list[str] = []

    async def run(self) -> int:
        from dal.cli.move.show import MoveProgress

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        moving = asyncio.create_task(self._mover.run(self._until))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            with MoveProgress() as progress:
                while not moving.done() and not self._stop.is_set():
                    await self._show(progress)
                    pause_s = _SHOW_AT_END_S if self._ends_verified and self._is_verified else _SHOW_EVERY_S
                    await asyncio.wait({moving, stopping}, timeout=pause_s, return_when="FIRST_COMPLETED")
                if not moving.done():  # it ends its round by itself; what it does meanwhile can be broken off
                    await asyncio.wait({moving}, timeout=MOVE_STOP_S)
                    moving.cancel()
                if not self._reasons:
                    await self._show(progress)
                code = await self._result(moving)
        finally:
            self._stop.set()  # it ends its round, should it lose the cancellation
            stopping.cancel()
            moving.cancel()
            await asyncio.gather(moving, stopping, return_exceptions=True)
        return code

    def _until(self, gates: Mapping[str, UnitGates]) -> bool:
        self._is_verified = all(found.phase in ("VERIFIED", "SWITCHED") for found in gates.values())
        return self._stop.is_set() or (self._ends_verified and self._is_verified and self._is_drained)

    async def _result(self, moving: asyncio.Task[None]) -> int:
        """How the run has ended, and what comes next."""
        try:
            await moving
        except asyncio.CancelledError:
            pass
        except ConflictError:
            if not await self._has_ended():
                raise
            complain("the move has ended; nothing is left to copy")
            return 0
        again = f"dal move start{self._places.arguments}"
        if self._ends_verified and self._reasons:
            return self._say_not_verified(again)
        if not self._is_verified:
            complain(f"interrupted; nothing is lost, go on with: {again}")
            return INTERRUPTED
        if not self._has_said_verified:
            self._say_verified(self._status)
        complain(f"stopped; nothing is copied any more until: {again}")
        return 0

    async def _has_ended(self) -> bool:
        """Whether somebody retired or aborted the move: both take a moment."""
        for _ in range(int(MOVE_ENDING_S * 10)):
            gates = await self._sides.source.gates()
            if not gates or all(gate.phase == "RETIRED" for gate in gates.values()):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _show(self, progress: MoveProgress) -> None:
        from dal.cli.move.show import print_line
        from dal.move.status import look

        try:
            status = self._status = self._pace.see(await look(self._sides))
        except DalError as error:
            if error.retryable:  # else the mover meets it as well, and ends
                self._say(progress, f"the source does not answer: {error.message}; trying on")
            return
        if status.unseen:
            self._say(progress, f"the target does not answer: {status.unseen}; trying on")
        if status.is_verified:
            # Under constant writing there is hardly a look at which nothing waits.
            self._looks += 1
            self._is_drained = self._looks > _DRAINED_LOOKS or not any(unit.dirty for unit in status.units.values())
        if self._as_json:
            print_line({**self._places.to_json(), **status.as_dict(), **self._own()})
        progress.show(status)
        self._say_held_up(progress, status)
        if status.is_verified and not self._has_said_verified and not self._ends_verified:
            self._say_verified(status)

    def _own(self) -> dict[str, object]:
        """What only this mover knows."""
        found = self._mover.progress
        return {
            "working": found.working,
            "copied_here": sum(found.copied.values()),
            "stuck": [list(key) for key in list(found.stuck)[:_SHOWN_KEYS]],
            "refused": [list(key) for key in list(found.refused)[:_SHOWN_KEYS]],
            "not_kept": [list(key) for key in found.different[:_SHOWN_KEYS]],
        }

    def _say_held_up(self, progress: MoveProgress, status: MoveStatus) -> None:
        for unit, text in self._mover.progress.held_up.items():
            if text:
                self._say(progress, f"{unit}: {text}. The others go on; the unit is not switched before that is mended")
        self._reasons = self._held_up.see(status, self._mover.progress)
        if self._ends_verified and self._reasons:
            self._stop.set()

    def _say(self, progress: MoveProgress, text: str) -> None:
        """A line, once."""
        if text not in self._said:
            self._said.add(text)
            progress.line(text)

    def _say_not_verified(self, again: str) -> int:
        for reason in self._reasons:
            complain(f"not verified: {reason}")
        given = self._places.arguments
        complain(
            f"mend them at the source, or have the target's own deleted: dal move repair{given} --delete-extra --yes"
        )
        complain(f"then go on with: {again}; or give the move up: dal move abort{given}")
        return FAILED

    def _say_verified(self, status: MoveStatus) -> None:
        from dal.cli.move.status import next_steps

        self._has_said_verified = True
        rows = sum(unit.total for unit in status.units.values())
        here, there = status.living_on("source"), status.living_on("target")
        follows = "the other store of each unit" if here and there else "the target" if here else "the source"
        complain(f"verified: {rows:,} rows: both stores hold the same, and {follows} follows")
        for line in next_steps(status, self._places, copies=True):
            complain(line)
