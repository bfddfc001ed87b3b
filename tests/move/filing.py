"""A file store in a live move, for tests: filled, opened, edited past the library, looked at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from dal.backends.file import FileStore, journal
from dal.errors import DalTimeoutError
from dal.ops import Insert
from dal.replica import UNITS, Copied, Entry, Gate, Key, Replica
from dal.tables import TABLES
from dal.testing import rows
from tests.move import file_foreign

GATES = [Gate(unit, "m1", "source", "primary", 1, 2, "CAPTURE") for unit in UNITS]
USER, OTHER, CHAT = rows.row_id(1), rows.row_id(2), rows.row_id(1)
USER_71 = file_foreign.USER


async def fill(store: FileStore) -> None:
    """Two users with memory, a chat with four messages, a file, two log entries."""
    await store.commit([Insert("users", rows.user(n)) for n in (1, 2)])
    await store.commit([Insert("user_memory", rows.memory(10 + n, 1, key=f"k{n}")) for n in range(3)])
    await store.commit([Insert("chat_sessions", rows.chat(1)), Insert("files", rows.file(50, 1))])
    for n in range(4):
        await store.commit(rows.append(100 + n, 1))
    await store.commit([Insert("system_logs", rows.log(60 + n)) for n in range(2)])


async def opened(directory: Path, *, segment_bytes: int = journal.SEGMENT_BYTES) -> FileStore:
    store = FileStore(directory, segment_bytes=segment_bytes)
    await store.open()
    return store


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    """A store with rows in its documents and a move on; nothing has changed since."""
    store = await opened(tmp_path / "store")
    await fill(store)
    await store.replica().install(GATES)
    yield store
    await store.close()


async def dirty(replica: Replica) -> dict[Key, Entry]:
    return {entry.key: entry for table in TABLES for entry in await replica.dirty(table, 10_000)}


async def changed(replica: Replica) -> dict[tuple[str, int], bool]:
    """What is dirty, by table and number, and whether it is gone."""
    return {(key.table, int(key.id[-12:], 16)): entry.row is None for key, entry in (await dirty(replica)).items()}


async def drain(replica: Replica) -> None:
    found = await dirty(replica)
    await replica.acknowledge([Copied(e.table, e.id, e.version, None if e.row is None else 7) for e in found.values()])


def only(directory: Path, pattern: str) -> Path:
    (path,) = (directory / "store").glob(pattern)
    return path


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def line_of(path: Path, number: int, **changes: object) -> str:
    row = json.loads(path.read_text().splitlines()[-1]) | {"id": rows.row_id(number)} | changes
    return json.dumps(row, ensure_ascii=False) + "\n"


async def fence(replica: Replica, unit: str) -> bool:
    try:
        return await replica.change_gate(unit, expect={"role": "primary"}, change={"role": "fenced"})
    except DalTimeoutError:
        return False  # a checkpoint was under way
