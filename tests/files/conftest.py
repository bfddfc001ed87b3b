"""Files with contents, on pairs of a data store and a blob store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from dal import DataAccess, User
from dal.blobs.base import BlobStore
from dal.blobs.factory import create_blob_store
from dal.factory import create_store
from dal.files.options import FileOptions
from dal.layers.base import Layer
from dal.layers.group import GroupCommit
from dal.layers.retry import Retry
from dal.testing import FakeClock
from tests.subjects import d1_schema, postgres_with_schema, sqlite_with_schema, url_of

__all__ = ["d1_schema", "postgres_with_schema", "sqlite_with_schema"]

#: A data store and a blob store: each at least once, not every pair.
PAIRS = ("memory+memory", "file+local", "sqlite+local", "postgresql+memory")

Opened = Callable[..., Awaitable[DataAccess]]


class Kept(Layer):
    """A store that several share: who closes it closes nothing."""

    async def close(self) -> None:
        """The others still work."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    rows, blobs = str(request.param).split("+")
    return rows, blobs


@pytest.fixture
def rows_url(pair: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An empty data store of the pair."""
    return url_of(pair[0], request, tmp_path)


@pytest.fixture
def blobs(pair: tuple[str, str], tmp_path: Path) -> BlobStore:
    return create_blob_store("memory:" if pair[1] == "memory" else f"file:{tmp_path}/blobs")


@pytest_asyncio.fixture
async def opened(rows_url: str, blobs: BlobStore, clock: FakeClock) -> AsyncIterator[Opened]:
    """Opens a DataAccess on the pair, with options; again and again for several that share both stores."""
    async with AsyncExitStack() as stack:
        shared = create_store(rows_url)

        async def open_one(**options: object) -> DataAccess:
            store = Kept(shared) if rows_url == "memory://" else create_store(rows_url)
            given = FileOptions(**options)  # type: ignore[arg-type]  # a test's own words
            access = DataAccess(Retry(GroupCommit(store)), clock=clock, blobs=blobs, files=given)
            return await stack.enter_async_context(access)

        yield open_one


@pytest_asyncio.fixture
async def dal(opened: Opened) -> DataAccess:
    return await opened()


@pytest_asyncio.fixture
async def ada(dal: DataAccess) -> User:
    return await dal.users.create(name="Ada")


@pytest_asyncio.fixture
async def bob(dal: DataAccess) -> User:
    return await dal.users.create(name="Bob")


async def keys(blobs: BlobStore) -> list[str]:
    """Every blob there is."""
    return [blob.key async for blob in blobs.list()]
