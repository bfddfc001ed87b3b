"""Waiting for what a task is to reach, without waiting for ever where it fails before."""

from __future__ import annotations

import asyncio
from typing import Any


async def reached(event: asyncio.Event, *work: asyncio.Future[Any]) -> None:
    """Returns when the event is set, which this work does. Raises what work that ends without it has failed with.

    A machine that stood still for seconds is enough for that: deadlines pass, and the event is set by nobody.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        done, _ = await asyncio.wait({waiting, *work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if event.is_set():
        return
    for task in done:
        task.result()
    raise AssertionError("it came to its end without that")
