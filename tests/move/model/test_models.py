"""The protocol of live moves holds in every state that its models reach; left out, each ingredient of it is missed.

What a model is of stands at the top of its file. Each is visited exhaustively. Each mutant leaves out or spoils one
thing, and the shortest way to the harm is in the report. The documentation quotes how many states there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from tests.move.model import cascade, copying, cutover, deadlines, unique
from tests.move.model.cascade import SOURCE, TARGET, Cascade
from tests.move.model.checker import Broken, Model, explore
from tests.move.model.copying import Copying
from tests.move.model.cutover import Cutover
from tests.move.model.deadlines import Deadlines
from tests.move.model.unique import Unique

_PAGE: Final = Path(__file__).parents[3] / "docs/move-protocol.md"

WHOLE: Final[dict[str, Model[Any]]] = {
    "one row, two copiers": Copying(keys=1, copiers=2, writes=3, fences=2),
    "two rows, two copiers": Copying(keys=2, copiers=2, writes=2, fences=2),
    "two movers, an aborter, a reader": Cutover(movers=2, announcements=2),
    "two movers, an aborter, three switches": Cutover(movers=2, announcements=3, reads=False),
    "deadlines, two observers, clocks that differ": Deadlines(),
    "two rows, three writes": Unique(keys=2, writes=3),
    "three rows, two writes": Unique(keys=3, writes=2),
    "cascade, one primary": Cascade(parent_home=SOURCE, set_null=False, writes=3),
    "set null, one primary": Cascade(parent_home=SOURCE, set_null=True, writes=3),
    "cascade, the parent switched before": Cascade(parent_home=TARGET, set_null=False, writes=3),
    "set null, the parent switched before": Cascade(parent_home=TARGET, set_null=True, writes=3),
}


def _mutants() -> Iterator[Any]:
    for copying_mutant in get_args(copying.Mutant):
        keys = 2 if copying_mutant == "a sequence cursor instead of the dirty set" else 1
        yield pytest.param(Copying(copying_mutant, keys=keys, copiers=3 - keys), id=copying_mutant)
    for cutover_mutant in get_args(cutover.Mutant):
        movers = 2 if cutover_mutant == "fence without comparing the announcement" else 1
        yield pytest.param(Cutover(cutover_mutant, movers=movers), id=f"cutover: {cutover_mutant}")
    for deadline_mutant in get_args(deadlines.Mutant):
        yield pytest.param(Deadlines(deadline_mutant), id=f"deadlines: {deadline_mutant}")
    for unique_mutant in get_args(unique.Mutant):
        yield pytest.param(Unique(unique_mutant, keys=2, writes=2), id=unique_mutant)
    for cascade_mutant in get_args(cascade.Mutant):
        home = TARGET if cascade_mutant == "cascades of a copy are never captured" else SOURCE
        yield pytest.param(Cascade(cascade_mutant, parent_home=home, writes=3), id=cascade_mutant)


@pytest.mark.parametrize("name", WHOLE)
def test_the_protocol_holds_in_every_state(name: str) -> None:
    report = explore(WHOLE[name])
    print(f"{name}: {report}")
    assert report.broken is None, str(report)
    row = re.search(rf"^\| {name} \| ([\d,]+) \| ([\d,]+) \|$", _PAGE.read_text(encoding="utf-8"), re.M)
    assert row, f"{_PAGE.name} has no row for {name}: {report}"
    assert (row[1], row[2]) == (f"{report.states:,}", f"{report.steps:,}")


@pytest.mark.parametrize("mutant", list(_mutants()))
def test_every_ingredient_left_out_is_missed(mutant: Model[Any]) -> None:
    report = explore(mutant)
    print(report)
    assert report.broken is not None
    assert report.broken != "there is no end of states"


class _Counter:
    """Counts to three; at two, one may turn off into a dead end."""

    def __init__(self, *, broken_at: int = 9, dead_end: bool = False) -> None:
        self.broken_at = broken_at
        self.dead_end = dead_end

    def start(self) -> int:
        return 0

    def steps(self, state: int) -> Iterator[tuple[str, int]]:
        if 0 <= state < 3:
            yield f"to {state + 1}", state + 1
        if state == 2 and self.dead_end:
            yield "off", -1

    def check(self, state: int) -> None:
        if state == self.broken_at:
            raise Broken("here")

    def good(self, state: int) -> bool:
        return state == 3

    def helps(self, step: str) -> bool:
        return True


def test_the_checker_visits_every_state_and_takes_every_step() -> None:
    assert explore(_Counter(dead_end=True))[:2] == (5, 4)
    assert explore(_Counter()) == (4, 3, None, ())


def test_the_checker_gives_the_way_to_what_is_broken() -> None:
    report = explore(_Counter(broken_at=2))
    assert (report.broken, report.trace) == ("here", ("to 1", "to 2"))


def test_the_checker_finds_a_state_from_which_nothing_good_can_be_reached() -> None:
    report = explore(_Counter(dead_end=True))
    assert report.broken == "stuck for good in -1"
    assert report.trace == ("to 1", "to 2", "off")
