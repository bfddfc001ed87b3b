"""The cutover: one compare-and-set decides, whoever dies, and nobody's write is lost on either side of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import pytest
import pytest_asyncio

from dal.errors import ConflictError, CorruptDataError, FencedError, UnavailableError
from dal.limits import MOVE_FENCE_S
from dal.move.cutover import Cutover
from dal.move.patience import Patience
from dal.move.recovery import KNOWN, announced_s, complete, recover
from dal.move.relay import copy_dirty
from dal.move.sides import Side, UnitGates, read_gates
from dal.ops import Compare, Delete, Update, Value
from dal.replica import EPOCH, UNITS, Entry
from dal.testing import rows
from dal.testing.reaching import reached
from tests.move.moving import ALL, KilledError, Life, Move, Waited, mortal, quick, start
from tests.move.replicas import MakeSite

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")
#: More calls than a cutover of a small unit makes.
MANY = 60


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest_asyncio.fixture
async def move(make_site: MakeSite) -> Move:
    """A move from SQLite to SQLite with a few rows, ready to be switched."""
    source, target = await make_site("sqlite"), await make_site("sqlite")
    await source.insert("users", rows.user(1), rows.user(2))
    await source.insert("chat_sessions", rows.chat(3, user_id=rows.row_id(1)))
    await source.store.commit(rows.append(4, 3))
    await source.insert("user_memory", rows.memory(5, 1))
    made = await start(source, target)
    await made.settle()
    return made


def primaries(gates: Mapping[str, UnitGates]) -> set[Side | None]:
    return {found.primary for found in gates.values()}


async def test_every_unit_switches_and_comes_back(move: Move) -> None:
    await move.switch("target")
    assert primaries(await read_gates(move.sides)) == {"target"}
    with pytest.raises(FencedError):
        await move.source.insert("users", rows.user(9))
    await move.target.insert("users", rows.user(6))
    await move.settle()
    await move.switch("source")
    assert primaries(await read_gates(move.sides)) == {"source"}
    assert await move.differences() == 0
    assert len(await move.source.rows("users")) == 3
    await move.source.insert("users", rows.user(9))
    with pytest.raises(FencedError):
        await move.target.insert("users", rows.user(10))


async def test_what_was_written_before_the_fence_is_there_behind_it(move: Move) -> None:
    await move.source.insert("user_memory", *(rows.memory(20 + n, 1, key=f"k{n}") for n in range(50)))
    report = await move.cutover().switch("memory", "target")
    assert len(await move.target.rows("user_memory")) == 51
    assert await move.differences("memory") == 0
    assert report.epoch == 2
    assert report.stall_ms > report.fence_ms > 0


async def test_versions_of_a_later_primary_are_newer_than_any_before(move: Move) -> None:
    at = (await move.source.entry("user_memory", rows.row_id(5))).version
    for epoch, to in ((2, "target"), (3, "source"), (4, "target")):
        await move.switch(to, "memory")  # type: ignore[arg-type]
        site = move.target if to == "target" else move.source
        await site.store.commit([Update("user_memory", {"id": rows.row_id(5)}, {"value": epoch})])
        now = (await site.entry("user_memory", rows.row_id(5))).version
        assert now > at
        assert now // EPOCH == epoch
        at = now
        await move.settle()


async def test_a_unit_that_is_not_verified_is_not_switched(make_site: MakeSite) -> None:
    move = await start(await make_site("sqlite"), await make_site("sqlite"))
    with pytest.raises(ConflictError, match="CAPTURE"):
        await move.switch("target", "memory")
    assert primaries(await read_gates(move.sides)) == {"source"}


async def test_a_unit_is_not_switched_to_where_it_lives(move: Move) -> None:
    with pytest.raises(ConflictError, match="already"):
        await move.switch("source", "memory")


async def test_without_a_move_there_is_nothing_to_switch(make_site: MakeSite) -> None:
    move = await start(await make_site("sqlite"), await make_site("sqlite"), "users", "memory")
    with pytest.raises(ConflictError, match="no move"):
        await move.switch("target", "audit")


async def test_a_difference_in_the_registries_stops_the_switch(move: Move) -> None:
    await move.target.raw(f"UPDATE dal_sync SET hash = 1 WHERE pk = '{rows.row_id(5)}'")
    await move.source.raw(f"UPDATE dal_sync SET state = 1 WHERE pk = '{rows.row_id(5)}'")
    with pytest.raises(CorruptDataError, match="user_memory"):
        await move.switch("target", "memory")
    assert primaries(await read_gates(move.sides)) == {"source"}
    await move.source.insert("user_memory", rows.memory(7, 1, key="still open"))


async def test_rows_that_cannot_be_copied_stop_the_switch(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.move.cutover.MOVE_DRAIN_S", 5.0)
    # A row of the target that the source knows nothing of holds the unique key.
    await move.target.raw("UPDATE dal_gate SET role = 'primary' WHERE unit = 'memory'")
    await move.target.insert("user_memory", rows.memory(30, 2, key="taken"))
    await move.target.raw("UPDATE dal_gate SET role = 'replica' WHERE unit = 'memory'", "UPDATE dal_sync SET state = 0")
    await move.source.insert("user_memory", rows.memory(31, 2, key="taken"))
    with pytest.raises(UnavailableError, match="cannot be copied"):
        await move.switch("target", "memory")
    assert primaries(await read_gates(move.sides)) == {"source"}


async def test_rows_that_a_mover_copies_behind_the_fence_stop_no_switch(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables_with = move.sides.source.tables_with
    is_fenced = asyncio.Event()

    async def and_then_a_mover_copies(state: Literal["dirty", "copied"]) -> frozenset[str]:
        found = await tables_with(state)
        if not is_fenced.is_set() and (await move.sides.source.gates())["memory"].role == "fenced":
            is_fenced.set()
            assert "user_memory" in found
            await copy_dirty(move.sides.source, move.sides.target, "user_memory", 100, frozenset(ALL))
        return found

    monkeypatch.setattr(move.sides.source, "tables_with", and_then_a_mover_copies)
    change_gate = move.sides.source.change_gate

    async def a_last_write_then_the_fence(
        unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]
    ) -> bool:
        if change.get("role") == "fenced":
            await move.source.insert("user_memory", rows.memory(40, 1, key="the last before the fence"))
        return await change_gate(unit, expect=expect, change=change)

    monkeypatch.setattr(move.sides.source, "change_gate", a_last_write_then_the_fence)
    await move.switch("target", "memory")
    assert is_fenced.is_set()
    assert len(await move.target.rows("user_memory")) == 2
    assert await move.differences() == 0


@pytest.mark.parametrize("answered", [False, True], ids=["before", "behind"])
async def test_a_mover_killed_at_any_call_leaves_one_primary_and_every_row(move: Move, answered: bool) -> None:
    ends: set[Side | None] = set()
    for number in range(1, MANY):
        await move.source.insert("user_memory", rows.memory(100 + number, 1, key=f"before {number}"))
        life = Life(number, answered=answered)
        with suppress(KilledError):
            await move.cutover(mortal(move.sides, life)).switch("memory", "target")
        gates = await move.rescue()
        primary = gates["memory"].primary
        assert primary is not None, f"stuck after call {number} ({life.calls[-1]})"
        ends.add(primary)
        site = move.source if primary == "source" else move.target
        await site.insert("user_memory", rows.memory(200 + number, 1, key=f"after {number}"))
        await move.settle()
        assert await move.differences() == 0
        assert len(await site.rows("user_memory")) == 1 + 2 * number
        if not life.is_over:
            break
        if primary == "target":
            await move.switch("source", "memory")
            await move.settle()
    assert not life.is_over, "it came to its end at last"
    assert ends == {"source", "target"}, "it dies on both sides of the point of no return"


async def test_a_zombie_cannot_activate_what_was_taken_back(move: Move) -> None:
    stopped, go_on = asyncio.Event(), asyncio.Event()
    change_gate = move.sides.target.change_gate

    async def stop_before(unit: str, **named: object) -> bool:
        if dict(named["change"]).get("role") == "primary":  # type: ignore[call-overload]
            stopped.set()
            await go_on.wait()
        return await change_gate(unit, **named)  # type: ignore[arg-type]

    zombie_sides = mortal(move.sides, Life())
    zombie_sides.target.change_gate = stop_before  # type: ignore[method-assign]
    zombie = asyncio.create_task(move.cutover(zombie_sides).switch("memory", "target"))
    await reached(stopped, zombie)
    with pytest.raises(FencedError):
        await move.source.insert("user_memory", rows.memory(40, 1, key="fenced"))
    assert primaries(await move.rescue()) == {"source"}
    await move.source.insert("user_memory", rows.memory(41, 1, key="acknowledged"))
    go_on.set()
    with pytest.raises(ConflictError, match="taken back"):
        await zombie
    gates = await read_gates(move.sides)
    assert primaries(gates) == {"source"}
    await move.settle()
    await move.switch("target", "memory")
    assert len(await move.target.rows("user_memory")) == 2
    assert gates["memory"].source.epoch > 1


class Hours:
    """A clock that shows what a test says; sleep() moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def _fence(move: Move) -> None:
    change: dict[str, Value] = {"role": "fenced", "phase": "FENCED"}
    assert await move.sides.source.change_gate("memory", expect={"role": "primary"}, change=change)


