"""What a path must reach, and how a comparison is judged."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from tests.bench.measure import Stats

Verdict: TypeAlias = Literal["met", "MISSED", "unclear", ""]

#: Of the rounds that must agree with the whole before it is called met or missed.
_AGREEING_ROUNDS: Final = 0.8


class Measure(Enum):
    """What is compared. The text is how a bound of it reads."""

    SLOWDOWN = "≤ {bound:g} ×"  # our median over theirs
    SPEEDUP = "≥ {bound:g} × faster"  # their median over ours
    THROUGHPUT = "≥ {bound:g} × per second"  # our calls a second over theirs
    RATE = "≥ {bound:,.0f}/s"  # our own calls a second
    EXTRA_US = "≤ {bound:g} µs more"  # our median less theirs
    P99_MS = "p99 ≤ {bound:g} ms"  # our own

    def of(self, ours: Stats, theirs: Stats) -> float:
        match self:
            case Measure.SLOWDOWN:
                return ours.median_us / theirs.median_us
            case Measure.SPEEDUP:
                return theirs.median_us / ours.median_us
            case Measure.THROUGHPUT:
                return ours.per_second / theirs.per_second
            case Measure.RATE:
                return ours.per_second
            case Measure.EXTRA_US:
                return ours.median_us - theirs.median_us
            case Measure.P99_MS:
                return ours.p99_us / 1000

    def text(self, value: float) -> str:
        match self:
            case Measure.SLOWDOWN | Measure.SPEEDUP | Measure.THROUGHPUT:
                return f"{value:.2f} ×"
            case Measure.RATE:
                return f"{value:,.0f}/s"
            case Measure.EXTRA_US:
                return f"{value:+.1f} µs"
            case Measure.P99_MS:
                return f"{value:.1f} ms"


class Target(NamedTuple):
    """A bound. `bound` None: the value is shown and nothing is promised."""

    measure: Measure
    bound: float | None = None

    @property
    def wanted(self) -> str:
        """The bound as it is shown; empty where there is none."""
        return "" if self.bound is None else str(self.measure.value).format(bound=self.bound)

    def met(self, value: float) -> bool | None:
        """Whether the value keeps the bound; None where there is none."""
        if self.bound is None:
            return None
        at_most = self.measure in (Measure.SLOWDOWN, Measure.EXTRA_US, Measure.P99_MS)
        return value <= self.bound if at_most else value >= self.bound

    def verdict(self, ours: Stats, theirs: Stats) -> Verdict:
        """`met` or `MISSED` where the rounds, each judged alone, bear it out; `unclear` where noise decides."""
        whole = self.met(self.measure.of(ours, theirs))
        if whole is None:
            return ""
        rounds = [self.met(value) for value in self.of_rounds(ours, theirs)]
        if rounds and sum(met is whole for met in rounds) < _AGREEING_ROUNDS * len(rounds):
            return "unclear"
        return "met" if whole else "MISSED"

    def of_rounds(self, ours: Stats, theirs: Stats) -> list[float]:
        """The value in each round alone: the sides of a round ran right after each other."""
        return [self.measure.of(a, b) for a, b in zip(ours.rounds, theirs.rounds, strict=True)]
