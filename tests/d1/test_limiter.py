"""The client-side limit on the public API, on a clock of the test's own."""

from __future__ import annotations

import logging

import pytest

from dal.backends.d1.limiter import Limiter
from dal.backends.d1.transport import PUBLIC_HOST, D1Address, D1Transport
from dal.errors import DalTimeoutError
from dal.limits import (
    D1_API_BURST_REQUESTS,
    D1_API_REQUESTS,
    D1_API_WINDOW_S,
    D1_MAX_PAUSE_S,
    STATEMENT_TIMEOUT_S,
)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def limiter(time: Time, *, is_limited: bool = True) -> Limiter:
    return Limiter(is_limited=is_limited, clock=time, sleep=time.sleep)


async def test_no_window_sees_more_requests_than_the_api_allows() -> None:
    time = Time()
    under_test = limiter(time)
    sent: list[float] = []
    for _ in range(3000):
        await under_test.permit()
        sent.append(time.now)
    for start, at in enumerate(sent):
        within = sum(1 for other in sent[start:] if other < at + D1_API_WINDOW_S)
        assert within <= D1_API_REQUESTS + 1
    assert D1_API_REQUESTS < 1200, "some room for what else uses the token"


async def test_a_burst_goes_at_once_and_waiting_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    under_test = limiter(time)
    for _ in range(D1_API_BURST_REQUESTS):
        await under_test.permit()
    assert time.now == 1000.0
    with caplog.at_level(logging.WARNING, "dal.d1"):
        for _ in range(30):
            await under_test.permit()
    assert time.now > 1000.0
    assert under_test.waited_s == pytest.approx(time.now - 1000.0)
    assert [record.message for record in caplog.records if "rate limit" in record.message] == [caplog.messages[0]]


async def test_a_wait_without_end_is_refused_at_once() -> None:
    time = Time()
    under_test = limiter(time)
    under_test.pause(STATEMENT_TIMEOUT_S + 1)
    with pytest.raises(DalTimeoutError, match="rate"):
        await under_test.permit()
    assert time.now == 1000.0


async def test_retry_after_holds_every_request_back_with_some_chance_in_it() -> None:
    waits = set()
    for _ in range(20):
        time = Time()
        under_test = limiter(time, is_limited=False)
        under_test.pause(7.0)
        await under_test.permit()
        waits.add(round(time.now - 1000.0, 6))
    assert all(7.0 <= wait <= 7.0 * 1.25 for wait in waits)
    assert len(waits) > 1


async def test_a_retry_after_of_a_day_is_not_believed() -> None:
    time = Time()
    under_test = limiter(time, is_limited=False)
    under_test.pause(86_400.0)
    time.now += D1_MAX_PAUSE_S * 1.25
    await under_test.permit()
    assert time.now == 1000.0 + D1_MAX_PAUSE_S * 1.25


@pytest.mark.parametrize(
    ("base", "is_limited"),
    [
        (f"https://{PUBLIC_HOST}/client/v4", True),
        ("http://127.0.0.1:1/client/v4", False),
        ("https://my.worker/d1", False),
    ],
)
async def test_only_the_public_api_is_limited(base: str, is_limited: bool) -> None:
    transport = D1Transport(D1Address(base, "a", "d"), "token")
    for _ in range(D1_API_BURST_REQUESTS):
        await transport.limiter.permit()
    assert (transport.limiter._take() > 0) is is_limited
