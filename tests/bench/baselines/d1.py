"""D1 by hand: httpx and orjson, one request a call, the best SQL for it.

It keeps the library's rules where they are D1's own: numbers travel inside one JSON parameter, because a number in the
parameters would bind as REAL; texts go as they are; what belongs together is one batch. It leaves out what the library
adds: nothing is checked, nothing is tried again, and a write whose answer is lost may be stored twice when it is sent
again. Rows come back as lists, as D1's answer holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import httpx
import orjson

from dal.ops import JsonValue
from dal.search import index_terms
from dal.values import new_id
from tests.bench.baselines.rows import bulk_rows, sqlite_now, sqlite_time
from tests.bench.data import MEMORY_TYPE
from tests.bench.subject import Subject
from tests.engines.d1 import D1Database

_CONNECTIONS: Final = 20  # as the library has

_CHAT: Final = (
    "id, chat_id, user_id, title, profile, metadata, status, message_count, created_at, updated_at, "
    "last_message_at, last_activity_at, version"
)
_MESSAGE: Final = "id, role, content, metadata, sequence_number, token_count, abuse_flagged, created_at, version"
_GET_CHAT: Final = f"SELECT {_CHAT} FROM chat_sessions WHERE chat_id = ?1"
_LIST_CHATS: Final = f"SELECT {_CHAT} FROM chat_sessions ORDER BY last_activity_at DESC, id DESC LIMIT ?1 ->> 0"
_CREATE_CHAT: Final = (
    "INSERT INTO chat_sessions (id, chat_id, title, created_at, updated_at, last_activity_at) "
    "VALUES (?1, ?2, ?3, ?4, ?4, ?4)"
)
_GET_MESSAGE: Final = (
    "SELECT m.id, c.chat_id, m.role, m.content, m.metadata, m.sequence_number, m.token_count, m.abuse_flagged, "
    "m.created_at, m.version FROM messages AS m JOIN chat_sessions AS c ON c.id = m.chat_session_id WHERE m.id = ?1"
)
_HISTORY: Final = (
    f"SELECT {_MESSAGE} FROM messages "
    "WHERE chat_session_id = (SELECT id FROM chat_sessions WHERE chat_id = ?1) "
    "ORDER BY sequence_number DESC LIMIT ?2 ->> 0"
)
_NUMBER: Final = (
    "UPDATE chat_sessions SET message_count = message_count + 1, version = version + 1, updated_at = ?1, "
    "last_message_at = ?1, last_activity_at = ?1 WHERE chat_id = ?2"
)
_INSERT_MESSAGE: Final = (
    "INSERT INTO messages (id, chat_session_id, role, content, metadata, sequence_number, created_at) "
    "SELECT ?1, id, ?3, ?4, ?5, message_count, ?6 FROM chat_sessions WHERE chat_id = ?2 RETURNING sequence_number"
)
_INDEX_MESSAGE: Final = "INSERT INTO message_search (terms, rowid) SELECT ?1, doc_id FROM messages WHERE id = ?2"
_MEMORY_SET: Final = (
    "INSERT INTO user_memory (id, user_id, memory_type, key, value, created_at, updated_at) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT (user_id, memory_type, key) DO UPDATE SET value = excluded.value, "
    "expires_at = NULL, updated_at = excluded.updated_at, version = version + 1 RETURNING id, created_at, version"
)
_MEMORY_GET: Final = (
    "SELECT value FROM user_memory WHERE user_id = ?1 AND memory_type = ?2 AND key = ?3 "
    "AND (expires_at IS NULL OR expires_at > ?4)"
)
_SEARCH: Final = (
    f"SELECT {_MESSAGE} FROM messages "
    "WHERE doc_id IN (SELECT rowid FROM message_search WHERE message_search MATCH ?1) "
    "ORDER BY created_at DESC, sequence_number DESC, id DESC LIMIT 20"
)
_BULK_CHATS: Final = (
    "WITH given (one) AS MATERIALIZED (SELECT value FROM json_each(?1)) "
    "INSERT INTO chat_sessions (id, chat_id, title, metadata, message_count, created_at, updated_at, last_message_at, "
    "last_activity_at) SELECT one ->> 0, one ->> 1, one ->> 2, one ->> 3, one ->> 4, one ->> 5, one ->> 6, one ->> 7, "
    "one ->> 8 FROM given"
)
_BULK_MESSAGES: Final = (
    "WITH given (one) AS MATERIALIZED (SELECT value FROM json_each(?1)) "
    "INSERT INTO messages (id, chat_session_id, role, content, metadata, sequence_number, created_at) "
    "SELECT one ->> 0, one ->> 1, one ->> 2, one ->> 3, one ->> 4, one ->> 5, one ->> 6 FROM given"
)


class HandWrittenD1(Subject):
    """An httpx client on one database."""

    name = "httpx by hand"

    def __init__(self, database: D1Database, *, searchable: bool = False) -> None:
        self._url = f"{database.base}/accounts/{database.account}/d1/database/{database.id}/raw"
        self._headers = {"authorization": f"Bearer {database.token}", "content-type": "application/json"}
        self._searchable = searchable

    async def open(self) -> None:
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        self._client = httpx.AsyncClient(headers=self._headers, limits=limits, timeout=30.0)

    async def close(self) -> None:
        await self._client.aclose()

    async def get_chat(self, chat_id: str) -> object:
        return (await self._one(_GET_CHAT, chat_id))[0]

    async def create_chat(self, chat_id: str) -> object:
        return await self._one(_CREATE_CHAT, new_id(), chat_id, "Engines", sqlite_now())

    async def list_chats(self, limit: int) -> Sequence[object]:
        return await self._one(_LIST_CHATS, _json(limit))

    async def get_message(self, message_id: str) -> object:
        return (await self._one(_GET_MESSAGE, message_id))[0]

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        return await self._one(_HISTORY, chat_id, _json(limit))

    async def append(self, chat_id: str, role: str, content: str) -> int:
        id, now = new_id(), sqlite_now()
        batch: list[tuple[str, Sequence[object]]] = [
            (_NUMBER, (now, chat_id)),
            (_INSERT_MESSAGE, (id, chat_id, role, content, "{}", now)),
        ]
        if self._searchable:
            batch.append((_INDEX_MESSAGE, (" ".join(index_terms(content)), id)))
        return int(cast(int, (await self._batch(batch))[1][0][0]))

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        document = orjson.dumps(value).decode()
        return (await self._one(_MEMORY_SET, new_id(), user_id, MEMORY_TYPE, key, document, sqlite_now()))[0]

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        rows = await self._one(_MEMORY_GET, user_id, MEMORY_TYPE, key, sqlite_now())
        return cast(JsonValue, orjson.loads(cast(str, rows[0][0])))

    async def search(self, text: str) -> int:
        return len(await self._one(_SEARCH, " AND ".join(f'"{term}"' for term in index_terms(text))))

    async def bulk(self, path: Path) -> int:
        count = 0
        for rows in bulk_rows(path, sqlite_time):
            await self._batch([(_BULK_CHATS, (_json(*rows.chats),)), (_BULK_MESSAGES, (_json(*rows.messages),))])
            count += len(rows.messages)
        return count

    async def _one(self, sql: str, *params: str) -> list[list[object]]:
        return (await self._ask({"sql": sql, "params": params}))[0]

    async def _batch(self, statements: Sequence[tuple[str, Sequence[object]]]) -> list[list[list[object]]]:
        return await self._ask({"batch": [{"sql": sql, "params": params} for sql, params in statements]})

    async def _ask(self, body: dict[str, object]) -> list[list[list[object]]]:
        answer = await self._client.post(self._url, content=orjson.dumps(body))
        found: Any = orjson.loads(answer.content)
        if not found["success"]:
            raise RuntimeError(found["errors"])
        return [one["results"]["rows"] for one in found["result"]]


def _json(*values: object) -> str:
    return orjson.dumps(values).decode()
