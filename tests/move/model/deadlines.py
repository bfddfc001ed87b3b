"""When what a mover announced is overdue: movers and observers whose clocks show different times, and run equally fast.

An announcement (a fence is no different) stands until its mover ends it, or until somebody takes it back because it has
stood for too long. Who takes it back looks, decides, and does one compare-and-set, with any amount of time in between,
and may be replaced by another who has seen nothing yet. Only ages are kept, so time goes on for ever.

Claims: nothing is taken back before it has stood for as long as it may (so a mover that lives is never disturbed), and
what a dead mover left is taken back in the end, whatever the clocks show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from tests.move.model.checker import Broken

Mutant = Literal[
    "deadlines by the wall clock",
    "the first sight of one counts for the next",
    "numbers begin anew",
    "taking back without comparing the number",
    "nobody remembers",
]

#: For how many ticks an announcement may stand.
LASTS: Final = 2
#: How far an observer's wall clock may be ahead of the mover's.
SKEWS: Final = (-3, 0, 3)
#: Nobody tells ages beyond this apart.
_OLDEST: Final = LASTS + max(SKEWS)


class Standing(NamedTuple):
    """An announcement: its number, and how long ago it was made."""

    number: int
    age: int


class Seen(NamedTuple):
    """What an observer remembers: the number that it saw last, and how long ago it saw that first.

    decided  the number of what it is about to take back.
    """

    number: int = 0
    age: int = 0
    decided: int = 0


class State(NamedTuple):
    skew: int
    standing: Standing | None
    made: int
    observers: tuple[Seen, ...]


@dataclass(frozen=True)
class Deadlines:
    """announcements: how many the movers make, one after another."""

    mutant: Mutant | None = None
    announcements: int = 3
    observers: int = 2

    def start(self) -> State:
        return State(0, None, 0, (Seen(),) * self.observers)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state == self.start():
            for skew in SKEWS:
                yield f"the observers' clocks are {skew:+d} off", state._replace(skew=skew)
        yield "time goes on", self._tick(state)
        yield from self._move(state)
        for at, seen in enumerate(state.observers):
            others = state.observers[:at] + state.observers[at + 1 :]
            for said, after, then in self._observe(state, seen):
                yield f"observer: {said}", after._replace(observers=tuple(sorted((*others, then))))

    def _tick(self, state: State) -> State:
        standing = state.standing
        return state._replace(
            standing=standing and standing._replace(age=min(standing.age + 1, _OLDEST)),
            observers=tuple(sorted(seen._replace(age=min(seen.age + 1, LASTS)) for seen in state.observers)),
        )

    def _move(self, state: State) -> Iterator[tuple[str, State]]:
        if state.standing is not None:
            yield "mover: ends it", state._replace(standing=None)
        elif state.made < self.announcements:
            number = 1 if self.mutant == "numbers begin anew" else state.made + 1
            yield "mover: announces", state._replace(standing=Standing(number, 0), made=state.made + 1)

    def _observe(self, state: State, seen: Seen) -> Iterator[tuple[str, State, Seen]]:
        if seen != Seen():
            yield "is replaced", state, Seen()
        if seen.decided:
            yield "acts", *self._take_back(state, seen)
        elif state.standing is not None:
            seen = self._remember(state.standing, seen)
            if self._is_overdue(state, state.standing, seen):
                seen = seen._replace(decided=state.standing.number)
            yield "looks", state, seen

    def _remember(self, standing: Standing, seen: Seen) -> Seen:
        is_known = seen.number == standing.number
        if self.mutant == "the first sight of one counts for the next":
            is_known = seen.number > 0
        if is_known and self.mutant != "nobody remembers":
            return seen._replace(number=standing.number)
        return Seen(standing.number)

    def _is_overdue(self, state: State, standing: Standing, seen: Seen) -> bool:
        if self.mutant == "deadlines by the wall clock":
            return standing.age + state.skew >= LASTS
        return seen.age >= LASTS

    def _take_back(self, state: State, seen: Seen) -> tuple[State, Seen]:
        after = seen._replace(decided=0)
        standing = state.standing
        if standing is None:
            return state, after
        if standing.number != seen.decided and self.mutant != "taking back without comparing the number":
            return state, after
        if standing.age < LASTS:
            raise Broken(f"announcement {standing.number} is taken back after {standing.age} of {LASTS} ticks")
        return state._replace(standing=None), after

    def check(self, state: State) -> None:
        """What is claimed is about steps."""

    def good(self, state: State) -> bool:
        return state.standing is None

    def helps(self, step: str) -> bool:
        return not step.startswith("mover")
