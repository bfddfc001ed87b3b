"""`dal schema backup` and `dal schema restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson
from dal.cli.output import print_json
from dal.cli.running import FAILED, complain, run
from dal.cli.schema.confirm import confirmed
from dal.cli.schema.options import DatabaseUrl, Env, SeenDir, Yes
from dal.cli.schema.target import Target, target
from dal.errors import SchemaError

if TYPE_CHECKING:
    from dal.schema import Connection
    from dal.schema.backups.backup import Backup


def backup(
    directory: SeenDir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="DIR",
            file_okay=False,
            help="Directory of the backup; without it the one that dal.toml names, else backups.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Copy the whole database into a new file, with a manifest that `restore` checks. Prints the file's path.

    An index of an SQLite file that lacks rows is named, and the copy is made all the same: the rows are in it.
    """

    async def work() -> int:
        from dal.cli.schema.show import print_findings, shown_path
        from dal.schema.backups.backup import backup as back_up

        chosen = target(url, env, directory)
        async with chosen.connect() as connection:
            made = await back_up(connection, chosen.backups if into is None else into)
            pending = await _pending(connection, chosen)
        if json:
            print_json({**backup_json(made), "pending": pending})
        else:
            print_findings(made.findings, None, to_stderr=True)
            print(shown_path(made.path))
            rows = sum(table.rows for table in made.manifest.tables.values())
            complain(
                f"{connection.address}: {len(made.manifest.tables)} tables with {rows:,} rows, "
                f"{made.manifest.size_bytes:,} bytes"
            )
        return 0

    run(work())


def restore(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The backup's file, or its manifest.", show_default=False),
    ],
    directory: SeenDir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    yes: Yes = False,
    other_database: Annotated[
        bool, typer.Option("--other-database", help="Also take a backup of a database of another name.")
    ] = False,
    no_keep: Annotated[
        bool,
        typer.Option("--no-keep", help="Do not back up the present state first; for a database too damaged for that."),
    ] = False,
    json: AsJson = False,
) -> None:
    """Make a database what it was when the backup was made, and compare every table with it.

    What came later is lost; it is kept in a backup of its own beside FILE. On a terminal it asks before it begins.
    Exits with 1 when a table is not what it was, or an index of an SQLite file lacks rows of its table.
    """

    async def work() -> int:
        from dal.cli.schema.show import findings_json, print_findings, shown_path
        from dal.schema.backups.backup import read_backup
        from dal.schema.backups.backup import restore as bring_back

        chosen = target(url, env, directory)
        known = read_backup(file)
        path, name = chosen.place.path, known.manifest.database
        if path is not None and not path.exists() and path.stem != name and not other_database:
            # Before a file of the wrong name is made.
            raise SchemaError(f"{path} is not there, and this is a backup of database {name!r} (nothing was restored)")
        async with chosen.connect(create=True) as connection:
            what = f"{connection.address} becomes what it was at {known.manifest.created_at:%Y-%m-%d %H:%M:%S} UTC."
            if not confirmed(what, yes=yes):
                return FAILED
            done = await bring_back(
                connection,
                file,
                other_database=other_database,
                keep_present=not no_keep,
                on_progress=lambda phase: complain(_PHASES[phase]),
            )
            pending = await _pending(connection, chosen)
        if json:
            print_json(
                {
                    "address": connection.address,
                    "environment": chosen.name,
                    "restored": str(done.backup.path),
                    "kept": None if done.kept is None else str(done.kept.path),
                    "tables": {name: {"rows": digest.rows} for name, digest in done.tables.items()},
                    "differences": [{"detail": str(difference)} for difference in done.differences],
                    "findings": findings_json(done.findings),
                    "pending": pending,
                }
            )
        for difference in done.differences:
            complain(f"not as it was: {difference}")
        print_findings(done.findings, None, to_stderr=True)
        if done.kept is not None:
            complain(f"what was there is kept in {shown_path(done.kept.path)}")
        if not done.differences:
            complain(f"{connection.address}: {len(done.tables)} tables are what they were")
        return 0 if done.ok else FAILED

    run(work())


async def _pending(connection: Connection, chosen: Target) -> list[str]:
    """Which of the migrations this state of the database lacks; said aloud. Empty where none were named."""
    from dal.schema import plan

    if chosen.directory is None:
        return []
    found = await plan(connection, chosen.migrations(connection.engine), environment=chosen.name, seed=chosen.seed)
    pending = [migration.name for migration in found.pending]
    complain(f"of {chosen.directory} it lacks {', '.join(pending)}" if pending else f"it has all of {chosen.directory}")
    return pending


_PHASES = {
    "check": "checking the backup",
    "keep": "keeping the present state",
    "load": "loading",
    "compare": "comparing every table",
}


def backup_json(made: Backup) -> dict[str, object]:
    """path, findings, and what stands in the manifest."""
    from dal.cli.schema.show import findings_json

    manifest = made.manifest.model_dump(mode="json")
    return {"path": str(made.path), **manifest, "findings": findings_json(made.findings)}
