"""`dal files upload`, `download`, `delete` and `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.files.options import BlobUrl, FileId, user_id_of, with_files
from dal.cli.options import AsJson, Url
from dal.cli.output import one_line, print_json
from dal.cli.running import FAILED, complain

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.models import FileRecord


def upload(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="What to store.", exists=True, dir_okay=False, show_default=False)
    ],
    user: Annotated[
        str, typer.Option("--user", metavar="USER", help="Whose it is: an id or clerk id.", show_default=False)
    ],
    url: Url = None,
    blob_url: BlobUrl = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name, if not PATH's.", show_default=False)] = None,
    mime_type: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="What it is, if not what it shows.", show_default=False),
    ] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Not if the user has a file of that name.")] = False,
    json: AsJson = False,
) -> None:
    """Store a file with its content."""

    async def work(dal: DataAccess) -> int:
        owner = await user_id_of(dal, user)
        record = await dal.files.upload(owner, name or path.name, path, mime_type=mime_type, if_absent=if_absent)
        _tell(record, json, f"stored {record.file_size:,} bytes, {record.mime_type}, {record.checksum}")
        return 0

    with_files(url, blob_url, work)


def download(
    file: FileId,
    to: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="Where to; a directory takes the file's name.", show_default=False),
    ] = None,
    url: Url = None,
    blob_url: BlobUrl = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    json: AsJson = False,
) -> None:
    """Write a file's content to a path, verified: whole, or not at all."""

    async def work(dal: DataAccess) -> int:
        found = await dal.files.get(file)
        if found is None:
            complain(f"no file {one_line(file)!r}")
            return FAILED
        place = to or Path()
        if place.is_dir():  # nothing else runs
            place = place / found.filename
        if place.exists() and not force:
            complain(f"{place}: is there already; --force replaces it")
            return FAILED
        record = await dal.files.download_to(file, place, verify=True)
        _tell(record, json, f"{record.file_size:,} bytes in {place}")
        return 0

    with_files(url, blob_url, work)


def delete(file: FileId, url: Url = None, blob_url: BlobUrl = None, json: AsJson = False) -> None:
    """Delete a file. It can be restored until the sweeper has come after its retention."""

    async def work(dal: DataAccess) -> int:
        was_there = await dal.files.delete(file)
        if json:
            print_json({"file": file, "deleted": was_there})
        elif not was_there:
            complain(f"no file {one_line(file)!r}")
        return 0 if was_there else FAILED

    with_files(url, blob_url, work)


def restore(file: FileId, url: Url = None, blob_url: BlobUrl = None, json: AsJson = False) -> None:
    """Bring a deleted file back."""

    async def work(dal: DataAccess) -> int:
        record = await dal.files.restore(file)
        _tell(record, json, f"{one_line(record.filename)} is back")
        return 0

    with_files(url, blob_url, work)


def _tell(record: FileRecord, as_json: bool, text: str) -> None:
    """The id on standard output, for programs; what happened on standard error, for people."""
    if as_json:
        print_json(record)
    else:
        typer.echo(record.id)
        complain(text)
