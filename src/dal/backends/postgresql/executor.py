"""Statements on PostgreSQL: the executor that the shared SQL store drives.

Reads share round trips (reads.py), a batch is one round trip (session.py), connections come from a small pool
(pool.py). Nothing is set in a session, so that a pooler in transaction mode may stand between: time limits travel with
the connection on a direct address, and with each transaction of several statements behind a pooler.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from dal.backends.postgresql.adapters import adapters
from dal.backends.postgresql.address import Address
from dal.backends.postgresql.connecting import Server, greet
from dal.backends.postgresql.errors import closed
from dal.backends.postgresql.pool import ConnectionPool
from dal.backends.postgresql.reads import SharedReads
from dal.backends.postgresql.session import PostgresSession, run_batch, serializable
from dal.backends.sql import Result, Statement
from dal.limits import DEGRADED_LATENCY_MS, LOCK_TIMEOUT_S, STATEMENT_TIMEOUT_S
from dal.ops import JsonValue

_STATEMENT_TIMEOUT_MS: Final = int(STATEMENT_TIMEOUT_S * 1000)
_LOCK_TIMEOUT_MS: Final = int(LOCK_TIMEOUT_S * 1000)
_OPTIONS: Final = f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} -c lock_timeout={_LOCK_TIMEOUT_MS}"
_LIMITS: Final = Statement(
    "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)",
    (str(_STATEMENT_TIMEOUT_MS), str(_LOCK_TIMEOUT_MS)),
)
_BEGIN: Final = Statement("BEGIN")
_BEGIN_SERIALIZABLE: Final = Statement("BEGIN ISOLATION LEVEL SERIALIZABLE")


class PostgresExecutor:
    """A database behind a pool of connections. Not open until open(); may be opened again after close()."""

    def __init__(self, address: Address, *, max_connections: int, idle_timeout_s: float) -> None:
        self._address = address
        self._max_connections = max_connections
        self._idle_timeout_s = idle_timeout_s
        self._pool: ConnectionPool | None = None
        self._reads: SharedReads | None = None
        self._server = Server(version=0, pooled=False)

    async def open(self) -> None:
        if self._pool is not None:
            return
        self._server = await greet(self._address)
        pooled, threshold = self._server.pooled, self._address.prepare_threshold
        self._pool = ConnectionPool(
            self._address.conninfo if pooled else self._address.with_options(_OPTIONS),
            max_connections=self._max_connections,
            idle_timeout_s=self._idle_timeout_s,
            prepare_threshold=(None if pooled else 1) if isinstance(threshold, str) else threshold,
            adapters=adapters(),
        )
        self._reads = SharedReads(self._pool, max_connections=self._max_connections)
        await self._pool.open()

    async def fetch(self, statement: Statement) -> Sequence[tuple[object, ...]]:
        if self._reads is None:
            raise closed("read")
        return await self._reads.fetch(statement)

    async def batch(self, statements: Sequence[Statement]) -> Sequence[Result]:
        async with self._opened("commit").writer("commit") as connection:
            return await run_batch(connection, statements, self._begin(_BEGIN))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresSession]:
        async with (
            self._opened("transaction").writer("transaction") as connection,
            serializable(connection, self._begin(_BEGIN_SERIALIZABLE)) as session,
        ):
            yield session

    async def health(self) -> tuple[dict[str, JsonValue], list[str]]:
        pool = self._opened("health")
        problems = []
        waited_ms = pool.longest_wait_s() * 1000
        if waited_ms > DEGRADED_LATENCY_MS:
            problems.append(f"a caller has waited {waited_ms:.0f} ms for a connection; raise DB_MAX_CONNECTIONS")
        parts: dict[str, JsonValue] = {
            "pool": {**pool.statistics()},
            "server_version": self._server.version,
            "pooler": self._server.pooled,
        }
        return parts, problems

    async def close(self) -> None:
        pool, reads, self._pool, self._reads = self._pool, self._reads, None, None
        if reads is not None:
            await reads.close()
        if pool is not None:
            await pool.close()

    def _opened(self, operation: str) -> ConnectionPool:
        if self._pool is None:
            raise closed(operation)
        return self._pool

    def _begin(self, begin: Statement) -> tuple[Statement, ...]:
        return (begin, _LIMITS) if self._server.pooled else (begin,)
