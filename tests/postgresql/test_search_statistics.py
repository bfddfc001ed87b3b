"""A bulk build of the search index ends with statistics, so that the planner knows a rare word from a common one."""

from __future__ import annotations

import psycopg

from dal.backends.sql import SqlStore
from dal.ops import Insert, Op
from dal.testing import rows


async def test_an_index_that_became_whole_has_statistics(store: SqlStore, url: str) -> None:
    messages: list[Op] = [
        Insert("messages", rows.message(k, 0, sequence_number=k + 1, content=f"word{k} common"), search_later=True)
        for k in range(300)
    ]
    await store.commit([Insert("chat_sessions", rows.chat(0, message_count=300)), *messages])
    with psycopg.connect(url, autocommit=True) as connection:
        tables = ("messages", "message_search")
        connection.execute("DELETE FROM pg_statistic WHERE starelid = ANY (%s::regclass[])", [list(tables)])
        while await store.index_pending(limit=100):
            pass
        known = connection.execute(
            "SELECT DISTINCT tablename FROM pg_stats WHERE tablename = ANY (%s)", [list(tables)]
        ).fetchall()
    assert sorted(known) == [("message_search",), ("messages",)]
