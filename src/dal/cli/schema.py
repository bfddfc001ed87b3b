"""`dal schema up`, `dal schema status` and `dal schema rebuild-search`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Protocol, cast

import typer

from dal.cli.options import AsJson, Url
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, complain, run, with_store

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.schema import Connection
    from dal.store import SearchIndex, Store

app = typer.Typer(
    help="The layout of a store: bring it up, look at it, rebuild its search index.", no_args_is_help=True
)

_REBUILD_ROWS = 2000


class _Migrates(Protocol):
    def migrations(self) -> AbstractAsyncContextManager[Connection]: ...


@app.command("up")
def up(
    url: Url = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            "--leave-out",
            metavar="FILE",
            help="An optional migration not to apply, as 0002_search.sql; may be repeated.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Bring a store to the current layout. Safe to repeat, and to run twice at once."""

    async def work() -> int:
        from dal import schema
        from dal.factory import create_store

        store = create_store(url, auto_migrate=True)
        applied: list[schema.Migrated] = []
        address = store.capabilities.backend
        if _has_migrations(store):
            async with cast(_Migrates, store).migrations() as connection:
                applied = await schema.up(connection, leave_out=leave_out or ())
                address = connection.address
        else:
            await store.open()  # makes its own layout
            await store.close()
        if json:
            print_json({"applied": [{"name": m.name, "duration_ms": m.duration_ms} for m in applied]})
        elif applied:
            console().print(table(None, ("applied", "ms>"), [(m.name, m.duration_ms) for m in applied]))
        else:
            complain(f"{address}: up to date")
        return 0

    run(work())


@app.command("status")
def status(url: Url = None, json: AsJson = False) -> None:
    """Show which migrations a store has and which it lacks. Exits with 1 when it cannot be used as it is."""

    async def work() -> int:
        from dal import schema
        from dal.factory import create_store

        store = create_store(url, auto_migrate=False)
        if not _has_migrations(store):
            return await _own_layout(store, json)
        async with cast(_Migrates, store).migrations() as connection:
            found = await schema.status(connection)
        usable = not found.required and not found.newer
        if json:
            print_json(
                {
                    "address": found.address,
                    "version": found.version,
                    "usable": usable,
                    "applied": [row.name for row in found.applied],
                    "pending": list(found.pending),
                    "required": list(found.required),
                    "newer": list(found.newer),
                }
            )
        else:
            rows = [
                (row.name, "applied" if row.name not in found.newer else "newer than this library")
                for row in found.applied
            ]
            rows += [(name, "pending" if name in found.required else "pending, optional") for name in found.pending]
            console().print(table(found.address, ("migration", "state"), rows))
            if not usable:
                complain("upgrade the library" if found.newer else "run `dal schema up` with the same --url")
        return 0 if usable else FAILED

    run(work())


@app.command("rebuild-search")
def rebuild_search(
    url: Url = None,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Keep what is indexed and add what is not.")
    ] = False,
) -> None:
    """Build the search index anew from the messages. Until it is done, searches find only what is indexed so far."""

    async def work(dal: DataAccess) -> int:
        index = cast("SearchIndex", dal.store)
        if not only_missing:
            await index.drop_search()
        indexed = 0
        while done := await index.index_pending(limit=_REBUILD_ROWS):
            indexed += done
        complain(f"{indexed:,} messages indexed")
        return 0

    with_store(url, work)


def _has_migrations(store: Store) -> bool:
    return hasattr(store, "migrations")


async def _own_layout(store: Store, json: bool) -> int:
    """A store that keeps its layout itself: it is up to date when it opens."""
    await store.open()
    await store.close()
    backend = store.capabilities.backend
    if json:
        print_json({"address": backend, "usable": True, "applied": [], "pending": [], "required": [], "newer": []})
    else:
        complain(f"{backend}: up to date")
    return 0
