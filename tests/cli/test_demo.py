"""`dal demo`: old data to files, files to SQLite under writes, there and back; and how it tells what is lost."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

import dal.move
from dal import create_data_access
from dal.cli import demo_move
from dal.cli.demo_writers import Ledger, Writers, missing, text_of
from dal.cli.move.stores import Places
from tests.cli.conftest import Command, command_line
from tests.torture.pace import SHORT

CHATS = 42


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writers and the mover of a demo share a process, so all of them agree."""
    for found in pkgutil.iter_modules(dal.move.__path__, "dal.move."):
        module = importlib.import_module(found.name)
        for name, value in SHORT.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(demo_move, "GATE_IDLE_AGE_S", SHORT["GATE_IDLE_AGE_S"])
    monkeypatch.setattr(demo_move, "_BETWEEN_S", 0.1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "kept place"


@pytest.fixture
def demo(run: Command, place: Path) -> Callable[[], Result]:
    return lambda: run("demo", "--keep", str(place), "--chats", str(CHATS))


def lines(result: Result, label: str) -> list[str]:
    """What the demo says under this label."""
    return [line.strip() for line in re.findall(rf"^  {label} (.*)$", result.stdout, re.MULTILINE)]


def test_the_demo_moves_under_writes_and_what_it_says_to_try_works(demo: Callable[[], Result], run: Command) -> None:
    done = demo()
    assert done.exit_code == 0, done.output
    assert f"{CHATS} chats" in done.stdout
    assert f"refused, line {CHATS + 1} (broken-1)" in done.stdout
    assert [line.split()[0] for line in lines(done, "rollback")] == ["chats", "memory"]
    switched = [line.split()[0] for line in lines(done, "cutover")]
    assert switched == ["memory", "chats", "files", "users", "audit", "memory", "chats"]
    assert all(re.search(r"fenced for \d+ ms", line) for line in lines(done, "cutover"))
    assert len(lines(done, "checked")) == 2
    assert all(", 0 differ" in line for line in lines(done, "checked"))
    (writers,) = lines(done, "writers")
    answered = re.match(r"([\d,]+) calls answered, 0 failed", writers)
    assert answered is not None
    assert int(answered[1].replace(",", "")) > 20
    for shown in ("鶏肉のおいしいお店", "Likes mechanical calculators.", "get_user_by_id"):
        assert shown in done.stdout
    commands = [shlex.split(line) for line in re.findall(r"^  (\S.* --(?:url|from) .*)$", done.stdout, re.MULTILINE)]
    assert len(commands) == 7
    started = command_line()
    assert all(arguments[: len(started)] == started for arguments in commands)
    for arguments in commands:
        tried = run(*arguments[len(started) :])
        assert tried.exit_code == 0, (arguments, tried.output)


def test_what_is_lost_is_told_and_a_demo_goes_on_in_the_same_place_until_its_move_is_retired(
    demo: Callable[[], Result], run: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(demo_move, "move", damaging(place))
        done = demo()
    assert done.exit_code == 1
    said, remembered, old = lines(done, "LOST")
    assert "messages 0 are missing" in said
    assert "was to be remembered" in remembered
    assert old == "conversations.jsonl.gz: 5 rows of it were not there any more"
    assert [line.split(": ")[1] for line in lines(done, "FAILED")] == ["a call that raised"]
    assert not lines(done, "in SQLite")

    again = demo()
    assert again.exit_code == 0, again.output
    assert f"{CHATS} records were there already" in again.stdout
    assert lines(again, "cutover")[0] == "memory, chats, files, users, audit: on SQLite already"

    both = ("--from", f"file:{place / 'data'}", "--to", f"sqlite:{place / 'demo.db'}")
    assert run("move", "retire", *both, "--yes").exit_code == 0
    third = demo()
    assert third.exit_code == 1
    assert "name another directory" in third.stderr


def damaging(place: Path) -> Callable[..., Awaitable[bool]]:
    """The demo's move, after which things are done to its target."""
    move = demo_move.move

    async def moved_and_damaged(out: Console, places: Places, writers: Writers) -> bool:
        is_equal = await move(out, places, writers)
        first, second, third = writers.ledgers[:3]
        third.fail("a call that raised")
        async with create_data_access(f"sqlite:{place / 'demo.db'}") as dal:
            await dal.chats.delete("demo-1-ada-0")
            await dal.messages.add(first.name, "user", "not the writer's")
            await dal.memory.set(second.user_id, "demo", "topic 0", -1)
        return is_equal

    return moved_and_damaged


async def test_a_write_that_was_acknowledged_and_is_not_there_is_found() -> None:
    async with create_data_access("memory://") as dal:
        user = await dal.users.create(name="w")
        await dal.chats.create("w", user_id=user.id)
        for number in (1, 2, 3):
            await dal.messages.add("w", "user", text_of("w", number))
        await dal.memory.set(user.id, "demo", "topic 0", 7)
        ledger = Ledger("w", user.id, messages=3, memory={"topic 0": 7})
        assert await missing(dal, [ledger]) == []
        assert await missing(dal, [replace(ledger, messages=4)]) == ["w: of 4 messages 1 are missing, 3 are there"]
        forgotten = await missing(dal, [replace(ledger, memory={})])
        assert forgotten == ["w: {} was to be remembered, {'topic 0': 7} is"]
        # What failed may have happened or not: more than was acknowledged is no loss then.
        assert await missing(dal, [replace(ledger, messages=2, failed=1)]) == []
        assert await missing(dal, [replace(ledger, messages=4, failed=1)]) != []
