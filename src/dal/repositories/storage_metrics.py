"""Counters of files' storage: what was done and what is stored, by day, in total and by user."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final

from dal.errors import InvalidInputError
from dal.file_models import StorageMetric
from dal.file_tables import STORAGE_METRICS
from dal.limits import MAX_INT64, MAX_PAGE_ROWS
from dal.models import Page
from dal.ops import Compare, Select, Upsert, Value
from dal.repositories.base import Repository, checked_row
from dal.values import check_int, check_text

_KEY = ("metric", "scope", "period")
TOTAL: Final = "total"
_DAY_CHARS: Final = len("2026-11-29")


class StorageMetrics(Repository):
    """Counts up, sets and lists counters. A counter is named by what is counted, for whom, and when."""

    table = STORAGE_METRICS

    async def add(self, counts: Mapping[str, int], *, period: str, scope: str = TOTAL) -> None:
        """Adds to counters, which begin at 0. One commit for all of them, whatever others add at the same time.

        counts  by metric, 1..100 characters each, at most 1000.
        period  a day `2026-11-29` or a month `2026-11`.   scope  `total`, or a user's id.
        """
        await self._write({scope: counts}, period, adds=True)

    async def set(self, values: Mapping[str, int], *, period: str, scope: str = TOTAL) -> None:
        """Sets counters that say how much there is, not how much was done: the last value of a day stays."""
        await self._write({scope: values}, period, adds=False)

    async def set_scopes(self, values: Mapping[str, Mapping[str, int]], *, period: str) -> None:
        """Sets counters of several scopes in one commit, by scope and metric; at most 1000 counters."""
        await self._write(values, period, adds=False)

    async def latest(self, metric: str, *, scope: str = TOTAL, before: str | None = None) -> StorageMetric | None:
        """The counter of the latest period, or of the latest one before that. Cost: one indexed read."""
        filters = self._filters(metric=metric, scope=scope)
        if before is not None:
            filters.append(Compare("period", "<", check_text("before", before, max_chars=20, min_chars=4)))
        rows = await self._store.read(Select(self.table.name, tuple(filters), ("-period",), limit=1))
        return self._record(StorageMetric, rows[0]) if rows else None

    async def by_day(self, first: date, last: date, *, scope: str = TOTAL) -> dict[date, dict[str, int]]:
        """Every counter of the days from the first to the last, by day and name."""
        found: dict[date, dict[str, int]] = {}
        after: str | None = None
        while True:
            part = await self.list(
                scope=scope, since=first.isoformat(), until=last.isoformat(), limit=MAX_PAGE_ROWS, after=after
            )
            for counter in part.items:
                if len(counter.period) == _DAY_CHARS:
                    found.setdefault(date.fromisoformat(counter.period), {})[counter.metric] = counter.value
            if part.next is None:
                return found
            after = part.next

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

    async def _write(self, values: Mapping[str, Mapping[str, int]], period: str, *, adds: bool) -> None:
        ops = [
            self._upsert(metric, value, period, scope, adds=adds)
            for scope, counters in sorted(values.items())
            for metric, value in sorted(counters.items())
        ]
        if len(ops) > MAX_PAGE_ROWS:
            raise InvalidInputError(f"storage_metrics: {len(ops)} counters, at most {MAX_PAGE_ROWS} at once")
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
