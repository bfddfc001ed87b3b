"""Working in threads beside an event loop: waiting for what must not be abandoned, and leaving the loop its turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from time import sleep
from typing import Final, TypeVar

T = TypeVar("T")
_PAUSE_S: Final = 0.00005


def politely(items: Iterable[T], every: int = 200) -> Iterator[T]:
    """The items, with a moment's pause after so many.

    A thread that computes without a pause keeps the event loop's thread waiting for the interpreter's lock, 5 ms at a
    time; this bounds the wait to the work on so many items.
    """
    left = every
    for item in items:
        yield item
        left -= 1
        if not left:
            sleep(_PAUSE_S)
            left = every


async def finished(future: asyncio.Future[T]) -> bool:
    """Waits until the future has its result or error, however often the waiting is cancelled; whether it was.

    The caller finishes what the result asks for, and then raises CancelledError.
    """
    is_cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled


async def result_of(future: asyncio.Future[T]) -> T:
    """The future's result; a cancellation meanwhile is raised after it."""
    is_cancelled = await finished(future)
    result = future.result()
    if is_cancelled:
        raise asyncio.CancelledError
    return result
