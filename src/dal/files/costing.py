"""A month's costs from its counters: what was used so far, what it costs, and how the month may end."""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from dal.blobs.counted import SIGNED_GET, SIGNED_PUT
from dal.errors import InvalidInputError
from dal.file_models import PricingTier
from dal.files.pricing import ITEMS, Item, cost_nanos
from dal.ops import JsonValue

#: What is in the blob store at a day's end, as `record` keeps it.
STORED_BYTES: Final = "stored.bytes"
STORED_FILES: Final = "stored.files"
_DAY_S: Final = 86_400.0
_COUNTED: Final[tuple[Item, ...]] = ("class_a", "class_b", "egress")

#: Counters in total, by day and name.
Days: TypeAlias = Mapping[date, Mapping[str, int]]


class CostLine(NamedTuple):
    """One item of a bill: a quantity (byte-months, requests, bytes) and its cost, so far and as the month may end."""

    item: Item
    quantity: int
    cost_nanos: int
    projected_quantity: int
    projected_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """A month's costs, in billionths of the currency. `share` of it has passed; 1.0 for one that is over.

    signed  requests that were signed for others; what a bucket was asked by them is not in the lines.
    """

    provider: str
    period: str
    currency: str
    share: float
    lines: tuple[CostLine, ...]
    signed: int = 0

    @property
    def cost_nanos(self) -> int:
        return sum(line.cost_nanos for line in self.lines)

    @property
    def projected_nanos(self) -> int:
        return sum(line.projected_nanos for line in self.lines)

    def line(self, item: Item) -> CostLine:
        return next(line for line in self.lines if line.item == item)

    def as_dict(self) -> dict[str, JsonValue]:
        lines: list[JsonValue] = [dict(line._asdict()) for line in self.lines]
        return {
            "provider": self.provider,
            "period": self.period,
            "currency": self.currency,
            "share": round(self.share, 4),
            "cost_nanos": self.cost_nanos,
            "projected_nanos": self.projected_nanos,
            "items": lines,
            "signed": self.signed,
        }


class Month(NamedTuple):
    """A month, and how much of it has passed at a time."""

    first: date
    days: int
    now: datetime

    @classmethod
    def of(cls, period: str | None, now: datetime) -> Month:
        """`2026-11`; None is the running month. Raises InvalidInputError: no month, or one that has not begun."""
        now = now.astimezone(UTC)
        first = now.date().replace(day=1) if period is None else _first_day(period)
        if first > now.date():
            raise InvalidInputError(f"period: {period} has not begun")
        return cls(first, calendar.monthrange(first.year, first.month)[1], now)

    @property
    def name(self) -> str:
        return f"{self.first:%Y-%m}"

    @property
    def last(self) -> date:
        """Its last day, or today."""
        return min(self.first + timedelta(days=self.days - 1), self.now.date())

    @property
    def is_over(self) -> bool:
        return self.first + timedelta(days=self.days) <= self.now.date()

    @property
    def share(self) -> float:
        """How much of it has passed; an hour at least."""
        if self.is_over:
            return 1.0
        passed = self.now - datetime(self.first.year, self.first.month, 1, tzinfo=UTC)
        return max(passed.total_seconds(), 3600) / (self.days * _DAY_S)

    def passed_of(self, day: date) -> float:
        """How much of one of its days has passed."""
        passed = self.now - datetime(day.year, day.month, day.day, tzinfo=UTC)
        return min(1.0, passed.total_seconds() / _DAY_S)


def month_costs(
    provider: str, month: Month, counted: Days, stored_now: int, tiers: Mapping[str, Sequence[PricingTier]]
) -> CostReport:
    """What the month costs.

    stored_now  bytes in the blob store. Storage is the mean of the month's days: a day that was not recorded counts as
                the one before it, and those before the first record as that one; without any record it is what is
                stored now in the running month, and nothing in one that is over.
    projected   requests and transfer go on as they did; what is stored now stays.
    """
    lines = []
    for item in ITEMS:
        if item == "storage":
            quantity = _byte_months(month, counted, stored_now)
            projected = quantity + round(stored_now * (1 - month.share))
        else:
            quantity = sum(day.get(f"{provider}.{item}", 0) for day in counted.values())
            projected = round(quantity / month.share)
        own = tiers.get(item, ())
        lines.append(CostLine(item, quantity, cost_nanos(own, quantity), projected, cost_nanos(own, projected)))
    currency = next((tier.currency for own in tiers.values() for tier in own), "USD")
    signed = sum(day.get(f"{provider}.{name}", 0) for day in counted.values() for name in (SIGNED_GET, SIGNED_PUT))
    return CostReport(
        provider=provider,
        period=month.name,
        currency=currency,
        share=month.share,
        lines=tuple(lines),
        signed=signed,
    )


def _byte_months(month: Month, counted: Days, stored_now: int) -> int:
    records = [counts[STORED_BYTES] for _, counts in sorted(counted.items()) if STORED_BYTES in counts]
    level = records[0] if records else 0 if month.is_over else stored_now
    byte_days, day = 0, month.first
    while day <= month.last:
        level = counted.get(day, {}).get(STORED_BYTES, level)
        byte_days += round(level * month.passed_of(day))
        day += timedelta(days=1)
    return byte_days // month.days


def _first_day(period: str) -> date:
    try:
        year, month = period.split("-")
        if len(year) == 4 and len(month) == 2:
            return date(int(year), int(month), 1)
    except (ValueError, AttributeError):
        pass
    raise InvalidInputError(f"period: {str(period)[:20]!r} is no month, as 2026-11 is")
