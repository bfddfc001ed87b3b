"""Retry-After, as D1's edge sends it, heeded by every request of the process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dal.backends.d1.transport import _retry_after
from dal.errors import DalTimeoutError
from dal.ops import Count
from dal.store import Store
from tests.d1.conftest import Place


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("", None), ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None)]
)
def test_a_header_of_seconds(header: str | None, seconds: float | None) -> None:
    assert _retry_after(header) == seconds


def test_a_header_of_a_date() -> None:
    at = datetime.now(UTC) + timedelta(seconds=60)
    assert _retry_after(format_datetime(at, usegmt=True)) == pytest.approx(60, abs=5)


async def test_requests_wait_for_as_long_as_they_are_told(place: Place, store: Store) -> None:
    executor = store._executor  # type: ignore[attr-defined]
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        limiter._not_before = 0.0

    limiter = executor.transport.limiter
    limiter._sleep = sleep
    place.faults({"status": 429, "headers": {"retry-after": "3"}}, {"status": 503, "headers": {"retry-after": "5"}})
    assert await store.read(Count("users")) == [(0,)]
    assert [round(wait) for wait in waited] == [pytest.approx(3, abs=1), pytest.approx(6, abs=1.3)]


async def test_who_is_told_to_wait_too_long_is_told_at_once(place: Place, store: Store) -> None:
    place.faults({"status": 429, "headers": {"retry-after": "120"}})
    with pytest.raises(DalTimeoutError, match="gave up after 1 tries"):
        await store.read(Count("users"))
