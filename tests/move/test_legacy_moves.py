"""A legacy directory as the source of a move, while programs that know no library go on writing its files."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from dal import ConflictError, DalTimeoutError, UnsupportedError
from dal.access import DataAccess
from dal.legacy import LegacyStore
from dal.legacy import replica as legacy_replica
from dal.legacy.directories import DIRECTORIES, MEMORY, SESSIONS, FileState, put_away, writers
from dal.move.checking import check
from dal.move.ending import abort, retire
from dal.move.sides import read_gates
from dal.ops import Select
from dal.store import Store
from dal.testing.reaching import reached
from tests.move.legacy_site import chats, memory, move, opened, root, says, site, store, target, write
from tests.move.moving import KilledError, Life, Move, mortal, quick, start

__all__ = ["move", "opened", "quick", "root", "store", "target"]
UNITS = ("memory", "chats", "files", "users", "audit")


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
        for event, follows in zip(under_way.values(), following, strict=True):
            await reached(event, follows)
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


async def test_a_directory_that_vanished_is_not_fenced_as_an_empty_one(root: Path, move: Move) -> None:
    await move.settle()
    (root / "conversations").rename(root / "elsewhere")
    with pytest.raises(ConflictError, match="conversations: is not there"):
        await move.switch("target", "chats")
    assert not (root / "conversations").exists()
    (root / "elsewhere").rename(root / "conversations")
    await move.switch("target", "chats")
    assert (await chats(move.target.store))["conversations/yuki/c-9"] == ["q"]


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
