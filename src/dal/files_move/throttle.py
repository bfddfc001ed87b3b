"""Bounds for the bytes of a second, and for those in memory, shared by all transfers of a move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol, TypeAlias

from dal.limits import CONTENTS_PARTS_AT_ONCE

Timer: TypeAlias = Callable[[], float]
Sleep: TypeAlias = Callable[[float], Awaitable[object]]


class OnBytes(Protocol):
    """Is told of bytes as they pass. is_there: the target has them from before, and they took no time to get there."""

    def __call__(self, size: int, *, is_there: bool = False) -> None: ...


def untold(size: int, *, is_there: bool = False) -> None:
    """An OnBytes for what is nobody's progress."""


class Throttle:
    """Lets bytes pass at a rate, in the order in which they come.

    bytes_per_s  None: as fast as they can.
    parts        a place for each part of a large blob that is in memory.
    """

    def __init__(self, bytes_per_s: float | None, *, timer: Timer = monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self.parts = asyncio.Semaphore(CONTENTS_PARTS_AT_ONCE)
        self._bytes_per_s = bytes_per_s
        self._timer = timer
        self._sleep = sleep
        self._free_at = 0.0

    async def passed(self, size: int) -> None:
        """Waits until so many bytes, that have just passed, were allowed to."""
        if self._bytes_per_s is None:
            return
        now = self._timer()
        self._free_at = max(now, self._free_at) + size / self._bytes_per_s
        await self._sleep(self._free_at - now)
