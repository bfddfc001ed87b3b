"""What a look at a move tells: from gates and registries alone, and as far as the stores answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, cast

import pytest

from dal.errors import UnavailableError
from dal.limits import MOVE_SWITCH_TRIES
from dal.move.cutover import Cutover, CutoverReport
from dal.move.ending import abort, retire
from dal.move.mover import begin
from dal.move.operating import note_cutover, switch_units
from dal.move.sides import Side, Sides
from dal.move.status import MoveStatus, Pace, TableStatus, UnitStatus, fill_in, look
from dal.replica import UNITS, Backlog, Replica
from dal.testing import rows
from tests.move.replicas import BACKENDS, MakeSite, Site

ALL = tuple(UNITS)


class Away:
    """The moves' side of a store that does not answer."""

    def __getattr__(self, name: str) -> object:
        async def refuse(*_arguments: object, **_options: object) -> NoReturn:
            raise UnavailableError("nobody is there")

        return refuse


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def sides(site: Site, make_site: MakeSite) -> Sides:
    await site.insert("users", *(rows.user(n) for n in range(1, 4)))
    return Sides(site.replica, (await make_site("sqlite")).replica)


async def test_a_source_without_a_move_has_nothing_to_tell(sides: Sides) -> None:
    found = await look(sides)
    assert (found.move, found.is_on, found.units) == ("", False, {})


async def test_a_target_that_does_not_answer_is_told_with_what_the_source_knows(sides: Sides, site: Site) -> None:
    await begin(sides, ALL)
    await site.insert("users", rows.user(9))
    found = await look(Sides(sides.source, cast(Replica, Away())))
    assert found.unseen == "nobody is there"
    assert {unit.primary for unit in found.units.values()} == {"source"}
    assert found.units["users"].dirty == 1


async def test_a_source_that_does_not_answer_is_an_error(sides: Sides) -> None:
    with pytest.raises(UnavailableError):
        await look(Sides(cast(Replica, Away()), sides.target))


class Ending:
    """The moves' side of a source whose move is ended between two looks at it."""

    def __init__(self, inner: Replica, *, keep_fence: bool) -> None:
        self._inner = inner
        self._keep_fence = keep_fence

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def backlog(self) -> Mapping[str, Backlog]:
        await self._inner.uninstall(keep_fence=self._keep_fence)
        return await self._inner.backlog()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("end", [abort, retire])
async def test_a_move_that_is_ended_under_a_look_is_on_no_more(
    end: Callable[[Sides], Awaitable[None]], site: Site, make_site: MakeSite
) -> None:
    sides = Sides(site.replica, (await make_site("sqlite")).replica)
    await begin(sides, ALL)
    await sides.target.uninstall(keep_fence=False)
    found = await look(Sides(cast(Replica, Ending(sides.source, keep_fence=end is retire)), sides.target))
    assert (found.is_on, found.is_retired) == (False, end is retire)


async def test_a_cutover_is_kept_in_the_notes_of_the_new_primary_beside_what_is_there(sides: Sides) -> None:
    await begin(sides, ALL)
    for number in range(12):
        report = CutoverReport(
            unit="users", to="target", epoch=2 + number, stall_ms=1.234, fence_ms=0.5, drained=number
        )
        await note_cutover(sides, report, clock=lambda number=number: 100 + number)  # type: ignore[misc]
    cutovers = (await look(sides)).units["users"].cutovers
    assert len(cutovers) == 10
    assert cutovers[-1] == {
        "at_ms": 111, "unit": "users", "to": "target", "epoch": 13, "stall_ms": 1.2, "fence_ms": 0.5, "drained": 11
    }  # fmt: skip


def test_rate_time_left_and_lag_follow_from_one_another() -> None:
    unit = UnitStatus(
        unit="users",
        phase="BACKFILL",
        primary="source",
        epoch=1,
        tables={"users": TableStatus(total=1000, copied=400, dirty=50)},
    )
    fill_in(unit, 100.0)
    assert (unit.rate, unit.eta_s, unit.lag_s) == (100.0, 6.0, 0.5)
    fill_in(unit, None)
    assert (unit.rate, unit.eta_s, unit.lag_s) == (None, None, None)
    unit.tables["users"] = TableStatus(total=1000, copied=1000, dirty=0)
    fill_in(unit, None)
    assert (unit.eta_s, unit.lag_s) == (0.0, 0.0)


def test_a_pace_needs_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr("dal.move.status.monotonic", lambda: now[0])
    pace = Pace()

    def see(copied: int) -> float | None:
        table = TableStatus(total=1000, copied=copied, dirty=0)
        unit = UnitStatus(unit="users", phase="SYNC", primary="source", epoch=1, tables={"users": table})
        return pace.see(MoveStatus(move="m", units={"users": unit})).units["users"].rate

    assert see(0) is None
    now[0] += 2
    assert see(100) == 50.0
    now[0] += 60  # what was long ago counts no more
    see(100)
    now[0] += 1
    assert see(100) == 0.0


@pytest.mark.parametrize("failures", [MOVE_SWITCH_TRIES - 1, MOVE_SWITCH_TRIES])
async def test_a_switch_that_may_succeed_later_is_tried_again(
    sides: Sides, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    await begin(sides, ALL)
    tries, told, waited = [0], [], []

    async def switch(_cutover: Cutover, unit: str, to: Side) -> CutoverReport:
        tries[0] += 1
        if tries[0] <= failures:
            raise UnavailableError("not yet")
        return CutoverReport(unit=unit, to=to, epoch=2, stall_ms=1.0, fence_ms=1.0, drained=0)

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Cutover, "switch", switch)

    async def run() -> list[CutoverReport]:
        options: dict[str, Any] = {"batch_rows": 10, "on_retry": lambda *why: told.append(why), "sleep": sleep}
        return [report async for report in switch_units(sides, ["memory"], "target", **options)]

    if failures < MOVE_SWITCH_TRIES:
        assert [report.unit for report in await run()] == ["memory"]
    else:
        with pytest.raises(UnavailableError):
            await run()
    assert len(told) == len(waited) == MOVE_SWITCH_TRIES - 1
