"""A legacy directory with a little in each of its places, opened as a store, and a move of it to SQLite."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from dal.factory import create_store
from dal.legacy import LegacyStore
from dal.legacy.directories import MEMORY, SESSIONS
from dal.ops import JsonValue, Select
from dal.store import Store
from tests.move.moving import Move, start
from tests.move.replicas import Site


def says(*texts: str, **more: JsonValue) -> JsonValue:
    messages: list[JsonValue] = [
        {"role": "user", "content": text, "at": f"2024-03-01T09:00:{n:02d}"} for n, text in enumerate(texts)
    ]
    return {"messages": messages, **more}


def write(path: Path, value: JsonValue) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A legacy directory with a little in each of its places."""
    root = tmp_path / "site"
    write(root / SESSIONS.name / "s-1.json", says("one", "two", user="ada", title="Engines", profile="code"))
    write(root / MEMORY.name / "ada.json", {"facts": ["likes steam"], "profile": {"language": "en"}})
    write(root / "chat_history" / "2023" / "old.json", says("before"))
    write(root / "conversations" / "yuki" / "export.json", [says("q", chat_id="c-9"), says("r", chat_id="c-10")])
    return root


@pytest_asyncio.fixture
async def opened(root: Path) -> AsyncIterator[Callable[[], LegacyStore]]:
    """Opens the directory, as one process after another."""
    stores: list[LegacyStore] = []

    def open_() -> LegacyStore:
        stores.append(cast(LegacyStore, create_store(f"legacy:{root}")))
        return stores[-1]

    yield open_
    for store in stores:
        await store.close()


@pytest_asyncio.fixture
async def store(opened: Callable[[], LegacyStore]) -> LegacyStore:
    store = opened()
    await store.open()
    return store


@pytest_asyncio.fixture
async def target(tmp_path: Path) -> AsyncIterator[Store]:
    store = create_store(f"sqlite:{tmp_path / 'target.db'}")
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def move(store: LegacyStore, target: Store, quick: None) -> Move:
    """A move of everything, begun."""
    return await start(site(store), site(target))


def site(store: Store) -> Site:
    return Site(store.capabilities.backend, store, cast(LegacyStore, store).replica(), lambda *_: [])


async def chats(store: Store) -> dict[str, list[str]]:
    """What each chat says, by its name."""
    names = {row[0]: str(row[1]) for row in await store.read(Select("chat_sessions", columns=("id", "chat_id")))}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    columns = ("chat_session_id", "content", "sequence_number")
    for chat, content, _ in sorted(
        await store.read(Select("messages", columns=columns)), key=lambda row: cast(int, row[2])
    ):
        found[names[chat]].append(str(content))
    return found


async def memory(store: Store) -> dict[tuple[str, str], JsonValue]:
    found = await store.read(Select("user_memory", columns=("memory_type", "key", "value")))
    return {(str(kind), str(key)): cast(JsonValue, value) for kind, key, value in found}
