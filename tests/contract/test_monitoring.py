"""What monitoring tells of usage, growth and costs, on every backend and through every layer."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from dal.access import DataAccess
from dal.errors import InvalidInputError, LimitExceededError
from dal.factory import create_data_access
from dal.file_models import PricingTier
from dal.files.monitoring import Alert, Monitoring, Thresholds
from dal.ops import Compare, Insert, Sum, Update, Value
from dal.repositories.base import Context
from dal.values import new_id

GB = 10**9


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 15, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def monitoring_of(
    dal: DataAccess, time: Time, provider: str = "r2", reader: InMemoryMetricReader | None = None
) -> Monitoring:
    meter = None if reader is None else MeterProvider([reader]).get_meter("dal")
    return Monitoring(Context(dal.store, time, new_id, "test"), provider, meter)


async def quota(dal: DataAccess, user_id: str, **values: int) -> None:
    now = datetime.now(UTC)
    row: dict[str, Value] = {
        "id": new_id(),
        "user_id": user_id,
        "max_bytes": 2**63 - 1,
        "max_files": 2**63 - 1,
        "taken_bytes": 0,
        "taken_files": 0,
        "reserved_bytes": 0,
        "reserved_files": 0,
        "created_at": now,
        "updated_at": now,
        "version": 1,
    }
    await dal.store.commit((Insert("user_quotas", {**row, **values}),))


async def uses(dal: DataAccess, user_id: str, time: Time, taken: int) -> None:
    """Takes so many bytes of a user's quota, in one file."""
    change = {"updated_at": time.now}
    await dal.store.commit(
        (Update("user_quotas", {"user_id": user_id}, change, {"taken_bytes": taken, "taken_files": 1, "version": 1}),)
    )


async def test_usage_counts_what_is_there_what_is_deleted_and_shared_contents_once(dal: DataAccess, time: Time) -> None:
    ada = (await dal.users.create(name="Ada")).id
    blob = f"shared/{uuid4()}.zst"
    now = datetime.now(UTC)
    for key, size, status in (
        (f"files/{uuid4()}", 100, "active"),
        (f"files/{uuid4()}", 30, "quarantined"),
        (f"files/{uuid4()}", 7, "deleted"),
        (f"{blob}@{uuid4()}", 1000, "active"),
        (f"{blob}@{uuid4()}", 1000, "active"),
        ("share", 5, "active"),
    ):
        await dal.files.create(ada, "f", storage_key=key, file_size=size, status=status)
    content: dict[str, Value] = {
        "id": new_id(),
        "checksum": "sha256:x",
        "file_size": 1000,
        "blob_key": blob,
        "stored_size": 400,
        "ref_count": 2,
        "created_at": now,
        "updated_at": now,
        "version": 1,
    }
    await dal.store.commit((Insert("file_contents", content),))
    await quota(dal, ada, taken_bytes=2200, taken_files=6, reserved_bytes=65, reserved_files=1)
    monitoring = monitoring_of(dal, time)
    assert await monitoring.usage_total() == (5, 2135, 1, 7, 137 + 400, 65)
    (usage,) = (await monitoring.usage_by_user()).items
    assert (usage.user_id, usage.used_bytes, usage.used_files, usage.bytes_left) == (ada, 2135, 5, None)


async def test_usage_by_user_goes_page_by_page(dal: DataAccess, time: Time) -> None:
    users = sorted([(await dal.users.create(name=str(n))).id for n in range(5)])
    for n, user_id in enumerate(users):
        await quota(dal, user_id, taken_bytes=n, taken_files=1, max_bytes=3, max_files=1)
    monitoring = monitoring_of(dal, time)
    seen, after, pages = [], None, 0
    while pages == 0 or after is not None:
        found = await monitoring.usage_by_user(limit=2, after=after)
        seen += [(usage.user_id, usage.bytes_left, usage.files_left) for usage in found.items]
        after, pages = found.next, pages + 1
    assert pages == 3
    assert seen == [(user_id, max(0, 3 - n), 0) for n, user_id in enumerate(users)]
    for wrong in ("zz", "", users[0]):
        with pytest.raises(InvalidInputError, match="after"):
            await monitoring.usage_by_user(after=wrong)
    with pytest.raises(LimitExceededError, match="limit"):
        await monitoring.usage_by_user(limit=1001)


