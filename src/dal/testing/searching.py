"""Full-text search at the waist: the matches of `dal.search`, newest first, within conditions, page by page.

A store whose capabilities say `search=False` is asked only to refuse it properly.
"""

from __future__ import annotations

from typing import Final

import pytest

from dal.errors import UnsupportedError
from dal.ops import Compare, Delete, Insert, Row, Search, Select, Update
from dal.search import matches, parse_query
from dal.store import SearchIndex, Store
from dal.testing import rows
from dal.testing.nasty import TEXTS

CONTENTS: Final = [
    "What is a difference engine?",
    "A mechanical calculator; see repo-map and snake_case, or write to user@example.com.",
    "Café Zürich, NAÏVE",
    "cafes and engineering",
    "\u968e\u5dee\u6a5f\u95a2\u3068\u306f\u4f55\u3067\u3059\u304b",
    "\u5dee\u5206\u6a5f \u968e\u5dee",
    "\uff26\uff55\uff4c\uff4c width ENGINE",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "map of the repo's engine",
    "",
    "... !!! ???",
]
QUERIES: Final = [
    *("engine", "ENGINE", "engin", "engines", "difference engine", "engine difference", "what a", "full"),
    *("repo-map", "repo", "map repo", "repo map", "snake_case", "case", "user@example.com", "example"),
    *("cafe", "CAF\u00c9", "cafe\u0301", "cafes", "zurich", "naive"),
    *("\u968e\u5dee", "\u5dee", "\u6a5f", "\u968e\u5dee \u6a5f", "\u5dee\u968e", "\u3068\u306f"),
    *("\u0e2a", "\u0e27\u0e31\u0e2a", "\uc548\ub155\ud558\uc138\uc694", "\uc548\ub155"),
    *("", " ", "?", '"engine"', "engine*", "engine OR nothing", "-engine", "NOT engine", "a NEAR b"),
    *("'; DROP TABLE messages; --", "engine'", "content:engine", "(engine", "engine & calculator", "%", "^a"),
]


async def seed(store: Store) -> None:
    """Chat 1 of user 5 with every even content, chat 2 of nobody with every odd one."""
    await store.commit(
        [
            Insert("users", rows.user(5)),
            Insert("chat_sessions", rows.chat(1, user_id=rows.row_id(5))),
            Insert("chat_sessions", rows.chat(2)),
            *(Insert("messages", rows.message(10 + n, 1 + n % 2, content=text)) for n, text in enumerate(CONTENTS)),
        ]
    )


def expected(query: str) -> list[int]:
    """What dal.search says of the seeded messages, newest first."""
    parsed = parse_query(query)
    return [10 + n for n, text in enumerate(CONTENTS) if matches(parsed, text)][::-1]


async def found(store: Store, query: str, *where: Compare, limit: int = 100) -> list[int]:
    search = Search("messages", parse_query(query), where, limit=limit, columns=("id",))
    return [rows.number_of(row[0]) for row in await store.read(search)]


