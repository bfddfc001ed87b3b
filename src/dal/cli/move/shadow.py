"""`dal move shadow`: how many reads applications compare with the replica's, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.move.options import From, Only, To, names_of
from dal.cli.options import AsJson
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, complain

if TYPE_CHECKING:
    from dal.cli.move.stores import Places
    from dal.move.sides import Sides


def shadow(
    source: From = None,
    target: To = None,
    only: Only = None,
    percent: Annotated[
        int | None,
        typer.Option("--percent", min=0, max=100, help="Of a hundred reads; 0 ends it.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Let applications ask some of their reads of the other store too and compare the answers; without --percent, show.

    A difference counts only when it stays. Exits with 1 when reads differed.
    """
    from dal.cli.move.stores import with_sides

    async def work(sides: Sides, places: Places) -> int:
        from dal.cli.move.show import shadow as said
        from dal.move.operating import set_shadow, units_of_move
        from dal.move.status import look

        units = await units_of_move(sides, names_of(only))
        if percent is not None:
            await set_shadow(sides, units, percent)
        found = await look(sides)
        chosen = [found.units[unit] for unit in units]
        differ = [unit.unit for unit in chosen if unit.shadow.get("different")]
        if json:
            parts = [{"unit": u.unit, "percent": u.shadow_percent, "results": dict(u.shadow)} for u in chosen]
            print_json({**places.to_json(), "units": parts})
        else:
            console().print(table(None, ("unit", "shadow reads"), [(unit.unit, said(unit)) for unit in chosen]))
        if percent:
            complain("applications obey within seconds; results: dal move shadow, or dal move watch")
        if differ and percent is None:
            complain(f"{', '.join(differ)}: answers differed; look closer with dal move check{places.arguments}")
            return FAILED
        return 0

    with_sides(source, target, work)
