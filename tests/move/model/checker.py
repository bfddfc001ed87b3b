"""An explicit-state model checker: every state that a model can reach is visited, breadth first.

A model says where it starts, which steps there are from a state, and what must hold. The first broken claim comes with
the shortest way to it. When nothing is broken, one more question is asked of every state: can a good one be reached
from here by steps of those who may be relied on? A state from which that is impossible is stuck, and stuck is broken.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterable
from typing import Final, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

#: More states than any model here has; a mutant that counts up for ever ends at it.
MAX_STATES: Final = 400_000


class Broken(Exception):
    """A claim does not hold. Models raise it from `steps` and `check`."""


class Model(Protocol[S]):
    """What may happen, as values: states are hashable, steps are a name and the state after it."""

    def start(self) -> S: ...

    def steps(self, state: S) -> Iterable[tuple[str, S]]: ...

    def check(self, state: S) -> None:
        """Raises Broken where the state must not be."""

    def good(self, state: S) -> bool:
        """A state that has to stay reachable, always."""

    def helps(self, step: str) -> bool:
        """Whether the step may be relied on to get to a good state."""


class Report(NamedTuple):
    """What was found. `broken` is None for a model that holds; `trace` are the steps to where it does not."""

    states: int
    steps: int
    broken: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = self.broken or "holds"
        return "\n    ".join([f"{self.states:,} states, {self.steps:,} steps: {found}", *self.trace])


def explore(model: Model[S]) -> Report:
    """Visits everything, and stops at the first thing that is broken."""
    gc.disable()  # it would walk all states over and over, and there are no cycles
    try:
        return _explore(model)
    finally:
        gc.enable()


def _explore(model: Model[S]) -> Report:
    start = model.start()
    states = [start]
    number = {start: 0}
    came_from: list[tuple[int, str]] = [(0, "")]
    helped_from: list[list[int]] = [[]]
    taken = 0
    for here, state in enumerate(states):  # it grows while we walk along it
        try:
            model.check(state)
            for step, after in model.steps(state):
                taken += 1
                there = number.setdefault(after, len(states))
                if there == len(states):
                    states.append(after)
                    came_from.append((here, step))
                    helped_from.append([])
                if model.helps(step):
                    helped_from[there].append(here)
        except Broken as broken:
            return Report(len(states), taken, str(broken), _trace(came_from, here))
        if len(states) > MAX_STATES:
            return Report(len(states), taken, "there is no end of states", _trace(came_from, here))
    stuck = _stuck([model.good(state) for state in states], helped_from)
    if stuck is not None:
        return Report(len(states), taken, f"stuck for good in {states[stuck]}", _trace(came_from, stuck))
    return Report(len(states), taken)


def _trace(came_from: list[tuple[int, str]], at: int) -> tuple[str, ...]:
    trace = []
    while at:
        at, step = came_from[at]
        trace.append(step)
    return tuple(reversed(trace))


def _stuck(reaches: list[bool], helped_from: list[list[int]]) -> int | None:
    """The first state from which no good one can be reached. `reaches` starts as the good ones, and is used up."""
    waiting = [at for at, good in enumerate(reaches) if good]
    while waiting:
        for before in helped_from[waiting.pop()]:
            if not reaches[before]:
                reaches[before] = True
                waiting.append(before)
    return next((at for at, good in enumerate(reaches) if not good), None)
