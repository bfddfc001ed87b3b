"""`dal schema down` and `dal schema baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, complain, run
from dal.cli.schema.confirm import confirmed
from dal.cli.schema.options import DatabaseUrl, Dir, Env, Yes
from dal.cli.schema.target import Target, check_names, target
from dal.errors import InvalidInputError

if TYPE_CHECKING:
    from dal.schema import Connection, Migrated, MigrationSet


def down(
    directory: Dir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, metavar="N", help="How many to take back; 1 without it.", show_default=False),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FILE", help="Take back all that came after this file.", show_default=False),
    ] = None,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Take the newest migrations back, newest first, by their files in rollback/. What they hold is lost.

    On a terminal it asks before it begins. Where the environment demands backups, it makes one before.
    """

    async def work() -> int:
        from dal import schema
        from dal.cli.schema.progress import MigrationProgress
        from dal.cli.schema.show import migrated_json, migrated_rows

        if steps is not None and to is not None:
            raise InvalidInputError("--steps and --to both say how far; give one of them")
        chosen = target(url, env, directory)
        async with chosen.connect() as connection:
            migrations = chosen.migrations(connection.engine)
            check_names(migrations, to)
            wanted = await _to_take_back(connection, migrations, chosen, steps or 1, to)
            done: list[Migrated] = []
            kept: Path | None = None
            if wanted:
                what = f"{connection.address}: to be taken back, with all data in it: {', '.join(wanted)}."
                if not confirmed(what, yes=yes):
                    return FAILED
                kept = await _kept(connection, chosen)
                with MigrationProgress("took back", len(wanted)) as progress:
                    done = await schema.down(
                        connection, migrations, steps=len(wanted), to=to, on_progress=progress.show
                    )
        if json:
            print_json(
                {
                    "address": connection.address,
                    "environment": chosen.name,
                    "set": migrations.name,
                    "taken_back": migrated_json(done),
                    "backup": None if kept is None else str(kept),
                }
            )
        elif done:
            console().print(table(None, ("taken back", "statements>", "ms>"), migrated_rows(done)))
        else:
            complain(f"{connection.address}: nothing to take back")
        return 0

    run(work())


def baseline(
    to: Annotated[
        str, typer.Option("--to", metavar="FILE", help="The last file that the database has.", show_default=False)
    ],
    directory: Dir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    json: AsJson = False,
) -> None:
    """Enter files as applied without running them, for a database that has their tables already.

    `dal schema verify` tells afterwards whether it really has them.
    """

    async def work() -> int:
        from dal import schema

        chosen = target(url, env, directory)
        async with chosen.connect() as connection:
            migrations = chosen.migrations(connection.engine)
            check_names(migrations, to)
            entered = await schema.baseline(connection, migrations, to=to, environment=chosen.name, seed=chosen.seed)
        if json:
            head: dict[str, object] = {"address": connection.address, "environment": chosen.name}
            print_json(head | {"set": migrations.name, "entered": entered})
        else:
            for name in entered:
                print(name)
            complain(f"{connection.address}: {len(entered)} entered; run {chosen.again('verify')}")
        return 0

    run(work())


async def _to_take_back(
    connection: Connection, migrations: MigrationSet, chosen: Target, steps: int, to: str | None
) -> list[str]:
    """As `schema.down` will choose: what was begun and not finished is the newest of all."""
    from dal import schema

    found = await schema.plan(connection, migrations, environment=chosen.name, seed=chosen.seed)
    names = [*found.begun, *(row.name for row in reversed(found.applied))]
    if to is None:
        return names[:steps]
    if to not in names:
        raise InvalidInputError(f"{connection.address}: {to} is not applied, so nothing came after it")
    return names[: names.index(to)]


async def _kept(connection: Connection, chosen: Target) -> Path | None:
    """The backup that the environment demands before anything is destroyed."""
    if chosen.environment is None or not chosen.environment.require_backup:
        return None
    from dal.cli.schema.show import print_findings, shown_path
    from dal.schema.backups.backup import backup

    made = await backup(connection, chosen.backups)
    print_findings(made.findings, None, to_stderr=True)
    complain(f"backed up to {shown_path(made.path)}")
    return made.path
