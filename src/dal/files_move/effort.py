"""What a file and what a byte cost of a move's time, each apart, so that small files say nothing false of large ones.

Least squares over looks at what has passed: seconds = files * file_s + bytes * byte_s, each look weighing as much as
its time is long, and the older ones less. Where the looks cannot tell the two apart, as when nothing but small files of
about one size have passed, bytes are taken to pass at CONTENTS_BYTES_S, as far as what was seen allows that.
"""

from __future__ import annotations

from math import sqrt
from typing import Final, NamedTuple

from dal.limits import CONTENTS_BYTES_S, CONTENTS_EFFORT_S

_LEAST_RIDGE: Final = 1e-9  # of what the bytes weigh: looks that are all alike leave no equation to solve


class Effort(NamedTuple):
    """Seconds for each file and for each byte, with as many at a time as there were."""

    file_s: float
    byte_s: float

    def seconds(self, files: int, size: int) -> float:
        return files * self.file_s + size * self.byte_s


class Fit:
    """Takes looks, and tells what fits them."""

    def __init__(self) -> None:
        self._looks = self._time = 0.0
        # Sums over looks, divided by their time. Bytes as the seconds that they are expected to take.
        self._ff = self._fb = self._bb = self._f = self._b = 0.0

    def add(self, seconds: float, files: int, size: int) -> None:
        """In so many seconds so much has passed."""
        if seconds <= 0 or not (files or size):
            return
        kept = 0.5 ** (seconds / CONTENTS_EFFORT_S)
        bytes_s = size / CONTENTS_BYTES_S
        self._looks = self._looks * kept + 1
        self._time = self._time * kept + seconds
        self._ff = self._ff * kept + files * files / seconds
        self._fb = self._fb * kept + files * bytes_s / seconds
        self._bb = self._bb * kept + bytes_s * bytes_s / seconds
        self._f = self._f * kept + files
        self._b = self._b * kept + bytes_s

    def effort(self) -> Effort | None:
        """None where nothing has passed."""
        if not self._looks:
            return None
        least = _LEAST_RIDGE * self._bb
        file_s, factor = self._solve(least)
        # What is expected weighs as much as an observation with an error as large as itself, or as large as the factor
        # is for certain: nothing, where the looks leave nothing open.
        variance = max(0.0, self._misfit(file_s, factor)) / max(1.0, self._looks - 2)
        alone = self._bb - (self._fb**2 / self._ff if self._ff else 0.0)  # of the bytes, what files do not explain
        told = max(0.0, alone) + least
        certain = factor - 2 * sqrt(variance / told) if told else factor
        file_s, factor = self._solve(least + variance / max(1.0, certain) ** 2)
        return Effort(file_s, factor / CONTENTS_BYTES_S)

    def _solve(self, ridge: float) -> tuple[float, float]:
        """Seconds for a file, and how many times as long as expected bytes take; neither below 0."""
        determinant = self._ff * (self._bb + ridge) - self._fb**2
        if determinant > 0:
            factor = (self._ff * (self._b + ridge) - self._fb * self._f) / determinant
            file_s = (self._f * (self._bb + ridge) - self._fb * (self._b + ridge)) / determinant
            if factor >= 0 and file_s >= 0:
                return file_s, factor
            if factor < 0:
                return self._f / self._ff, 0.0
        if self._bb:
            return 0.0, (self._b + ridge) / (self._bb + ridge)
        return self._f / self._ff, 1.0

    def _misfit(self, file_s: float, factor: float) -> float:
        """The sum of squares of what is not explained."""
        explained = 2 * (file_s * self._f + factor * self._b)
        both = 2 * file_s * factor * self._fb
        return self._time - explained + file_s**2 * self._ff + both + factor**2 * self._bb
