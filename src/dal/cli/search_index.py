"""`dal search rebuild` and `dal search drop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from dal.cli.options import Url
from dal.cli.running import FAILED, complain, run
from dal.cli.schema.options import Yes

if TYPE_CHECKING:
    from dal.store import SearchIndex

_REBUILD_ROWS: Final = 2000
_D1_ROWS: Final = 500  # a request each to read and to write them; their texts fit into an answer
_WITHOUT: Final = ("file", "memory")


def rebuild(
    url: Url = None,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Keep what is indexed and add what is not.")
    ] = False,
) -> None:
    """Build the search index anew from the messages; makes it where there is none.

    Until it is done, searches find only what is indexed so far. One that was interrupted goes on with --only-missing.
    To search for the word itself: dal search -- rebuild
    """

    async def work() -> int:
        from dal.factory import create_data_access, schema_connection
        from dal.schema.search_index import make_search_index

        made = False
        if not _searches_without(url):
            async with schema_connection(url) as connection:
                made = await make_search_index(connection)
        async with create_data_access(url, auto_migrate=False) as dal:
            index = cast("SearchIndex", dal.store)
            if not only_missing and not made:
                await index.drop_search()
            limit = _D1_ROWS if dal.capabilities.backend == "d1" else _REBUILD_ROWS
            indexed = 0
            while done := await index.index_pending(limit=limit):
                indexed += done
        complain(f"{indexed:,} messages indexed")
        return 0

    run(work())


def drop(url: Url = None, yes: Yes = False) -> None:
    """Take the search index out of the database, as D1's export demands; `dal search rebuild` brings it back.

    No message is lost; until then a search is an error, and writes are cheaper. On a terminal it asks before.
    To search for the word itself: dal search -- drop
    """

    async def work() -> int:
        from dal.cli.schema.confirm import confirmed
        from dal.factory import schema_connection
        from dal.schema.search_index import drop_search_index

        if _searches_without(url):
            complain("this store searches without an index; there is nothing to drop")
            return 0
        async with schema_connection(url) as connection:
            what = f"{connection.address}: the search index is to be dropped."
            if not confirmed(what, yes=yes, is_ambiguous=True):  # it may be a search for the word
                return FAILED
            was_there = await drop_search_index(connection)
            complain(f"{connection.address}: {'search index dropped' if was_there else 'there is no search index'}")
        return 0

    run(work())


def _searches_without(url: str | None) -> bool:
    """The store looks through its messages themselves."""
    from dal.config import Settings
    from dal.factory import store_url
    from dal.urls import parse_url

    place = store_url(Settings()) if url is None else parse_url(url)
    return place.backend in _WITHOUT
