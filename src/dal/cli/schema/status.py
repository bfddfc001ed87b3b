"""`dal schema status`: what a database has and what it lacks; with `--all`, every database of dal.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, complain, run
from dal.cli.schema.options import DatabaseUrl, Dir, Env
from dal.cli.schema.target import Target, target
from dal.errors import InvalidInputError

if TYPE_CHECKING:
    from dal.schema import Applied, MigrationSet, Plan


_OF_OWN_LAYOUT: dict[str, object] = {
    "set": None,
    "usable": True,
    "applied": [],
    "pending": [],
    "required": [],
    "left_out": [],
    "findings": [],
}


def status(
    directory: Dir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    every: Annotated[bool, typer.Option("--all", help="All environments of dal.toml, in one table.")] = False,
    json: AsJson = False,
) -> None:
    """Show which migrations a database has and which it lacks. Writes nothing.

    Exits with 1 when one is missing that it cannot do without, or when something is wrong.
    """

    async def work() -> int:
        if every:
            from dal.cli.schema.overview import overview

            if url is not None or env is not None:
                raise InvalidInputError("--all shows every environment; leave out --url and --env")
            return await overview(directory, json=json)
        chosen = target(url, env, directory)
        if chosen.keeps_own_layout and directory is None:
            await open_own_layout(chosen, create=False)
            if json:
                print_json(_OF_OWN_LAYOUT | {"address": chosen.backend, "environment": chosen.name})
            return 0
        async with chosen.look() as connection:
            from dal.schema import plan

            migrations = chosen.migrations(connection.engine)
            found = await plan(connection, migrations, environment=chosen.name, seed=chosen.seed)
        if json:
            print_json(status_json(found, migrations))
        else:
            _print(found, migrations)
        if needed(found):
            complain(chosen.how_to_apply())
        return 0 if usable(found) else FAILED

    run(work())


def status_json(found: Plan, migrations: MigrationSet) -> dict[str, object]:
    from dal.cli.schema.show import findings_json

    return {
        "address": found.address,
        "environment": found.environment,
        "set": migrations.name,
        "usable": usable(found),
        "applied": [_applied_json(row) for row in found.applied],
        "pending": [migration.name for migration in found.pending],
        "required": needed(found),
        "left_out": [{"name": name, "why": why} for name, why in found.left_out],
        "findings": findings_json(found.findings),
    }


def _applied_json(row: Applied) -> dict[str, object]:
    details = row.details
    return {
        "name": row.name,
        "applied_at": row.applied_at,
        "duration_ms": None if details is None else details.duration_ms,
        "checksum": None if details is None else details.checksum,
        "backup": None if details is None else details.backup_ref,
    }


def needed(found: Plan) -> list[str]:
    """The pending files that the database cannot do without."""
    return [migration.name for migration in found.pending if not migration.directives.optional]


def usable(found: Plan) -> bool:
    """Nothing that it needs is pending, and nothing is wrong."""
    return not needed(found) and not found.refusals()


async def open_own_layout(chosen: Target, *, create: bool) -> None:
    """A store that keeps its layout itself: it is up to date when it opens.

    create  it is made where it is not there.
    """
    from dal.factory import create_store

    store = create_store(chosen.url, auto_migrate=create)
    await store.open()
    await store.close()
    complain(f"{chosen.backend}: up to date")


def _print(found: Plan, migrations: MigrationSet) -> None:
    from dal.cli.schema.show import print_findings

    rows: list[tuple[str, str, str]] = [(row.name, "applied", row.applied_at) for row in found.applied]
    rows += [(m.name, "pending, optional" if m.directives.optional else "pending", "") for m in found.pending]
    rows += [(name, f"left out: {why}", "") for name, why in found.left_out]
    console().print(table(found.address, ("migration", "state", "since (UTC)"), rows))
    print_findings(found.findings, migrations.directory)
