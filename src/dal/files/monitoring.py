"""`dal.files.monitoring`: what is stored, what it costs, how it grows, and whether that passes a threshold.

Counters are kept by day (dal.files.recording); `record`, run once a day, keeps how much is stored, and what it costs.
Costs are estimates from these and from the provider's prices (dal.files.pricing): they leave out taxes, discounts, and
what others ask of a bucket with signed requests. How many of those were given out is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from dal.cursor import Listing
from dal.file_models import Cost, Usage
from dal.file_tables import USER_QUOTAS
from dal.files.costing import CostReport, Month, month_costs
from dal.files.growth import Day, Growth
from dal.files.keys import PLAIN
from dal.files.pricing import money, tiers_of
from dal.files.quotas import usage_of
from dal.limits import MAX_PAGE_ROWS
from dal.models import Page, page
from dal.ops import Compare, Count, Select, Sum
from dal.repositories.base import Context
from dal.repositories.costs import Costs
from dal.repositories.prices import Prices
from dal.repositories.storage_metrics import StorageMetrics
from dal.values import check_limit

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

_logger = logging.getLogger("dal.files")

_YEAR_DAYS: Final = 366

Subject = Literal["bytes", "files", "cost", "projected_cost", "growth_bytes", "class_a", "class_b", "egress"]


class Total(NamedTuple):
    """What all users store.

    files, bytes                 and the bytes of their contents; deleted ones apart, until they are swept.
    stored_bytes                 in the blob store, deleted files included: contents that files share count once, in
                                 their compressed size; compressed ones that are not shared in their plain size.
    reserved_bytes               of uploads under way.
    """

    files: int
    bytes: int
    deleted_files: int
    deleted_bytes: int
    stored_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Above which values somebody is to be told; None is never.

    bytes, files              stored by all users.
    cost, projected_cost      of the running month, in the currency of the prices.
    growth_bytes              from one recorded day to the next.
    class_a, class_b, egress  of the running month: requests, bytes.
    """

    bytes: int | None = None
    files: int | None = None
    cost: float | None = None
    projected_cost: float | None = None
    growth_bytes: int | None = None
    class_a: int | None = None
    class_b: int | None = None
    egress: int | None = None


SUBJECTS: Final[tuple[str, ...]] = tuple(field.name for field in fields(Thresholds))


class Alert(NamedTuple):
    """A threshold that was passed."""

    subject: Subject
    value: float
    threshold: float
    message: str


OnAlert: TypeAlias = Callable[[Alert], None]


