"""Waiting for work in a thread that must not be abandoned half done."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


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