class SearchConformance:
    """Search, and the index behind it."""

    async def test_a_store_without_search_says_so(self, store: Store) -> None:
        if store.capabilities.search:
            pytest.skip("capabilities.search is True")
        with pytest.raises(UnsupportedError):
            await found(store, "engine")

    async def test_the_queries_here_find_something_and_not_everything(self) -> None:
        answers = [expected(query) for query in QUERIES]
        assert sum(bool(answer) for answer in answers) >= 20
        assert all(len(answer) < len(CONTENTS) / 2 for answer in answers)

    @pytest.mark.parametrize("query", QUERIES)
    async def test_a_search_finds_the_matches_newest_first(self, store: Store, query: str) -> None:
        _needs_search(store)
        await seed(store)
        assert await found(store, query) == expected(query)

    @pytest.mark.parametrize("name", list(TEXTS))
    async def test_any_text_may_be_searched_for(self, store: Store, name: str) -> None:
        _needs_search(store)
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        contents = [TEXTS[name], "nothing like it"]
        await store.commit(
            [Insert("messages", rows.message(2 + n, 1, content=text)) for n, text in enumerate(contents)]
        )
        parsed = parse_query(TEXTS[name])
        assert (
            await found(store, TEXTS[name]) == [2 + n for n, text in enumerate(contents) if matches(parsed, text)][::-1]
        )

    async def test_conditions_narrow_a_search(self, store: Store) -> None:
        _needs_search(store)
        await seed(store)
        for chat in (1, 2):
            mine = [number for number in expected("engine") if 1 + (number - 10) % 2 == chat]
            assert mine
            assert await found(store, "engine", Compare("chat_session_id.chat_id", "=", f"chat-{chat}")) == mine
            session = Compare("chat_session_id", "=", rows.row_id(chat))
            assert await found(store, "engine", session) == mine
        owned = await found(store, "engine", Compare("chat_session_id.user_id", "=", rows.row_id(5)))
        assert owned == [number for number in expected("engine") if number % 2 == 0]
        assert await found(store, "engine", Compare("chat_session_id.chat_id", "=", "no such chat")) == []

    async def test_pages_of_a_search_give_every_match_once(self, store: Store) -> None:
        _needs_search(store)
        await store.commit([Insert("chat_sessions", rows.chat(n)) for n in (1, 2)])
        written = [
            rows.message(10 + n, 1 + n % 2, content="word" if n % 3 else "other", created_at=rows.moment(n // 5))
            for n in range(40)
        ]
        await store.commit([Insert("messages", row) for row in written])
        wanted = sorted((r for r in written if r["content"] == "word"), key=_place, reverse=True)
        columns = ("created_at", "sequence_number", "id")
        for limit in (1, 4, 7, 100):
            search = Search("messages", parse_query("word"), limit=limit, columns=columns)
            seen: list[Row] = []
            while page := await store.read(search):
                assert len(page) <= limit
                seen += page
                assert len(seen) <= len(wanted), "pages that never end"
                search = search._replace(after=page[-1])
            assert seen == [_place(row) for row in wanted]

    async def test_a_search_gives_the_named_columns_and_paths(self, store: Store) -> None:
        _needs_search(store)
        await seed(store)
        search = Search("messages", parse_query("difference"), columns=("content", "chat_session_id.chat_id"))
        assert await store.read(search) == [(CONTENTS[0], "chat-1")]

    async def test_what_is_changed_or_deleted_is_found_as_it_is_now(self, store: Store) -> None:
        _needs_search(store)
        await seed(store)
        before = expected("engine")
        await store.commit([Update("messages", {"id": rows.row_id(10)}, {"content": "now about looms"})])
        assert await found(store, "engine") == [number for number in before if number != 10]
        assert await found(store, "looms") == [10]
        await store.commit([Delete("messages", (Compare("id", "=", rows.row_id(10)),))])
        assert await found(store, "looms") == []
        await store.commit([Delete("chat_sessions", (Compare("chat_id", "=", "chat-1"),))])
        assert await found(store, "engine") == [number for number in before if number % 2]

    async def test_a_transaction_finds_its_own_writes_and_a_rolled_back_one_leaves_no_trace(self, store: Store) -> None:
        _needs_search(store)
        await seed(store)
        query = Search("messages", parse_query("looms"), columns=("id",))
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as transaction:
                await transaction.commit([Insert("messages", rows.message(99, 1, content="looms"))])
                assert await transaction.read(query) == [(rows.row_id(99),)]
                raise ZeroDivisionError
        assert await store.read(query) == []

    async def test_rows_left_for_later_are_found_once_they_are_indexed(self, store: Store) -> None:
        _needs_search(store)
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        late = [Insert("messages", rows.message(10 + n, 1, content="word"), search_later=True) for n in range(5)]
        await store.commit([*late, Insert("messages", rows.message(20, 1, content="word"))])
        assert 20 in await found(store, "word")
        index = await _index(store)
        while index is not None and await index.index_pending(limit=2):
            pass
        assert await found(store, "word") == [20, 14, 13, 12, 11, 10]
        assert await rows.numbers(store, Select("messages", order=("-id",))) == [20, 14, 13, 12, 11, 10]

    async def test_an_index_that_was_dropped_can_be_built_again(self, store: Store) -> None:
        _needs_search(store)
        index = await _index(store)
        if index is None:
            pytest.skip("the store searches without an index")
        await seed(store)
        await index.drop_search()
        while await index.index_pending(limit=5):
            pass
        assert await index.index_pending() == 0
        for query in QUERIES:
            assert await found(store, query) == expected(query)


def _needs_search(store: Store) -> None:
    if not store.capabilities.search:
        pytest.skip("capabilities.search is False")


async def _index(store: Store) -> SearchIndex | None:
    """The store's search index; None for a store that has none, and for a layer around such a store."""
    if not isinstance(store, SearchIndex):
        return None
    try:
        await store.index_pending(limit=1)
    except UnsupportedError:
        return None
    return store


def _place(row: object) -> Row:
    assert isinstance(row, dict)
    return (row["created_at"], row["sequence_number"], row["id"])
