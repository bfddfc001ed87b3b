"""`dal schema up`: looks, checks, backs up, applies and looks again, as `dal.schema.deploying.deploy` does it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, complain, report, run
from dal.cli.schema.options import DatabaseUrl, Dir, Env, LeaveOut, UpTo
from dal.cli.schema.target import Target, check_names, target
from dal.errors import DalError, InvalidInputError

if TYPE_CHECKING:
    from dal.schema import Connection, MigrationSet
    from dal.schema.deploying.deployment import Deployment, Phase


_OF_OWN_LAYOUT: dict[str, object] = {
    "ok": True,
    "set": None,
    "applied": [],
    "pending": [],
    "left_out": [],
    "phases": [],
    "findings": [],
    "backup": None,
    "problem": None,
    "duration_ms": 0,
}


def up(
    directory: Dir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    to: UpTo = None,
    leave_out: LeaveOut = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="RULE", help="Go past findings of this rule; may be repeated.", show_default=False
        ),
    ] = None,
    backup: Annotated[
        bool, typer.Option("--backup", help="Back up first, also where the environment does not demand it.")
    ] = False,
    report_dir: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            file_okay=False,
            help="Write what was done, checked and measured there, as text and JSON.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Bring a database to the current schema. Safe to repeat, and to run twice at once.

    Files of your own are tried on a scratch database and looked through by `lint` before, and verified afterwards. Each
    is applied in one transaction; when one fails, those before it stay, and the next run goes on there.
    """

    async def work() -> int:
        from dal.cli.schema.progress import MigrationProgress
        from dal.factory import schema_connection
        from dal.schema.deploying.deploy import deploy
        from dal.schema.deploying.environments import load_environments

        chosen = target(url, env, directory)
        if chosen.keeps_own_layout and directory is None:
            from dal.cli.schema.status import open_own_layout

            if to or leave_out or allow or backup or report_dir:
                raise InvalidInputError(f"a {chosen.backend} store has no migrations; leave these options out")
            await open_own_layout(chosen, create=True)
            if json:
                print_json(_OF_OWN_LAYOUT | {"address": chosen.backend, "environment": chosen.name})
            return 0
        async with chosen.connect(create=True) as connection:
            migrations = chosen.migrations(connection.engine)
            check_names(migrations, to, *(leave_out or ()))
            total = await _pending_count(connection, migrations, chosen, to, leave_out or [])
            with MigrationProgress("applied", total, directory=migrations.directory) as progress:
                done = await deploy(
                    connection,
                    None if chosen.directory is None else migrations,
                    chosen.environment,
                    project=None if chosen.environment is None else load_environments(Path.cwd()),
                    connect=schema_connection,
                    allow=allow or (),
                    to=to,
                    leave_out=leave_out or (),
                    backups=chosen.backups if backup else None,
                    report_dir=report_dir,
                    on_phase=progress.phase,
                    on_progress=progress.show,
                )
        if json:
            print_json(_json(done))
        elif done.migrated:
            from dal.cli.schema.show import migrated_rows

            console().print(table(None, ("applied", "statements>", "ms>"), migrated_rows(done.migrated)))
        if done.failed is not None:
            return _failed(done)
        if not done.migrated:
            complain(f"{done.address}: up to date")
        return 0

    run(work())


async def _pending_count(
    connection: Connection, migrations: MigrationSet, chosen: Target, to: str | None, leave_out: list[str]
) -> int | None:
    """How many files a terminal's progress counts; whatever is wrong is said by the run itself."""
    from dal.schema import plan

    if not sys.stderr.isatty():
        return None
    try:
        found = await plan(
            connection, migrations, environment=chosen.name, seed=chosen.seed, leave_out=leave_out, to=to
        )
    except DalError:
        return None
    return len(found.pending)


def _failed(done: Deployment) -> int:
    """Says what failed, what stays and how to go on. The findings have been shown as they came."""
    from dal.schema.findings import errors

    failed = done.failed
    assert failed is not None  # noqa: S101  # the caller has seen to it
    wrong = errors(failed.findings)
    problem = failed.message if not wrong else f"{len(wrong)} error{'s' * (len(wrong) != 1)}, see above"
    names = ", ".join(migration.name for migration in done.migrated)
    stayed = f"{names} applied and stayed" if names else "no migration was applied"
    message = f"{failed.name} failed: {problem}; {stayed}"
    if done.error is None:
        complain(message)
        code = FAILED
    else:
        code = report(done.error, message)
    if advice := _advice(failed, done.error):
        complain(advice)
    if done.restore_hint:
        complain(f"the state before can be brought back: `{done.restore_hint}`")
    return code


def _advice(failed: Phase, error: DalError | None) -> str:
    """How to go on; empty where the message has said it."""
    from dal.schema.plan import ALLOWABLE

    if failed.name == "apply":
        if error is not None and error.retryable:
            return "run it again: it goes on where it stopped"
        return "mend the file and run it again: it goes on there"
    if failed.name == "lint" or any(finding.rule in ALLOWABLE for finding in failed.findings):
        return "mend what was found, or go past what you have weighed with --allow RULE, and run it again"
    return "mend the files and run it again" if failed.name in ("plan", "validate") and failed.findings else ""


def _json(done: Deployment) -> dict[str, object]:
    from dal.cli.schema.show import findings_json, migrated_json

    applied = {migration.name for migration in done.migrated}
    return {
        "ok": done.ok,
        "address": done.address,
        "environment": done.environment,
        "set": done.schema_set,
        "applied": migrated_json(done.migrated),
        "pending": [] if done.plan is None else [m.name for m in done.plan.pending if m.name not in applied],
        "left_out": [] if done.plan is None else [{"name": name, "why": why} for name, why in done.plan.left_out],
        "phases": [
            {"name": p.name, "state": p.state, "duration_ms": p.duration_ms, "message": p.message} for p in done.phases
        ],
        "findings": findings_json(done.findings),
        "backup": None if done.backup is None else str(done.backup.path),
        "problem": None if done.failed is None else done.message,
        "duration_ms": done.duration_ms,
    }
