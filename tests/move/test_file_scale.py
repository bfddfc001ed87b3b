"""A file store in a live move does its work in parts: nobody waits for all of it, and who dies loses nothing of it.

Also what lies in memory: only what no checkpoint has taken up yet.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dal.backends.file import FileStore, foreign
from dal.backends.file.layout import sharded
from dal.backends.file.lock import FileLock
from dal.errors import DalTimeoutError
from dal.ops import Compare, Insert, Select, Update
from dal.replica import EPOCH, UNITS, Copied, Gate, Replica
from dal.testing import rows
from dal.testing.reaching import reached

GATES = [Gate(unit, "m1", "source", "primary", 1, 2, "CAPTURE") for unit in UNITS]
USERS = range(1, 41)
PART = 4


async def _opened(directory: Path) -> FileStore:
    store = FileStore(directory)
    await store.open()
    return store


@pytest_asyncio.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileStore]:
    """Forty users, of whom others have changed the odd ones since; a look takes four files at a time."""
    monkeypatch.setattr(foreign, "_FIRST_FILES", PART)
    monkeypatch.setattr(foreign, "_FEWEST_FILES", PART)
    monkeypatch.setattr(foreign, "FOREIGN_HOLD_S", 0.0)
    store = await _opened(tmp_path)
    await store.commit([Insert("users", rows.user(n)) for n in USERS])
    await store.close()
    await store.open()
    for number in USERS[::2]:
        _edit(tmp_path / "users" / sharded(rows.row_id(number), ".json"), name="by hand")
    yield store
    await store.close()


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


async def _dirty(replica: Replica, table: str) -> list[int]:
    return sorted(rows.number_of(entry.id) for entry in await replica.dirty(table, 1000))


# -- looks in parts


async def test_writers_write_between_the_parts_of_the_first_look(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look, loop, begun = foreign._look_at_documents, asyncio.get_running_loop(), asyncio.Event()

    def counted(*arguments: object) -> object:
        looks.append(len(looks))
        if len(looks) == 2:
            loop.call_soon_threadsafe(begun.set)
        return look(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(foreign, "_look_at_documents", counted)
    installing = asyncio.create_task(store.replica().install(GATES))
    await reached(begun, installing)
    await store.commit([Update("users", {"id": rows.row_id(40)}, {"name": "by a writer"})])
    assert not installing.done()
    seen = len(looks)
    await installing
    assert (seen, len(looks)) <= (4, len(USERS) // PART)
    assert await _dirty(store.replica(), "users") == [*USERS[::2], 40]


async def test_whoever_dies_between_two_parts_leaves_the_rest_to_the_next(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looked = foreign._look_at_documents, 0

    def die(*arguments: object) -> object:
        nonlocal looked
        looked += 1
        if looked == 4:
            raise RuntimeError("died")
        return look(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(foreign, "_look_at_documents", die)
    with pytest.raises(RuntimeError, match="died"):
        await store.replica().install(GATES)
    assert len(await _dirty(store.replica(), "users")) < len(USERS) // 2
    other = await _opened(tmp_path)  # it reads the documents as they are now
    await other.replica().install(GATES)
    dirty = await _dirty(other.replica(), "users")
    assert {*USERS[::2]} <= set(dirty)
    assert len(dirty) < len(USERS), "what was looked at is not registered anew"
    assert await other.replica().rescan() == 0
    await other.close()


async def test_a_chat_that_others_renamed_keeps_its_messages_in_whatever_part_its_names_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "_FIRST_FILES", 1)
    monkeypatch.setattr(foreign, "_FEWEST_FILES", 1)
    store = await _opened(tmp_path)
    await store.commit([Insert("chat_sessions", rows.chat(n)) for n in (1, 2)])
    for number in range(5):
        await store.commit(rows.append(100 + number, 1))
    await store.replica().install(GATES)
    monkeypatch.setattr(foreign, "FOREIGN_HOLD_S", 0.0)
    for suffix in (".json", ".jsonl"):
        old, new = (tmp_path / "chats" / sharded(key, suffix) for key in ("chat-1", "moved"))
        new.parent.mkdir(exist_ok=True)
        old.rename(new)
        if suffix == ".json":
            _edit(new, chat_id="moved")
    await store.replica().rescan()
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("chat_sessions", order=("id",))) == [1, 2]
    found = await store.read(Select("chat_sessions", (Compare("chat_id", "=", "moved"),), columns=("id",)))
    assert found == [(rows.row_id(1),)]
    assert await rows.numbers(store, Select("messages", order=("id",))) == [100, 101, 102, 103, 104]
    await store.close()


# -- what lies in memory


async def test_what_a_checkpoint_has_taken_up_and_what_is_said_of_copies_is_in_the_shared_file(tmp_path: Path) -> None:
    store, other = await _opened(tmp_path), await _opened(tmp_path)
    await store.commit([Insert("users", rows.user(n)) for n in range(1, 6)])
    await store.replica().install(GATES)
    await store.commit([Update("users", {"id": rows.row_id(n)}, {"name": "new"}) for n in (1, 2)])
    opened = store._opened
    assert opened is not None
    assert len(opened.image.registry.recent["users"]) == 2
    await opened.settle("test")
    first = (await store.replica().unregistered("users", "", 10)).entries
    await store.replica().acknowledge([Copied("users", entry.id, entry.version, 7) for entry in first])
    position = opened.journal.position
    dirty = await other.replica().dirty("users", 10)
    await other.replica().acknowledge([Copied("users", entry.id, entry.version, 8) for entry in dirty])
    assert opened.journal.position == position, "copies write no record that everybody would have to follow"
    assert not opened.image.registry.recent["users"]
    for replica in (store.replica(), other.replica()):
        found = await replica.registered("users", [rows.row_id(n) for n in range(1, 6)])
        assert [(entry.state, entry.hash) for entry in found] == [("copied", 8)] * 2 + [("checked", 7)] * 3
        assert (await replica.backlog())["users"] == (0, 2, 5)
        assert [entry.id for entry in await replica.copied("users", rows.row_id(1), 10)] == [rows.row_id(2)]
        live = sum(bucket.live for bucket in await replica.digest("users"))
        assert live == len(await replica.bucket("users", [rows.row_id(n)[-3:] for n in range(1, 6)])) == 5
    await store.close()
    await other.close()


async def test_a_record_of_the_journal_counts_above_the_file_and_is_counted_once(tmp_path: Path) -> None:
    store = await _opened(tmp_path)
    await store.commit([Insert("users", rows.user(n)) for n in range(1, 4)])
    await store.replica().install(GATES)
    replica = store.replica()
    assert await replica.seed("users", "", 10) == ""
    await store.commit([Update("users", {"id": rows.row_id(1)}, {"name": "new"})])
    assert (await replica.backlog())["users"] == (3, 0, 3)
    late = [Copied("users", rows.row_id(n), EPOCH, 7) for n in (1, 2)]
    await replica.acknowledge(late)
    assert await _dirty(replica, "users") == [1, 3]
    (entry,) = await replica.entries("users", [rows.row_id(1)])
    assert (entry.version, entry.state) == (EPOCH + 1, "dirty")
    await store.close()
    await store.open()
    assert await _dirty(store.replica(), "users") == [1, 3]
    assert (await store.replica().backlog())["users"] == (2, 0, 3)
    await store.close()


# -- opening


async def test_a_store_in_order_is_opened_while_others_read_it(tmp_path: Path) -> None:
    store = await _opened(tmp_path)
    await store.commit([Insert("users", rows.user(1)), *[Insert("chat_sessions", rows.chat(1))]])
    await store.commit(rows.append(100, 1))
    await store.close()
    lock = FileLock(tmp_path / "journal" / "checkpoint.lock")
    assert lock.try_acquire(shared=True)
    other = FileStore(tmp_path, lock_timeout_s=0.2)
    await other.open()
    assert await rows.numbers(other, Select("messages", order=("id",))) == [100]
    await other.close()
    (tmp_path / "chats" / sharded("chat-1", ".jsonl")).unlink()  # the index has to follow: that is done alone
    with pytest.raises(DalTimeoutError):
        await other.open()
    lock.close()
    await other.open()
    await other.close()


async def test_the_journals_end_is_found_without_the_stores_lock_where_nothing_is_unfinished(tmp_path: Path) -> None:
    store = await _opened(tmp_path)
    await store.commit([Insert("users", rows.user(1))])
    lock = FileLock(tmp_path / "journal" / "lock")
    assert lock.try_acquire()
    other = FileStore(tmp_path, lock_timeout_s=0.2)
    await other.open()
    assert await rows.numbers(other, Select("users")) == [1]
    lock.close()
    await other.close()
    await store.close()
