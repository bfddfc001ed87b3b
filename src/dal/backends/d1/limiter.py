"""Keeps this process under the rate that the API allows, and away from it while it asks to be left alone.

Cloudflare's public API takes 1,200 requests in five minutes; behind that it refuses everything for five minutes more.
A bucket gives a burst at once and a steady trickle after it, so that no five minutes see more. Other processes of the
same account are not known here: what they use up comes back as status 429, whose Retry-After all requests here heed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from dal.backends.d1.errors import BACKEND
from dal.errors import DalTimeoutError
from dal.limits import D1_API_BURST_REQUESTS, D1_API_REQUESTS, D1_API_WINDOW_S, D1_MAX_PAUSE_S, STATEMENT_TIMEOUT_S

_LOG: Final = logging.getLogger("dal.d1")
_PER_S: Final = (D1_API_REQUESTS - D1_API_BURST_REQUESTS) / D1_API_WINDOW_S
#: Requests that were told to come back at one moment must not all come back at that moment.
_JITTER: Final = 0.25
_SAY_EVERY_S: Final = 60.0


class Limiter:
    """Permission to send.

    is_limited  the public API is spoken to: the rate counts. Else only Retry-After does.
    """

    def __init__(
        self,
        *,
        is_limited: bool,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._is_limited = is_limited
        self._clock = clock
        self._sleep = sleep
        self._free = float(D1_API_BURST_REQUESTS)
        self._filled_at = clock()
        self._not_before = 0.0
        self._said_at = -_SAY_EVERY_S
        #: Requests that wait now, and seconds waited in all.
        self.waiting = 0
        self.waited_s = 0.0

    async def permit(self) -> None:
        """Returns when a request may be sent. Raises DalTimeoutError where that is too far away to wait for."""
        wait_s = self._take()
        if wait_s <= 0:
            return
        if wait_s > STATEMENT_TIMEOUT_S:
            self._free += 1
            raise DalTimeoutError(
                f"the API's rate would let this request go in {wait_s:.0f} s only; send fewer, or larger batches",
                operation="request",
                backend=BACKEND,
            )
        self._say(wait_s)
        self.waiting += 1
        self.waited_s += wait_s
        try:
            await self._sleep(wait_s)
        finally:
            self.waiting -= 1

    def pause(self, retry_after_s: float) -> None:
        """Holds every request back for about so long: the server asked for it."""
        pause_s = min(retry_after_s, D1_MAX_PAUSE_S) * (1 + random.random() * _JITTER)  # noqa: S311
        self._not_before = max(self._not_before, self._clock() + pause_s)

    def _take(self) -> float:
        """Takes a place in the rate, and says how long to wait for it. A bucket that owes is a queue."""
        now = self._clock()
        wait_s = self._not_before - now
        if self._is_limited:
            self._free = min(float(D1_API_BURST_REQUESTS), self._free + (now - self._filled_at) * _PER_S)
            self._filled_at = now
            self._free -= 1
            wait_s = max(wait_s, -self._free / _PER_S)
        return wait_s

    def _say(self, wait_s: float) -> None:
        now = self._clock()
        if now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            _LOG.warning("waiting %.1f s before the next request: the API's rate limit is reached", wait_s)
