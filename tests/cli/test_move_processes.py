"""The commands of a move as processes: killed, run again, run twice, told to stop; watched, and rehearsed."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from dal.factory import create_store
from dal.move.mover import Mover
from dal.move.rehearsing import MARK, _is_at_work
from dal.ops import Insert
from dal.replica import Gate, Movable
from dal.testing import rows
from tests.cli.conftest import TIMEOUT_S, Command, command_line, document
from tests.cli.move_stores import ROWS, Stores, counts, gates, make_source, new_user
from tests.engines.d1 import D1Engine
from tests.engines.postgres import PostgresServer

Line = dict[str, Any]
Process = subprocess.Popen[bytes]
MANY = 8_000


@pytest.fixture
def many(stores: Stores) -> Stores:
    """A source that takes a while in small batches."""

    async def fill() -> None:
        store = create_store(stores.source)
        await store.open()
        await store.commit([Insert("users", rows.user(n)) for n in range(1000, 1000 + MANY)])
        await store.close()

    asyncio.run(fill())
    return stores


@pytest.fixture
def begun() -> Iterator[list[Process]]:
    """Processes of this test; those that still run are killed at its end."""
    found: list[Process] = []
    yield found
    for process in found:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def begin(begun: list[Process], *arguments: str) -> Process:
    process = subprocess.Popen(
        command_line("move", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    begun.append(process)
    return process


def lines(process: Process) -> Iterator[Line]:
    """What it prints, as it comes."""
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def copied(line: Line) -> int:
    return sum(unit["copied"] for unit in line["units"])


def begin_and_reach_the_middle(begun: list[Process], stores: Stores) -> Process:
    """A mover that has copied some of the users, and not all; it may go on while this is read."""
    mover = begin(begun, "start", *stores.options, "--json", "--batch-size", "10")
    path = Path(stores.target.removeprefix("sqlite:"))
    while mover.poll() is None:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as target:
            if target.execute("SELECT EXISTS (SELECT 1 FROM users)").fetchone() == (1,):
                return mover
    raise AssertionError("the mover ended")


def test_a_mover_killed_in_the_middle_is_run_again(begun: list[Process], many: Stores, run: Command) -> None:
    mover = begin_and_reach_the_middle(begun, many)
    mover.kill()
    mover.wait(TIMEOUT_S)
    assert 0 < counts(many.target)["users"] < counts(many.source)["users"]
    new_user(many.source, "meanwhile")
    # It says what it knows while nobody works, and goes on where it was when the killed one's lease is over.
    found = document(run("move", "status", *many.options, "--json"))
    assert sum(unit["total"] for unit in found["units"]) >= ROWS + MANY
    again = run("move", "start", *many.options, "--exit-when-verified")
    assert again.exit_code == 0, again.output
    assert counts(many.target) == counts(many.source)
    assert counts(many.source)["users"] > MANY
    assert document(run("move", "check", *many.options, "--json"))["equal"]


def test_two_movers_at_once_do_the_work_of_one(begun: list[Process], stores: Stores) -> None:
    movers = [begin(begun, "start", *stores.options, "--exit-when-verified") for _ in range(2)]
    for mover in movers:
        _, errors = mover.communicate(timeout=TIMEOUT_S)
        assert mover.returncode == 0, errors
        assert b"verified" in errors
    assert counts(stores.target) == counts(stores.source)
    assert len({gate.move for gate in [*gates(stores.source).values(), *gates(stores.target).values()]}) == 1


def test_a_mover_follows_until_it_is_told_to_stop(begun: list[Process], verified: Stores) -> None:
    mover = begin(begun, "start", *verified.options, "--json")
    shown = lines(mover)
    assert next(line for line in shown if line["mover"])["verified"]
    new_user(verified.source, "meanwhile")
    next(line for line in shown if copied(line) > ROWS)
    mover.send_signal(signal.SIGTERM)
    _, errors = mover.communicate(timeout=TIMEOUT_S)
    assert mover.returncode == 0, errors
    assert b"stopped; nothing is copied any more until: dal move start" in errors
    assert counts(verified.target)["users"] == counts(verified.source)["users"]
    assert all(not gate.lease_owner for gate in gates(verified.source).values())


def test_a_mover_stopped_before_it_is_done_says_how_to_go_on(begun: list[Process], many: Stores) -> None:
    mover = begin_and_reach_the_middle(begun, many)
    mover.send_signal(signal.SIGINT)
    _, errors = mover.communicate(timeout=TIMEOUT_S)
    assert mover.returncode == 130
    assert b"interrupted; nothing is lost, go on with: dal move start" in errors
    assert b"Traceback" not in errors


def test_a_mover_ends_when_the_move_does(begun: list[Process], verified: Stores, run: Command) -> None:
    mover = begin(begun, "start", *verified.options, "--json")
    next(line for line in lines(mover) if line["mover"])
    assert run("move", "abort", *verified.options).exit_code == 0
    _, errors = mover.communicate(timeout=TIMEOUT_S)
    assert mover.returncode == 0, errors
    assert b"the move has ended" in errors


def test_sigterm_ends_a_watch(begun: list[Process], verified: Stores) -> None:
    watch = begin(begun, "watch", *verified.options, "--json")
    next(lines(watch))
    watch.send_signal(signal.SIGTERM)
    _, errors = watch.communicate(timeout=TIMEOUT_S)
    assert watch.returncode == 143
    assert errors.splitlines()[-1] == b"dal: terminated"


def test_watch_shows_a_line_for_every_look_and_ends_with_the_move(
    begun: list[Process], verified: Stores, run: Command
) -> None:
    watch = begin(begun, "watch", *verified.options, "--json", "--interval", "0.05")
    shown = lines(watch)
    first, second = next(shown), next(shown)
    assert first["at_ms"] < second["at_ms"]
    new_user(verified.source, "late")
    dirty = next(line for line in shown if any(unit["dirty"] for unit in line["units"]))
    assert [unit["dirty"] for unit in dirty["units"] if unit["unit"] == "users"] == [1]
    assert run("move", "abort", *verified.options).exit_code == 0
    seen = list(shown)
    assert watch.wait(TIMEOUT_S) == 0, watch.stderr and watch.stderr.read()
    assert not seen[-1]["on"]


# Rehearsals ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("swift")
def test_a_rehearsal_goes_through_a_whole_move_and_leaves_nothing(run: Command, stores: Stores) -> None:
    before = counts(stores.source)
    found = document(run("move", "rehearse", "--from", stores.source, "--json"))
    assert list(found["phases_s"]) == ["capture", "copy", "compare", "cutover and rollback", "clean up"]
    assert found["rows"] == ROWS
    assert [one["to"] for one in found["stalls_ms"]] == ["target", "source"] * 5
    assert found["target"].startswith("sqlite:")
    assert not Path(found["target"].removeprefix("sqlite:")).exists()
    assert gates(stores.source) == {}
    assert counts(stores.source) == before
    new_user(stores.source, "afterwards")


def test_a_rehearsal_fences_no_source_that_is_written_to(
    run: Command, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = Mover.step

    async def step(self: Mover, *arguments: Any) -> bool:
        if not self.progress.copied:
            await asyncio.to_thread(new_user, stores.source, "meanwhile")
        return await stepped(self, *arguments)

    monkeypatch.setattr(Mover, "step", step)
    found = document(run("move", "rehearse", "--from", stores.source, "--json"))
    assert found["stalls_ms"] == []
    assert "is being written to" in found["no_cutover_because"]
    assert set(found["drains_ms"]) == {"memory", "chats", "files", "users", "audit"}
    assert gates(stores.source) == {}


def test_a_rehearsal_that_is_broken_off_leaves_nothing(
    begun: list[Process], many: Stores, tmp_path: Path, run: Command
) -> None:
    scratch = f"sqlite:{tmp_path / 'scratch.db'}"
    options = ("--from", many.source, "--scratch", scratch, "--batch-size", "10")
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        rehearsal = begin(begun, "rehearse", *options)
        wait_for_rows(rehearsal, scratch)
        rehearsal.send_signal(number)
        _, errors = rehearsal.communicate(timeout=TIMEOUT_S)
        assert rehearsal.returncode == code, errors
        assert b"Traceback" not in errors
        if number == signal.SIGINT:
            assert gates(many.source) == {}
            Path(scratch.removeprefix("sqlite:")).unlink()
    # Nobody can clean up behind a kill -9: whoever comes next does, once it is surely dead.
    assert gates(many.source)
    assert run("move", "start", "--from", many.source, "--to", many.target).exit_code == 1
    done = run("move", "abort", "--from", many.source)
    assert done.exit_code == 0, done.output
    assert "what a rehearsal left" in done.stderr
    assert gates(many.source) == {}


async def test_the_next_rehearsal_waits_until_the_last_one_is_surely_dead(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.move.rehearsing.MOVE_LEASE_S", 0.4)
    store = create_store(stores.source)
    await store.open()
    assert isinstance(store, Movable)
    replica = store.replica()
    gate = Gate("memory", f"{MARK}1", "source", "primary", 1, 2, "CAPTURE", lease_owner="other", lease_until_ms=1)
    await replica.install([gate])

    async def renew() -> None:
        await asyncio.sleep(0)
        await replica.change_gate("memory", expect={}, change={"lease_until_ms": 2})

    seen = await replica.gates()  # before: what was renewed earlier says nothing
    renewing = asyncio.create_task(renew())
    assert await _is_at_work(replica, seen)
    await renewing
    assert not await _is_at_work(replica, await replica.gates()), "it is renewed no more"
    await replica.uninstall(keep_fence=False)
    await store.close()


def wait_for_rows(process: Process, url: str) -> None:
    """Until the process has copied the first rows."""
    while process.poll() is None:
        with suppress(Exception):
            if counts(url)["users"]:
                return
    raise AssertionError(process.communicate())


def test_a_rehearsal_wants_an_empty_scratch_store(run: Command, stores: Stores, sqlite_with_schema: Path) -> None:
    other = make_source(sqlite_with_schema, Path("other.db"))
    refused = run("move", "rehearse", "--from", stores.source, "--scratch", other)
    assert refused.exit_code == 2
    assert "is not empty" in refused.stderr
    assert gates(stores.source) == {}


# Other engines -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["postgresql", "d1", "file"])
def other(
    request: pytest.FixtureRequest, stores: Stores, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> Stores:
    """From SQLite to another engine, which has its schema."""
    if request.param == "file":
        return stores._replace(target=f"file:{tmp_path / 'files'}")
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create_database()
    else:
        engine: D1Engine = request.getfixturevalue("d1_engine")
        database = engine.create_database()
        for name, value in database.environment.items():
            monkeypatch.setenv(name, value)
        url = database.url
    assert run("schema", "up", "--url", url).exit_code == 0
    return stores._replace(target=url)


@pytest.mark.usefixtures("swift")
def test_a_move_to_another_engine_and_back(run: Command, other: Stores) -> None:
    assert document(run("move", "plan", *other.options, "--json"))["ok"]
    started = run("move", "start", *other.options, "--exit-when-verified")
    assert started.exit_code == 0, started.output
    there = run("move", "cutover", *other.options)
    assert there.exit_code == 0, there.output
    new_user(other.target, "on the target")
    back = run("move", "rollback", *other.options)
    assert back.exit_code == 0, back.output
    assert counts(other.source) == counts(other.target)
    assert document(run("move", "check", *other.options, "--json"))["equal"]
    assert run("move", "abort", *other.options).exit_code == 0
    assert gates(other.source) == gates(other.target) == {}
