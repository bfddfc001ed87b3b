"""Counters of files' storage: what was done and what is stored, by day, in total and by user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dal.errors import InvalidInputError
from dal.file_models import StorageMetric
from dal.file_tables import STORAGE_METRICS
from dal.limits import MAX_INT64, MAX_PAGE_ROWS
from dal.models import Page
from dal.ops import Compare, Op, Upsert, Value
from dal.repositories.base import Repository, checked_row
from dal.values import check_int, check_text

_KEY = ("metric", "scope", "period")
TOTAL = "total"


class StorageMetrics(Repository):
    """Counts up, sets and lists counters. A counter is named by what is counted, for whom, and when."""

    table = STORAGE_METRICS

    async def add(self, counts: Mapping[str, int], *, period: str, scope: str = TOTAL) -> None:
        """Adds to counters, which begin at 0. One commit for all of them, whatever others add at the same time.

        counts  by metric, 1..100 characters each, at most 1000.
        period  a day `2026-11-29` or a month `2026-11`.   scope  `total`, or a user's id.
        """
        await self._write(counts, period, scope, adds=True)

    async def set(self, values: Mapping[str, int], *, period: str, scope: str = TOTAL) -> None:
        """Sets counters that say how much there is, not how much was done: the last value of a day stays."""
        await self._write(values, period, scope, adds=False)

    async def list(
        self,
        *,
        metric: str | None = None,
        scope: str = TOTAL,
        since: str | None = None,
        until: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[StorageMetric]:
        """A page of counters by period, oldest first. `since` and `until` are periods and inclusive; limit: 1..1000."""
        filters = self._filters(metric=metric, scope=scope)
        for name, op, value in (("since", ">=", since), ("until", "<=", until)):
            if value is not None:
                period = check_text(name, value, max_chars=20, min_chars=4)
                filters.append(Compare("period", op, period))  # type: ignore[arg-type]  # one of the two above
        return await self._page(StorageMetric, ("period", "metric", "id"), filters, limit=limit, after=after)

    async def _write(self, values: Mapping[str, int], period: str, scope: str, *, adds: bool) -> None:
        if len(values) > MAX_PAGE_ROWS:
            raise InvalidInputError(f"storage_metrics: {len(values)} counters, at most {MAX_PAGE_ROWS} at once")
        ops: Sequence[Op] = [
            self._upsert(metric, value, period, scope, adds=adds) for metric, value in sorted(values.items())
        ]
        if ops:
            await self._store.commit(ops)

    def _upsert(self, metric: str, value: int, period: str, scope: str, *, adds: bool) -> Upsert:
        number, now = check_int("value", value, -MAX_INT64, MAX_INT64), self._now()
        given: dict[str, Value] = {
            "id": self._new_id(),
            "metric": metric,
            "scope": scope,
            "period": period,
            "value": number,
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }
        row = checked_row(self.table, given)
        update = ("updated_at",) if adds else ("value", "updated_at")
        add = {"value": number, "version": 1} if adds else {"version": 1}
        return Upsert(self.table.name, row, _KEY, update, add)