async def test_a_fence_is_taken_back_by_who_has_seen_it_for_long_enough(move: Move) -> None:
    hours = Hours()
    observer = Patience(hours)
    await _fence(move)
    gates = (await read_gates(move.sides))["memory"]
    assert not await recover(move.sides, gates, observer), "it is seen for the first time"
    hours.now += MOVE_FENCE_S - 0.1
    assert not await recover(move.sides, gates, observer)
    hours.now += 0.2
    assert not await recover(move.sides, gates, Patience(hours)), "whoever comes only now has to wait as well"
    assert await recover(move.sides, gates, observer)
    assert primaries(await read_gates(move.sides)) == {"source"}
    await _fence(move)
    gates = (await read_gates(move.sides))["memory"]
    assert not await recover(move.sides, gates, observer), "this is another fence"


async def test_an_announcement_is_waited_out_anew_each_time(move: Move) -> None:
    hours = Hours()
    observer, cutover = Patience(hours), move.cutover()
    for _ in range(3):
        await cutover._announce("memory", (await read_gates(move.sides))["memory"].source)
        for pause_s in (0.0, announced_s() - 0.1):
            hours.now += pause_s
            assert not await recover(move.sides, (await read_gates(move.sides))["memory"], observer)
        hours.now += 0.2
        assert await recover(move.sides, (await read_gates(move.sides))["memory"], observer)


