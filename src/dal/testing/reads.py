"""What a store must answer: every word of the query vocabulary, each comparator, paths, order and keyset paging."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dal.ops import Compare, Count, Insert, Query, Ref, Row, Select, Sum, Upsert, Value
from dal.store import Store
from dal.tables import TABLES
from dal.testing import rows

ALL_COMPARATORS: list[tuple[str, Compare, set[int]]] = [
    ("users", Compare("clerk_id", "=", "bee"), {2}),
    ("users", Compare("clerk_id", "=", "be"), set()),
    ("users", Compare("clerk_id", "=", "BEE"), set()),
    ("users", Compare("clerk_id", "=", None), {4}),
    ("users", Compare("clerk_id", "!=", None), {1, 2, 3}),
    ("users", Compare("clerk_id", "!=", "bee"), {1, 3, 4}),
    ("users", Compare("clerk_id", "<", "bee"), {1}),
    ("users", Compare("clerk_id", "<=", "bee"), {1, 2}),
    ("users", Compare("clerk_id", ">", "bee"), {3}),
    ("users", Compare("clerk_id", ">=", "bee"), {2, 3}),
    ("users", Compare("clerk_id", "in", ("ant", "cat", "dog")), {1, 3}),
    ("users", Compare("clerk_id", "in", ["bee"]), {2}),
    ("users", Compare("clerk_id", "in", ()), set()),
    ("users", Compare("clerk_id", "null or >", "ant"), {2, 3, 4}),
    ("users", Compare("id", "=", rows.row_id(3)), {3}),
    ("users", Compare("id", "!=", rows.row_id(3)), {1, 2, 4}),
    ("users", Compare("id", ">", rows.row_id(3)), {4}),
    ("users", Compare("id", "in", (rows.row_id(1), rows.row_id(4), rows.row_id(9))), {1, 4}),
    ("users", Compare("created_at", "=", rows.moment(2)), {2}),
    ("users", Compare("created_at", "<", rows.moment(2)), {1}),
    ("users", Compare("created_at", ">=", rows.moment(2)), {2, 3, 4}),
    ("users", Compare("last_active_at", "null or >", rows.moment(1)), {2, 3, 4}),
    ("users", Compare("last_active_at", ">", rows.moment(0)), {1, 2}),
    ("messages", Compare("sequence_number", "=", 2), {12}),
    ("messages", Compare("sequence_number", "<=", 2), {11, 12, 14}),
    ("messages", Compare("sequence_number", ">", 2), {13}),
    ("messages", Compare("sequence_number", "in", [1, 3]), {11, 13, 14}),
    ("messages", Compare("token_count", "=", None), {11, 13, 14}),
    ("messages", Compare("token_count", "<", 8), {12}),
    ("messages", Compare("abuse_flagged", "=", True), {13}),
    ("messages", Compare("abuse_flagged", "!=", True), {11, 12, 14}),
    ("messages", Compare("chat_session_id.chat_id", "=", "chat-6"), {14}),
    ("messages", Compare("chat_session_id.user_id", "=", rows.row_id(1)), {11, 12, 13}),
    ("messages", Compare("chat_session_id.user_id", "=", None), {14}),
    ("messages", Compare("chat_session_id.chat_id", "in", ("chat-5", "chat-6")), {11, 12, 13, 14}),
    ("chat_sessions", Compare("user_id.clerk_id", "=", "ant"), {5}),
    ("files", Compare("file_size", "=", 2**63 - 1), {21}),
    ("files", Compare("file_size", ">", 2**62), {21}),
]


async def seed(store: Store) -> None:
    """Users 1-4, chat 5 of user 1 with messages 11-13, chat 6 of nobody with message 14, file 21."""
    await store.commit(
        [
            Insert("users", rows.user(1, clerk_id="ant", last_active_at=rows.moment(1))),
            Insert("users", rows.user(2, clerk_id="bee", last_active_at=rows.moment(2))),
            Insert("users", rows.user(3, clerk_id="cat")),
            Insert("users", rows.user(4)),
            Insert("chat_sessions", rows.chat(5, user_id=rows.row_id(1), message_count=3)),
            Insert("chat_sessions", rows.chat(6, message_count=1)),
            Insert("messages", rows.message(11, 5, sequence_number=1)),
            Insert("messages", rows.message(12, 5, sequence_number=2, token_count=7)),
            Insert("messages", rows.message(13, 5, sequence_number=3, abuse_flagged=True)),
            Insert("messages", rows.message(14, 6, sequence_number=1)),
            Insert("files", rows.file(21, 1, file_size=2**63 - 1)),
        ]
    )


class ReadConformance:
    """Select, Count and Sum."""

    @pytest.mark.parametrize(("table", "condition", "expected"), ALL_COMPARATORS, ids=str)
    async def test_a_comparison_holds_for_exactly_these_rows(
        self, store: Store, table: str, condition: Compare, expected: set[int]
    ) -> None:
        await seed(store)
        found = await rows.numbers(store, Select(table, (condition,)))
        assert len(found) == len(expected)
        assert set(found) == expected
        assert await store.read(Count(table, (condition,))) == [(len(expected),)]

    async def test_conditions_are_joined_by_and(self, store: Store) -> None:
        await seed(store)
        both = (Compare("sequence_number", ">=", 2), Compare("abuse_flagged", "=", False))
        assert await rows.numbers(store, Select("messages", both)) == [12]
        assert await store.read(Count("messages", both)) == [(1,)]

    async def test_a_select_without_columns_gives_the_declared_columns_in_declared_order(self, store: Store) -> None:
        await seed(store)
        row: Mapping[str, Value] = rows.user(1, clerk_id="ant", last_active_at=rows.moment(1))
        found = await store.read(Select("users", (Compare("id", "=", rows.row_id(1)),)))
        assert found == [tuple(row[name] for name in TABLES["users"].names)]
        assert isinstance(found[0], tuple)

    async def test_a_select_gives_the_named_columns_in_the_order_they_are_named(self, store: Store) -> None:
        await seed(store)
        query = Select("users", (Compare("id", "=", rows.row_id(2)),), columns=("version", "clerk_id", "id"))
        assert await store.read(query) == [(1, "bee", rows.row_id(2))]

    async def test_a_column_path_gives_the_parents_value(self, store: Store) -> None:
        await seed(store)
        columns = ("sequence_number", "chat_session_id.chat_id", "chat_session_id.user_id")
        query = Select("messages", (Compare("id", "=", rows.row_id(12)),), columns=columns)
        assert await store.read(query) == [(2, "chat-5", rows.row_id(1))]

    async def test_a_column_path_through_a_null_gives_null_and_keeps_the_row(self, store: Store) -> None:
        await seed(store)
        query = Select("chat_sessions", order=("id",), columns=("chat_id", "user_id.clerk_id"))
        assert await store.read(query) == [("chat-5", "ant"), ("chat-6", None)]

    async def test_a_ref_is_read_in_the_same_statement(self, store: Store) -> None:
        await seed(store)
        chat_key = Ref("chat_sessions", {"chat_id": "chat-5"}, "id")
        query = Select("messages", (Compare("chat_session_id", "=", chat_key),), order=("-sequence_number",), limit=2)
        assert await rows.numbers(store, query) == [13, 12]
        assert await store.read(Count("messages", query.where)) == [(3,)]

    async def test_a_ref_that_finds_no_row_makes_the_condition_hold_for_none(self, store: Store) -> None:
        await seed(store)
        nobody = Ref("users", {"clerk_id": "nobody"}, "id")
        assert await store.read(Select("chat_sessions", (Compare("user_id", "=", nobody),))) == []

    async def test_a_ref_in_a_query_adds_its_constant(self, store: Store) -> None:
        await seed(store)
        count = Ref("chat_sessions", {"chat_id": "chat-5"}, "message_count", -1)
        assert await rows.numbers(store, Select("messages", (Compare("sequence_number", "=", count),))) == [12]

    async def test_order_and_limit(self, store: Store) -> None:
        await seed(store)
        assert await rows.numbers(store, Select("users", order=("id",))) == [1, 2, 3, 4]
        assert await rows.numbers(store, Select("users", order=("-id",))) == [4, 3, 2, 1]
        assert await rows.numbers(store, Select("users", order=("-created_at", "-id"), limit=2)) == [4, 3]
        assert await rows.numbers(store, Select("users", order=("id",), limit=99)) == [1, 2, 3, 4]

    async def test_text_keys_are_ordered_by_code_point(self, store: Store) -> None:
        names = ["A", "Z", "a", "a ", "a!", "aa", "b", "\u00e9", "\u3042", "\ufb01", "\U0001f600"]
        await store.commit([Insert("users", rows.user(n, clerk_id=name)) for n, name in enumerate(names)])
        found = await store.read(Select("users", order=("clerk_id",), columns=("clerk_id",)))
        assert [row[0] for row in found] == sorted(names)

    @pytest.mark.parametrize(
        "order", [("id",), ("-id",), ("level", "-created_at", "id"), ("-level", "created_at", "-id")], ids="|".join
    )
    @pytest.mark.parametrize("limit", [1, 2, 5, 100])
    async def test_pages_of_any_size_give_every_row_once_in_order(
        self, store: Store, order: tuple[str, ...], limit: int
    ) -> None:
        entries = [
            rows.log(n, level="abc"[n % 3], created_at=rows.moment(n // 4), action="even" if n % 2 == 0 else "odd")
            for n in range(24)
        ]
        await store.commit([Insert("system_logs", entry) for entry in entries])
        expected = [entry for entry in entries if entry["action"] == "even"]
        for name in reversed(order):
            expected.sort(key=lambda entry: str(entry[name.lstrip("-")]), reverse=name.startswith("-"))
        columns = tuple(name.lstrip("-") for name in order)
        query = Select("system_logs", (Compare("action", "=", "even"),), order, limit=limit, columns=columns)
        found: list[Row] = []
        while page := await store.read(query):
            assert len(page) <= limit
            found += page
            assert len(found) <= len(expected), "pages that never end"
            query = query._replace(after=page[-1])
        assert found == [tuple(entry[name] for name in columns) for entry in expected]

    async def test_after_need_not_name_a_row_that_is_still_there(self, store: Store) -> None:
        await seed(store)
        between = (rows.moment(2), rows.row_id(9))
        assert await rows.numbers(store, Select("users", order=("created_at", "id"), after=between)) == [3, 4]

    async def test_a_count_of_nothing_is_zero(self, store: Store) -> None:
        for table in TABLES:
            assert await store.read(Count(table)) == [(0,)]
            assert await store.read(Select(table)) == []

    async def test_a_sum_adds_the_rows_that_match_and_is_zero_for_none(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1)), Insert("users", rows.user(2))])
        sizes = [2**40, 1, 0, 5]
        files = [rows.file(10 + n, 1 if n < 3 else 2, file_size=size) for n, size in enumerate(sizes)]
        await store.commit([Insert("files", row) for row in files])
        assert await store.read(Sum("files", "file_size")) == [(2**40 + 6,)]
        first = (Compare("user_id", "=", rows.row_id(1)),)
        assert await store.read(Sum("files", "file_size", first)) == [(2**40 + 1,)]
        assert await store.read(Sum("files", "file_size", (Compare("status", "=", "gone"),))) == [(0,)]
        (total,) = (await store.read(Sum("files", "file_size", first)))[0]
        assert type(total) is int

    @pytest.mark.parametrize(
        "query",
        [
            Select("no_such_table"),
            Select("users", columns=("no_such_column",)),
            Select("users", (Compare("no_such_column", "=", 1),)),
            Select("users", order=("no_such_column",)),
            Select("users", order=("-id; DROP TABLE users",)),
            Select("messages", columns=("chat_session_id.no_such_column",)),
            Select("messages", columns=("content.chat_id",)),
            Count("no_such_table"),
            Sum("files", "no_such_column"),
        ],
        ids=str,
    )
    async def test_an_unknown_table_or_column_is_a_programming_error(self, store: Store, query: Query) -> None:
        await seed(store)
        with pytest.raises((KeyError, ValueError)):
            await store.read(query)
        assert await store.read(Count("users")) == [(4,)]

    async def test_a_read_sees_every_commit_that_returned_before(self, store: Store) -> None:
        on = ("user_id", "memory_type", "key")
        await store.commit([Insert("users", rows.user(1))])
        for value in range(30):
            row = rows.memory(2, 1, value=value)
            await store.commit([Upsert("user_memory", row, on=on, update=("value",))])
            assert await store.read(Select("user_memory", columns=("value",))) == [(value,)]
