"""`dal files`: files and their contents, their upkeep and use, and moving contents from one place to another."""

from __future__ import annotations

import typer

from dal.cli.files import access, contents, looking, moving, tasks, upkeep, usage

app = typer.Typer(help="Files, their contents, and moving those from one place to another.", no_args_is_help=True)
app.command("list")(looking.list_files)
app.command("show")(looking.show)
app.command("log")(looking.log)
app.command("uploads")(looking.uploads)
app.command("tasks")(tasks.tasks)
app.command("upload")(contents.upload)
app.command("download")(contents.download)
app.command("delete")(contents.delete)
app.command("restore")(contents.restore)
app.command("grant")(access.grant)
app.command("revoke")(access.revoke)
app.command("quota")(upkeep.quota)
app.command("sweep")(upkeep.sweep)
app.command("usage")(usage.usage)
app.command("costs")(usage.costs)
app.command("assess")(moving.assess)
app.command("move")(moving.move)
app.command("verify")(moving.verify)
app.command("rollback")(moving.rollback)
