"""A store of each backend to import into, as applications get it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dal import DataAccess, create_data_access
from tests.subjects import BACKENDS, d1_schema, postgres_with_schema, sqlite_with_schema, url_of

__all__ = ["backend", "d1_schema", "dal", "postgres_with_schema", "sqlite_with_schema", "url"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend once."""
    return str(request.param)


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store."""
    return url_of(backend, request, tmp_path)


@pytest_asyncio.fixture
async def dal(url: str) -> AsyncIterator[DataAccess]:
    async with create_data_access(url) as opened:
        yield opened
