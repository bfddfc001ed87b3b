"""Every everyday read is answered from its index, with the plan for its values and with the plan for any values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final, cast

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from dal.access import DataAccess
from dal.backends.postgresql import postgresql_store
from dal.backends.postgresql.executor import PostgresExecutor
from dal.backends.sql import Statement
from dal.ops import Compare, Insert, Select
from dal.testing import rows
from tests.engines import postgres
from tests.postgresql.rows import message

USERS: Final = 400
CHATS: Final = 4000
TALKING_CHATS: Final = 100
MESSAGES_EACH: Final = 200
USER: Final = rows.row_id(7)


@pytest.fixture(scope="module")
def filled_url(postgres_server: postgres.PostgresServer) -> Iterator[str]:
    """A database with enough rows for an index to pay, and the statistics that say so."""
    url = postgres_server.create_database(lasts=True)
    asyncio.run(_fill(url))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    yield url
    postgres_server.drop_database(url)


async def _fill(url: str) -> None:
    store = postgresql_store(url, auto_migrate=True)
    await store.open()
    await store.commit([Insert("users", rows.user(k, clerk_id=f"clerk-{k}")) for k in range(USERS)])
    chats = [rows.chat(k, user_id=rows.row_id(k % USERS), message_count=MESSAGES_EACH) for k in range(CHATS)]
    await store.commit([Insert("chat_sessions", row) for row in chats])
    text = "one of many words that stand in messages"
    for i in range(MESSAGES_EACH):  # one of each chat after another, as in life: no chat lies in one place
        said = [message(rows.row_id(k), i + 1, content=f"{text} w{k}-{i}") for k in range(TALKING_CHATS)]
        await store.commit(said)
    owned = [(k, rows.row_id(k % USERS)) for k in range(4000)]
    await store.commit(
        [Insert("user_memory", rows.memory(k, k % USERS, memory_type="preferences", key=f"key-{k}")) for k, _ in owned]
    )
    await store.commit([Insert("system_logs", rows.log(k, user_id=u)) for k, u in owned])
    await store.commit([Insert("files", rows.file(k, 7)) for k, _ in owned])  # one user's, who has many
    await store.close()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """The reading statements that were sent, in order."""
    seen: list[Statement] = []
    fetch = PostgresExecutor.fetch

    async def spy(self: PostgresExecutor, statement: Statement) -> Sequence[tuple[object, ...]]:
        seen.append(statement)
        return await fetch(self, statement)

    monkeypatch.setattr(PostgresExecutor, "fetch", spy)
    return seen


@pytest_asyncio.fixture
async def dal(filled_url: str, statements: list[Statement]) -> AsyncIterator[DataAccess]:
    async with DataAccess(postgresql_store(filled_url)) as made:
        statements.clear()
        yield made


Read = Callable[[DataAccess], Awaitable[object]]


async def _second_page_of_chats(dal: DataAccess) -> None:
    first = await dal.chats.list(limit=5)
    await dal.chats.list(limit=5, after=first.next)


def _file_of_a_name(dal: DataAccess) -> Awaitable[object]:
    """What an upload with `if_absent` asks."""
    where = Compare("user_id", "=", USER), Compare("filename", "=", "9.txt"), Compare("status", "!=", "deleted")
    return dal.store.read(Select("files", where, limit=1, columns=("id",)))


READS: Final[dict[str, tuple[Read, str]]] = {
    "users.get": (lambda dal: dal.users.get(USER), "users_pkey"),
    "users.get_by_clerk_id": (lambda dal: dal.users.get_by_clerk_id("clerk-7"), "idx_users_clerk_id"),
    "users.list": (lambda dal: dal.users.list(limit=5), "idx_users_created"),
    "chats.get": (lambda dal: dal.chats.get("chat-7"), "idx_chat_sessions_chat_id"),
    "chats.list": (lambda dal: dal.chats.list(limit=5), "idx_chat_sessions_activity"),
    "chats.list, second page": (_second_page_of_chats, "idx_chat_sessions_activity"),
    "chats.list of a user": (lambda dal: dal.chats.list(user_id=USER, limit=5), "idx_chat_sessions_user_activity"),
    "messages.get": (lambda dal: dal.messages.get(rows.row_id(7)), "messages_pkey"),
    "messages.history": (lambda dal: dal.messages.history("chat-7"), "idx_messages_sequence"),
    "messages.history before": (lambda dal: dal.messages.history("chat-7", before=9), "idx_messages_sequence"),
    "messages.history offset": (lambda dal: dal.messages.history("chat-7", offset=9), "idx_messages_sequence"),
    "messages.search": (lambda dal: dal.messages.search("w7-7"), "idx_message_search_terms"),
    "memory.get": (lambda dal: dal.memory.get(rows.row_id(8), "preferences", "key-8"), "idx_user_memory_lookup"),
    "memory.list": (lambda dal: dal.memory.list(rows.row_id(8)), "idx_user_memory_"),
    "files.upload if_absent": (_file_of_a_name, "idx_files_user_name"),
    "audit.list": (lambda dal: dal.audit.list(limit=5), "idx_system_logs_recent"),
    "audit.list of a user": (lambda dal: dal.audit.list(user_id=rows.row_id(8), limit=5), "idx_system_logs_user"),
}


#: A search is never prepared, so there is no plan of it for any values.
CASES: Final = [
    *(pytest.param(name, False, id=f"{name}, these values") for name in READS),
    *(pytest.param(name, True, id=f"{name}, any values") for name in READS if name != "messages.search"),
]


@pytest.mark.parametrize(("name", "generic"), CASES)
async def test_a_read_uses_its_index(
    dal: DataAccess, filled_url: str, statements: list[Statement], name: str, generic: bool
) -> None:
    read, index = READS[name]
    await read(dal)
    assert statements
    for statement in statements:
        nodes = list(_nodes(_explain(filled_url, statement, generic=generic)))
        assert any(str(node.get("Index Name", "")).startswith(index) for node in nodes), (statement.sql, nodes)
        scanned = [node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"]
        assert "messages" not in scanned, (statement.sql, nodes)


def _explain(url: str, statement: Statement, *, generic: bool) -> dict[str, object]:
    """The plan of the statement, prepared as the driver prepares it."""
    pieces = statement.sql.split("%s")
    numbered = "".join(piece + (f"${n}" if n < len(pieces) else "") for n, piece in enumerate(pieces, start=1))
    values = sql.SQL(", ").join([sql.Literal(str(value)) for value in statement.params])
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        mode = "force_generic_plan" if generic else "force_custom_plan"
        connection.execute(f"SET plan_cache_mode = {mode}")
        connection.execute(f"PREPARE it AS {numbered}")
        call = sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE it")
        row = connection.execute(call + sql.SQL("(") + values + sql.SQL(")") if statement.params else call).fetchone()
    assert row is not None
    found = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    return cast("dict[str, object]", found[0]["Plan"])


def _nodes(plan: dict[str, object]) -> Iterator[dict[str, object]]:
    yield plan
    for child in cast("list[dict[str, object]]", plan.get("Plans", [])):
        yield from _nodes(child)
