"""A legacy directory as the source of a move, while programs that know no library go on writing its files."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest
import pytest_asyncio

from dal import ConfigurationError, ConflictError, DalTimeoutError, UnsupportedError
from dal.access import DataAccess
from dal.factory import create_store
from dal.legacy import LegacyStore
from dal.legacy import replica as legacy_replica
from dal.legacy import store as legacy_store
from dal.legacy.book import Book
from dal.legacy.directories import DIRECTORIES, MEMORY, SESSIONS, FileState, put_away, writers
from dal.move.checking import check
from dal.move.ending import abort, retire
from dal.move.sides import read_gates
from dal.ops import Insert, JsonValue, Select
from dal.store import Store
from dal.testing import rows
from tests.move.moving import KilledError, Life, Move, mortal, quick, start
from tests.move.replicas import Site

__all__ = ["quick"]
UNITS = ("memory", "chats", "files", "users", "audit")


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


# -- what the files mean


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


async def test_a_directory_that_vanished_is_not_fenced_as_an_empty_one(root: Path, move: Move) -> None:
    await move.settle()
    (root / "conversations").rename(root / "elsewhere")
    with pytest.raises(ConflictError, match="conversations: is not there"):
        await move.switch("target", "chats")
    assert not (root / "conversations").exists()
    (root / "elsewhere").rename(root / "conversations")
    await move.switch("target", "chats")
    assert (await chats(move.target.store))["conversations/yuki/c-9"] == ["q"]


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


# -- a move


async def test_nothing_that_others_write_is_lost_and_behind_the_fence_they_fail(
    root: Path, store: LegacyStore, target: Store, move: Move
) -> None:
    names = ("w1", "w2")
    told: dict[str, list[list[str]]] = {}

    loop, under_way = asyncio.get_running_loop(), {name: asyncio.Event() for name in names}

    def follow(name: str, program: subprocess.Popen[str]) -> None:
        assert program.stdout is not None
        lines = told.setdefault(name, [])
        for line in program.stdout:
            lines.append(line.split())
            if len(lines) == 30:
                loop.call_soon_threadsafe(under_way[name].set)

    programs = {
        name: subprocess.Popen(  # noqa: ASYNC220  # they end by themselves
            [sys.executable, "-m", "tests.move.legacy_writer", str(root), name], stdout=subprocess.PIPE, text=True
        )
        for name in names
    }
    try:
        following = [asyncio.create_task(asyncio.to_thread(follow, *item)) for item in programs.items()]
        await move.mover().run(lambda gates: all(found.phase == "VERIFIED" for found in gates.values()))
        for event in under_way.values():
            await event.wait()
        for unit in UNITS:
            await _switched(move, unit)
        await asyncio.gather(*following)
    finally:
        for program in programs.values():
            program.kill()
            program.wait()
            assert program.stdout is not None
            program.stdout.close()
    found, items = await chats(target), await memory(target)
    users = {str(row[1]): row[0] for row in await target.read(Select("users", columns=("id", "clerk_id")))}
    for name in names:
        done = [line for line in told[name] if line[0] not in ("ready", "refused")]
        assert len(done) > 20
        assert {line[1] for line in told[name] if line[0] == "refused"} <= {"NotADirectoryError"}
        written = {kind: [f"mark {line[1]}" for line in done if line[0] == kind] for kind, _ in done}
        assert found[f"lines-{name}"] == written["lines"]
        assert found[name] == written["document"]
        removed = {f"mark {int(line[1]) - 1}" for line in done if line[0] == "removal"}
        exported = [texts[0] for chat, texts in found.items() if chat.startswith(f"conversations/{name}/")]
        assert sorted(exported) == sorted(set(written["export"]) - removed)
        assert name in users
    assert items["facts", "0001"] in {f"mark {line[1]}" for name in names for line in told[name] if line[0] == "memory"}
    assert (await check(store, target, mode="deep")).differences == 0
    assert all((root / directory.name).is_file() for directory in DIRECTORIES)
    await retire(move.sides)
    assert await chats(store) == await chats(target), "and what was moved away can be read"


async def _switched(move: Move, unit: str) -> None:
    """Switches the unit, whatever others have open at the moment."""
    for _ in range(20):
        with suppress(ConflictError, DalTimeoutError):
            await move.cutover().switch(unit, "target")
            return
    await move.cutover().switch(unit, "target")


async def test_a_program_that_has_a_file_open_holds_the_fence_up_and_loses_nothing(
    root: Path, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy_replica, "LEGACY_FENCE_S", 0.05)
    monkeypatch.setattr("dal.move.cutover.MOVE_FENCE_TRIES", 2)
    await move.settle()
    path = root / SESSIONS.name / "late.jsonl"
    with path.open("a") as file:
        with pytest.raises(DalTimeoutError, match=r"has data/chat_sessions/late\.jsonl open for writing"):
            await move.switch("target", "memory", "chats")
        assert (root / SESSIONS.name).is_dir(), "and its directories are back"
        file.write('{"role": "user", "content": "late"}\n')
    await move.settle()
    await move.switch("target", "chats")
    assert (await chats(move.target.store))["late"] == ["late"]
    assert (root / SESSIONS.name).is_file()


async def test_what_was_opened_before_the_fence_and_closed_behind_it_is_taken_in(
    root: Path, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move.settle()
    file = (root / SESSIONS.name / "s-2.jsonl").open("a")

    def then_written(paths: list[str], give_up: float, states: dict[str, FileState]) -> str | None:
        found = writers(paths, give_up, states)
        if found is not None:
            assert (root / SESSIONS.name).is_file()
            file.write('{"role": "user", "content": "late"}\n')
            file.close()
        return found

    monkeypatch.setattr(legacy_replica, "writers", then_written)
    await move.switch("target", "chats")
    assert file.closed
    assert (await chats(move.target.store))["s-2"] == ["late"]


async def test_writers_are_told_by_the_kernel(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("x")
    path, other = str(tmp_path / "a"), str(tmp_path / "b")
    with (tmp_path / "a").open("r"):
        assert writers([other, path, str(tmp_path / "missing")]) is None
    with (tmp_path / "a").open("a"):
        assert writers([other, path]) == path
        assert writers([path, other], 0.0) == path, "however late it is, the first one is asked"
        assert writers([other, path], 0.0) is None
    assert writers([other, path]) is None


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


async def test_a_legacy_directory_is_no_target(store: LegacyStore, target: Store) -> None:
    with pytest.raises(UnsupportedError, match="can only be moved from"):
        await start(site(target), site(store))
    assert await store.replica().gates() == {}


async def test_a_damaged_file_holds_the_fence_up_and_the_directories_come_back(root: Path, move: Move) -> None:
    await move.settle()
    path = root / MEMORY.name / "torn.json"
    path.write_text('{"facts": ["a"')
    with pytest.raises(ConflictError, match="1 files cannot be taken in"):
        await move.switch("target", "memory")
    assert (root / MEMORY.name).is_dir()
    path.write_text('{"facts": ["a"]}')
    await move.settle()
    await move.switch("target", "memory")
    assert await move.differences("memory") == 0


async def test_users_are_switched_after_what_brings_them(move: Move) -> None:
    await move.settle()
    with pytest.raises(ConflictError, match="chats, memory must be switched before"):
        await move.switch("target", "users")
    await move.switch("target", "memory", "chats", "users")


async def test_no_rollback_leads_back_to_files_and_that_is_said_at_once(root: Path, move: Move) -> None:
    await move.settle()
    await move.switch("target", "memory")
    with pytest.raises(UnsupportedError, match="nothing is written back"):
        await move.switch("source", "memory")
    gates = await read_gates(move.sides)
    assert gates["memory"].primary == "target"
    with pytest.raises(UnsupportedError):
        await move.sides.source.change_gate("memory", expect={}, change={"role": "primary"})
    assert (root / MEMORY.name).is_file()


async def test_what_the_target_takes_is_copied_to_the_image_so_that_a_check_goes_on(move: Move) -> None:
    await move.settle()
    await move.switch("target", *UNITS)
    dal = DataAccess(move.target.store)
    await dal.messages.add("s-1", "user", "three")
    await move.settle()
    assert (await check(move.source.store, move.target.store, mode="deep")).differences == 0
    assert (await chats(move.source.store))["s-1"] == ["one", "two", "three"]


async def test_a_pilot_of_memory_alone_leaves_the_chats_to_their_programs(
    root: Path,
    store: LegacyStore,
    target: Store,
    quick: None,
) -> None:
    move = await start(site(store), site(target), "memory", "users")
    await move.settle()
    await move.switch("target", "memory", "users")
    assert [(root / d.name).is_file() for d in DIRECTORIES] == [True, False, False, False]
    write(root / SESSIONS.name / "s-9.json", says("on", user="new"))
    assert await store.replica().rescan() == 0


@pytest.mark.parametrize("is_fenced", [True, False])
async def test_a_fence_half_way_is_put_right_by_whoever_opens_the_directory(
    root: Path, store: LegacyStore, move: Move, opened: Callable[[], LegacyStore], is_fenced: bool
) -> None:
    await move.settle()
    if is_fenced:
        await move.sides.source.change_gate("memory", expect={}, change={"role": "fenced"})
        (root / MEMORY.name).unlink()
        MEMORY.away(root).rename(root / MEMORY.name)
    else:
        put_away(root, MEMORY)
    await store.close()
    again = opened()
    await again.open()
    assert (root / MEMORY.name).is_file() == is_fenced
    assert await memory(again) != {}


async def test_an_overdue_fence_is_taken_back_and_the_files_are_back(root: Path, move: Move) -> None:
    await move.settle()
    gate = (await move.sides.source.gates())["chats"]
    await move.sides.source.change_gate("chats", expect={}, change={"role": "fenced", "phase": "FENCED"})
    assert (root / SESSIONS.name).is_file()
    gates = await move.rescue()
    assert gates["chats"].primary == "source"
    assert gates["chats"].source.epoch > gate.epoch
    write(root / SESSIONS.name / "s-3.json", says("on"))
    await move.settle()
    assert await move.differences() == 0
    await move.switch("target")


async def test_a_cutover_that_is_killed_at_any_call_leaves_one_primary_and_the_files_where_it_is(
    root: Path, move: Move
) -> None:
    path = root / SESSIONS.name / "lines.jsonl"
    written: list[str] = []
    deaths = 0
    for number in count(1):
        await move.settle()
        with path.open("a") as file:
            file.write(json.dumps({"role": "user", "content": f"mark {number}"}) + "\n")
        written.append(f"mark {number}")
        life = Life(number, answered=number % 2 == 0)
        with suppress(KilledError):
            await move.cutover(mortal(move.sides, life)).switch("chats", "target")
        gates = await move.rescue()
        assert gates["chats"].primary is not None
        assert (root / SESSIONS.name).is_dir() == (gates["chats"].primary == "source")
        deaths += life.is_over
        if gates["chats"].primary == "target":
            break
    assert deaths > 10
    await move.settle()
    assert (await chats(move.target.store))["lines"] == written


async def test_an_aborted_move_leaves_the_files_as_they_are(root: Path, move: Move) -> None:
    await move.settle()
    await abort(move.sides)
    assert await move.sides.source.gates() == {}
    assert json.loads((root / SESSIONS.name / "s-1.json").read_text())["messages"][0]["content"] == "one"
