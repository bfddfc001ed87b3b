"""JSON files by hand: one document per chat, rewritten atomically; and JSON lines, appended and fsynced one by one.

Both are as durable as the library's file store; neither is safe for two processes.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import orjson

from dal.ops import JsonValue
from dal.values import new_id
from tests.bench.data import MEMORY_TYPE, Data
from tests.bench.subject import Subject

T = TypeVar("T")
Document = dict[str, JsonValue]


class JsonDocuments(Subject):
    """One JSON document per chat and per user. A write reads it, changes it and puts a new one in its place."""

    name = "one JSON file per chat, rewritten"

    def __init__(self, directory: Path, data: Data) -> None:
        self._directory = directory
        self._data = data
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self) -> None:
        self._directory.mkdir(mode=0o700)
        chats = {**self._data.messages, **{c: self._data.long_chat(n) for n, c in self._data.chat_of_length.items()}}
        for chat, messages in chats.items():
            written = [_message(m.role, m.content, n) for n, m in enumerate(messages, 1)]
            self._path(chat).write_bytes(orjson.dumps({"chat_id": chat, "title": "Engines", "messages": written}))
        for user in self._data.users:
            items = {f"{MEMORY_TYPE}/{key}": self._data.value(n) for n, key in enumerate(self._data.keys)}
            self._path(user).write_bytes(orjson.dumps(items))

    async def close(self) -> None:
        """Nothing is open."""

    async def get_chat(self, chat_id: str) -> object:
        document = await self._in_thread(self._read, chat_id)
        return document["chat_id"], document["title"]

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        document = await self._in_thread(self._read, chat_id)
        return cast("list[object]", document["messages"])[-limit:]

    async def append(self, chat_id: str, role: str, content: str) -> int:
        async with self._turns[chat_id]:
            return await self._in_thread(self._append, chat_id, role, content)

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        async with self._turns[user_id]:
            return await self._in_thread(self._set, user_id, f"{MEMORY_TYPE}/{key}", value)

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        return (await self._in_thread(self._read, user_id))[f"{MEMORY_TYPE}/{key}"]

    async def search(self, text: str) -> int:
        return await self._in_thread(self._search, text)

    async def bulk(self, path: Path) -> int:
        return await self._in_thread(self._bulk, path)

    async def _in_thread(self, job: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, job, *args)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.json"

    def _read(self, key: str) -> Document:
        return cast(Document, orjson.loads(self._path(key).read_bytes()))

    def _append(self, chat_id: str, role: str, content: str) -> int:
        document = self._read(chat_id)
        messages = cast("list[Document]", document["messages"])
        number = len(messages) + 1
        messages.append(_message(role, content, number))
        self._write(chat_id, document)
        return number

    def _set(self, user_id: str, key: str, value: JsonValue) -> None:
        document = self._read(user_id)
        document[key] = value
        self._write(user_id, document)

    def _search(self, text: str) -> int:
        """Looks into every document there is."""
        found = []
        for path in self._directory.glob("*.json"):
            document = orjson.loads(path.read_bytes())
            found += [m for m in document.get("messages", ()) if text in m["content"]]
        return len(sorted(found, key=lambda m: str(m.get("created_at") or m["at"]), reverse=True)[:20])

    def _bulk(self, path: Path) -> int:
        count = 0
        with path.open("rb") as file:
            for line in file:
                chat = orjson.loads(line)
                self._write(chat["chat_id"], chat)
                count += len(chat["messages"])
        return count

    def _write(self, key: str, document: Document) -> None:
        """A new file, made durable, takes the place of the old one; the directory is made durable too."""
        temporary = self._directory / f"{key}.tmp"
        with temporary.open("wb") as file:
            file.write(orjson.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path(key))
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class JsonLines(Subject):
    """One JSON-lines file per chat, kept open; each append is written and fsynced before the next one begins."""

    name = "JSON lines, one fsync an append"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, BinaryIO] = {}
        self._numbers: defaultdict[str, int] = defaultdict(int)

    async def open(self) -> None:
        self._directory.mkdir(mode=0o700)

    async def close(self) -> None:
        for file in self._files.values():
            file.close()

    async def append(self, chat_id: str, role: str, content: str) -> int:
        file = self._files.get(chat_id)
        if file is None:
            file = self._files[chat_id] = (self._directory / f"{chat_id}.jsonl").open("ab", buffering=0)
        number = self._numbers[chat_id] = self._numbers[chat_id] + 1
        file.write(orjson.dumps(_message(role, content, number)) + b"\n")
        os.fsync(file.fileno())
        return number


def _message(role: str, content: str, number: int) -> Document:
    return {
        "id": new_id(),
        "role": role,
        "content": content,
        "metadata": {},
        "sequence_number": number,
        "created_at": datetime.now(UTC).isoformat(),
    }
