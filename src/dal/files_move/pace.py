"""How fast a move is, and how long it still takes, from what passed in the last seconds."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import NamedTuple

from dal.files_move.throttle import Timer
from dal.limits import CONTENTS_PACE_S

_EVERY_S = 0.2  # looks nearer to each other than that say nothing new


class Rate(NamedTuple):
    """Bytes and files of a second; 0 where nobody knows yet."""

    bytes_s: float
    files_s: float


class Pace:
    """Rates of the last CONTENTS_PACE_S seconds."""

    def __init__(self, timer: Timer = monotonic) -> None:
        self._timer = timer
        self._looks: deque[tuple[float, int, int]] = deque()

    def look(self, done_bytes: int, files: int) -> Rate:
        now = self._timer()
        if not self._looks or now - self._looks[-1][0] >= _EVERY_S:
            self._looks.append((now, done_bytes, files))
        while len(self._looks) > 2 and now - self._looks[0][0] > CONTENTS_PACE_S:
            self._looks.popleft()
        then, bytes_then, files_then = self._looks[0]
        if now - then < _EVERY_S:
            return Rate(0.0, 0.0)
        return Rate((done_bytes - bytes_then) / (now - then), (files - files_then) / (now - then))


def seconds_left(rate: Rate, left_bytes: int, left_files: int) -> float | None:
    """Until all has passed, of bytes and of files whichever takes longer; None where nobody knows."""
    if left_bytes <= 0 and left_files <= 0:
        return 0.0
    found = [left / speed for left, speed in ((left_bytes, rate.bytes_s), (left_files, rate.files_s)) if speed > 0]
    return max(found) if found else None
