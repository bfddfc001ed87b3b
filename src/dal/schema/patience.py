"""Trying again what met a lock: with growing pauses at random, within a limit, and never in silence.

Each try waits for its lock only as long as the connection's own lock limit, a few seconds: a statement that queues for
a lock makes everybody queue who comes after it, so it is better to stand aside and ask again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from dal.errors import DalTimeoutError
from dal.limits import SCHEMA_RETRY_FIRST_S, SCHEMA_RETRY_MAX_S
from dal.schema.connection import StatementError

_T = TypeVar("_T")


def is_busy(error: BaseException) -> bool:
    """A lock was in the way and nothing has happened."""
    if isinstance(error, StatementError):
        return error.kind == "busy"
    return isinstance(error, DalTimeoutError) and error.outcome == "not_applied"


async def patiently(
    call: Callable[[], Awaitable[_T]], *, wait_s: float, meanwhile: Callable[[str], Awaitable[None]]
) -> _T:
    """The call's result; it is made again while it is busy, for about `wait_s`, and then its last error is raised.

    meanwhile  awaited after each busy try with what the engine said.
    """

    async def attempt() -> _T:
        try:
            return await call()
        except Exception as error:
            if is_busy(error):
                await meanwhile(str(error))
            raise

    retrying = AsyncRetrying(
        stop=stop_after_delay(wait_s),
        wait=wait_random_exponential(multiplier=SCHEMA_RETRY_FIRST_S, max=SCHEMA_RETRY_MAX_S),
        retry=retry_if_exception(is_busy),
        reraise=True,
    )
    return await retrying(attempt)
