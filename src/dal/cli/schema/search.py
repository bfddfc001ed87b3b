"""`dal schema rebuild-search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from dal.cli.options import Url
from dal.cli.running import complain, with_store

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.store import SearchIndex

_REBUILD_ROWS = 2000


def rebuild_search(
    url: Url = None,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Keep what is indexed and add what is not.")
    ] = False,
) -> None:
    """Build the search index anew from the messages. Until it is done, searches find only what is indexed so far."""

    async def work(dal: DataAccess) -> int:
        index = cast("SearchIndex", dal.store)
        if not only_missing:
            await index.drop_search()
        indexed = 0
        while done := await index.index_pending(limit=_REBUILD_ROWS):
            indexed += done
        complain(f"{indexed:,} messages indexed")
        return 0

    with_store(url, work)
