"""`dal move check` and `dal move repair`: `dal check` over the two stores of a move, noted where `status` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.check import CheckMode, show_check
from dal.cli.move.options import From, Only, To, names_of
from dal.cli.options import AsJson
from dal.cli.output import print_json
from dal.cli.running import FAILED, complain, run

if TYPE_CHECKING:
    from dal.move.differences import Difference


def check(
    source: From = None,
    target: To = None,
    only: Only = None,
    mode: Annotated[
        CheckMode,
        typer.Option(
            help="deep: every row of both stores. quick: registry against registry. tail: what was copied since the "
            "last check."
        ),
    ] = CheckMode.DEEP,
    json: AsJson = False,
) -> None:
    """Compare both stores while everybody writes. Exits with 1 when rows differ, and says how.

    A row on its way is no difference. `dal check` does the same for any two stores, with reports as pages.
    """
    _check(source, target, only, mode, json=json, repairs=False)


def repair(
    source: From = None,
    target: To = None,
    only: Only = None,
    delete_extra: Annotated[
        bool, typer.Option("--delete-extra", help="Rows that only the replica has are deleted there.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Carry it out; without it, only say what would be done.")] = False,
    json: AsJson = False,
) -> None:
    """Have rows that differ copied again from where they live; without --yes, only say which.

    The mover carries it out in its next round: leave `dal move start` running. What is done is in the audit trail.
    """
    _check(source, target, only, CheckMode.DEEP, json=json, repairs=True, delete_extra=delete_extra, yes=yes)


def _check(
    source_url: str | None,
    target_url: str | None,
    only: list[str] | None,
    mode: CheckMode,
    *,
    json: bool,
    repairs: bool,
    delete_extra: bool = False,
    yes: bool = False,
) -> None:
    async def work() -> int:
        from dal.cli.check_progress import CheckBars
        from dal.cli.move.stores import both_opened, both_places
        from dal.move import checking
        from dal.move import repair as repairing
        from dal.move.operating import note_check, units_of_move

        places = both_places(source_url, target_url)
        differences: list[Difference] = []
        async with both_opened(places) as (source, target, sides):
            units = await units_of_move(sides, names_of(only))
            with CheckBars() as bars:
                found = await checking.check(
                    source,
                    target,
                    mode=mode.value,
                    units=units,
                    mark=mode is not CheckMode.QUICK,
                    on_progress=bars.show if bars.is_shown else None,
                    on_difference=differences.append if repairs else None,
                )
            if found.is_whole and mode is CheckMode.DEEP:
                await note_check(sides, found, units)
            done = None
            if repairs:
                done = await repairing.repair(source, target, differences, delete_extra=delete_extra, dry_run=not yes)
        if json:
            document = {**places.to_json(), **found.as_dict()}
            print_json(document if done is None else {**document, "repair": done.as_dict()})
        else:
            show_check(found, (places.source.shown, places.target.shown), done)
        if done is not None and done.done:
            complain(f"next: leave dal move start{places.arguments} running, and check again with dal move check")
            return 0
        if found.differences and done is None:
            complain(f"next: dal move repair{places.arguments}")
        return 0 if found.is_equal else FAILED

    run(work())
