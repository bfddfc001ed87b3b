"""SQLite by hand: the bare driver committing one by one, the same in one thread hop, and aiosqlite as usually written.

All three use WAL with synchronous=FULL and foreign keys, as the library does. The first two return tuples as the driver
gives them: no record is built, no JSON and no time is read. aiosqlite as usually written gives what an application can
use: a dictionary a row, its documents and times read with the standard library.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar, cast

import aiosqlite
import orjson

from dal.ops import JsonValue
from dal.search import index_terms
from dal.values import new_id
from tests.bench.baselines.rows import bulk_rows, sqlite_now, sqlite_time
from tests.bench.data import MEMORY_TYPE
from tests.bench.subject import Subject

T = TypeVar("T")

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 10000",
)
_GET_CHAT: Final = (
    "SELECT id, chat_id, user_id, title, profile, metadata, status, message_count, created_at, updated_at, "
    "last_message_at, version FROM chat_sessions WHERE chat_id = ?"
)
_GET_MESSAGE: Final = (
    "SELECT m.id, c.chat_id, m.role, m.content, m.metadata, m.sequence_number, m.token_count, m.abuse_flagged, "
    "m.created_at, m.version FROM messages AS m JOIN chat_sessions AS c ON c.id = m.chat_session_id WHERE m.id = ?"
)
_HISTORY: Final = (
    "SELECT id, role, content, metadata, sequence_number, token_count, abuse_flagged, created_at, version "
    "FROM messages WHERE chat_session_id = (SELECT id FROM chat_sessions WHERE chat_id = ?) "
    "ORDER BY sequence_number DESC LIMIT ?"
)
_NUMBER: Final = (
    "UPDATE chat_sessions SET message_count = message_count + 1, version = version + 1, updated_at = ?1, "
    "last_message_at = ?1, last_activity_at = ?1 WHERE chat_id = ?2 RETURNING id, message_count"
)
_INSERT_MESSAGE: Final = (
    "INSERT INTO messages (id, chat_session_id, role, content, metadata, sequence_number, created_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_CHAT: Final = (
    "INSERT INTO chat_sessions (id, chat_id, title, metadata, message_count, created_at, updated_at, last_message_at, "
    "last_activity_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INDEX_MESSAGE: Final = "INSERT INTO message_search (terms, rowid) SELECT ?, doc_id FROM messages WHERE id = ?"
_MEMORY_SET: Final = (
    "INSERT INTO user_memory (id, user_id, memory_type, key, value, created_at, updated_at) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT (user_id, memory_type, key) DO UPDATE SET value = excluded.value, "
    "expires_at = NULL, updated_at = excluded.updated_at, version = version + 1 RETURNING id, created_at, version"
)
_MEMORY_GET: Final = (
    "SELECT value FROM user_memory WHERE user_id = ? AND memory_type = ? AND key = ? "
    "AND (expires_at IS NULL OR expires_at > ?)"
)
_SEARCH: Final = (
    "SELECT id, role, content, metadata, sequence_number, token_count, abuse_flagged, created_at, version "
    "FROM messages WHERE doc_id IN (SELECT rowid FROM message_search WHERE message_search MATCH ?) "
    "ORDER BY created_at DESC, sequence_number DESC, id DESC LIMIT 20"
)


class RawSqlite(Subject):
    """sqlite3 on the event loop's own thread: the driver's bare cost, one durable commit a write."""

    name = "sqlite3, one commit a write"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self) -> None:
        await self._run(self._connect)

    async def close(self) -> None:
        await self._run(self._disconnect)

    async def get_chat(self, chat_id: str) -> object:
        return await self._run(self._one, _GET_CHAT, (chat_id,))

    async def get_message(self, message_id: str) -> object:
        return await self._run(self._one, _GET_MESSAGE, (message_id,))

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        return await self._run(self._all, _HISTORY, (chat_id, limit))

    async def append(self, chat_id: str, role: str, content: str) -> int:
        return await self._run(self._append, chat_id, role, content)

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        return await self._run(
            self._one, _MEMORY_SET, (new_id(), user_id, MEMORY_TYPE, key, orjson.dumps(value).decode(), sqlite_now())
        )

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        row = await self._run(self._one, _MEMORY_GET, (user_id, MEMORY_TYPE, key, sqlite_now()))
        return cast(JsonValue, orjson.loads(cast(str, row[0])))

    async def search(self, text: str) -> int:
        return len(await self._run(self._all, _SEARCH, (" AND ".join(f'"{term}"' for term in index_terms(text)),)))

    async def bulk(self, path: Path) -> int:
        return await self._run(self._bulk, path)

    async def _run(self, job: Callable[..., T], *args: object) -> T:
        return job(*args)

    def _connect(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for pragma in _PRAGMAS:
            self._connection.execute(pragma)
        self._searchable = bool(
            self._connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'message_search'").fetchall()
        )

    def _disconnect(self) -> None:
        self._connection.close()

    def _one(self, sql: str, params: Iterable[object]) -> tuple[object, ...]:
        # Read to the end: with a row left over, the statement (and its commit) would stay open.
        found: list[tuple[object, ...]] = self._connection.execute(sql, tuple(params)).fetchall()
        return found[0]

    def _all(self, sql: str, params: Iterable[object]) -> list[object]:
        return self._connection.execute(sql, tuple(params)).fetchall()

    def _append(self, chat_id: str, role: str, content: str) -> int:
        execute, id, now = self._connection.execute, new_id(), sqlite_now()
        execute("BEGIN IMMEDIATE")
        try:
            session, number = execute(_NUMBER, (now, chat_id)).fetchall()[0]
            execute(_INSERT_MESSAGE, (id, session, role, content, "{}", number, now))
            if self._searchable:
                execute(_INDEX_MESSAGE, (" ".join(index_terms(content)), id))
        except BaseException:
            execute("ROLLBACK")
            raise
        execute("COMMIT")
        return int(number)

    def _bulk(self, path: Path) -> int:
        count = 0
        for rows in bulk_rows(path, sqlite_time):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_INSERT_CHAT, rows.chats)
            self._connection.executemany(_INSERT_MESSAGE, rows.messages)
            self._connection.execute("COMMIT")
            count += len(rows.messages)
        return count


class OneHopSqlite(RawSqlite):
    """The same in a thread of its own, one hop a call: what an asyncio service needs at the least."""

    name = "sqlite3 in a thread, one hop"

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, "bench-sqlite")
        await super().open()

    async def close(self) -> None:
        await super().close()
        self._thread.shutdown()

    async def _run(self, job: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, *args)


class UsualAiosqlite(Subject):
    """aiosqlite as its documentation shows it: a shared connection, execute, fetch, close, rows by name."""

    name = "aiosqlite as usually written"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self) -> None:
        self._connection = await aiosqlite.connect(self._path)
        self._connection.row_factory = aiosqlite.Row
        for pragma in _PRAGMAS:
            await self._connection.execute(pragma)
        self._turn = asyncio.Lock()  # a transaction on a shared connection belongs to one task

    async def close(self) -> None:
        await self._connection.close()

    async def get_chat(self, chat_id: str) -> object:
        return await self._one(_GET_CHAT, (chat_id,))

    async def get_message(self, message_id: str) -> object:
        return await self._one(_GET_MESSAGE, (message_id,))

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        async with self._connection.execute(_HISTORY, (chat_id, limit)) as cursor:
            return [_usable(row) for row in await cursor.fetchall()]

    async def append(self, chat_id: str, role: str, content: str) -> int:
        now = sqlite_now()
        async with self._turn:
            async with self._connection.execute(_NUMBER, (now, chat_id)) as cursor:
                [(session, number)] = await cursor.fetchall()
            await self._connection.execute(_INSERT_MESSAGE, (new_id(), session, role, content, "{}", number, now))
            await self._connection.commit()
        return int(number)

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        params = (new_id(), user_id, MEMORY_TYPE, key, json.dumps(value), sqlite_now())
        async with self._turn:
            row = await self._one(_MEMORY_SET, params)
            await self._connection.commit()
        return row

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        row = await self._one(_MEMORY_GET, (user_id, MEMORY_TYPE, key, sqlite_now()))
        return cast(JsonValue, row["value"])

    async def _one(self, sql: str, params: Iterable[object]) -> dict[str, object]:
        async with self._connection.execute(sql, params) as cursor:
            row = await cursor.fetchone()
        assert row is not None
        return _usable(row)


_DOCUMENTS: Final = frozenset({"metadata", "value"})


def _usable(row: sqlite3.Row) -> dict[str, object]:
    found: dict[str, object] = dict(row)
    for name, value in found.items():
        if name in _DOCUMENTS:
            found[name] = json.loads(cast(str, value))
        elif name.endswith("_at") and value is not None:
            found[name] = datetime.fromisoformat(cast(str, value))
    return found
