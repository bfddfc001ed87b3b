"""A whole move between two sites, in the test's own process: begun, copied, switched, and killed at any call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import pytest
import pytest_asyncio

from dal.move.cutover import Cutover
from dal.move.mover import Mover, begin
from dal.move.patience import Patience
from dal.move.recovery import recover
from dal.move.sides import Side, Sides, UnitGates, read_gates
from dal.ops import Count
from dal.replica import UNITS, Replica
from dal.testing import rows
from tests.move.replicas import MakeSite, Site

ALL = tuple(UNITS)
#: Messages of `source`.
MANY_ROWS = 300


class KilledError(BaseException):
    """The process that made the call is no more."""


class Mortal:
    """A replica as one process sees it, which dies at its n-th call: before it, or behind it with the answer lost.

    Whatever the process still tries after that reaches nobody.
    """

    def __init__(self, replica: Replica, life: Life) -> None:
        self._replica = replica
        self._life = life

    def __getattr__(self, name: str) -> object:
        method = getattr(self._replica, name)

        async def call(*args: object, **named: object) -> object:
            self._life.before(name)
            result = await method(*args, **named)
            self._life.after(name)
            return result

        return call


class Life:
    """How many calls a process has left. `calls` are the names of those it made."""

    def __init__(self, dies_at: int | None = None, *, answered: bool = False) -> None:
        self.calls: list[str] = []
        self._dies_at = dies_at
        self._answered = answered
        self.is_over = False

    def before(self, name: str) -> None:
        if self.is_over:
            raise KilledError(name)
        self.calls.append(name)
        if len(self.calls) == self._dies_at and not self._answered:
            self.is_over = True
            raise KilledError(name)

    def after(self, name: str) -> None:
        if len(self.calls) == self._dies_at:
            self.is_over = True
        if self.is_over:
            raise KilledError(name)


def mortal(sides: Sides, life: Life) -> Sides:
    return Sides(cast(Replica, Mortal(sides.source, life)), cast(Replica, Mortal(sides.target, life)))


@dataclass
class Move:
    """A move of every unit between two sites."""

    source: Site
    target: Site
    sides: Sides

    def mover(self, sides: Sides | None = None, **options: object) -> Mover:
        async def verify(unit: str) -> int:
            return await self.differences(unit)

        async def count(table: str) -> int:
            return cast(int, (await self.source.store.read(Count(table)))[0][0])

        return Mover(sides or self.sides, verify=verify, count=count, **options)  # type: ignore[arg-type]

    def cutover(self, sides: Sides | None = None) -> Cutover:
        return Cutover(sides or self.sides, batch_rows=100)

    async def settle(self) -> Mapping[str, UnitGates]:
        """Runs a mover until every unit can be switched and nothing is dirty on any side."""
        async with asyncio.timeout(60):
            await self.mover().run(_is_settled)
            mover = self.mover()
            while await mover.step(await read_gates(self.sides)):
                pass
            return await read_gates(self.sides)

    async def switch(self, to: Side, *units: str) -> None:
        for unit in units or ALL:
            await self.cutover().switch(unit, to)

    async def rescue(self) -> Mapping[str, UnitGates]:
        """What anybody does who has waited everything out."""
        for _ in range(5):
            gates = await read_gates(self.sides)
            waited = [await recover(self.sides, found, Waited()) for found in gates.values()]
            if not any(waited):
                break
        return await read_gates(self.sides)

    async def differences(self, *units: str) -> int:
        """Rows that differ between the sites."""
        tables = [table for unit in units or ALL for table in UNITS[unit]]
        return sum(
            [len(set(map(repr, await self.source.rows(t))) ^ set(map(repr, await self.target.rows(t)))) for t in tables]
        )


class Waited(Patience):
    """An observer who has seen everything for long enough."""

    def left_s(self, place: object, mark: object, lasts_s: float) -> float:
        return 0.0


def _is_settled(gates: Mapping[str, UnitGates]) -> bool:
    return all(found.phase in ("VERIFIED", "SWITCHED") for found in gates.values())


async def start(source: Site, target: Site, *units: str) -> Move:
    sides = Sides(source.replica, target.replica)
    await begin(sides, units or ALL)
    return Move(source, target, sides)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances that only matter to other instances are short: these tests have none, or say so."""
    monkeypatch.setattr("dal.move.cutover.GATE_MAX_AGE_S", 0.01)
    monkeypatch.setattr("dal.move.cutover.GATE_IDLE_AGE_S", 0.0)
    monkeypatch.setattr("dal.move.mover.MOVE_IDLE_S", 0.001)
    monkeypatch.setattr("dal.move.mover.MOVE_VERIFY_AGAIN_S", 0.0)


@pytest.fixture
def backend() -> str:
    """Of both sites: what a whole move does depends on no backend."""
    return "sqlite"


@pytest_asyncio.fixture
async def source(make_site: MakeSite) -> Site:
    """A store with rows that were there before any move."""
    made = await make_site("sqlite")
    await made.insert("users", *(rows.user(n) for n in range(1, 11)))
    await made.insert("chat_sessions", *(rows.chat(100 + n, user_id=rows.row_id(n)) for n in range(1, 11)))
    for number in range(MANY_ROWS):
        await made.store.commit(rows.append(1000 + number, 101 + number % 10))
    await made.insert("user_memory", *(rows.memory(2000 + n, n) for n in range(1, 11)))
    return made


@pytest_asyncio.fixture
async def target(make_site: MakeSite, source: Site) -> Site:
    """An empty store."""
    return await make_site("sqlite")
