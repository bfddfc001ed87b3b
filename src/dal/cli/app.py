"""The commands and their groups, put together. Each lives in a module of its own and loads what it needs late."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dal import __version__
from dal.cli import chats, check, demo, doctor, files, imports, move, schema, search, search_index, users


class TwoWords(TyperGroup):
    """Commands of which some have names of two words: `search rebuild` beside `search TEXT`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # typer's types for these are not public
        both = " ".join(args[:2])
        if len(args) > 1 and both in self.commands:
            args = [both, *args[2:]]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=TwoWords,
    help="Users, chats, messages, memory, files and audit logs, the same on every store.\n\n"
    "A store is named by --url (file:DIR, sqlite:FILE, postgresql://…, d1://…) or by the environment "
    "(DATA_STORAGE_TYPE, …).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(schema.app, name="schema")
app.add_typer(move.app, name="move")
app.add_typer(files.app, name="files")
app.add_typer(chats.app, name="chats")
app.add_typer(users.app, name="users")
app.command("import")(imports.import_files)
app.command("check")(check.check)
app.command("search")(search.search)
app.command("search rebuild")(search_index.rebuild)
app.command("search drop")(search_index.drop)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _join_lines(group: typer.Typer) -> None:
    """Makes each paragraph of a command's help one line: Rich would keep the ends of the source's lines."""
    for command in group.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for part in group.registered_groups:
        if part.typer_instance is not None:
            _join_lines(part.typer_instance)


_join_lines(app)


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
