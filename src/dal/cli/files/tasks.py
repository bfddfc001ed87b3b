"""`dal files tasks`: the work that waits to be done on files, and what was set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.files.options import BlobUrl, with_files
from dal.cli.options import After, AsJson, Limit, Url
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, complain

if TYPE_CHECKING:
    from dal.access import DataAccess


def tasks(
    url: Url = None,
    blob_url: BlobUrl = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="pending, running, done or dead.", show_default=False),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Of this kind, as scan.", show_default=False)] = None,
    file: Annotated[str | None, typer.Option("--file", metavar="ID", help="Of this file.", show_default=False)] = None,
    revive: Annotated[
        str | None,
        typer.Option("--revive", metavar="TASK", help="Let a dead task be tried again.", show_default=False),
    ] = None,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """List the work that waits to be done on files, or let a dead task be tried again."""

    async def work(dal: DataAccess) -> int:
        if revive is not None:
            revived = await dal.files.queue.revive(revive)
            if revived is None:
                complain(f"no dead task {one_line(revive)!r}")
                return FAILED
            print_json(revived) if json else typer.echo(revived.id)
            return 0
        page = await dal.files.queue.list(status=status, task=task, file_id=file, limit=limit, after=after)
        if json:
            print_json(page)
            return 0
        rows = [
            (t.id, one_line(t.task), t.file_id, t.status, f"{t.attempts} of {t.max_attempts}", t.run_at, t.last_error)
            for t in page.items
        ]
        console().print(table(None, ("task", "what", "file", "status", "tries>", "not before", "last error"), rows))
        if page.next is not None:
            complain(f"there are more: --after {page.next}")
        return 0

    with_files(url, blob_url, work)