async def test_recorded_days_show_the_growth_and_the_months_costs_are_kept(dal: DataAccess, time: Time) -> None:
    ada = (await dal.users.create(name="Ada")).id
    monitoring = monitoring_of(dal, time)
    for size in (40 * GB, 60 * GB, 0):
        if size:
            await dal.files.create(ada, "f", storage_key=f"files/{uuid4()}", file_size=size)
        await monitoring.record()
        await monitoring.record()  # again on the same day replaces it
        time.now += timedelta(days=2)
    assert [tuple(day) for day in await monitoring.growth(30)] == [
        (date(2026, 11, 15), 1, 40 * GB, 0),
        (date(2026, 11, 17), 2, 100 * GB, 60 * GB),
        (date(2026, 11, 19), 2, 100 * GB, 0),
    ]
    assert [tuple(day) for day in await monitoring.growth(4)] == [(date(2026, 11, 19), 2, 100 * GB, 0)]
    assert [day.grown_bytes for day in await monitoring.growth(6)] == [60 * GB, 0]  # more than before these days
    await monitoring.metrics.add({"r2.class_a": 3_000_000, "s3.class_a": 5}, period="2026-11-20")
    await monitoring.metrics.add({"r2.class_a": 1_000_000}, period="2026-11-20")
    await monitoring.metrics.add({"r2.class_a": 7_000_000}, period="2026-10-20")
    report = await monitoring.record()
    assert report.line("class_a").cost_nanos == 3 * 4_500_000_000
    kept = (await monitoring.cost_records.list(period="2026-11")).items
    assert {cost.item: cost.cost_nanos for cost in kept} == {line.item: line.cost_nanos for line in report.lines}
    assert all(cost.updated_at is not None for cost in kept)
    october = await monitoring.costs("2026-10")
    assert (october.share, october.line("class_a").cost_nanos) == (1.0, 6 * 4_500_000_000)


