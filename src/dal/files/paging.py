"""All rows of a query, a page at a time, so that memory is the same however many there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dal.ops import Row, Select
from dal.store import ReadCommit


async def pages(rows: ReadCommit, query: Select, page_rows: int) -> AsyncGenerator[list[Row], None]:
    """The rows in lists of `page_rows`, the last one shorter, none of them empty.

    query  ordered by one column, which is unique among the rows it finds and one of those it asks for.
    """
    column = query.columns.index(query.order[0])
    query = query._replace(limit=page_rows)
    while True:
        page = await rows.read(query)
        if page:
            yield page
        if len(page) < page_rows:
            return
        query = query._replace(after=(page[-1][column],))
