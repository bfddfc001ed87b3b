"""What a sweep has found so far, on its way to a SweepReport."""

from __future__ import annotations

from collections import Counter

from dal.errors import DalError
from dal.file_models import SweepReport
from dal.limits import FILE_SWEEP_SAMPLES


class Tally:
    """Counts by the names of SweepReport's fields."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.counts: Counter[str] = Counter()
        self._missing: list[str] = []
        self._problems: list[str] = []

    def is_missing(self, file_id: str) -> None:
        """A file whose bytes are gone."""
        self.counts["missing_files"] += 1
        if len(self._missing) < FILE_SWEEP_SAMPLES:
            self._missing.append(file_id)

    def failed(self, what: str, error: DalError) -> None:
        """Something that the next sweep has to try again."""
        if len(self._problems) < FILE_SWEEP_SAMPLES:
            self._problems.append(f"{what}: {error.message}")

    def report(self) -> SweepReport:
        counts: dict[str, int] = dict(self.counts)
        return SweepReport(
            dry_run=self.dry_run,
            missing=self._missing,
            problems=self._problems,
            **counts,
        )
