"""`dal move rehearse`: a whole move to a scratch store, taken back again, with times."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.move.options import BatchSize, From, Only, names_of
from dal.cli.options import AsJson
from dal.cli.output import console, print_json, table
from dal.cli.running import complain, run

if TYPE_CHECKING:
    from dal.cli.move.stores import Places
    from dal.move.rehearsing import Rehearsal
    from dal.store import Store


def rehearse(
    source: From = None,
    scratch: Annotated[
        str | None,
        typer.Option(
            "--scratch", metavar="URL", help="An empty store; without it, a temporary SQLite file.", show_default=False
        ),
    ] = None,
    only: Only = None,
    cutover: Annotated[
        bool | None,
        typer.Option(
            "--cutover/--no-cutover",
            help="Switch each unit there and back, although somebody may write; without either, only if nobody does.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSize = None,
    json: AsJson = False,
) -> None:
    """Try a whole move out, to a scratch store: copy, compare, cut over, roll back, abort; says how long each took.

    The service goes on meanwhile; nothing is left in the source, also after Ctrl-C. A cutover makes applications that
    know of no move meet refused writes for a moment, so it is only carried out where nobody is writing, or with
    --cutover; else its work behind the fence is measured beside the writers.
    """

    async def work() -> int:
        from dal.cli.move.stores import end_on_sigterm
        from dal.config import Settings
        from dal.move.operating import closed_units
        from dal.move.rehearsing import rehearse as carry_out
        from dal.replica import Movable, OneWay

        end_on_sigterm()
        units = closed_units(names_of(only))
        async with _places(source, scratch) as places:
            may_make = places.target.is_embedded
            async with places.source.opened() as ours, places.target.opened(auto_migrate=may_make) as theirs:
                await _require_empty(places, theirs)
                is_one_way = isinstance(ours, Movable) and isinstance(ours.replica(), OneWay)
                found = await carry_out(
                    ours,
                    theirs,
                    units,
                    batch_rows=batch_size or Settings().migration_batch_size,
                    with_cutover=cutover,
                    on_phase=lambda phase: complain(f"{phase} …") if sys.stderr.isatty() else None,
                )
        if json:
            print_json({**places.to_json(), **found.as_dict()})
        else:
            _show(found)
        if found.why:
            complain(
                f"no cutover was carried out: {found.why}{'' if is_one_way else '; --cutover does it all the same'}"
            )
        complain(f"nothing of it is left in {places.source.shown}; next: dal move plan{places.source.argument} --to …")
        return 0

    run(work())


async def _require_empty(places: Places, scratch: Store) -> None:
    from dal.errors import ConfigurationError
    from dal.move.reading import Reader
    from dal.tables import TABLES

    reader = Reader("target", scratch)
    for declared in TABLES.values():
        if await reader.count(declared):
            raise ConfigurationError(f"--scratch: {places.target.shown} is not empty; name another store, or none")


@asynccontextmanager
async def _places(source: str | None, scratch: str | None) -> AsyncIterator[Places]:
    """Source and scratch store; a temporary one is removed at the end."""
    from dal.cli.move.stores import both_places

    if scratch is not None:
        yield both_places(source, scratch)
        return
    with tempfile.TemporaryDirectory(prefix="dal-rehearsal-") as directory:
        yield both_places(source, f"sqlite:{Path(directory) / 'scratch.db'}")


def _show(found: Rehearsal) -> None:
    out = console()
    rows = [(name, f"{seconds:.2f}") for name, seconds in found.phases.items()]
    out.print(table("phases", ("phase", "seconds>"), rows))
    out.print(f"{found.rows:,} rows copied, {found.rows_s:,.0f} rows/s")
    drains = [(unit, f"{ms:.1f}") for unit, ms in found.drains_ms.items()]
    out.print(table("what a fence waits for", ("unit", "ms>"), drains))
    if found.switched:
        switched = [(one.unit, one.to, one.stall_ms, one.fence_ms, one.drained) for one in found.switched]
        out.print(table("cutovers, there and back", ("unit", "to", "stall ms>", "fence ms>", "drained>"), switched))
