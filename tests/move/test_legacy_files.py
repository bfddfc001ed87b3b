"""A legacy directory as it is read: what its files mean, and how a change of them is taken in."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from dal import ConfigurationError, DalTimeoutError, UnsupportedError
from dal.access import DataAccess
from dal.factory import create_store
from dal.legacy import LegacyStore
from dal.legacy import store as legacy_store
from dal.legacy.book import Book
from dal.legacy.directories import MEMORY, SESSIONS, FileState
from dal.ops import Insert, Select
from dal.testing import rows
from tests.move.legacy_site import chats, memory, opened, root, says, store, write
from tests.move.moving import KilledError

__all__ = ["opened", "root", "store"]


async def test_every_place_of_the_layout_has_its_chats_and_users(store: LegacyStore) -> None:
    assert await chats(store) == {
        "s-1": ["one", "two"],
        "chat_history/2023/old": ["before"],
        "conversations/yuki/c-9": ["q"],
        "conversations/yuki/c-10": ["r"],
    }
    assert await memory(store) == {("facts", "0001"): "likes steam", ("profile", "language"): "en"}
    dal = DataAccess(store)
    chat, ada, yuki = (
        await dal.chats.get("s-1"),
        await dal.users.get_by_clerk_id("ada"),
        await dal.users.get_by_clerk_id("yuki"),
    )
    assert chat is not None
    assert ada is not None
    assert yuki is not None
    assert (chat.user_id, chat.title, chat.profile) == (ada.id, "Engines", "code")
    assert chat.metadata["import"]["source"] == "data/chat_sessions/s-1.json"  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", '{"role": "user", "content": "x"}\n{"role": "bot", "text": "y"}\n', ["x", "y"]),
        ("a.jsonl", '{"role": "user", "content": "x"}\n{"role": "bot", "te', ["x"]),
        ("a.json", '[{"sender": "human", "message": "x", "timestamp": 1700000000}]', ["x"]),
        ("a.json", '{"id": "a", "history": [{"role": "user", "content": "x"}]}', ["x"]),
        (
            "a.json",
            '[{"type": "human", "data": {"content": "x"}}, {"type": "ai", "data": {"content": "y"}}]',
            ["x", "y"],
        ),
        ("a.json", '{"uuid": "a", "chat_messages": [{"uuid": "1", "sender": "human", "text": "x"}]}', ["x"]),
        ("a.json", '{"id": "a", "history": {"messages": {"m": {"role": "user", "content": "x"}}}}', ["x"]),
        ("a.json", "[]", []),
        ("a.jsonl", "", []),
        ("sub/b.json", '{"chat_id": "a", "messages": [{"role": "user", "content": "x"}]}', ["x"]),
    ],
)
async def test_a_chat_is_taken_in_each_of_the_forms(
    root: Path, store: LegacyStore, name: str, text: str, expected: list[str]
) -> None:
    path = root / SESSIONS.name / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert await store.replica().rescan() > 0
    assert (await chats(store))["a"] == expected


async def test_the_same_files_give_the_same_rows_in_a_new_image(
    root: Path, store: LegacyStore, opened: Callable[[], LegacyStore]
) -> None:
    before = await rows.everything(store)
    await store.close()
    shutil.rmtree(root / ".dal-move")
    again = opened()
    await again.open()
    assert await rows.everything(again) == before


async def test_an_unchanged_directory_costs_nothing_and_what_changed_keeps_its_ids(
    root: Path, store: LegacyStore
) -> None:
    ids = [row[0] for row in await store.read(Select("messages", order=("id",), columns=("id",)))]
    assert await store.replica().rescan() == 0
    write(
        root / SESSIONS.name / "s-1.json", says("one", "changed", "three", user="ada", title="Engines", profile="code")
    )
    assert await store.replica().rescan() == 3  # the chat, and two messages
    assert set(ids) < {row[0] for row in await store.read(Select("messages", columns=("id",)))}
    write(root / SESSIONS.name / "s-1.json", says("one", user="ada"))
    write(root / MEMORY.name / "ada.json", {"facts": []})
    (root / "conversations" / "yuki" / "export.json").unlink()
    assert await store.replica().rescan() > 0
    assert await chats(store) == {"s-1": ["one"], "chat_history/2023/old": ["before"]}
    assert await memory(store) == {}


async def test_a_change_that_times_do_not_tell_of_is_seen(
    root: Path, store: LegacyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(status: os.stat_result) -> FileState:
        return FileState(status.st_size, status.st_mtime_ns // 10**9 * 10**9, 0, 0)

    monkeypatch.setattr("dal.legacy.scanning.state_of", coarse)
    monkeypatch.setattr("dal.legacy.directories.state_of", coarse)
    for text in ("aaa", "bbb", "ccc"):
        write(root / SESSIONS.name / "s-2.json", says(text))
        await store.replica().rescan()
        assert (await chats(store))["s-2"] == [text]


async def test_a_file_that_cannot_be_taken_in_keeps_its_rows_and_is_named(root: Path, store: LegacyStore) -> None:
    path = root / SESSIONS.name / "s-1.json"
    for text in ("", '{"messages": [{"role": "us', "[7]", '{"messages": [{"role": "user", "content": "\\u0000"}]}'):
        path.write_text(text)
        assert await store.replica().rescan() == 0
        assert (await chats(store))["s-1"] == ["one", "two"]
        (problem,) = await store.replica().obstacles()
        assert problem.startswith("data/chat_sessions/s-1.json: ")
        assert (await store.health()).parts["damaged"] == [problem]
    write(path, says("whole"))
    await store.replica().rescan()
    assert await store.replica().obstacles() == []
    assert (await chats(store))["s-1"] == ["whole"]


async def test_two_files_cannot_hold_one_chat_and_the_second_is_named(root: Path, store: LegacyStore) -> None:
    second = write(root / SESSIONS.name / "other.json", says("mine", chat_id="s-1"))
    await store.replica().rescan()
    assert (await chats(store))["s-1"] == ["one", "two"]
    assert "holds the same chat" in (await store.replica().obstacles())[0]
    (root / SESSIONS.name / "s-1.json").unlink()
    await store.replica().rescan()
    await store.replica().rescan()
    assert (await chats(store))["s-1"] == ["mine"]
    second.rename(second.with_name("renamed.json"))
    while await store.replica().rescan():
        pass
    assert (await chats(store))["s-1"] == ["mine"]


async def test_a_directory_that_vanishes_takes_nothing_with_it(root: Path, store: LegacyStore) -> None:
    before = await chats(store)
    (root / "conversations").rename(root / "elsewhere")
    assert await store.replica().rescan() == 0
    assert await chats(store) == before
    assert "is not there" in (await store.replica().obstacles())[0]


async def test_two_processes_look_one_after_the_other_and_take_each_change_in_once(
    root: Path, store: LegacyStore, opened: Callable[[], LegacyStore]
) -> None:
    other = opened()
    await other.open()
    for number in range(5):
        write(root / SESSIONS.name / f"n-{number}.json", says("one"))
        counts = await asyncio.gather(store.replica().rescan(), other.replica().rescan())
        assert sorted(counts) == [0, 2]
    assert (await chats(other)) == (await chats(store))


async def test_who_finds_another_process_looking_waits_so_long_and_no_longer(
    root: Path, store: LegacyStore, opened: Callable[[], LegacyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy_store, "LOCK_TIMEOUT_S", 0.01)
    with (root / ".dal-move" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DalTimeoutError, match="another process has been looking"):
            await store.replica().rescan()
        other = opened()
        await other.open()
        assert await chats(other) == await chats(store), "what was found before can be read all the same"
    assert await store.replica().rescan() == 0


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_look_that_is_killed_before_it_is_noted_loses_no_trace_of_a_file(
    root: Path, store: LegacyStore, opened: Callable[[], LegacyStore], monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    path = write(root / SESSIONS.name / "s-2.json", says("one"))
    with monkeypatch.context() as patch:
        patch.setattr(Book, "settle", Mock(side_effect=KilledError))
        with pytest.raises(KilledError):
            await store.replica().rescan()
    await store.close()
    if is_gone:
        path.unlink()
    again = opened()
    await again.open()
    assert ("s-2" in await chats(again)) != is_gone
    path.unlink(missing_ok=True)
    await again.replica().rescan()
    assert "s-2" not in await chats(again)


async def test_files_of_other_kinds_are_named_before_a_move(root: Path, store: LegacyStore) -> None:
    (root / "chat_history" / "old.txt").write_text("user: hi")
    assert await store.replica().obstacles() == [
        "chat_history: 1 files are neither .json nor .jsonl, and are not taken"
    ]


async def test_a_directory_that_cannot_be_fenced_is_named_before_a_move(
    root: Path, store: LegacyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "conversations").rename(root / "elsewhere")
    (root / "conversations").symlink_to(root / "elsewhere")
    assert "conversations: is a link" in (await store.replica().obstacles())[0]
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "memory")
    assert "data/memory: is a mount point" in (await store.replica().obstacles())[0]


async def test_nothing_is_written_to_the_files_through_the_library(store: LegacyStore) -> None:
    with pytest.raises(UnsupportedError, match="is written by the programs"):
        await store.commit([Insert("users", rows.user(1))])
    with pytest.raises(UnsupportedError):
        store.transaction()


async def test_a_directory_of_something_else_is_no_legacy_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="data/chat_sessions"):
        await create_store(f"legacy:{tmp_path}").open()
    assert os.listdir(tmp_path) == []
