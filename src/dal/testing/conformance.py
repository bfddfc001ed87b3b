"""The whole kit as one class: a store proves itself by overriding one fixture.

    from dal.testing import StoreConformance

    class TestMyStore(StoreConformance):
        @pytest_asyncio.fixture
        async def store(self, tmp_path):
            store = MyStore(tmp_path)
            await store.open()
            yield store
            await store.close()

Each sentence of the docstrings in `dal.store` and `dal.ops` is a test here. What a store's `capabilities` say that it
cannot do is skipped, and its refusal is tested instead.
"""

from __future__ import annotations

import pytest

from dal.store import Store
from dal.testing.atomicity import AtomicityConformance
from dal.testing.concurrency import ConcurrencyConformance
from dal.testing.guarding import GuardConformance
from dal.testing.lifecycle import LifecycleConformance
from dal.testing.reads import ReadConformance
from dal.testing.searching import SearchConformance
from dal.testing.transactions import TransactionConformance
from dal.testing.values import ValueConformance
from dal.testing.writes import WriteConformance


@pytest.mark.asyncio
class StoreConformance(
    ReadConformance,
    WriteConformance,
    GuardConformance,
    AtomicityConformance,
    TransactionConformance,
    ConcurrencyConformance,
    ValueConformance,
    SearchConformance,
    LifecycleConformance,
):
    """Every promise of the waist as a test. Subclass it with a name that begins with `Test`, and override `store`."""

    @pytest.fixture
    def store(self) -> Store:
        """An open, empty store; closed again after the test."""
        raise NotImplementedError("override the fixture `store`: it gives an open, empty Store")
