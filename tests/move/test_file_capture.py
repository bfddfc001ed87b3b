"""What a file store registers in a live move of its own processes' writes and of cascades, and where it keeps that."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dal.backends.file import FileStore, journal
from dal.backends.file.registry_file import Known, RegistryFile
from dal.errors import CorruptDataError, FencedError, UnavailableError
from dal.ops import Compare, Count, Delete, Insert, Select, Update
from dal.replica import EPOCH, Copied
from dal.tables import TABLES
from dal.testing import rows
from tests.move.filing import CHAT, GATES, OTHER, USER, changed, dirty, drain, fill, opened, store

__all__ = ["store"]
from tests.move.replicas import everything


async def test_a_cascade_registers_every_child_wherever_it_lies(store: FileStore) -> None:
    await store.commit(rows.append(200, 1))  # in the journal only, the others in the file
    await store.commit([Delete("chat_sessions", (Compare("id", "=", CHAT),))])
    await store.commit([Delete("users", (Compare("id", "=", USER),))])
    assert await changed(store.replica()) == {
        ("chat_sessions", 1): True,
        **{("messages", n): True for n in (100, 101, 102, 103, 200)},
        ("users", 1): True,
        **{("user_memory", n): True for n in (10, 11, 12)},
        ("files", 50): True,
    }


async def test_a_transaction_registers_what_it_came_to_and_an_undone_one_nothing(store: FileStore) -> None:
    async with store.transaction() as transaction:
        await transaction.commit([Insert("users", rows.user(7))])
        await transaction.commit([Update("users", {"id": USER}, {"name": "a"})])
        await transaction.commit([Update("users", {"id": USER}, {"name": "b"})])
    replica = store.replica()
    assert await changed(replica) == {("users", 7): False, ("users", 1): False}
    await drain(replica)
    with pytest.raises(RuntimeError):
        async with store.transaction() as transaction:
            await transaction.commit([Insert("users", rows.user(8))])
            raise RuntimeError
    assert await changed(replica) == {}


async def test_every_open_store_registers_and_is_refused_from_the_same_moment(store: FileStore, tmp_path: Path) -> None:
    replica, other = store.replica(), await opened(tmp_path / "store")
    await other.commit([Update("users", {"id": USER}, {"name": "other"})])
    assert await changed(replica) == {("users", 1): False}
    assert await replica.change_gate("users", expect={"role": "primary"}, change={"role": "fenced"})
    with pytest.raises(FencedError):
        await other.commit([Update("users", {"id": USER}, {"name": "late"})])
    with pytest.raises(FencedError):
        await other.commit([Delete("users", (Compare("id", "=", rows.row_id(999)),))])
    async with other.transaction() as transaction:
        with pytest.raises(FencedError):
            await transaction.commit([Insert("users", rows.user(5))])
        await transaction.commit([Insert("system_logs", rows.log(70))])
    assert (await other.replica().gates())["users"].role == "fenced"
    assert await changed(other.replica()) == {("users", 1): False, ("system_logs", 70): False}
    await other.close()


async def test_an_entry_and_its_row_are_of_one_moment_whatever_another_process_settles(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([Update("users", {"id": USER}, {"name": "before"})])
    await store.close()  # the entry is in the registry's file then
    await store.open()
    look = RegistryFile.many

    async def change() -> None:
        other = await opened(tmp_path / "store")
        await other.commit([Update("users", {"id": USER}, {"name": "after"})])
        await other.close()

    def interrupted(file: RegistryFile, table: str, ids: Collection[str]) -> Mapping[str, Known]:
        monkeypatch.setattr(RegistryFile, "many", look)
        with ThreadPoolExecutor(1) as another_process:
            another_process.submit(asyncio.run, change()).result()
        return look(file, table, ids)

    (before,) = await store.replica().entries("users", [USER])
    monkeypatch.setattr(RegistryFile, "many", interrupted)
    (found,) = await store.replica().entries("users", [USER])
    assert before.row is not None
    assert found.row is not None
    assert (found.version - before.version, before.row[3], found.row[3]) == (1, "before", "after")


async def test_what_hangs_on_a_deleted_row_goes_from_a_replica_and_is_marked_there(store: FileStore) -> None:
    replica = store.replica()
    await replica.raise_versions("user_memory", [rows.row_id(10), rows.row_id(11)])
    await drain(replica)
    await replica.change_gate("memory", expect={}, change={"role": "replica"})
    await store.commit([Delete("users", (Compare("id", "=", USER),))])
    assert await store.read(Count("user_memory")) == [(0,)]
    marked = {("user_memory", 10): True, ("user_memory", 11): True}
    assert await changed(replica) == {("users", 1): True, ("files", 50): True, **marked}


async def test_a_delete_that_reaches_behind_a_fence_is_refused_whole(store: FileStore) -> None:
    replica = store.replica()
    await replica.change_gate("chats", expect={}, change={"role": "fenced"})
    await store.commit([Delete("users", (Compare("id", "=", OTHER),))])
    await replica.change_gate("memory", expect={}, change={"role": "fenced"})
    with pytest.raises(FencedError):
        await store.commit([Insert("users", rows.user(8)), Delete("users", (Compare("id", "=", USER),))])
    with pytest.raises(FencedError):
        async with store.transaction() as transaction:
            await transaction.commit([Delete("users", (Compare("id", "=", USER),))])
    assert await rows.numbers(store, Select("users", order=("id",))) == [1]
    assert len(await store.read(Select("user_memory"))) == 3


async def test_a_process_that_was_away_for_longer_than_the_journal_knows_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT_SEGMENTS", 0)
    one, away = await opened(tmp_path, segment_bytes=600), await opened(tmp_path)
    await one.replica().install(GATES)
    await one.commit([Insert("chat_sessions", rows.chat(1))])
    for n in range(2, 60):
        await one.commit(rows.append(n, 1))
    await one.replica().change_gate("files", expect={}, change={"phase": "SYNC"})
    await one.close()
    replica = away.replica()
    assert (await replica.gates())["files"].phase == "SYNC"
    assert len(await changed(replica)) == 59
    await away.commit(rows.append(500, 1))
    newest = max((await dirty(replica)).values(), key=lambda entry: entry.version)
    assert newest.id == rows.row_id(500)
    assert newest.version == EPOCH + 2 * 59 + 1, "the counter goes on"
    await away.close()


async def test_the_registry_is_the_same_after_checkpoints_and_openings(tmp_path: Path) -> None:
    store = await opened(tmp_path, segment_bytes=900)
    await store.replica().install(GATES)
    await fill(store)
    for n in range(40):
        await store.commit(rows.append(1000 + n, 1))
        if n % 5 == 0:
            await drain(store.replica())
    for _ in range(3):
        before = [await everything(store, table) for table in TABLES]
        await store.close()
        assert {Path(name).suffix for name in os.listdir(tmp_path / "move")} == {".json", ".sqlite", ""}
        store = await opened(tmp_path, segment_bytes=900)
        assert [await everything(store, table) for table in TABLES] == before
        await store.commit([Update("users", {"id": OTHER}, {"name": "again"})])
    await store.close()


async def test_an_ended_move_leaves_nothing_on_disk_and_a_retired_one_refuses(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.replica().install(GATES)
    await fill(store)
    await store.close()
    assert (tmp_path / "move").is_dir()
    store = await opened(tmp_path)
    await store.replica().change_gate("memory", expect={}, change={"role": "replica"})
    await store.replica().uninstall(keep_fence=True)
    await store.close()
    store = await opened(tmp_path)
    with pytest.raises(FencedError):
        await store.commit([Delete("user_memory", (Compare("id", "=", rows.row_id(10)),))])
    await store.commit([Update("users", {"id": USER}, {"name": "free"})])
    assert (await store.replica().backlog())["users"].entries == 0
    await store.replica().uninstall(keep_fence=False)
    await store.close()
    assert not (tmp_path / "move").exists()


@pytest.mark.parametrize("name", ["state.json", "*.sqlite"])
@pytest.mark.parametrize("keep", [lambda data: data[:-9], lambda data: data[:9], lambda data: b"x" * len(data)])
async def test_a_damaged_registry_is_named_and_never_taken_for_an_empty_one(
    tmp_path: Path, name: str, keep: Callable[[bytes], bytes]
) -> None:
    store = await opened(tmp_path)
    await store.replica().install(GATES)
    await fill(store)
    await store.close()
    (path,) = (tmp_path / "move").glob(name)
    path.write_bytes(keep(path.read_bytes()))
    with pytest.raises(CorruptDataError, match=path.name):
        await FileStore(tmp_path).open()
    if name != "state.json":
        path.unlink()
        with pytest.raises(CorruptDataError, match=path.name):
            await FileStore(tmp_path).open()


async def test_a_registry_that_cannot_be_read_on_a_full_disk_is_not_called_damaged(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = RegistryFile._connect

    def refused(file: RegistryFile) -> sqlite3.Connection:
        monkeypatch.setattr(RegistryFile, "_connect", connect)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
        raise error

    again = FileStore(tmp_path / "store")
    monkeypatch.setattr(RegistryFile, "_connect", refused)
    with pytest.raises(UnavailableError, match="retry") as caught:
        await again.open()
    assert caught.value.retryable
    await again.open()
    await again.close()


async def test_an_entry_that_the_journal_has_overtaken_is_no_work_left(store: FileStore) -> None:
    replica = store.replica()
    await store.commit([Update("users", {"id": USER}, {"name": "first"})])
    await store.close()
    await store.open()  # the entry is in the registry's file now, still dirty
    await store.commit([Update("users", {"id": USER}, {"name": "second"})])
    (entry,) = (await dirty(replica)).values()
    await replica.acknowledge([Copied("users", USER, entry.version, 7)])
    assert await replica.tables_with("dirty") == frozenset()
    assert await replica.tables_with("copied") == {"users"}
