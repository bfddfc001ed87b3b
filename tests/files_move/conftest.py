"""A store with a user, and an empty blob store on either side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dal.access import DataAccess
from dal.factory import create_data_access
from tests.files_move.contents import Watched


@pytest_asyncio.fixture
async def dal() -> AsyncIterator[DataAccess]:
    async with create_data_access("memory://") as access:
        yield access


@pytest_asyncio.fixture
async def user_id(dal: DataAccess) -> str:
    return (await dal.users.create(name="Ada")).id


@pytest.fixture
def source() -> Watched:
    return Watched()


@pytest.fixture
def target() -> Watched:
    return Watched()
