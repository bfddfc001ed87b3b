"""The conformance kit proves the store: every sentence of the contract is a test.  pytest test_custom_backend.py"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from custom_backend import LogStore

from dal.store import Store
from dal.testing import StoreConformance


class TestLogStore(StoreConformance):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = LogStore(tmp_path / "dal.log")
        await store.open()
        yield store
        await store.close()
