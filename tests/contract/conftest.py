"""The DataAccess that the contract is checked on, with a clock and ids that the tests own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from dal import DataAccess
from dal.store import Store
from dal.testing import FakeClock, sequential_ids
from tests.subjects import d1_schema, postgres_with_schema, sqlite_with_schema, store, store_url, subject

__all__ = ["clock", "d1_schema", "dal", "postgres_with_schema", "sqlite_with_schema", "store", "store_url", "subject"]


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
        health = await made.health()
        if store.capabilities.backend == "postgresql" and health.status != "down":  # a test may have closed it
            pool = health.parts["pool"]
            assert isinstance(pool, dict)
            assert (pool["in_use"], pool["waiting"]) == (0, 0), f"a connection was not given back: {pool}"
