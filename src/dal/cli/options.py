"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store: file:DIR, sqlite:FILE, postgresql://… or d1://…; without it the environment says.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="Go on behind an earlier page.", show_default=False),
]
