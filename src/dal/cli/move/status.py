"""`dal move status` and `dal move watch`: how far a move has come, whether or not a mover is running."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.move.options import From, JsonLines, To
from dal.cli.options import AsJson
from dal.cli.output import console, print_json
from dal.cli.running import complain
from dal.errors import ConflictError, DalError
from dal.limits import MOVE_ENDING_S

if TYPE_CHECKING:
    from dal.cli.move.stores import Places
    from dal.move.sides import Sides
    from dal.move.status import MoveStatus


def status(source: From = None, target: To = None, json: AsJson = False) -> None:
    """Show once where each unit lives, how much of it is copied, what waits, and the last check and cutover."""
    from dal.cli.move.stores import with_sides

    async def work(sides: Sides, places: Places) -> int:
        from dal.cli.move.show import overview
        from dal.move.status import look, since_it_began

        found = since_it_began(await look(sides))
        if json:
            print_json({**places.to_json(), **found.as_dict()})
        else:
            console().print(overview(found))
            for line in next_steps(found, places):
                complain(line)
        return 0

    with_sides(source, target, work)


def watch(
    source: From = None,
    target: To = None,
    interval: Annotated[float, typer.Option("--interval", min=0.05, help="Seconds between two looks.")] = 1.0,
    json: JsonLines = False,
) -> None:
    """Show the same again and again, with rates and the time left, until Ctrl-C or the move has ended."""
    from dal.cli.move.stores import with_sides

    async def work(sides: Sides, places: Places) -> int:
        from rich.live import Live

        from dal.cli.move.show import overview, print_line
        from dal.move.status import Pace

        pace = Pace()
        out = console()
        is_screen = not json and sys.stdout.isatty()
        with Live(console=out, auto_refresh=False) if is_screen else nullcontext() as live:
            while True:
                found = await _look_again(sides)
                if found is None:
                    await asyncio.sleep(interval)
                    continue
                found = pace.see(found)
                if json:
                    print_line({**places.to_json(), **found.as_dict()})
                elif live is not None:
                    live.update(overview(found), refresh=True)
                else:
                    out.print(overview(found))
                if not found.is_on:
                    return 0
                await asyncio.sleep(interval)

    with_sides(source, target, work)


async def _look_again(sides: Sides) -> MoveStatus | None:
    """A look at the move, or None while the source does not answer. A move that is being ended is waited for."""
    from dal.move.status import look

    until = monotonic() + MOVE_ENDING_S
    while True:
        try:
            return await look(sides)
        except ConflictError:  # between the ends of both stores
            if monotonic() > until:
                raise
        except DalError as error:
            if not error.retryable:
                raise
            complain(f"the source does not answer: {error.message}")
            return None
        await asyncio.sleep(0.1)


def next_steps(found: MoveStatus, places: Places, *, copies: bool = False) -> list[str]:
    """What comes next, as commands. copies: whoever asks is the mover."""
    given = places.arguments
    if not found.move:
        return [f"begin with: dal move plan{given}"]
    if found.is_retired:
        return []
    lines = []
    if found.lease_s is None and not copies:
        lines.append(f"nobody copies now; go on with: dal move start{given}")
    switched, here = found.living_on("target"), found.living_on("source")
    if found.is_verified and here:
        lines.append(f"next: dal move cutover{places.for_cutover}")
    if switched and not here:
        back = "" if places.is_one_way else f", or back: dal move rollback{given}"
        lines.append(f"next, when you trust the target: dal move retire{given}{back}")
    return lines
