"""How fast a move is, from what passed in the last seconds, and how long it takes, from what files and bytes cost."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import NamedTuple

from dal.files_move.effort import Fit
from dal.files_move.throttle import Timer
from dal.limits import CONTENTS_PACE_S

_EVERY_S = 0.2  # looks nearer to each other than that say nothing new
_FIT_S = 1.0  # bytes are told of a little before or after their time has passed, which blurs short looks


class Rate(NamedTuple):
    """Bytes and files of a second; 0 where nobody knows yet."""

    bytes_s: float
    files_s: float


class _Look(NamedTuple):
    """What had passed by a moment."""

    at: float
    bytes: int
    files: int
    worked_bytes: int
    worked_files: int


class Pace:
    """Rates of the last CONTENTS_PACE_S seconds, and the time that is left."""

    def __init__(self, timer: Timer = monotonic) -> None:
        self._timer = timer
        self._looks = deque([_Look(timer(), 0, 0, 0, 0)])
        self._rate = Rate(0.0, 0.0)
        self._fitted = self._looks[0]
        self._fit = Fit()

    def look(self, done_bytes: int, files: int, *, worked_bytes: int, worked_files: int) -> Rate:
        """The rates of all that is done; what was there before took no work, and says nothing of what is left."""
        now = _Look(self._timer(), done_bytes, files, worked_bytes, worked_files)
        if now.at - self._looks[-1].at >= _EVERY_S:
            self._looks.append(now)
        if (seconds := now.at - self._fitted.at) >= _FIT_S:
            last, self._fitted = self._fitted, now
            self._fit.add(seconds, worked_files - last.worked_files, worked_bytes - last.worked_bytes)
        while len(self._looks) > 2 and now.at - self._looks[0].at > CONTENTS_PACE_S:
            self._looks.popleft()
        then = self._looks[0]
        if (seconds := now.at - then.at) >= _EVERY_S:
            self._rate = Rate((done_bytes - then.bytes) / seconds, (files - then.files) / seconds)
        return self._rate

    def seconds_left(self, left_bytes: int, left_files: int) -> float | None:
        """Until all has passed; None where nobody knows."""
        if left_bytes <= 0 and left_files <= 0:
            return 0.0
        if (effort := self._fit.effort()) is not None:
            return effort.seconds(left_files, left_bytes)
        # It has just begun, or all was there before so far: as if the rest were, too.
        return left_files / self._rate.files_s if self._rate.files_s > 0 else None
