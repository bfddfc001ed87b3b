"""Pieces of work side by side, as many at a time as there are places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeAlias

Begin: TypeAlias = Callable[[Callable[[], Coroutine[None, None, None]]], Awaitable[None]]


@asynccontextmanager
async def side_by_side(places: asyncio.Semaphore) -> AsyncIterator[Begin]:
    """Gives a call that begins a piece of work as soon as a place is free; at the end of the block all are done.

    The first error ends the others and is raised.
    """
    try:
        async with asyncio.TaskGroup() as group:

            async def begin(work: Callable[[], Coroutine[None, None, None]]) -> None:
                await places.acquire()
                group.create_task(work()).add_done_callback(lambda _: places.release())

            yield begin
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
