"""The store on D1: the shared SQL store, with transactions that are an optimistic unit of work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from dal.backends.d1.executor import D1Executor
from dal.backends.d1.transaction import UnitOfWork
from dal.backends.sql import SqlStore
from dal.store import ReadCommit


class D1Store(SqlStore):
    """A store on one D1 database."""

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[ReadCommit]:
        executor = cast(D1Executor, self._executor)
        await executor.settled()
        work = UnitOfWork(executor, self._compiler, self._capabilities)
        try:
            yield work
        finally:
            work.end()
        await work.commit_all()