@pytest.mark.parametrize("off_s", [86_400.0, -86_400.0])
async def test_a_wall_clock_gone_wrong_takes_nothing_back(
    move: Move, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    await move.cutover()._announce("chats", (await read_gates(move.sides))["chats"].source)
    await _fence(move)
    monkeypatch.setattr("dal.move.sides.time", lambda: time.time() + off_s)
    mover = move.mover()
    await mover.step(await read_gates(move.sides))
    gates = await read_gates(move.sides)
    assert (gates["memory"].fenced, gates["chats"].phase) == ("source", "ANNOUNCED")


async def test_a_switch_waits_until_every_instance_knows_of_the_move(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.move.cutover.GATE_IDLE_AGE_S", 5.0)
    hours = Hours()
    cutover = Cutover(move.sides, batch_rows=100, patience=Patience(hours), sleep=hours.sleep)
    await cutover._ready("memory", "target")
    assert hours.slept == [5.0]
    await cutover._ready("chats", "target")
    assert hours.slept == [5.0], "it is the same move"
    # A mover that has seen the move for so long says so, and nobody waits any more.
    monkeypatch.setattr("dal.move.mover.GATE_IDLE_AGE_S", 5.0)
    mover = move.mover(patience=Patience(hours))
    await mover.step(await read_gates(move.sides))
    assert KNOWN not in (await read_gates(move.sides))["memory"].source.notes
    hours.now += 5.0
    await mover.step(await read_gates(move.sides))
    hours.slept.clear()
    await Cutover(move.sides, batch_rows=100, patience=Patience(hours), sleep=hours.sleep)._ready("memory", "target")
    assert hours.slept == []


async def test_a_cutover_that_was_killed_is_waited_for_and_taken_back_by_the_next(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.move.recovery.MOVE_FENCE_S", 0.1)
    await _fence(move)
    report = await move.cutover().switch("memory", "target")
    assert report.epoch > 2, "the epoch of the one that was killed is burnt"


async def test_taking_back_twice_at_once_ends_in_one_state(move: Move) -> None:
    await _fence(move)
    gates = await read_gates(move.sides)
    await asyncio.gather(*(recover(move.sides, gates["memory"], Waited()) for _ in range(8)))
    found = (await read_gates(move.sides))["memory"]
    assert found.primary == "source"
    assert found.target.next_epoch == found.source.epoch + 1


async def test_gates_of_two_moments_do_not_undo_a_later_switch(move: Move) -> None:
    before = (await read_gates(move.sides))["memory"]
    await move.switch("target", "memory")
    await move.settle()
    await move.sides.target.change_gate(
        "memory",
        expect={"role": "primary"},
        change={"role": "fenced", "phase": "FENCED"},
    )
    now = (await read_gates(move.sides))["memory"]
    mixed = UnitGates(before.source, now.target)  # the source was read before the first switch, the target behind it
    assert mixed.holder == "target"
    assert not await recover(move.sides, mixed, Patience())
    assert not await complete(move.sides, "target", now.target, before.source)
    assert (await read_gates(move.sides))["memory"] == now


async def test_a_fence_is_for_its_own_announcement_alone(move: Move) -> None:
    withdrawn = asyncio.Event()

    async def withdraw_and_announce_again(pause_s: float) -> None:
        if withdrawn.is_set():
            return
        withdrawn.set()
        await move.rescue()  # it was overdue
        await move.sides.source.change_gate(
            "memory", expect={"phase": "VERIFIED"}, change={"phase": "ANNOUNCED", "turn": 9}
        )

    cutover = Cutover(move.sides, batch_rows=100, sleep=withdraw_and_announce_again)
    with pytest.raises(ConflictError, match="somebody else"):
        await cutover.switch("memory", "target")
    found = (await read_gates(move.sides))["memory"]
    assert (found.primary, found.phase, found.source.turn) == ("source", "ANNOUNCED", 9)


async def test_two_cutovers_at_once_switch_the_unit_once(move: Move) -> None:
    results = await asyncio.gather(
        *(move.cutover().switch("memory", "target") for _ in range(3)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, ConflictError) for result in results if isinstance(result, BaseException))
    found = (await read_gates(move.sides))["memory"]
    assert (found.primary, found.target.epoch) == ("target", 2)


async def test_an_old_transaction_keeps_the_fence_away(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    async def old() -> float:
        return 5.0

    monkeypatch.setattr(move.sides.source, "oldest_writer_s", old)
    with pytest.raises(ConflictError, match=r"5\.0 s"):
        await move.switch("target", "memory")


async def test_ten_cutovers_forth_and_back_keep_every_write(move: Move) -> None:
    stop, written = asyncio.Event(), 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            gates = (await read_gates(move.sides))["memory"]
            site = move.target if gates.holder == "target" else move.source
            try:
                await site.insert("user_memory", rows.memory(1000 + written, 1, key=f"w{written}"))
            except FencedError:
                await asyncio.sleep(0)
            else:
                written += 1

    writing = asyncio.create_task(write())
    for number in range(10):
        await move.switch("source" if number % 2 else "target", "memory")
    stop.set()
    await writing
    await move.settle()
    assert len(await move.source.rows("user_memory")) == 1 + written
    assert await move.differences() == 0
    assert written > 10


async def test_writers_who_are_faster_than_copies_are_not_waited_for_longer_than_allowed(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.move.cutover.MOVE_CATCH_UP_S", 0.2)
    await move.source.insert("user_memory", *(rows.memory(20 + n, 1, key=f"k{n}") for n in range(10)))
    await move.settle()
    dirty, ids = move.sides.source.dirty, [rows.row_id(20 + n) for n in range(10)]

    async def always_more(table: str, limit: int) -> list[Entry]:
        if table == "user_memory":
            await move.sides.source.raise_versions(table, ids)
        return await dirty(table, limit)

    monkeypatch.setattr(move.sides.source, "dirty", always_more)
    await move.sides.source.raise_versions("user_memory", ids)
    async with asyncio.timeout(30):
        with pytest.raises(UnavailableError, match="does not drain"):
            await Cutover(move.sides, batch_rows=1).switch("memory", "target")
    assert primaries(await read_gates(move.sides)) == {"source"}


async def test_a_delete_stays_deleted_through_both_directions(move: Move) -> None:
    await move.switch("target")
    await move.target.store.commit([Delete("users", (Compare("id", "=", rows.row_id(1)),))])
    await move.settle()
    assert await move.source.rows("user_memory") == []
    await move.switch("source", *reversed(ALL))
    assert await move.differences() == 0
    assert len(await move.source.rows("users")) == 1
    assert len(UNITS) == len(ALL)
