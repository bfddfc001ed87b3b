"""PostgreSQL by hand: psycopg's own pool with one statement a call, and asyncpg's where it is installed.

Rows come back as tuples; nothing is checked and no record is built. Statements are prepared after a few uses, as the
drivers do by default.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString, cast

import orjson
from psycopg import AsyncRawCursor
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from dal.ops import JsonValue
from dal.search import index_terms
from dal.values import new_id
from tests.bench.baselines.rows import bulk_rows
from tests.bench.data import MEMORY_TYPE
from tests.bench.subject import Subject

#: Of each baseline's pool. Eight is best or tied on two cores; more lose throughput.
POOL_CONNECTIONS: Final = 8

_GET_CHAT: Final = (
    "SELECT id, chat_id, user_id, title, profile, metadata, status, message_count, created_at, updated_at, "
    "last_message_at, version FROM chat_sessions WHERE chat_id = $1"
)
_GET_MESSAGE: Final = (
    "SELECT m.id, c.chat_id, m.role, m.content, m.metadata, m.sequence_number, m.token_count, m.abuse_flagged, "
    "m.created_at, m.version FROM messages AS m JOIN chat_sessions AS c ON c.id = m.chat_session_id WHERE m.id = $1"
)
_HISTORY: Final = (
    "SELECT id, role, content, metadata, sequence_number, token_count, abuse_flagged, created_at, version "
    "FROM messages WHERE chat_session_id = (SELECT id FROM chat_sessions WHERE chat_id = $1) "
    "ORDER BY sequence_number DESC LIMIT $2"
)
_APPEND: Final = (
    "WITH chat AS (UPDATE chat_sessions SET message_count = message_count + 1, version = version + 1, updated_at = $1, "
    "last_message_at = $1, last_activity_at = $1 WHERE chat_id = $2 RETURNING id, message_count) "
    "INSERT INTO messages (id, chat_session_id, role, content, metadata, sequence_number, created_at) "
    "SELECT $3, chat.id, $4, $5, '{}', chat.message_count, $1 FROM chat RETURNING sequence_number"
)
_MEMORY_SET: Final = (
    "INSERT INTO user_memory AS m (id, user_id, memory_type, key, value, created_at, updated_at) "
    "VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (user_id, memory_type, key) DO UPDATE SET value = excluded.value, "
    "expires_at = NULL, updated_at = excluded.updated_at, version = m.version + 1 RETURNING id, created_at, version"
)
_MEMORY_GET: Final = (
    "SELECT value FROM user_memory WHERE user_id = $1 AND memory_type = $2 AND key = $3 "
    "AND (expires_at IS NULL OR expires_at > $4)"
)
_INSERT_CHAT: Final = (
    "INSERT INTO chat_sessions (id, chat_id, title, metadata, message_count, created_at, updated_at, last_message_at, "
    "last_activity_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
)
_INSERT_MESSAGE: Final = (
    "INSERT INTO messages (id, chat_session_id, role, content, metadata, sequence_number, created_at) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7)"
)
_SEARCH: Final = (
    "SELECT m.id, m.role, m.content, m.metadata, m.sequence_number, m.token_count, m.abuse_flagged, m.created_at, "
    "m.version FROM messages AS m JOIN message_search AS s ON s.message_id = m.id WHERE s.terms @@ $1::tsquery "
    "ORDER BY m.created_at DESC, m.sequence_number DESC, m.id DESC LIMIT 20"
)


class _Pooled(Subject):
    """The calls; how one statement runs is the driver's."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def get_chat(self, chat_id: str) -> object:
        return (await self._fetch(_GET_CHAT, chat_id))[0]

    async def get_message(self, message_id: str) -> object:
        return (await self._fetch(_GET_MESSAGE, message_id))[0]

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        return await self._fetch(_HISTORY, chat_id, limit)

    async def append(self, chat_id: str, role: str, content: str) -> int:
        rows = await self._fetch(_APPEND, datetime.now(UTC), chat_id, new_id(), role, content)
        return cast(int, rows[0][0])

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        rows = await self._fetch(_MEMORY_SET, new_id(), user_id, MEMORY_TYPE, key, self._json(value), datetime.now(UTC))
        return rows[0]

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        return cast(JsonValue, (await self._fetch(_MEMORY_GET, user_id, MEMORY_TYPE, key, datetime.now(UTC)))[0][0])

    async def search(self, text: str) -> int:
        return len(await self._fetch(_SEARCH, " & ".join(f"'{term}'" for term in index_terms(text))))

    async def _fetch(self, sql: LiteralString, *params: object) -> Sequence[Sequence[object]]:
        raise NotImplementedError

    def _json(self, value: JsonValue) -> object:
        return value


class PooledPsycopg(_Pooled):
    """psycopg_pool as its documentation shows it: autocommit, one statement and one round trip a call."""

    name = "pooled psycopg"

    async def open(self) -> None:
        self._pool = AsyncConnectionPool(
            self._url,
            min_size=POOL_CONNECTIONS,
            max_size=POOL_CONNECTIONS,
            kwargs={"autocommit": True, "cursor_factory": AsyncRawCursor},
            timeout=60,
            open=False,
        )
        await self._pool.open(wait=True)

    async def close(self) -> None:
        await self._pool.close()

    async def bulk(self, path: Path) -> int:
        """executemany, which psycopg sends as a pipeline: about a thousand messages a transaction."""
        count = 0
        async with self._pool.connection() as connection, connection.cursor() as cursor:
            for rows in bulk_rows(path, lambda time: time):
                async with connection.transaction():
                    await cursor.executemany(_INSERT_CHAT, rows.chats)
                    await cursor.executemany(_INSERT_MESSAGE, rows.messages)
                count += len(rows.messages)
        return count

    async def _fetch(self, sql: LiteralString, *params: object) -> Sequence[Sequence[object]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(sql, params)).fetchall()

    def _json(self, value: JsonValue) -> object:
        return Jsonb(value)


def has_asyncpg() -> bool:
    return importlib.util.find_spec("asyncpg") is not None


class PooledAsyncpg(_Pooled):
    """asyncpg's pool, when that driver is installed (extra `bench`). JSON comes back as text."""

    name = "pooled asyncpg"

    async def open(self) -> None:
        self._pool: Any = await importlib.import_module("asyncpg").create_pool(
            self._url, min_size=POOL_CONNECTIONS, max_size=POOL_CONNECTIONS
        )

    async def close(self) -> None:
        await self._pool.close()

    async def _fetch(self, sql: LiteralString, *params: object) -> Sequence[Sequence[object]]:
        found: Sequence[Sequence[object]] = await self._pool.fetch(sql, *params)
        return found

    def _json(self, value: JsonValue) -> object:
        return orjson.dumps(value).decode()
