"""What was counted of requests and bytes, on its way into the counters of the data store.

Every USAGE_FLUSH_S while something was counted, and at closing. A process that is killed loses what it counted since.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context as Variables

from dal.blobs.counted import Counted
from dal.errors import DalError
from dal.limits import USAGE_FLUSH_S
from dal.repositories.storage_metrics import StorageMetrics
from dal.tasks import end
from dal.values import Clock

_logger = logging.getLogger("dal.files")


class UsageRecorder:
    """Takes what blob stores counted and adds it to the day's counters: `r2.class_a`, `r2.egress`, …"""

    def __init__(self, metrics: StorageMetrics, stores: Sequence[Counted], clock: Clock) -> None:
        self._metrics = metrics
        self._stores = stores
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to record now and then, until it is closed."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_on(), context=Variables())

    async def flush(self) -> None:
        """Records what was counted so far; what the store does not take is counted on. Raises what the store raises."""
        for store in self._stores:
            counts = {name: count for name, count in store.take().items() if count}
            try:
                period = self._clock().strftime("%Y-%m-%d")
                await self._metrics.add({f"{store.provider}.{name}": n for name, n in counts.items()}, period=period)
            except BaseException as error:
                if not isinstance(error, DalError) or error.outcome == "not_applied":
                    store.give_back(counts)
                raise

    async def close(self) -> None:
        """Records what is left. What the store does not take now is lost, and said in the log."""
        if self._task is not None:
            await end(self._task)
            self._task = None
        await self._try()

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(USAGE_FLUSH_S)
            await self._try()

    async def _try(self) -> None:
        try:
            await self.flush()
        except DalError as error:
            _logger.warning("storage metrics: not recorded: %s", error)
