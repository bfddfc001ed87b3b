"""How often and how long the store is asked, through OpenTelemetry's API.

One histogram, `dal.store.duration` in seconds: its count is the number of calls. Attributes: `backend`; `operation`
(read, commit, transaction); `table` of the query or of a commit's first operation; `outcome`, which is `ok`,
`cancelled` or the class of the error. No value, key or text of the caller's ever becomes an attribute.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from dal.errors import ConfigurationError
from dal.layers.base import Layer
from dal.ops import Op, Query, Receipt, Row
from dal.store import ReadCommit, Store

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter, MeterProvider

# Seconds: from a cached point read to a statement that runs into its timeout.
_BOUNDARIES_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class Metrics(Layer):
    """A Store whose calls are counted and timed; put it outermost, to measure what the application waits for.

    meter   where to record; a MeterProvider gives its meter "dal"; None takes the global provider.
    Raises  ConfigurationError: no meter is given and `opentelemetry-api` is not installed.
    Cost    1 µs a call, plus what the application's metrics SDK takes to record it.
    """

    def __init__(self, inner: Store, meter: Meter | MeterProvider | None = None) -> None:
        super().__init__(inner)
        self._duration = _histogram(meter)
        self._backend = inner.capabilities.backend
        self._attributes: dict[tuple[str, str, str], dict[str, str]] = {}

    async def read(self, query: Query) -> list[Row]:
        return await self._timed_read(self.inner, query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        return await self._timed_commit(self.inner, ops)

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[ReadCommit]:
        started = perf_counter()
        outcome = "cancelled"
        try:
            async with self.inner.transaction() as inside:
                yield _Inside(self, inside)
            outcome = "ok"
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            self._record("transaction", "", outcome, started)

    async def _timed_read(self, store: ReadCommit, query: Query) -> list[Row]:
        started = perf_counter()
        try:
            rows = await store.read(query)
        except BaseException as error:
            self._record("read", query.table, _outcome(error), started)
            raise
        self._record("read", query.table, "ok", started)
        return rows

    async def _timed_commit(self, store: ReadCommit, ops: Sequence[Op]) -> Receipt:
        started = perf_counter()
        table = ops[0].table if ops else ""
        try:
            receipt = await store.commit(ops)
        except BaseException as error:
            self._record("commit", table, _outcome(error), started)
            raise
        self._record("commit", table, "ok", started)
        return receipt

    def _record(self, operation: str, table: str, outcome: str, started: float) -> None:
        key = (operation, table, outcome)
        attributes = self._attributes.get(key)
        if attributes is None:
            attributes = {"backend": self._backend, "operation": operation, "outcome": outcome}
            if table:
                attributes["table"] = table
            self._attributes[key] = attributes
        self._duration.record(perf_counter() - started, attributes)


class _Inside:
    """What a transaction's block reads and commits through, measured like everything else."""

    def __init__(self, metrics: Metrics, inner: ReadCommit) -> None:
        self._metrics = metrics
        self._inner = inner

    async def read(self, query: Query) -> list[Row]:
        return await self._metrics._timed_read(self._inner, query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        return await self._metrics._timed_commit(self._inner, ops)


def _outcome(error: BaseException) -> str:
    return "cancelled" if isinstance(error, CancelledError) else type(error).__name__


def _histogram(meter: Meter | MeterProvider | None) -> Histogram:
    if meter is None or not hasattr(meter, "create_histogram"):
        meter = _meter_of(meter)
    return meter.create_histogram(
        "dal.store.duration",
        unit="s",
        description="Time the store took for a read, a commit or a whole transaction.",
        explicit_bucket_boundaries_advisory=_BOUNDARIES_S,
    )


def _meter_of(provider: MeterProvider | None) -> Meter:
    try:
        from opentelemetry.metrics import get_meter
    except ImportError as error:
        raise ConfigurationError(
            "metrics: opentelemetry-api is not installed; install dal[otel] or pass no meter", operation="metrics"
        ) from error
    return get_meter("dal", meter_provider=provider)
