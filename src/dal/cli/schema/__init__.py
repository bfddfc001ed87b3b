"""`dal schema`: the migrations of a database, the library's own or anybody's, from planning to the way back."""

from __future__ import annotations

import typer

from dal.cli.schema import backups, check, directory, down, plan, status, up

app = typer.Typer(
    help="The schema of a database: plan, check, apply, verify and take back its migrations.\n\n"
    "Without --dir they are the library's own. Files are NNNN_name.sql, their ways back rollback/NNNN_name.sql.",
    no_args_is_help=True,
)
for command, function in (
    ("status", status.status),
    ("plan", plan.plan),
    ("validate", check.validate),
    ("lint", directory.lint),
    ("up", up.up),
    ("down", down.down),
    ("verify", check.verify),
    ("drift", check.drift),
    ("explain", check.explain),
    ("backup", backups.backup),
    ("restore", backups.restore),
    ("baseline", down.baseline),
    ("new", directory.new),
):
    app.command(command)(function)
