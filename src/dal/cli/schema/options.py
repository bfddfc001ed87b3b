"""Options that the commands of `dal schema` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The database: sqlite:FILE, postgresql://… or d1://…; without --url and --env the environment says.",
        show_default=False,
    ),
]
Dir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        help="The migrations: a directory of NNNN_name.sql, or of sqlite/ and postgresql/ with those; without it the "
        "environment's, else the library's own.",
        exists=True,
        file_okay=False,
        show_default=False,
    ),
]
SeenDir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        help="Migrations, as for the other commands: say which of them the database lacks then.",
        exists=True,
        file_okay=False,
        show_default=False,
    ),
]
NewDir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        help="The migrations, as for the other commands; made where it is missing.",
        file_okay=False,
        show_default=False,
    ),
]
Env = Annotated[
    str | None,
    typer.Option(
        "--env",
        metavar="NAME",
        help="The environment of dal.toml that names the database and the migrations.",
        show_default=False,
    ),
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option(
        "--leave-out",
        metavar="FILE",
        help="An optional file not to apply, as 0002_search.sql; may be repeated.",
        show_default=False,
    ),
]
UpTo = Annotated[
    str | None,
    typer.Option("--to", metavar="FILE", help="The last file to apply; later ones wait.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


class PlaceName(StrEnum):
    SQLITE = "sqlite"
    D1 = "d1"
    POSTGRESQL = "postgresql"


PlaceOption = Annotated[
    PlaceName | None,
    typer.Option("--place", help="Where the files are to run, where nothing else says so.", show_default=False),
]


class Phase(StrEnum):
    EXPAND = "expand"
    CONTRACT = "contract"
