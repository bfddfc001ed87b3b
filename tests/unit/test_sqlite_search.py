"""What stands in SQLite's search index: the terms of the rows that are there, and of no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from dal.backends.sql import SqlStore, Statement
from dal.backends.sqlite import sqlite_store
from dal.ops import Compare, Delete, Insert, Search, Update, Upsert, Value
from dal.search import parse_query
from dal.testing import rows


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = sqlite_store(tmp_path / "dal.db")
    await opened.open()
    await opened.commit([Insert("users", rows.user(1)), Insert("chat_sessions", rows.chat(1, user_id=rows.row_id(1)))])
    yield opened
    await opened.close()


async def indexed(store: SqlStore) -> list[str]:
    """The terms of each indexed row, as the index keeps them."""
    return sorted(str(row[0]) for row in await store._executor.fetch(Statement("SELECT terms FROM message_search")))


async def found(store: SqlStore, text: str) -> list[int]:
    hits = await store.read(Search("messages", parse_query(text), columns=("id",)))
    return [rows.number_of(row[0]) for row in hits]


def message(number: int, content: str) -> dict[str, Value]:
    return {**rows.message(number, 1), "content": content}  # type: ignore[dict-item]


async def test_a_cascade_takes_the_terms_along(store: SqlStore) -> None:
    await store.commit([Insert("messages", message(2, "secret words")), Insert("messages", message(3, "more"))])
    assert await indexed(store) == ["more", "secret words"]
    await store.commit([Delete("messages", (Compare("id", "=", rows.row_id(3)),))])
    assert await indexed(store) == ["secret words"]
    receipt = await store.commit([Delete("chat_sessions", (Compare("chat_id", "=", "chat-1"),))])
    assert receipt.counts == (1,)
    assert await indexed(store) == []


async def test_a_row_that_comes_and_goes_in_one_batch_leaves_no_terms(store: SqlStore) -> None:
    await store.commit(
        [Insert("messages", message(2, "gone")), Delete("messages", (Compare("id", "=", rows.row_id(2)),))]
    )
    assert await indexed(store) == []


async def test_a_changed_content_changes_its_terms(store: SqlStore) -> None:
    await store.commit([Insert("messages", message(2, "before"))])
    key: dict[str, Value] = {"id": rows.row_id(2)}
    await store.commit([Update("messages", key, {"content": "between"}), Update("messages", key, {"content": "after"})])
    assert await indexed(store) == ["after"]
    assert (await found(store, "before"), await found(store, "after")) == ([], [2])


async def test_an_upsert_indexes_what_is_stored(store: SqlStore) -> None:
    def upsert(content: str, *update: str, version: int = 1) -> Upsert:
        where = (Compare("version", "=", version),)
        return Upsert("messages", message(2, content), ("id",), update, where=where if update else ())

    await store.commit([upsert("first")])
    assert await indexed(store) == ["first"]
    await store.commit([upsert("ignored")])
    await store.commit([upsert("refused", "content", version=7)])
    await store.commit([upsert("not taken over", "role")])
    assert await indexed(store) == ["first"]
    await store.commit([upsert("second", "content")])
    assert await indexed(store) == ["second"]


async def test_a_number_given_again_is_indexed_again(store: SqlStore) -> None:
    # SQLite gives the number of the last row, once deleted, to the next one.
    await store.commit([Insert("messages", message(2, "old"))])
    await store.commit([Delete("messages", (Compare("id", "=", rows.row_id(2)),))])
    await store.commit([Insert("messages", message(3, "new"), search_later=True)])
    assert await store.index_pending() == 1
    assert (await found(store, "old"), await found(store, "new")) == ([], [3])


async def test_a_search_goes_on_behind_candidates_that_do_not_match(store: SqlStore) -> None:
    # All of them hold both words; only some of them hold the words as neighbours.
    contents = ["repo map" if n % 150 else "repo-map" for n in range(600)]
    contents = [c if c == "repo-map" else "map repo" for c in contents]
    await store.commit([Insert("messages", message(10 + n, text)) for n, text in enumerate(contents)])
    assert await found(store, "repo-map") == [460, 310, 160, 10]
