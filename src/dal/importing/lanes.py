"""Batches under way at the same time, so that one is prepared here while the server works on another.

Batches that speak of the same record never overlap: the later one waits, and finds what the earlier one has written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Set
from types import TracebackType
from typing import Self


class Lanes:
    """At most `width` pieces of work at once. Leaving the block waits for all of them, or cancels them on an error."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._running: dict[asyncio.Task[None], Set[str]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._running:
                await self._one_ends()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def wait_for(self, keys: Set[str]) -> None:
        """Returns when nothing runs that shares one of these keys. Raises what an earlier piece of work has raised."""
        while any(keys & others for others in self._running.values()):
            await self._one_ends()

    async def start(self, work: Callable[[], Awaitable[None]], keys: Set[str]) -> None:
        """Begins the work as soon as there is room. Raises what an earlier piece of work has raised."""
        while len(self._running) >= self._width:
            await self._one_ends()

        async def run() -> None:
            await work()

        self._running[asyncio.create_task(run())] = keys
        await asyncio.sleep(0)  # lets it begin

    async def _one_ends(self) -> None:
        ended, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            del self._running[task]
        for task in ended:
            task.result()
