"""Every everyday read is answered from its index, whatever values it has and however often it was prepared."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import psycopg
import pytest_asyncio

from dal.access import DataAccess
from dal.backends.postgresql import executor as executor_module
from dal.backends.postgresql import postgresql_store
from dal.backends.postgresql.executor import PostgresExecutor
from dal.backends.sql import Statement
from dal.ops import Insert
from dal.values import new_id
from tests.postgresql.rows import message
from tests.rows import NOW, chat_row, user_row

CHATS, MESSAGES_EACH = 300, 30


class Watched:
    """The statements that were read since the last look."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    def take(self) -> list[Statement]:
        taken, self.statements = self.statements, []
        return taken


@pytest_asyncio.fixture
async def watched(url: str, monkeypatch) -> AsyncIterator[tuple[DataAccess, Watched]]:  # type: ignore[no-untyped-def]
    """A store with enough rows for indexes to pay, and statistics of them."""
    seen = Watched()
    fetch = PostgresExecutor.fetch

    async def spy(self: PostgresExecutor, statement: Statement) -> Sequence[tuple[object, ...]]:
        seen.statements.append(statement)
        return await fetch(self, statement)

    monkeypatch.setattr(executor_module.PostgresExecutor, "fetch", spy)
    dal = DataAccess(postgresql_store(url))
    async with dal:
        await _fill(dal)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE")
        seen.take()
        yield dal, seen


async def _fill(dal: DataAccess) -> None:
    users = [new_id() for _ in range(CHATS)]
    chats = [new_id() for _ in range(CHATS)]
    await dal.store.commit(
        [Insert("users", user_row(0, id=u, clerk_id=f"k{n}", created_at=_at(n))) for n, u in enumerate(users)]
    )
    await dal.store.commit(
        [
            Insert(
                "chat_sessions",
                chat_row(n, id=c, user_id=users[n % 50], last_activity_at=_at(n), message_count=MESSAGES_EACH),
            )
            for n, c in enumerate(chats)
        ]
    )
    await dal.store.commit([message(c, n + 1) for c in chats for n in range(MESSAGES_EACH)])


def _at(n: int) -> object:
    return NOW + timedelta(seconds=n)
