"""A D1 database of each test's own, and stores on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest
import pytest_asyncio

from dal import DataAccess, Settings
from dal.factory import create_store
from dal.store import Store
from dal.testing import FakeClock, sequential_ids
from tests.engines.d1 import D1Database, D1Engine
from tests.subjects import d1_schema

__all__ = ["d1_schema"]


class Place(NamedTuple):
    """A database with the schema in it, on its engine."""

    engine: D1Engine
    database: D1Database

    @property
    def settings(self) -> Settings:
        return Settings(d1_api_base=self.database.base, d1_api_token=self.database.token)

    def store(self) -> Store:
        """The bare store, not yet opened."""
        return create_store(self.database.url, settings=self.settings)

    def faults(self, *faults: dict[str, object]) -> None:
        self.engine.faults(self.database, *faults)

    def rows(self, sql: str) -> list[list[object]]:
        return self.engine.query(self.database, sql)


def new_place(engine: D1Engine, schema: list[str]) -> Place:
    database = engine.create_database()
    engine.query(database, *schema)
    return Place(engine, database)


@pytest.fixture
def place(d1_engine: D1Engine, d1_schema: list[str]) -> Place:
    return new_place(d1_engine, d1_schema)


@pytest.fixture
def another_place(d1_engine: D1Engine, d1_schema: list[str]) -> Callable[[], Place]:
    """Makes further databases."""
    return lambda: new_place(d1_engine, d1_schema)


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    """The bare store on the test's database, open."""
    made = place.store()
    await made.open()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def dal(store: Store) -> DataAccess:
    """The repositories on it, with a clock that stands still and ids that count up."""
    return DataAccess(store, clock=FakeClock(), new_id=sequential_ids())
