"""What a path must reach, and how a comparison is judged."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from tests.bench.measure import Stats


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