class Monitoring:
    """Usage, costs and alerts of files' storage.

    provider  whose prices hold: `r2`, `s3`; any other costs nothing unless prices are set for it.
    meter     where alerts and usage are recorded as metrics; None: nowhere.
    """

    def __init__(self, context: Context, provider: str, meter: Meter | None = None) -> None:
        self.provider = provider
        self.metrics = StorageMetrics(context)
        self._growth = Growth(context, self.metrics)
        self.prices = Prices(context)
        self.cost_records = Costs(context)
        self._store = context.store
        self._now = context.clock
        self._gauges = None if meter is None else _Gauges(meter, provider)

    async def usage_total(self) -> Total:
        """What all users store. Seven reads that count, so their cost grows with the number of files."""
        deleted, present = Compare("status", "=", "deleted"), Compare("status", "!=", "deleted")
        files = await self._number(Count("files", (present,)))
        size = await self._number(Sum("files", "file_size", (present,)))
        gone = await self._number(Sum("files", "file_size", (deleted,)))
        # Keys that begin with PLAIN; "0" follows "/". Those of shared contents are counted once for all their files,
        # and those that applications registered are not this library's.
        plain = (Compare("storage_key", ">=", PLAIN), Compare("storage_key", "<", f"{PLAIN[:-1]}0"))
        apart = await self._number(Sum("files", "file_size", plain))
        together = await self._number(Sum("file_contents", "stored_size"))
        return Total(
            files,
            size,
            await self._number(Count("files", (deleted,))),
            gone,
            apart + together,
            await self._number(Sum("user_quotas", "reserved_bytes")),
        )

    async def usage_by_user(self, *, limit: int = 50, after: str | None = None) -> Page[Usage]:
        """A page of what users store, in the order of their ids; users who never uploaded anything are left out.

        after  the last page's `next`.   limit: 1..1000.
        """
        count, listing = check_limit("limit", limit, MAX_PAGE_ROWS), Listing("user_quotas", ("user_id",))
        rows = await self._store.read(
            Select("user_quotas", (), listing.order, listing.after(after), count + 1, USER_QUOTAS.names)
        )
        items = [usage_of(dict(zip(USER_QUOTAS.names, row, strict=True))) for row in rows[:count]]
        return page(Usage, items, listing.cursor([items[-1].user_id]) if len(rows) > count else None)

    async def record(self) -> CostReport:
        """Keeps how much is stored today, in total and by the users whose use changed, and what the month costs so far,
        for `growth` and `costs`; the costs.

        Run it once a day: a day without it counts as the day before. Running it again replaces the day's record.
        Cost  as `usage_total`; a read of all users' quotas, and a commit for each 500 users whose use changed.
        """
        total = await self.usage_total()
        await self._growth.record(total.stored_bytes, total.files + total.deleted_files)
        report = await self.costs()
        await self.cost_records.record([_record_of(report, place) for place in range(len(report.lines))])
        return report

    async def growth(self, days: int = 30, *, user_id: str | None = None) -> list[Day]:
        """The recorded ones of the last 1..366 days, oldest first.

        user_id  one user's: the days in which it changed, in files and bytes as `usage` counts them. In total it is
                 what lies in the blob store, deleted files included until they are swept.
        """
        return await self._growth.days(days, user_id)

    async def costs(self, period: str | None = None) -> CostReport:
        """What a month costs: so far, and as it may end. `month_costs` says how that is told.

        period  `2026-11`; None is the running month.
        Raises  InvalidInputError: no month, or one that has not begun.
        """
        month = Month.of(period, self._now())
        counted = await self.metrics.by_day(month.first, month.last)
        stored = 0 if month.is_over else (await self.usage_total()).stored_bytes
        tiers = tiers_of(self.provider, await self.prices.list(self.provider))
        return month_costs(self.provider, month, counted, stored, tiers)

    async def alerts(self, thresholds: Thresholds, on_alert: OnAlert | None = None) -> list[Alert]:
        """The thresholds that are passed now; each is also logged as a warning, and told to `on_alert`.

        Where there is a meter, `dal.files.alerts` counts them, and `dal.files.usage` shows each value by its subject.
        """
        total, costs, grown = await self.usage_total(), await self.costs(), await self.growth(_YEAR_DAYS)
        values: dict[Subject, float] = {
            "bytes": total.bytes,
            "files": total.files,
            "cost": costs.cost_nanos / 1e9,
            "projected_cost": costs.projected_nanos / 1e9,
            "growth_bytes": grown[-1].grown_bytes if grown else 0,
            "class_a": costs.line("class_a").quantity,
            "class_b": costs.line("class_b").quantity,
            "egress": costs.line("egress").quantity,
        }
        found = [
            Alert(subject, value, threshold, _told(subject, value, threshold, costs.currency))
            for subject, value in values.items()
            if (threshold := getattr(thresholds, subject)) is not None and value > threshold
        ]
        for alert in found:
            _logger.warning("files: %s", alert.message)
            if on_alert is not None:
                on_alert(alert)
        if self._gauges is not None:
            self._gauges.show(values, found)
        return found

    async def _number(self, query: Count | Sum) -> int:
        ((value,),) = await self._store.read(query)
        return int(str(value))


class _Gauges:
    """Usage and alerts as OpenTelemetry metrics."""

    def __init__(self, meter: Meter, provider: str) -> None:
        self._provider = provider
        self._alerts = meter.create_counter("dal.files.alerts", description="Thresholds that were found passed.")
        self._values = meter.create_gauge("dal.files.usage", description="What is stored, done and paid, by subject.")

    def show(self, values: dict[Subject, float], alerts: Sequence[Alert]) -> None:
        for subject, value in values.items():
            self._values.set(value, {"provider": self._provider, "subject": subject})
        for alert in alerts:
            self._alerts.add(1, {"provider": self._provider, "subject": alert.subject})


def _record_of(report: CostReport, place: int) -> Cost:
    line = report.lines[place]
    return Cost(
        provider=report.provider,
        item=line.item,
        period=report.period,
        quantity=line.quantity,
        cost_nanos=line.cost_nanos,
        currency=report.currency,
    )


def _told(subject: Subject, value: float, threshold: float, currency: str) -> str:
    name = subject.replace("_", " ")
    if "cost" in subject:
        return f"the {name} of this month is {money(round(value * 1e9), currency)}, above {threshold:,.2f} {currency}"
    return f"{name}: {value:,.0f}, above {threshold:,.0f}"
