"""The DataAccess that the contract is checked on, with a clock and ids that the tests own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest
import pytest_asyncio

from dal import DataAccess
from dal.store import Store
from dal.testing import FakeClock, sequential_ids
from tests.subjects import d1_schema, postgres_with_schema, sqlite_with_schema, store, store_url, subject

__all__ = ["clock", "d1_schema", "dal", "postgres_with_schema", "sqlite_with_schema", "store", "store_url", "subject"]

_PATIENCE_S: Final = 60.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def new_id() -> Callable[[], str]:
    return sequential_ids()


@pytest_asyncio.fixture
async def dal(store: Store, clock: FakeClock, new_id: Callable[[], str]) -> AsyncIterator[DataAccess]:
    """An open DataAccess on an empty store, once for each subject; its pool is whole again at the end."""
    made = DataAccess(store, clock=clock, new_id=new_id)
    async with made:
        yield made
        if store.capabilities.backend == "postgresql":
            await _no_connection_is_kept(made)


async def _no_connection_is_kept(dal: DataAccess) -> None:
    """Every connection comes back. A read is answered a moment before: the pipeline that it shared has yet to end."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        health = await dal.health()
        if health.status == "down":  # a test closed it
            return
        pool = health.parts["pool"]
        assert isinstance(pool, dict)
        if (pool["in_use"], pool["waiting"]) == (0, 0):
            return
        assert time.monotonic() < deadline, f"a connection was not given back: {pool}"
