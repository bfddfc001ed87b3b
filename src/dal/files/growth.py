"""How much is stored, day by day: in total, and by each user whose use changed.

`record` keeps it, once a day. Of a user a day is kept only where something of theirs changed since the record before:
a day without an entry is as the one before it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from dal.file_tables import USER_QUOTAS
from dal.files.costing import STORED_BYTES, STORED_FILES
from dal.files.paging import pages
from dal.files.quotas import usage_of
from dal.limits import FILE_GRACE_S, MAX_PAGE_ROWS
from dal.ops import Compare, Select
from dal.repositories.base import Context, known_id
from dal.repositories.storage_metrics import TOTAL, StorageMetrics
from dal.values import check_int

#: What a user stores at a day's end, as their quota counts it; when users were last recorded that day, in seconds since
#: 1970.
USED_BYTES: Final = "used.bytes"
USED_FILES: Final = "used.files"
USERS_AT: Final = "users.recorded_at"
_MAX_DAYS: Final = 366


class Day(NamedTuple):
    """How much was stored when a day was recorded last, and how much more than on the recorded day before it.

    The sum of `grown_bytes` over some days is the growth from before the first of them to the last. Of the first day
    that was recorded at all it is 0: what was there before is not known.
    """

    day: date
    files: int
    bytes: int
    grown_bytes: int


class Growth:
    """Records and tells what is stored by day."""

    def __init__(self, context: Context, metrics: StorageMetrics) -> None:
        self._store = context.store
        self._now = context.clock
        self._metrics = metrics

    async def record(self, stored_bytes: int, stored_files: int) -> None:
        """Keeps today's total and the use of users that changed, in place of what this day had."""
        now = self._now().astimezone(UTC)
        period = now.date().isoformat()
        await self._metrics.set({STORED_BYTES: stored_bytes, STORED_FILES: stored_files}, period=period)
        last = await self._metrics.latest(USERS_AT)
        # A while more: a commit comes later than the time in it, which another machine's clock may have given.
        since = None if last is None else datetime.fromtimestamp(last.value - FILE_GRACE_S, UTC)
        await self._record_users(since, period)
        # At the end, so that the next record goes on from one that was whole.
        await self._metrics.set({USERS_AT: int(now.timestamp())}, period=period)

    async def days(self, days: int, user_id: str | None) -> list[Day]:
        """The recorded ones of the last `days`, oldest first."""
        check_int("days", days, 1, _MAX_DAYS)
        scope, size, files = (TOTAL, STORED_BYTES, STORED_FILES)
        if user_id is not None:
            known = known_id("user_id", user_id)
            if known is None:
                return []
            scope, size, files = known, USED_BYTES, USED_FILES
        today = self._now().astimezone(UTC).date()
        counted = await self._metrics.by_day(today - timedelta(days=days - 1), today, scope=scope)
        found: list[Day] = []
        for day, counts in sorted(counted.items()):
            if size not in counts:
                continue
            before = found[-1].bytes if found else await self._before(day, size, scope, counts[size])
            entry = Day(day, counts.get(files, 0), counts[size], counts[size] - before)
            # A user is recorded once more where the change was not long before a record.
            if scope == TOTAL or not found or entry[1:3] != found[-1][1:3]:
                found.append(entry)
        return found

    async def _before(self, day: date, metric: str, scope: str, unknown: int) -> int:
        """How much it was before this day; `unknown` where nothing was recorded then."""
        period = day.isoformat()
        last = await self._metrics.latest(metric, scope=scope, before=period)
        if last is not None:
            return last.value
        # A user of whom nothing was kept while others were recorded stored nothing.
        is_new = scope != TOTAL and await self._metrics.latest(USERS_AT, before=period) is not None
        return 0 if is_new else unknown

    async def _record_users(self, since: datetime | None, period: str) -> None:
        """Keeps what users store whose quota changed since then, a page in a commit."""
        where = () if since is None else (Compare("updated_at", ">=", since),)
        names, count = USER_QUOTAS.names, MAX_PAGE_ROWS // 2  # two counters each
        async for rows in pages(self._store, Select("user_quotas", where, ("user_id",), columns=names), count):
            used = [usage_of(dict(zip(names, row, strict=True))) for row in rows]
            values = {u.user_id: {USED_BYTES: u.used_bytes, USED_FILES: u.used_files} for u in used}
            await self._metrics.set_scopes(values, period=period)
