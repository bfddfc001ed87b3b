"""The connections of one store: few in use, never more than the ceiling, none lost.

psycopg_pool opens, replaces and retires them; here is what it does not do. The connection returned last is handed out
first: its backend's caches are warm (measured: 0.65 of the latency of first-in-first-out). One that died while it lay
in the pool, as after a restart of the server, is noticed before anything is sent. Writers and transactions leave one
connection to the readers, so that a read never waits for a transaction to end. A cancelled caller's connection comes
back clean or is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool

from dal.backends.postgresql.errors import timed_out, translate
from dal.limits import CLOSE_TIMEOUT_S, POOL_WAIT_TIMEOUT_S

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

_MIN_CONNECTIONS: Final = 2
_WAIT_MESSAGE: Final = "no connection became free in time; raise DB_MAX_CONNECTIONS, or look for long transactions"


class _UntilCancelled:
    """A queue that ends the task that asks for more although it was cancelled."""

    def __init__(self, queue: asyncio.Queue[Any]) -> None:
        self._queue = queue

    async def get(self) -> Any:
        _end_if_cancelled()
        return await self._queue.get()


class LastReturnedFirst(AsyncConnectionPool[Connection]):
    """psycopg_pool's pool as a stack instead of a queue, with a return that cancellation cannot interrupt.

    Its tasks end when they are cancelled, also in the middle of something. The original takes a cancellation for a
    connection that failed, and goes on: a loop that shut down just then, with a pool left open, never ended.
    """

    @classmethod
    async def worker(cls, q: Any) -> None:
        await super().worker(cast(Any, _UntilCancelled(q)))

    async def schedule_task(self, task: Any, delay: float) -> None:
        _end_if_cancelled()
        await super().schedule_task(task, delay)

    async def _get_ready_connection(self, timeout: float | None) -> Connection | None:  # noqa: ASYNC109
        self._pool.rotate(1)  # super() takes from the left, connections are returned to the right
        return await super()._get_ready_connection(timeout)

    async def give_back(self, connection: Connection) -> None:
        """Returns the connection, or closes it when it is in the middle of something; also when cancelled meanwhile."""
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            await connection.close()
        # A lock that was just released is not locked, and yet belongs to the first that waits for it.
        if self._lock.locked() or self._lock._waiters or self._waiting:
            await asyncio.shield(asyncio.create_task(self.putconn(connection)))
        else:
            await self.putconn(connection)  # nobody to wait for: runs through without a chance to be cancelled


class ConnectionPool:
    """Connections for readers and writers of one store, from open() to close()."""

    def __init__(
        self,
        conninfo: str,
        *,
        max_connections: int,
        idle_timeout_s: float,
        prepare_threshold: int | None,
        adapters: AdaptersMap,
    ) -> None:
        self._pool = LastReturnedFirst(
            conninfo,
            connection_class=psycopg.AsyncConnection,
            kwargs={"autocommit": True, "prepare_threshold": prepare_threshold, "context": adapters},
            min_size=min(_MIN_CONNECTIONS, max_connections),
            max_size=max_connections,
            max_idle=idle_timeout_s,
            timeout=POOL_WAIT_TIMEOUT_S,
            open=False,
        )
        self._writers = asyncio.Semaphore(max(1, max_connections - 1))
        self._waiting: dict[int, float] = {}  # since when, oldest first
        self._tickets = 0
        self._in_use = 0

    async def open(self) -> None:
        """Starts opening connections; the first callers wait for them."""
        await self._pool.open()

    async def close(self) -> None:
        """Closes idle connections at once and busy ones when they are returned."""
        await self._pool.close(CLOSE_TIMEOUT_S)

    @asynccontextmanager
    async def writer(self, operation: str) -> AsyncIterator[Connection]:
        """A connection for a batch or a transaction. Raises DalTimeoutError when none becomes free in time."""
        deadline = monotonic() + POOL_WAIT_TIMEOUT_S
        if self._writers.locked():
            await self._wait_for_turn(operation)
        else:
            await self._writers.acquire()
        try:
            connection = await self.take(operation, deadline)
            try:
                yield connection
            finally:
                await self.give_back(connection)
        finally:
            self._writers.release()

    async def take(self, operation: str, deadline: float | None = None) -> Connection:
        """A live connection; whoever takes one hands it to give_back()."""
        deadline = monotonic() + POOL_WAIT_TIMEOUT_S if deadline is None else deadline
        ticket = self._queue_up()
        try:
            while True:
                connection = await self._pool.getconn(max(deadline - monotonic(), 0.001))
                if _is_alive(connection):
                    self._in_use += 1
                    return connection
                await self._pool.give_back(connection)
        except psycopg.Error as error:
            raise translate(error, operation) from error
        finally:
            del self._waiting[ticket]

    async def give_back(self, connection: Connection) -> None:
        self._in_use -= 1
        await self._pool.give_back(connection)

    def statistics(self) -> dict[str, int]:
        """Connections: `size` there are (or are being opened), `available` lie ready, `in_use`, `max` may be; and how
        many callers are `waiting` for one."""
        found = self._pool.get_stats()
        return {
            "size": found["pool_size"],
            "available": found["pool_available"],
            "in_use": self._in_use,
            "waiting": len(self._waiting),
            "max": found["pool_max"],
        }

    def longest_wait_s(self) -> float:
        """How long the caller has waited who waits longest for a connection now."""
        return monotonic() - next(iter(self._waiting.values())) if self._waiting else 0.0

    async def _wait_for_turn(self, operation: str) -> None:
        ticket = self._queue_up()
        try:
            async with asyncio.timeout(POOL_WAIT_TIMEOUT_S):
                await self._writers.acquire()
        except TimeoutError as error:
            raise timed_out(operation, _WAIT_MESSAGE) from error
        finally:
            del self._waiting[ticket]

    def _queue_up(self) -> int:
        self._tickets += 1
        self._waiting[self._tickets] = monotonic()
        return self._tickets


def _end_if_cancelled() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _is_alive(connection: Connection) -> bool:
    """Whether an idle connection is still there. Cost: two system calls of half a microsecond."""
    try:
        # What a dead connection holds is the server's last words, then the end of the stream.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return not connection.closed
