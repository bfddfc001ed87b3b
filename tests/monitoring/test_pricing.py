"""Prices and their arithmetic, against the examples that providers publish."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from dal.errors import InvalidInputError
from dal.file_models import PricingTier
from dal.files.costing import STORED_BYTES, Month, month_costs
from dal.files.pricing import ITEMS, PUBLISHED, SOURCES, cost_nanos, money, tiers_of

GB, GIB, TIB, MILLION = 10**9, 2**30, 2**40, 10**6


@pytest.mark.parametrize(
    ("provider", "item", "quantity", "dollars"),
    [
        # The examples of Cloudflare's page.
        ("r2", "storage", 1_000 * GB, 14.85),
        ("r2", "class_a", 1_000, 0),
        ("r2", "class_b", 300 * MILLION, 104.40),
        ("r2", "egress", 10**15, 0),
        # It bills whole units beyond what is free.
        ("r2", "class_a", MILLION, 0),
        ("r2", "class_a", MILLION + 1, 4.50),
        ("r2", "storage", 11_100_000_000, 0.03),
        ("s3", "storage", 1_000 * GIB, 23),
        ("s3", "storage", 60 * TIB, 50 * 1024 * 0.023 + 10 * 1024 * 0.022),
        ("s3", "storage", 600 * TIB, 50 * 1024 * 0.023 + 450 * 1024 * 0.022 + 100 * 1024 * 0.021),
        ("s3", "class_a", 1_000_000, 5),
        ("s3", "class_a", 1, 0.000_005),
        ("s3", "class_b", 10_000, 0.004),
        ("s3", "egress", 100 * GIB, 0),
        ("s3", "egress", 10 * TIB, (10 * 1024 - 100) * 0.09),
        ("s3", "egress", 200 * TIB, 9940 * 0.09 + 200 * 0.09 + 40960 * 0.085 + 102400 * 0.07 + 51200 * 0.05),
        ("file", "storage", 10**15, 0),
    ],
)
def test_published_prices_give_what_the_providers_say(provider: str, item: str, quantity: int, dollars: float) -> None:
    assert cost_nanos(tiers_of(provider).get(item, []), quantity) == pytest.approx(dollars * 1e9, abs=1)


def test_every_published_provider_prices_every_item_and_names_its_source() -> None:
    for provider, (address, day) in SOURCES.items():
        assert set(tiers_of(provider)) == set(ITEMS)
        assert address.startswith("https://")
        assert date(2026, 1, 1) < day < date(2027, 1, 1)
    assert {tier.provider for tier in PUBLISHED} == set(SOURCES)


def test_own_prices_stand_in_place_of_an_items_published_ones() -> None:
    own = [PricingTier(provider="s3", item="egress", unit=GIB, price_nanos=10**7, currency="EUR")]
    tiers = tiers_of("s3", own)
    assert cost_nanos(tiers["egress"], 200 * GIB) == 2 * 10**9
    assert cost_nanos(tiers["class_a"], 1000) == 5 * 10**6
    assert tiers_of("r2", own) == tiers_of("r2")


def test_the_cost_of_a_large_quantity_is_exact() -> None:
    tiers = [PricingTier(provider="x", item="egress", unit=3, price_nanos=1)]
    assert [cost_nanos(tiers, n) for n in (0, 1, 2, 3, 4, 5)] == [0, 0, 1, 1, 1, 2]
    assert cost_nanos(tiers, 3 * 10**30 + 1) == 10**30


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [(0, "0.00 USD"), (14_850_000_000, "14.85 USD"), (5_000, "0.000005 USD"), (1_234_567_890_000, "1,234.57 USD")],
)
def test_amounts_are_shown_as_people_read_them(nanos: int, shown: str) -> None:
    assert money(nanos) == shown


NOON_15TH = datetime(2026, 11, 15, 12, tzinfo=UTC)


def test_storage_is_the_mean_of_the_days_and_a_day_without_a_record_is_as_the_one_before() -> None:
    counted = {date(2026, 11, 1): {STORED_BYTES: 3 * 30 * GIB}, date(2026, 11, 11): {STORED_BYTES: 6 * 30 * GIB}}
    month = Month.of("2026-11", datetime(2026, 12, 24, tzinfo=UTC))
    report = month_costs("s3", month, counted, 10**15, tiers_of("s3"))
    assert report.line("storage").quantity == (3 * 10 + 6 * 20) * GIB
    assert report.line("storage").projected_quantity == report.line("storage").quantity
    assert (report.period, report.share) == ("2026-11", 1.0)


def test_the_running_month_is_projected_to_its_end() -> None:
    counted = {
        date(2026, 11, 1): {"s3.class_a": 600_000, "s3.egress": 0, "r2.class_a": 10**9},
        date(2026, 11, 14): {"s3.class_a": 1_140_000},
    }
    report = month_costs("s3", Month.of(None, NOON_15TH), counted, 300 * GIB, tiers_of("s3"))
    assert report.share == pytest.approx(14.5 / 30)
    line = report.line("class_a")
    assert (line.quantity, line.projected_quantity) == (1_740_000, 3_600_000)
    assert (line.cost_nanos, line.projected_nanos) == (8_700_000_000, 18_000_000_000)
    storage = report.line("storage")
    assert storage.quantity == pytest.approx(145 * GIB, abs=10)
    assert storage.projected_quantity == pytest.approx(300 * GIB, abs=10)
    assert report.projected_nanos == sum(line.projected_nanos for line in report.lines)


def test_the_first_hour_of_a_month_is_not_projected_from_nothing() -> None:
    month = Month.of(None, datetime(2026, 11, 1, 0, 0, 1, tzinfo=UTC))
    report = month_costs("s3", month, {date(2026, 11, 1): {"s3.class_a": 1000}}, 0, tiers_of("s3"))
    assert report.line("class_a").projected_quantity == 720_000


def test_a_month_that_is_over_and_was_never_recorded_stored_nothing() -> None:
    report = month_costs("s3", Month.of("2026-02", NOON_15TH), {}, 10**15, tiers_of("s3"))
    assert report.cost_nanos == 0


@pytest.mark.parametrize("period", ["2026-12", "2026", "2026-13", "26-11", "2026-11-01", "", "november"])
def test_a_period_that_is_no_month_or_has_not_begun_is_refused(period: str) -> None:
    with pytest.raises(InvalidInputError):
        Month.of(period, NOON_15TH)
