"""Work that waits for a disk, in threads of its own; a cancelled call ends when its thread has, and never before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool whose callers can clean up after a call knowing that nothing of it is running any more."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. Cancelled, it waits for the thread first: so long as one system call."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count, "dal-blobs")
        running = asyncio.wrap_future(self._pool.submit(function, *args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            running.exception()  # retrieved, so that nobody warns of it
            raise cancelled
        return running.result()

    async def close(self) -> None:
        """Waits for what the threads do now, and ends them."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await asyncio.to_thread(pool.shutdown)