async def test_the_growth_of_each_user_is_kept_for_the_days_on_which_it_changed(
    dal: DataAccess, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.files.growth.MAX_PAGE_ROWS", 4)  # two users a page
    ada, yuki, *others = [(await dal.users.create(name=str(n))).id for n in range(7)]
    monitoring = monitoring_of(dal, time)
    for user_id in (ada, *others):
        await quota(dal, user_id, taken_bytes=100, taken_files=1, reserved_bytes=10)
        await uses(dal, user_id, time, 0)
    await monitoring.record()  # on the 15th
    time.now += timedelta(days=2)
    await uses(dal, ada, time, 7)
    await quota(dal, yuki)
    await uses(dal, yuki, time, 50)
    await monitoring.record()
    time.now += timedelta(days=1)
    await monitoring.record()  # nobody changed
    time.now += timedelta(days=1)
    await uses(dal, ada, time, -60)
    await monitoring.record()
    await uses(dal, ada, time, 1)
    await monitoring.record()  # again on the same day replaces it
    assert [tuple(day) for day in await monitoring.growth(user_id=ada)] == [
        (date(2026, 11, 15), 2, 90, 0),
        (date(2026, 11, 17), 3, 97, 7),
        (date(2026, 11, 19), 5, 38, -59),
    ]
    assert [tuple(day) for day in await monitoring.growth(1, user_id=ada)] == [(date(2026, 11, 19), 5, 38, -59)]
    # Nothing was kept of her when others were recorded first: she had nothing.
    assert [tuple(day) for day in await monitoring.growth(user_id=yuki)] == [(date(2026, 11, 17), 1, 50, 50)]
    for user_id in others:
        assert [tuple(day) for day in await monitoring.growth(user_id=user_id)] == [(date(2026, 11, 15), 2, 90, 0)]
        # Written where something changed, once more as that was just before the record, and not every day.
        kept = (await monitoring.metrics.list(metric="used.bytes", scope=user_id)).items
        assert [counter.period for counter in kept] == ["2026-11-15", "2026-11-17"]
    assert await monitoring.growth(user_id="nobody") == []
    assert len(await monitoring.growth()) == 4


async def test_a_change_beside_a_record_is_in_the_next_one(dal: DataAccess, time: Time) -> None:
    ada = (await dal.users.create(name="Ada")).id
    monitoring = monitoring_of(dal, time)
    await quota(dal, ada)
    await monitoring.record()
    time.now -= timedelta(minutes=30)  # a commit that was on its way, or another machine's clock
    await uses(dal, ada, time, 5)
    time.now += timedelta(days=1)
    await monitoring.record()
    assert [day.grown_bytes for day in await monitoring.growth(user_id=ada)] == [0, 5]


async def test_counters_of_500_users_are_set_in_one_commit(dal: DataAccess, time: Time) -> None:
    metrics = monitoring_of(dal, time).metrics
    users = [f"user-{n}" for n in range(500)]
    for value in (1, 2):
        await metrics.set_scopes({user: {"a": value, "b": -value} for user in users}, period="2026-11-29")
    assert await dal.store.read(Sum("storage_metrics", "value", (Compare("metric", "=", "a"),))) == [(1000,)]
    latest = await metrics.latest("b", scope="user-499")
    assert latest is not None
    assert (latest.value, latest.period) == (-2, "2026-11-29")
    assert await metrics.latest("b", scope="user-499", before="2026-11-29") is None
    with pytest.raises(InvalidInputError, match="at most 1000"):
        await metrics.set_scopes({user: {"a": 1, "b": 1, "c": 1} for user in users}, period="2026-11-29")


async def test_counters_that_many_add_to_at_once_are_the_sum(dal: DataAccess, time: Time) -> None:
    metrics = monitoring_of(dal, time).metrics
    await asyncio.gather(*(metrics.add({"a": n, "b": 1}, period="2026-11-29") for n in range(20)))
    found = {counter.metric: counter.value for counter in (await metrics.list()).items}
    assert found == {"a": 190, "b": 20}


async def test_prices_of_ones_own_win_until_they_are_removed(dal: DataAccess, time: Time) -> None:
    monitoring = monitoring_of(dal, time, "minio")
    await monitoring.metrics.add({"minio.egress": 3000}, period="2026-11-14")
    assert (await monitoring.costs()).cost_nanos == 0
    own = [
        PricingTier(provider="minio", item="egress", unit=1000, price_nanos=10, currency="EUR"),
        PricingTier(provider="minio", item="egress", from_quantity=1000, unit=1000, price_nanos=1, currency="EUR"),
    ]
    await monitoring.prices.set(own)
    await monitoring.prices.set(own)
    assert await monitoring.prices.list("minio") == own
    report = await monitoring.costs()
    assert (report.cost_nanos, report.currency) == (12, "EUR")
    assert await monitoring.prices.remove("minio")
    assert not await monitoring.prices.remove("minio")
    assert (await monitoring.costs()).cost_nanos == 0


@pytest.mark.parametrize("starts", [(1,), (0, 0), (5, 10), ()])
async def test_tiers_that_do_not_begin_at_nothing_are_refused(time: Time, starts: tuple[int, ...]) -> None:
    async with create_data_access("memory://") as dal:
        monitoring = monitoring_of(dal, time)
        tiers = [PricingTier(provider="x", item="egress", from_quantity=n, price_nanos=1) for n in starts]
        with pytest.raises(InvalidInputError):
            await monitoring.prices.set(tiers)
        assert await monitoring.prices.list("x") == []


async def test_thresholds_that_are_passed_are_told_logged_and_measured(
    dal: DataAccess, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    ada = (await dal.users.create(name="Ada")).id
    reader = InMemoryMetricReader()
    monitoring = monitoring_of(dal, time, reader=reader)
    for _ in range(2):
        await dal.files.create(ada, "f", storage_key=f"files/{uuid4()}", file_size=100 * GB)
        await monitoring.record()
        time.now += timedelta(days=1)
    await monitoring.metrics.add({"r2.class_b": 500_000_000}, period="2026-11-16")
    told: list[Alert] = []
    thresholds = Thresholds(
        bytes=200 * GB - 1, files=2, cost=176.0, projected_cost=100.0, growth_bytes=99 * GB, class_a=0, class_b=10**9
    )
    with caplog.at_level(logging.WARNING, "dal.files"):
        found = await monitoring.alerts(thresholds, told.append)
    assert [alert.subject for alert in found] == ["bytes", "cost", "projected_cost", "growth_bytes"]
    assert told == found
    assert [record.message for record in caplog.records] == [f"files: {alert.message}" for alert in found]
    assert found[0].message == "bytes: 200,000,000,000, above 199,999,999,999"
    assert "USD, above 176.00 USD" in found[1].message
    data = reader.get_metrics_data()
    assert data is not None
    measured = {
        (metric.name, point.attributes["subject"]): point.value  # type: ignore[index,union-attr]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert measured["dal.files.alerts", "cost"] == 1
    assert measured["dal.files.usage", "bytes"] == 200 * GB
    assert ("dal.files.alerts", "files") not in measured
    assert await monitoring.alerts(Thresholds()) == []
