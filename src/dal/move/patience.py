"""How long an observer has seen what others announced: deadlines and leases, without comparing clocks of two machines.

Nobody believes a time that somebody else wrote. An observer remembers when it first saw an announcement, a fence or a
lease, by its own monotonic clock, and waits its whole duration out from there; a new one is told from the last by a
number that only grows. So clocks may show whatever they like, as long as they run about equally fast. It is how leases
are held in Kubernetes' leader election and in Amazon's lock client for DynamoDB (docs/decisions/0018).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import monotonic
from typing import TypeAlias

#: Seconds by a clock that only goes forward, from any beginning.
Timer: TypeAlias = Callable[[], float]


class Patience:
    """What one observer has seen. It lives as long as the observer does: one that is new has to wait from the start."""

    def __init__(self, timer: Timer = monotonic) -> None:
        self._timer = timer
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def left_s(self, place: Hashable, mark: Hashable, lasts_s: float) -> float:
        """How much is left of what stands in this place, of which `mark` tells one from the next; 0: it is overdue.

        To be asked after every look, for the first time counts.
        """
        now = self._timer()
        seen = self._seen.get(place)
        if seen is None or seen[0] != mark:
            seen = self._seen[place] = (mark, now)
        return max(0.0, seen[1] + lasts_s - now)
