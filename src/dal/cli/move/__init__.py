"""`dal move`: a live move of a store to another one, from planning to the end."""

from __future__ import annotations

import typer

from dal.cli.move import check, ending, plan, rehearse, shadow, start, status, switching

app = typer.Typer(
    help="Move a store to another one, of any kind, while everybody goes on writing.\n\n"
    "The story of a move: `plan` looks at both stores and touches nothing; `rehearse` tries it out on a scratch store. "
    "`start` copies everything, compares it, and then follows what is written: leave it running. `watch` shows how far "
    "it is, `check` compares once more, `repair` has copied again what differs, `shadow` lets applications compare "
    "their reads. `cutover` makes the target the store that is written to, unit by unit; `rollback` leads back, with "
    "everything written meanwhile. `retire` ends the move for good; `abort` gives it up before the cutover.\n\n"
    "Both stores are named by --from and --to, or by the environment (DATA_STORAGE_TYPE …, MIGRATION_TARGET_URL).",
    no_args_is_help=True,
)
for command, function in (
    ("plan", plan.plan),
    ("rehearse", rehearse.rehearse),
    ("start", start.start),
    ("status", status.status),
    ("watch", status.watch),
    ("check", check.check),
    ("repair", check.repair),
    ("shadow", shadow.shadow),
    ("cutover", switching.cutover),
    ("rollback", switching.rollback),
    ("retire", ending.retire),
    ("abort", ending.abort),
):
    app.command(command)(function)
