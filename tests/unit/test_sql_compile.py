"""The SQL compiler and SQLite's planner: what is sent, and that the engine answers it from the intended index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from tests.rows import message_insert

from dal.access import DataAccess
from dal.backends.sql import Compiler, Statement
from dal.backends.sql.sqlite import sqlite_dialect
from dal.backends.sqlite import sqlite_store
from dal.backends.sqlite.executor import SqliteExecutor
from dal.backends.sqlite.plan import plan_linked
from dal.blobs.factory import create_blob_store
from dal.errors import MissingReferenceError
from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Query, Ref, Select, Sum, Update, Upsert, Value
from dal.testing import rows

COMPILER: Final = Compiler(sqlite_dialect(plan_linked))


# Shapes


def test_queries_of_one_shape_share_their_text() -> None:
    first, _ = COMPILER.select(Select("users", (Compare("id", "=", "a"),), limit=1))
    second, _ = COMPILER.select(Select("users", (Compare("id", "=", "b"),), limit=2))
    assert first.sql is second.sql
    assert (first.params, second.params) == (["a", 1], ["b", 2])


def test_no_value_reaches_the_text() -> None:
    nasty = "'; DROP TABLE users; --"
    query = Select("users", (Compare("name", "=", nasty), Compare("email", "in", (nasty,))), ("id",), (nasty,), 5)
    statement, _ = COMPILER.select(query)
    assert nasty not in statement.sql
    assert "DROP" not in statement.sql


@pytest.mark.parametrize(
    "query",
    [
        Select("no_such_table"),
        Select("users", columns=("no_such_column",)),
        Select("users", (Compare("1 = 1 --", "=", 1),)),
        Select("users", order=("name; --",)),
        Select("messages", columns=("chat_session_id.no_such_column",)),
        Select("messages", columns=("role.chat_id",)),
        Sum("users", "no_such_column"),
    ],
    ids=repr,
)
def test_an_unknown_name_is_refused_at_once(query: Select | Sum) -> None:
    with pytest.raises(KeyError):
        COMPILER.select(query) if isinstance(query, Select) else COMPILER.total(query)


@pytest.mark.parametrize(
    "query",
    [
        Select("users", after=("a",)),
        Select("users", (Compare("profile", "=", {}),)),
        Select("users", (Compare("name", "<", None),)),
        Select("users", (Compare("name", "in", Ref("users", {"id": "a"}, "name")),)),
        Select("messages", (Compare("role", "=", Ref("chat_sessions", {"title": "no key"}, "profile")),)),
    ],
    ids=repr,
)
def test_an_unsound_query_is_refused_at_once(query: Select) -> None:
    with pytest.raises(ValueError, match=r"."):
        COMPILER.select(query)


@pytest.mark.parametrize(
    "op",
    [
        Delete("users", ()),
        Update("users", {"name": "no key"}, {"email": "x"}),
        Guard("users", {"name": "no key"}),
        Upsert("user_memory", {"id": "a", "key": "k"}, ("key",), ("id",)),
    ],
    ids=repr,
)
def test_an_unsound_operation_is_refused_at_once(op: Op) -> None:
    with pytest.raises(ValueError, match=r"."):
        COMPILER.write(op)


# How SQLite plans a batch


def plan(*ops: Op) -> list[Statement]:
    return [step.statement for step in plan_linked(ops, COMPILER)]


def test_an_append_takes_its_number_from_the_update() -> None:
    key: dict[str, Value] = {"chat_id": "chat-1"}
    update, insert = plan(Update("chat_sessions", key, {}, {"message_count": 1}), message_insert(1, key))
    assert update.sql.endswith("RETURNING id, message_count")
    assert "SELECT" not in insert.sql
    assert [(link.source, link.column) for link in insert.links] == [(0, 0), (0, 1)]


def test_appends_to_many_chats_become_one_insert() -> None:
    keys: list[dict[str, Value]] = [{"chat_id": f"chat-{i}"} for i in range(5)]
    updates = [Update("chat_sessions", key, {}, {"message_count": 1}) for key in keys]
    inserts = [message_insert(i, key) for i, key in enumerate(keys)]
    statements = plan(*updates, *inserts)
    assert len(statements) == 6
    assert statements[-1].many


def test_a_row_that_may_have_changed_under_another_key_is_read_again() -> None:
    key: dict[str, Value] = {"chat_id": "chat-1"}
    by_id = Update("chat_sessions", {"id": str(rows.chat(1)["id"])}, {}, {"message_count": 1})
    statements = plan(Update("chat_sessions", key, {}, {"message_count": 1}), by_id, message_insert(1, key))
    assert "SELECT message_count FROM chat_sessions" in statements[-1].sql


def test_thousands_of_literal_rows_become_one_statement() -> None:
    (statement,) = plan(*(Insert("chat_sessions", rows.chat(i)) for i in range(2000)))
    assert statement.many
    assert len(statement.params) == 2000


# On the engine


@pytest.fixture
async def store_path(tmp_path: Path) -> Path:
    return tmp_path / "dal.db"


class Watched(SqliteExecutor):
    """Keeps what was fetched, to be explained."""

    statements: list[Statement]

    async def fetch(self, statement: Statement) -> list[tuple[object, ...]]:
        self.statements.append(statement)
        return await super().fetch(statement)


@pytest.fixture
async def watched(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[DataAccess, Watched]]:
    monkeypatch.setattr("dal.backends.sqlite.SqliteExecutor", Watched)
    monkeypatch.setattr(Watched, "statements", [], raising=False)
    store = sqlite_store(store_path)
    async with DataAccess(store, blobs=create_blob_store("memory:")) as dal:
        executor = store._executor
        assert isinstance(executor, Watched)
        yield dal, executor


async def plans(executor: Watched) -> dict[str, list[str]]:
    """What SQLite does for each different statement so far, and forgets them."""
    texts = {s.sql: s for s in executor.statements}
    found: dict[str, list[str]] = {}
    for sql, statement in texts.items():
        explained = await SqliteExecutor.fetch(executor, Statement(f"EXPLAIN QUERY PLAN {sql}", statement.params))
        found[sql] = [str(row[3]) for row in explained]
    executor.statements.clear()
    return found


def uses(plan_lines: Sequence[str], index: str) -> bool:
    return any(f"USING INDEX {index} " in f"{line} " for line in plan_lines)


async def test_every_everyday_read_uses_its_index_and_sorts_nothing(watched: tuple[DataAccess, Watched]) -> None:
    dal, executor = watched
    user = await dal.users.create(clerk_id="clerk", email="a@example.com")
    for i in range(3):
        await dal.chats.create(f"c{i}", user_id=user.id)
        await dal.messages.add(f"c{i}", "user", "hello")
    await dal.files.create(user.id, "a.txt", storage_key="s", mime_type="text/plain", file_size=1)
    await dal.memory.set(user.id, "preferences", "tone", "brief")
    for _ in range(3):
        await dal.audit.record("x", user_id=user.id, entity_type="t", entity_id="e")
    executor.statements.clear()

    async def check(*indexes: str) -> None:
        for sql, lines in (await plans(executor)).items():
            assert any(uses(lines, index) for index in indexes), (sql, lines)
            assert not any("TEMP B-TREE" in line or line.startswith("SCAN messages") for line in lines), (sql, lines)

    await dal.users.get(user.id)
    await check("sqlite_autoindex_users_1")
    await dal.users.get_by_clerk_id("clerk")
    await check("idx_users_clerk_id")
    await dal.chats.get("c1")
    await check("idx_chat_sessions_chat_id")
    message = (await dal.messages.history("c1", limit=20))[0]
    await dal.messages.history("c1", limit=20, before=100)
    await dal.messages.history("c1", limit=20, before=100, offset=1)
    await dal.messages.history("c1", limit=1, offset=1)
    await check("idx_messages_sequence", "idx_chat_sessions_chat_id")
    await dal.messages.get(message.id)
    await check("sqlite_autoindex_messages_1")
    await dal.memory.get(user.id, "preferences", "tone")
    await dal.memory.list(user.id)
    await dal.memory.list(user.id, "preferences")
    await check("idx_user_memory_lookup")
    for pages, index in (
        (dal.users.list, "idx_users_created"),
        (dal.chats.list, "idx_chat_sessions_activity"),
        (dal.audit.list, "idx_system_logs_recent"),
    ):
        first = await pages(limit=1)
        await pages(limit=1, after=first.next or None)
        await check(index)
    chats = await dal.chats.list(user_id=user.id, limit=1)
    await dal.chats.list(user_id=user.id, limit=1, after=chats.next)
    await check("idx_chat_sessions_user_activity")
    files = await dal.files.list(user_id=user.id, limit=1)
    assert files.items
    await check("idx_files_user_created")
    await dal.files.upload(user.id, "b.txt", b"only if there is none", if_absent=True)
    await check("idx_files_user_name", "idx_user_quotas_user")
    logs = await dal.audit.list(entity_type="t", entity_id="e", limit=1)
    await dal.audit.list(entity_type="t", entity_id="e", limit=1, after=logs.next)
    await check("idx_system_logs_entity")
    logs = await dal.audit.list(user_id=user.id, limit=1)
    await dal.audit.list(user_id=user.id, limit=1, after=logs.next)
    await check("idx_system_logs_user")
    for column in ("file_id", "user_id", "action"):
        where = (Compare(column, "=", "x"), Compare("created_at", ">=", rows.moment(1)))
        await dal.store.read(Select("file_access_logs", where, ("-created_at", "-id"), limit=5))
        await check(f"idx_file_access_logs_{column.removesuffix('_id')}")
    assert await dal.files.queue.take("worker") == []
    await check("idx_file_processing_queue_due")


async def test_search_starts_from_the_terms(watched: tuple[DataAccess, Watched]) -> None:
    dal, executor = watched
    await dal.chats.create("c")
    await dal.messages.add("c", "user", "hello")
    executor.statements.clear()
    await dal.messages.search("hello")
    (lines,) = (await plans(executor)).values()
    assert "SCAN message_search VIRTUAL TABLE INDEX 0:M1" in lines
    assert any("messages USING INTEGER PRIMARY KEY" in line for line in lines)


async def test_keyset_pages_of_any_directions_give_every_row_once(store_path: Path) -> None:
    store = sqlite_store(store_path)
    await store.open()
    chats = [
        rows.chat(i, title=f"t{i % 3}", profile=f"p{i % 4}", last_activity_at=rows.START + timedelta(seconds=i % 5))
        for i in range(60)
    ]
    await store.commit([Insert("chat_sessions", row) for row in chats])
    for order in (
        ("profile", "-last_activity_at", "id"),
        ("-profile", "last_activity_at", "-id"),
        ("-last_activity_at", "-id"),
        ("last_activity_at", "id"),
        ("-profile", "id"),
        ("id",),
    ):
        names = tuple(name.lstrip("-") for name in order)
        seen: list[tuple[Value, ...]] = []
        after: tuple[Value, ...] | None = None
        while page := await store.read(Select("chat_sessions", (), order, after, 7, names)):
            seen += page
            after = page[-1]
        assert seen == await store.read(Select("chat_sessions", order=order, columns=names)), order
        assert len(set(seen)) == 60
    await store.close()


async def test_a_ref_sees_the_last_change_under_whatever_key(store_path: Path) -> None:
    store = sqlite_store(store_path)
    await store.open()
    chat = rows.chat(1)
    key: dict[str, Value] = {"chat_id": "chat-1"}
    identity: dict[str, Value] = {"id": chat["id"]}
    renamed: dict[str, Value] = {"chat_id": "renamed"}
    receipt = await store.commit(
        [
            Insert("chat_sessions", chat),
            Update("chat_sessions", key, {}, {"message_count": 1}),
            message_insert(1, key),
            Update("chat_sessions", key, {}, {"message_count": 1}),
            Update("chat_sessions", identity, {}, {"message_count": 5}),
            message_insert(2, key),
            Update("chat_sessions", key, {"chat_id": "renamed"}, {"message_count": 1}),
            message_insert(3, renamed, plus=10),
            message_insert(4, identity, plus=20),
        ]
    )
    assert [row[0] for row in receipt.rows if row is not None] == [1, 7, 18, 28]
    assert [row[1] for row in receipt.rows if row is not None] == [{"n": n} for n in (1, 2, 3, 4)]
    assert await store.read(Count("messages")) == [(4,)]
    await store.close()


async def test_a_ref_to_a_key_that_was_just_given_up_finds_nothing(store_path: Path) -> None:
    store = sqlite_store(store_path)
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    key: dict[str, Value] = {"chat_id": "chat-1"}
    rename = Update("chat_sessions", key, {"chat_id": "renamed"}, {"message_count": 1})
    with pytest.raises(MissingReferenceError, match="chat-1"):
        await store.commit([rename, message_insert(1, key)])
    await store.close()


@pytest.mark.parametrize(
    "query",
    [
        Count("messages", (Compare("chat_session_id.chat_id", "=", "chat-1"),)),
        Count("messages", (Compare("chat_session_id.chat_id", "in", ("chat-1", "x")),)),
        Count("messages", (Compare("chat_session_id.title", "=", None),)),
        Count("messages", (Compare("chat_session_id.title", "!=", "t"),)),
        Sum("messages", "sequence_number", (Compare("token_count", "null or >", 3),)),
        Sum("messages", "sequence_number", (Compare("created_at", ">=", rows.START), Compare("role", "in", ["user"]))),
    ],
    ids=repr,
)
async def test_conditions_reach_through_a_foreign_key(store_path: Path, query: Query) -> None:
    store = sqlite_store(store_path)
    await store.open()
    key: dict[str, Value] = {"chat_id": "chat-1"}
    append = Update("chat_sessions", key, {}, {"message_count": 1})
    await store.commit([Insert("chat_sessions", rows.chat(1)), append, message_insert(1, key)])
    assert await store.read(query) == [(1,)]
    await store.close()
