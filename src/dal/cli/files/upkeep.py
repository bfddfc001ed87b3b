"""`dal files quota` and `sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.files.options import BlobUrl, size_of, user_id_of, with_files
from dal.cli.options import AsJson, Url
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, complain

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.file_models import SweepReport

_NO_LIMIT = "none"


def quota(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user's id or clerk id.", show_default=False)],
    url: Url = None,
    blob_url: BlobUrl = None,
    max_bytes: Annotated[
        str | None,
        typer.Option("--bytes", metavar="SIZE", help="Give them so much, as 5GB; none: no limit.", show_default=False),
    ] = None,
    max_files: Annotated[
        str | None,
        typer.Option("--files", metavar="N", help="Give them so many files; none: no limit.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what a user may store and has, or give them another quota. What is not named stays as it is."""

    async def work(dal: DataAccess) -> int:
        user_id = await user_id_of(dal, user)
        found = await dal.files.quota(user_id)
        if max_bytes is not None or max_files is not None:
            found = await dal.files.set_quota(
                user_id,
                max_bytes=found.max_bytes if max_bytes is None else _limit(max_bytes),
                max_files=found.max_files if max_files is None else _limit(max_files),
            )
        if json:
            print_json(found)
        else:
            rows = [
                ("bytes", found.used_bytes, found.reserved_bytes, _shown(found.max_bytes)),
                ("files", found.used_files, found.reserved_files, _shown(found.max_files)),
            ]
            console().print(table(None, ("", "used>", "reserved>", "at most>"), rows))
        return 0

    with_files(url, blob_url, work)


def sweep(
    url: Url = None,
    blob_url: BlobUrl = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing: say what would be removed.")] = False,
    json: AsJson = False,
) -> None:
    """Remove what was left behind, and say what cannot be right.

    Expired uploads, deleted files whose retention is over, bytes without a row, counters that are wrong. Rows without
    bytes are named and left alone; exits with 1 when there are any, or something could not be removed.
    """

    async def work(dal: DataAccess) -> int:
        report = await dal.files.sweep(dry_run=dry_run)
        if json:
            print_json(report)
        else:
            _show(report, dry_run)
        return FAILED if report.missing_files or report.problems else 0

    with_files(url, blob_url, work)


def _show(report: SweepReport, dry_run: bool) -> None:
    counts = [(name.replace("_", " "), value) for name, value in report if type(value) is int]
    console().print(table("what a sweep would do" if dry_run else None, ("what", "how many>"), counts))
    for file_id in report.missing:
        complain(f"the bytes of file {file_id} are gone")
    if (more := report.missing_files - len(report.missing)) > 0:
        complain(f"… and of {more:,} more")
    for problem in report.problems:
        complain(one_line(problem))


def _limit(text: str) -> int | None:
    return None if text.lower() == _NO_LIMIT else size_of(text)


def _shown(limit: int | None) -> object:
    return "no limit" if limit is None else limit
