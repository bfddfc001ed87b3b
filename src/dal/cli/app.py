"""The commands and their groups, put together. Each lives in a module of its own and loads what it needs late."""

from __future__ import annotations

from typing import Annotated

import typer

from dal import __version__
from dal.cli import chats, demo, doctor, imports, schema, search, users

app = typer.Typer(
    help="Users, chats, messages, memory, files and audit logs, the same on every store.\n\n"
    "A store is named by --url (file:DIR, sqlite:FILE, postgresql://…) or by the environment (DATA_STORAGE_TYPE, …).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(schema.app, name="schema")
app.add_typer(chats.app, name="chats")
app.add_typer(users.app, name="users")
app.command("import")(imports.import_files)
app.command("search")(search.search)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dal {__version__}")
        raise typer.Exit


@app.callback()
def _dal(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass
