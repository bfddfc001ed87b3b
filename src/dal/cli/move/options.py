"""Options that the commands of `dal move` share."""

from __future__ import annotations

from typing import Annotated

import typer

_FORMS = "file:DIR, sqlite:FILE, postgresql://… or d1://…"

From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="URL",
        help=f"The store to move: {_FORMS}, or legacy:DIR; without it DATA_STORAGE_TYPE … say.",
        show_default=False,
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="Where to: the same forms; without it MIGRATION_TARGET_URL or MIGRATION_TARGET_TYPE say.",
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="UNITS",
        help="Some units, as memory,chats: of memory, chats (with their messages), files, users, audit.",
        show_default=False,
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Look at a sample of each table instead of every row.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
JsonLines = Annotated[bool, typer.Option("--json", help="JSON on standard output, one object a line, for programs.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="ROWS",
        min=1,
        max=10_000,
        help="Rows of one copy at most; without it MIGRATION_BATCH_SIZE says.",
        show_default=False,
    ),
]


def names_of(only: list[str] | None) -> list[str]:
    """The units that were named, apart by commas or by several options."""
    return [name.strip() for part in only or () for name in part.split(",") if name.strip()]
