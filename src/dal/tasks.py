"""Tasks that work beside others until they are told to end."""

from __future__ import annotations

import asyncio
from typing import Any

from dal.limits import CANCEL_AGAIN_S


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels the task, and returns when it has ended, however it did.

    It is told again while it goes on: before Python 3.12 `asyncio.wait_for`, by which psycopg_pool waits for a
    connection, takes no notice of a cancellation that comes in the moment in which its wait ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)
    if not task.cancelled():
        task.exception()  # it is known now: nobody has to be told of one that nobody asked for
