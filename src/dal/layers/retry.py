"""Tries again what the store says may succeed later, where a second try can do no harm.

The first try costs nothing extra; only after a retryable failure does tenacity take over, with exponential backoff and
full jitter, RETRY_ATTEMPTS tries in all. Transactions pass untouched: only their caller can run one again
(`run_in_transaction`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dal.errors import DalError, DalTimeoutError, FencedError
from dal.layers.base import Layer
from dal.limits import RETRY_ATTEMPTS, RETRY_FIRST_WAIT_S, RETRY_MAX_WAIT_S
from dal.ops import Insert, Op, Query, Receipt, Row
from dal.store import Store

T = TypeVar("T")


class Retry(Layer):
    """A Store that rides out short failures of the one below.

    Reads    are tried again on every retryable error.
    Commits  are tried again when nothing was written (`outcome="not_applied"`), serialization failures included. With
             an unknown outcome only a batch that holds an Insert under a given id is repeated, because it cannot be
             stored twice: had the first try arrived, the repeat is refused.
    Never    DalTimeoutError (its time is used up: trying on would multiply the limit the operator has set) and
             FencedError (the one who moves the store decides how long to wait).
    Errors   The last one, as it came, with one correction: once a try ended with an unknown outcome, whatever error
             ends the call says `outcome="unknown"`, for that first try may have arrived. An AlreadyExistsError with
             this outcome may speak of the caller's own row: read it back by its id to know. This layer does not guess.

    A second Retry in one stack is a ValueError: their tries would multiply.
    """

    def __init__(self, inner: Store, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        super().__init__(inner)
        below: Store = inner
        while isinstance(below, Layer):
            if isinstance(below, Retry):
                raise ValueError("Retry around another Retry: their tries would multiply; keep one")
            below = below.inner
        self._sleep = sleep

    async def read(self, query: Query) -> list[Row]:
        try:
            return await self.inner.read(query)
        except DalError as error:
            if not _may_pass(error):
                raise
            return await self._again(lambda: self.inner.read(query), error, _may_pass)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        try:
            return await self.inner.commit(ops)
        except DalError as error:
            if not _may_be_repeated(error, ops):
                raise
            return await self._commit_again(ops, error)

    async def _commit_again(self, ops: Sequence[Op], first: DalError) -> Receipt:
        is_unknown = first.outcome == "unknown"

        async def commit() -> Receipt:
            nonlocal is_unknown
            try:
                return await self.inner.commit(ops)
            except DalError as error:
                is_unknown = is_unknown or error.outcome == "unknown"
                raise

        try:
            return await self._again(commit, first, lambda error: _may_be_repeated(error, ops))
        except DalError as error:
            if is_unknown:
                error.outcome = "unknown"
            raise

    async def _again(self, call: Callable[[], Awaitable[T]], first: DalError, may_try: Callable[[DalError], bool]) -> T:
        """The call's result from the second try on; tenacity is shown the first failure as its first try."""
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        failed: DalError | None = first

        async def attempt() -> T:
            nonlocal failed
            if failed is not None:
                known, failed = failed, None
                raise known
            return await call()

        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(RETRY_ATTEMPTS),
            wait=wait_random_exponential(multiplier=RETRY_FIRST_WAIT_S, max=RETRY_MAX_WAIT_S),
            retry=retry_if_exception(lambda error: isinstance(error, DalError) and may_try(error)),
            reraise=True,
        )
        return await retrying(attempt)


def _may_pass(error: DalError) -> bool:
    return error.retryable and not isinstance(error, DalTimeoutError | FencedError)


def _may_be_repeated(error: DalError, ops: Sequence[Op]) -> bool:
    return _may_pass(error) and (error.outcome == "not_applied" or _is_refused_when_repeated(ops))


def _is_refused_when_repeated(ops: Sequence[Op]) -> bool:
    """Whether the whole batch is refused if it was already carried out: it inserts a row under an id of its own."""
    return any(type(op) is Insert and type(op.row.get("id")) is str for op in ops)
