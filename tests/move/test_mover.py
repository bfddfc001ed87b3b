"""The mover: from capture to verified while everybody writes, killed and run again, one at work of many."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

import pytest

from dal.errors import ConflictError, DalError
from dal.limits import MOVE_LEASE_S
from dal.move.ending import abort, retire
from dal.move.mover import _Checking, begin
from dal.move.patience import Patience
from dal.move.sides import Sides, UnitGates, now_ms, read_gates, with_parents
from dal.ops import Compare, Delete, Update, Value
from dal.replica import UNITS, Copied, Replica, Unregistered
from dal.testing import rows
from tests.move.moving import ALL, MANY_ROWS, KilledError, Life, Waited, backend, mortal, quick, source, start, target
from tests.move.replicas import Site

__all__ = ["backend", "quick", "source", "target"]

pytestmark = pytest.mark.usefixtures("quick")


def phases(gates: Mapping[str, UnitGates]) -> set[str]:
    return {found.phase for found in gates.values()}


async def test_rows_from_before_the_move_are_copied(source: Site, target: Site) -> None:
    move = await start(source, target)
    mover = move.mover(batch_rows=64)
    await mover.run(lambda gates: phases(gates) == {"VERIFIED"})
    assert await move.differences() == 0
    assert mover.progress.copied["messages"] == MANY_ROWS
    assert len(await target.rows("messages")) == MANY_ROWS


async def test_a_quiet_round_asks_for_no_table_by_itself(source: Site, target: Site) -> None:
    move = await start(source, target)
    gates = await move.settle()
    life = Life()
    mover = move.mover(mortal(move.sides, life))
    await mover.step(gates)
    asked = life.calls.copy()
    assert asked.count("tables_with") == 2 + len(UNITS)  # one for the tail of each unit, now and then
    life.calls.clear()
    assert not await mover.step(gates)
    assert life.calls == ["tables_with", "tables_with"]


async def test_nobody_sleeps_behind_a_check_that_has_ended(source: Site, target: Site) -> None:
    move = await start(source, target)
    mover = move.mover()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        if mover._checking is not None:
            slept.append(seconds)
        await asyncio.sleep(0)

    mover._sleep = sleep
    await mover.run(lambda gates: phases(gates) == {"VERIFIED"})
    assert set(slept) <= {0}


async def test_a_mover_behind_another_one_looks_now_and_then_whatever_became_of_its_check(
    source: Site, target: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = await start(source, target)
    mover = move.mover()
    ended = asyncio.get_running_loop().create_task(asyncio.sleep(0, 0))
    await ended
    mover._checking = _Checking("users", 1, cast("asyncio.Task[int | DalError]", ended))
    looks = 0
    slept: list[float] = []

    async def somebody_elses(_gates: Mapping[str, UnitGates]) -> bool:
        return False

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def looked_often(_gates: Mapping[str, UnitGates]) -> bool:
        nonlocal looks
        looks += 1
        return looks > 5

    monkeypatch.setattr(mover, "_lease", somebody_elses)
    mover._sleep = sleep
    await mover.run(looked_often)
    assert len(slept) == 5
    assert min(slept) > 0


@pytest.mark.parametrize("call", ["tables_with", "change_gate"])
async def test_a_mover_whose_move_is_ended_in_the_middle_of_a_round_says_so(
    source: Site, target: Site, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    move = await start(source, target)
    await move.settle()
    original = getattr(source.replica, call)

    async def behind_the_end(*given: object, **named: object) -> object:
        monkeypatch.setattr(source.replica, call, original)
        await abort(move.sides)
        return await original(*given, **named)

    monkeypatch.setattr(source.replica, call, behind_the_end)
    async with asyncio.timeout(30):
        with pytest.raises(ConflictError, match="no move is on"):
            await move.mover().run(lambda _: False)


async def test_the_collector_looks_seldom_while_rows_are_copied(source: Site, target: Site) -> None:
    class Watched(Life):
        def before(self, name: str) -> None:
            super().before(name)
            if name == "apply":
                thresholds.append(gc.get_threshold()[0])

    thresholds: list[int] = []
    before = gc.get_threshold()
    move = await start(source, target)
    await move.mover(mortal(move.sides, Watched())).run(lambda gates: phases(gates) == {"VERIFIED"})
    assert set(thresholds) == {100_000}
    assert gc.get_threshold() == before


async def test_a_move_of_some_units_takes_what_they_refer_to_along(source: Site, target: Site) -> None:
    assert with_parents(frozenset({"memory"})) == ("memory", "users")
    assert with_parents(frozenset({"audit"})) == ("audit",)
    move = await start(source, target, "memory", "users")
    await move.mover().run(lambda gates: phases(gates) == {"VERIFIED"})
    assert await move.differences("memory", "users") == 0
    assert await target.rows("messages") == []


async def test_writes_during_the_backfill_are_copied_whatever_the_order(source: Site, target: Site) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    move = await start(source, target)
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await source.store.commit(rows.append(5000 + number, 101 + dice.randrange(10)))
            victim = rows.row_id(1000 + dice.randrange(MANY_ROWS))
            if dice.random() < 0.5:
                await source.store.commit([Delete("messages", (Compare("id", "=", victim),))])
            else:
                await source.store.commit([Update("messages", {"id": victim}, {"content": f"changed {number}"})])
            if number == 20:
                await source.store.commit([Delete("users", (Compare("id", "=", rows.row_id(4)),))])

    writing = asyncio.create_task(write())
    mover = move.mover(batch_rows=16)
    await mover.run(lambda gates: all(found.phase in ("SYNC", "VERIFIED") for found in gates.values()))
    stop.set()
    await writing
    await move.settle()
    assert await move.differences() == 0


async def test_the_cursor_waits_for_the_page_that_is_acknowledged_last(
    source: Site, target: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held:
        """The source, where the first page of messages is not acknowledged before the next one was."""

        def __getattr__(self, name: str) -> object:
            return getattr(source.replica, name)

        async def unregistered(self, table: str, after: str, limit: int) -> Unregistered:
            page = await source.replica.unregistered(table, after, limit)
            if table == "messages":
                pages.append(page)
            return page

        async def acknowledge(self, copied: Sequence[Copied]) -> None:
            if copied[0].table == "messages" and copied[0].id <= pages[0].last:
                await overtaken.wait()
                for _ in range(20):  # what would move the cursor too early has its turns
                    await source.replica.gates()
            await source.replica.acknowledge(copied)
            if copied[0].table == "messages":
                acknowledged.update(one.id for one in copied)
                if all(entry.id in acknowledged for entry in pages[1].entries):
                    overtaken.set()

        async def change_gate(self, unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
            table, _, last = str(change.get("cursor", "")).partition(":")
            if table == "messages":
                passed.extend(e.id for page in pages for e in page.entries if e.id <= last)
                left_out.update(set(passed) - acknowledged)
            return await source.replica.change_gate(unit, expect=expect, change=change)

    pages: list[Unregistered] = []
    acknowledged: set[str] = set()
    passed: list[str] = []
    left_out: set[str] = set()
    overtaken = asyncio.Event()
    monkeypatch.setattr("dal.move.backfill.MOVE_BACKFILL_S", 60.0)  # no page is the last of its go
    move = await start(source, target)
    async with asyncio.timeout(60):
        await move.mover(Sides(cast(Replica, Held()), target.replica), batch_rows=10).run(
            lambda gates: phases(gates) == {"VERIFIED"}
        )
    assert len(pages) > 2
    assert passed
    assert not left_out
    assert await move.differences() == 0


async def test_a_mover_killed_at_any_call_is_run_again(source: Site, target: Site) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    move = await start(source, target)
    killed = 0
    while killed < 25:
        # The first one ends early: a later one may be long enough to get through.
        life = Life(dice.randrange(1, 60 if killed else 20), answered=dice.random() < 0.5)
        mover = move.mover(mortal(move.sides, life), batch_rows=dice.choice([7, 50, 1000]), owner="the same again")
        try:
            await mover.run(lambda gates: phases(gates) == {"VERIFIED"})
        except KilledError:
            killed += 1
        else:
            break
        await source.insert("system_logs", rows.log(7000 + killed))
    await move.settle()
    assert await move.differences() == 0
    assert killed > 0


async def test_one_of_two_movers_works_and_the_other_takes_over(source: Site, target: Site) -> None:
    move = await start(source, target)
    now = 0.0
    heir = move.mover(patience=Patience(lambda: now))
    first = move.mover(clock=lambda: int(now * 1000))
    assert await first._lease(await read_gates(move.sides))
    assert not await heir._lease(await read_gates(move.sides))
    now, first._lease_ends = MOVE_LEASE_S - 0.1, 0.0
    assert await first._lease(await read_gates(move.sides)), "it renews it"
    now += 0.2
    assert not await heir._lease(await read_gates(move.sides))
    now += MOVE_LEASE_S
    assert await heir._lease(await read_gates(move.sides)), "the first has not renewed it again"


async def test_a_lease_is_respected_whatever_the_clocks_show(source: Site, target: Site) -> None:
    move = await start(source, target)
    for off_ms in (-86_400_000, 86_400_000):
        held = move.mover(clock=lambda off_ms=off_ms: now_ms() + off_ms)
        gates = await read_gates(move.sides)
        assert await held._lease(gates)
        assert not await move.mover()._lease(await read_gates(move.sides))
        await held._release(gates)


async def test_three_movers_at_once_do_no_harm(source: Site, target: Site) -> None:
    move = await start(source, target)
    # Each believes that the lease of the others has run out.
    movers = [move.mover(patience=Waited()) for _ in range(3)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(mover.run(lambda gates: phases(gates) == {"VERIFIED"}) for mover in movers))
    await move.settle()
    assert await move.differences() == 0


async def test_beginning_twice_is_one_move(source: Site, target: Site) -> None:
    move = await start(source, target)
    first = await read_gates(move.sides)
    assert await begin(move.sides, ALL) == first
    with pytest.raises(ConflictError, match="finish or abort"):
        await begin(move.sides, ("audit",))


async def test_beginning_at_once_is_one_move(source: Site, target: Site) -> None:
    sides = Sides(source.replica, target.replica)
    found = await asyncio.gather(*(begin(sides, ALL) for _ in range(4)))
    assert len({gates["users"].source.move for gates in found}) == 1
    assert {gate.move for gate in (await target.replica.gates()).values()} == {found[0]["users"].source.move}


async def test_beginning_can_be_killed_anywhere(source: Site, target: Site) -> None:
    sides = Sides(source.replica, target.replica)
    for number in range(1, 8):
        for answered in (False, True):
            with suppress(KilledError):
                await begin(mortal(sides, Life(number, answered=answered)), ALL)
            await begin(sides, ALL)
            gates = await read_gates(sides)
            assert {(g.source.role, g.target.role) for g in gates.values()} == {("primary", "replica")}
            await abort(sides)
            assert await source.replica.gates() == await target.replica.gates() == {}


async def test_a_check_that_finds_differences_keeps_a_unit_from_being_verified(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.mover().run(lambda gates: phases(gates) == {"VERIFIED"})
    found = 3

    async def verify(_unit: str) -> int:
        return found

    await move.sides.source.change_gate("memory", expect={"role": "primary"}, change={"phase": "SYNC"})
    mover = move.mover()
    mover._verify = verify
    for _ in range(5):
        await mover.step(await read_gates(move.sides))
    gates = (await read_gates(move.sides))["memory"]
    assert gates.phase == "SYNC"
    assert '"differences": 3' in gates.source.notes
    found = 0
    await mover.run(lambda gates: phases(gates) == {"VERIFIED"})


async def test_large_rows_are_read_fewer_at_a_time(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.settle()
    large = [rows.message(6000 + n, 101, sequence_number=1000 + n, content="x" * 900_000) for n in range(10)]
    await source.insert("messages", *large)
    mover = move.mover(batch_rows=1000)
    before = mover._pace.rows
    await mover.step(await read_gates(move.sides))
    assert mover._pace.rows < before
    assert await move.differences() == 0


async def test_a_retired_source_refuses_writes_and_keeps_its_rows(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.settle()
    with pytest.raises(ConflictError, match="not switched"):
        await retire(move.sides)
    await move.switch("target")
    await move.settle()
    await retire(move.sides)
    await retire(move.sides)
    assert await target.replica.gates() == {}
    assert {gate.phase for gate in (await source.replica.gates()).values()} == {"RETIRED"}
    await target.insert("users", rows.user(99))
    with pytest.raises(ConflictError):
        await source.insert("users", rows.user(99))
    assert len(await source.rows("messages")) == MANY_ROWS


async def test_nothing_is_aborted_that_lives_on_the_target(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.settle()
    await move.switch("target", "audit")
    with pytest.raises(ConflictError, match="audit"):
        await abort(move.sides)
    await move.switch("source", "audit")
    await abort(move.sides)
    assert await source.replica.gates() == {}
    await source.insert("users", rows.user(99))
