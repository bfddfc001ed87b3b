"""The memory store: the interpreter over dictionaries, for tests and short-lived data.

It keeps every promise of the waist but durability. One event loop and one process use it; reads never wait, writes wait
for a transaction that is open, at most LOCK_TIMEOUT_S. What it holds lives as long as the object, closed or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter

from dal.backends import interpreter
from dal.backends.conditions import Tables
from dal.backends.overlay import carry_out
from dal.backends.rows import Change, Drop, MemoryRows
from dal.errors import DalTimeoutError, LimitExceededError, UnavailableError, transaction_over
from dal.limits import LOCK_TIMEOUT_S, MAX_BATCH_OPS, MAX_TEXT_BYTES
from dal.ops import Op, Query, Receipt, Row
from dal.store import Capabilities, ReadCommit, StoreHealth
from dal.tables import TABLES

_BACKEND = "memory"


class MemoryStore:
    """A store in this process's memory.

    lock_timeout_s  how long a write waits for an open transaction before DalTimeoutError.
    """

    def __init__(self, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self._tables = {name: MemoryRows(table) for name, table in TABLES.items()}
        self._lock_timeout_s = lock_timeout_s
        self._turn = asyncio.Lock()
        self._is_open = False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            backend=_BACKEND,
            durable=False,
            multi_process=False,
            interactive_transactions=True,
            search=True,
            triggers=False,
            commit_lanes=1,
            max_text_bytes=MAX_TEXT_BYTES,
            max_batch_ops=MAX_BATCH_OPS,
        )

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def read(self, query: Query) -> list[Row]:
        self._check_open("read")
        return interpreter.read(self._tables, query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self._check_open("commit")
        if self._turn.locked():
            await self._wait_for_turn("commit")
            try:
                return self._commit(ops)
            finally:
                self._turn.release()
        return self._commit(ops)

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        return self._transaction()

    async def health(self) -> StoreHealth:
        started = perf_counter()
        if not self._is_open:
            return StoreHealth(status="down", parts={"reachable": False, "problems": ["the store is closed"]})
        latency_ms = (perf_counter() - started) * 1000
        return StoreHealth(status="ok", parts={"reachable": True, "latency_ms": latency_ms, "problems": []})

    def _commit(self, ops: Sequence[Op]) -> Receipt:
        self._check_open("commit")
        check_batch(ops, _BACKEND)
        receipt, changes = interpreter.apply(self._tables, ops, backend=_BACKEND)
        carry_out(self._tables, changes)
        return receipt

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[ReadCommit]:
        self._check_open("transaction")
        await self._wait_for_turn("transaction")
        try:
            staged = StagedTransaction(self._tables, _BACKEND)
            try:
                yield staged
            finally:
                staged.is_over = True
            self._check_open("transaction")
            carry_out(self._tables, staged.changes())
        finally:
            self._turn.release()

    async def _wait_for_turn(self, operation: str) -> None:
        try:
            async with asyncio.timeout(self._lock_timeout_s):
                await self._turn.acquire()
        except TimeoutError as error:
            raise DalTimeoutError(
                f"{operation}: another transaction held the store for {self._lock_timeout_s} s; retry",
                operation=operation,
                backend=_BACKEND,
            ) from error

    def _check_open(self, operation: str) -> None:
        if not self._is_open:
            raise UnavailableError(
                f"{operation}: the store is not open; open it first",
                operation=operation,
                backend=_BACKEND,
                retryable=False,
            )


class StagedTransaction:
    """Commits kept aside over tables that nobody else changes meanwhile; a refused one leaves the others alone."""

    def __init__(self, tables: Tables, backend: str) -> None:
        self._staged = interpreter.Batch(tables, backend)
        self.tables: Tables = self._staged.tables
        self._backend = backend
        self.is_over = False

    async def read(self, query: Query) -> list[Row]:
        self.check("read")
        return interpreter.read(self.tables, query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self.check("commit")
        check_batch(ops, self._backend)
        receipt, changes = interpreter.apply(self.tables, ops, backend=self._backend)
        carry_out(self.tables, changes)
        return receipt

    def changes(self) -> list[Change | Drop]:
        """What all commits came to."""
        return self._staged.changes()

    def check(self, operation: str) -> None:
        """Raises UnsupportedError when the transaction has ended."""
        if self.is_over:
            raise transaction_over(operation, self._backend)


def check_batch(ops: Sequence[Op], backend: str) -> None:
    """Raises LimitExceededError for a batch longer than MAX_BATCH_OPS."""
    if len(ops) > MAX_BATCH_OPS:
        raise LimitExceededError(
            f"commit: {len(ops)} operations, at most {MAX_BATCH_OPS} in one batch; commit them in parts",
            operation="commit",
            backend=backend,
        )
