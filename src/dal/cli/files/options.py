"""Options of `dal files`, and how sizes are written."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from dal.cli.running import run
from dal.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from dal.access import DataAccess

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?(?:/s)?", re.I).fullmatch

BlobUrl = Annotated[
    str | None,
    typer.Option(
        "--blob-url",
        metavar="URL",
        help="Where contents lie: file:DIR, s3://BUCKET/PREFIX?endpoint=…; without it BLOB_URL says.",
        show_default=False,
    ),
]
FileId = Annotated[str, typer.Argument(metavar="FILE", help="The file's id.", show_default=False)]
UserKey = Annotated[
    str | None, typer.Option("--user", metavar="USER", help="A user's id or clerk id.", show_default=False)
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="BLOB_URL", help="Where the contents lie, as for BLOB_URL.", show_default=False),
]
FromDir = Annotated[
    Path | None,
    typer.Option(
        "--from-dir",
        metavar="DIR",
        help="A plain directory instead, as a MEDIA_ROOT: each of its files becomes a file.",
        show_default=False,
    ),
]
To = Annotated[str | None, typer.Option("--to", metavar="BLOB_URL", help="Where they are to lie.", show_default=False)]
Owner = Annotated[
    str | None,
    typer.Option(
        "--user", metavar="USER", help="Whose the directory's files are: an id or clerk id.", show_default=False
    ),
]
Map = Annotated[
    Path | None,
    typer.Option(
        "--map",
        metavar="FILE",
        help="A CSV of paths in the directory (DIR/ for all below) and the users they belong to.",
        dir_okay=False,
        show_default=False,
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=256, help="Transfers at a time.")]
Rate = Annotated[
    str | None,
    typer.Option("--limit", metavar="RATE", help="Bytes of a second, as 20MiB/s.", show_default=False),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write the report there: a page of HTML, or JSON where the name ends in .json.",
        dir_okay=False,
        show_default=False,
    ),
]


def size_of(text: str) -> int:
    """The bytes that a text names: `20MiB/s`, `1.5 GB`, `4096`. Raises InvalidInputError."""
    found = _SIZE(text.strip())
    if found is None:
        raise InvalidInputError(f"{text[:20]!r} is no size, as 20MiB or 1.5GB is")
    number, unit, binary = found.groups()
    factor: int = (1024 if binary else 1000) ** " kmgt".index(unit.lower() or " ")
    return round(float(number) * factor)


def limit_of(rate: str | None) -> float | None:
    """Bytes of a second; None for no limit."""
    if rate is None:
        return None
    if (size := size_of(rate)) < 1:
        raise InvalidInputError("--limit: nothing would ever pass; leave it out for no limit")
    return float(size)


def with_files(url: str | None, blob_url: str | None, work: Callable[[DataAccess], Awaitable[int]]) -> NoReturn:
    """Opens the store and the blob store, does the work with them, and exits with the code that it returns."""

    async def opened() -> int:
        from dal.factory import create_data_access

        async with create_data_access(url, blob_url=blob_url, auto_migrate=False) as data_access:
            return await work(data_access)

    run(opened())


async def user_id_of(dal: DataAccess, key: str) -> str:
    """The id of the user with this clerk id or id. Raises NotFoundError."""
    from dal.cli.users import find_user

    found = await find_user(dal, key)
    if found is None:
        raise NotFoundError(f"no user {key[:40]!r}")
    return found.id
