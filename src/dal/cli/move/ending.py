"""`dal move retire` and `dal move abort`: how a move ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.move.options import From, To, Yes
from dal.cli.options import AsJson
from dal.cli.output import print_json
from dal.cli.running import FAILED, complain, run

if TYPE_CHECKING:
    from dal.cli.move.stores import Place, Places
    from dal.move.sides import Sides


def retire(source: From = None, target: To = None, yes: Yes = False, json: AsJson = False) -> None:
    """End a move whose units all live on the target. The source keeps its rows as a backup and refuses writes.

    There is no rollback after that. On a terminal it asks before.
    """
    from dal.cli.move.stores import with_sides

    async def work(sides: Sides, places: Places) -> int:
        from dal.cli.schema.confirm import confirmed
        from dal.move.ending import retire as end

        what = f"{places.source.shown} is to be retired: it refuses writes from then on, and nothing leads back."
        if not confirmed(what, yes=yes):
            return FAILED
        await end(sides)
        if json:
            print_json({**places.to_json(), "retired": True})
        complain(f"retired: the store is {places.target.shown} now; {places.source.shown} can be read as a backup")
        complain("next: name the new store in the applications' settings, and turn MIGRATION_ENABLE_DUAL_WRITE off")
        return 0

    with_sides(source, target, work)


def abort(
    source: From = None,
    target: To = None,
    without_target: Annotated[
        bool, typer.Option("--without-target", help="The target is lost or does not answer: leave it as it is.")
    ] = False,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Give a move up whose units all live on the source, which goes on as it is. The target keeps the copies it has.

    On a terminal it asks before. What a killed rehearsal left in a source goes too, and needs no --to.
    """

    async def work() -> int:
        from dal.cli.move.stores import both_opened, both_places, source_place
        from dal.cli.schema.confirm import confirmed
        from dal.move.ending import abort as end

        place = source_place(source)
        what = f"The move of {place.shown} is to be given up."
        if await _swept(place):
            complain(f"what a rehearsal left in {place.shown} was taken out; nothing else was changed")
            if json:
                print_json({"source": place.shown, "target": None, "aborted": True})
            return 0
        if without_target:
            return await _abort_alone(place, json=json) if confirmed(what, yes=yes) else FAILED
        places = both_places(source, target)
        async with both_opened(places) as (_, _, sides):
            was_on = bool(await sides.source.gates() or await sides.target.gates())
            if was_on and not confirmed(what, yes=yes):
                return FAILED
            await end(sides)
        if json:
            print_json({**places.to_json(), "aborted": was_on})
        if not was_on:
            complain("no move is on; nothing was done")
            return 0
        complain(f"aborted: {places.source.shown} goes on as it is, nothing of the move is left in it")
        complain(f"the copies in {places.target.shown} are yours to remove; a new move wants an empty target")
        return 0

    run(work())


async def _abort_alone(place: Place, *, json: bool) -> int:
    from dal.move.ending import abort_alone
    from dal.move.operating import movable

    async with place.opened() as store:
        await abort_alone(movable("source", store))
    if json:
        print_json({"source": place.shown, "target": None, "aborted": True})
    complain(f"aborted: {place.shown} goes on as it is, nothing of the move is left in it")
    complain("should the target come back, it refuses writes until dal move abort is told of both")
    return 0


async def _swept(place: Place) -> bool:
    """Whether the source held what a killed rehearsal leaves, which is gone then."""
    from dal.move.rehearsing import sweep
    from dal.replica import Movable

    async with place.opened() as store:
        return isinstance(store, Movable) and await sweep(store.replica())
