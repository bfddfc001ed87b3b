"""`dal move cutover` and `dal move rollback`: where each unit lives, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.move.options import From, Only, To, Yes, names_of
from dal.cli.options import AsJson
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, WRONG_USAGE, complain, report
from dal.errors import DalError

if TYPE_CHECKING:
    from dal.cli.move.stores import Places
    from dal.move.cutover import CutoverReport
    from dal.move.sides import Side, Sides

_COLUMNS = ("unit", "lives on", "stall ms>", "fence ms>", "drained>", "epoch>")


def cutover(
    source: From = None,
    target: To = None,
    only: Only = None,
    one_way: Annotated[
        bool, typer.Option("--one-way", help="No rollback leads back to a source of legacy files: switch all the same.")
    ] = False,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Make the target the primary, unit by unit: memory, chats, files, users, audit. Writers wait, none fails.

    Each unit is fenced, drained, compared and switched; what goes wrong before the switch leaves it where it was, and
    the units after it are not begun. On a terminal it asks before.
    """
    from dal.cli.move.stores import with_sides

    async def work(sides: Sides, places: Places) -> int:
        from dal.replica import OneWay

        if isinstance(sides.source, OneWay) and not one_way:
            complain(f"nothing was switched: {sides.source.one_way}; say --one-way to switch all the same")
            return WRONG_USAGE
        return await _switch(sides, places, "target", names_of(only), yes=yes, as_json=json)

    with_sides(source, target, work)


def rollback(source: From = None, target: To = None, only: Only = None, yes: Yes = False, json: AsJson = False) -> None:
    """Make the source the primary again, in the reverse order, with everything that the target took meanwhile."""
    from dal.cli.move.stores import with_sides

    async def work(sides: Sides, places: Places) -> int:
        from dal.replica import OneWay

        if isinstance(sides.source, OneWay):
            complain(f"nothing was switched: {sides.source.one_way}")
            return FAILED
        return await _switch(sides, places, "source", names_of(only), yes=yes, as_json=json)

    with_sides(source, target, work)


async def _switch(sides: Sides, places: Places, to: Side, names: list[str], *, yes: bool, as_json: bool) -> int:
    from dal.cli.schema.confirm import confirmed
    from dal.config import Settings
    from dal.move.operating import switch_units, units_of_move
    from dal.move.sides import read_gates

    wanted = await units_of_move(sides, names)
    gates = await read_gates(sides)
    units = [unit for unit in wanted if gates[unit].primary != to]
    if to == "source":
        units.reverse()
    if not units:
        complain(f"{', '.join(wanted)}: on the {to} already")
        return _tell(places, [], {}, None, as_json)
    place = places.target if to == "target" else places.source
    if not confirmed(f"{', '.join(units)}: to live on the {to} ({place.shown}) from now on.", yes=yes):
        return FAILED
    done: list[CutoverReport] = []
    failure: DalError | None = None

    def retried(unit: str, error: DalError) -> None:
        complain(f"{unit}: not yet: {error.message}; trying again")

    try:
        async for one in switch_units(sides, units, to, batch_rows=Settings().migration_batch_size, on_retry=retried):
            done.append(one)
            complain(f"{one.unit}: lives on the {to}; writers waited {one.stall_ms:.0f} ms")
    except DalError as error:
        failure = error
    lives: dict[str, str] = {unit: found.primary or "fenced" for unit, found in (await read_gates(sides)).items()}
    code = _tell(places, done, lives, failure, as_json)
    if failure is not None:
        await _say_failure(failure, [unit for unit in units if lives.get(unit) != to], lives, places, to)
        return code
    await _say_next(sides, places, to, lives)
    return code


def _tell(
    places: Places, done: list[CutoverReport], lives: dict[str, str], failure: DalError | None, as_json: bool
) -> int:
    from dataclasses import asdict

    if as_json:
        print_json(
            {
                **places.to_json(),
                "ok": failure is None,
                "switched": [asdict(one) for one in done],
                "lives_on": lives,
                "problem": None if failure is None else failure.message,
            }
        )
    elif done:
        rows = [(one.unit, one.to, one.stall_ms, one.fence_ms, one.drained, one.epoch) for one in done]
        console().print(table(None, _COLUMNS, rows))
    return 0 if failure is None else FAILED


async def _say_failure(error: DalError, left: list[str], lives: dict[str, str], places: Places, to: Side) -> None:
    report(error)
    where = "; ".join(
        f"{', '.join(unit for unit in lives if lives[unit] == side)} on the {side}"
        for side in ((to, "source") if to == "target" else (to, "target"))
        if side in lives.values()
    )
    complain(f"stopped there: {where}. Nothing is lost, and the move goes on")
    if fenced := [unit for unit in lives if lives[unit] == "fenced"]:
        complain(f"{', '.join(fenced)}: fenced; any mover or application takes that back within seconds")
    command = "cutover" if to == "target" else "rollback"
    given = places.for_cutover if to == "target" else places.arguments
    complain(f"try again with: dal move {command}{given} --only {','.join(left)}")


async def _say_next(sides: Sides, places: Places, to: Side, lives: dict[str, str]) -> None:
    from dal.move.status import look

    given = places.arguments
    if (await look(sides)).lease_s is None:
        back = "source" if to == "target" else "target"
        complain(f"nobody copies changes to the {back} now: run dal move start{given}")
    if to == "source":
        complain(f"next: dal move cutover{places.for_cutover}, or give it up with dal move abort{given}")
    elif all(side == "target" for side in lives.values()):
        back = "" if places.is_one_way else f"; until then dal move rollback{given} leads back"
        complain(f"next, when you trust the target: dal move retire{given}{back}")
    else:
        here = ",".join(unit for unit, side in lives.items() if side == "source")
        complain(f"next: dal move cutover{places.for_cutover} --only {here}")
