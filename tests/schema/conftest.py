"""A database of each engine, empty, for the schema engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dal.backends.sql import SqlStore
from dal.factory import create_store, schema_connection
from dal.schema import Connection
from tests.engines import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'dal.db'}"
    server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()


def store_of(url: str, *, auto_migrate: bool | None = None) -> SqlStore:
    store = create_store(url, auto_migrate=auto_migrate)
    assert isinstance(store, SqlStore)
    return store


@pytest_asyncio.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    async with schema_connection(url, create=True) as opened:
        yield opened
