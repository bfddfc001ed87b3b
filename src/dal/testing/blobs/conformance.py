"""The whole kit for blob stores as one class: a store proves itself by overriding one fixture.

    from dal.testing import BlobStoreConformance

    class TestMyBlobs(BlobStoreConformance):
        @pytest_asyncio.fixture
        async def store(self, tmp_path):
            store = MyBlobs(tmp_path)
            await store.open()
            yield store
            await store.close()

Each sentence of `dal.blobs.base` is a test here; every test begins with an empty store. What `capabilities` say that a
store cannot do is skipped, and its refusal is tested instead. Needs httpx, for requests that were signed.
"""

from __future__ import annotations

import asyncio

import pytest

from dal.blobs.base import BlobStore
from dal.errors import DalError
from dal.testing.blobs.parts import PartsConformance
from dal.testing.blobs.signed import SignedConformance
from dal.testing.blobs.whole import WholeConformance


@pytest.mark.asyncio
class BlobStoreConformance(WholeConformance, PartsConformance, SignedConformance):
    """Every promise of a blob store. Subclass it with a name that begins with `Test`, and override `store`."""

    @pytest.fixture
    def store(self) -> BlobStore:
        """An open blob store with nothing in it, closed after the test."""
        raise NotImplementedError("override the fixture `store` with one that gives an open, empty blob store")

    async def test_opening_and_closing_twice_does_nothing(self, store: BlobStore) -> None:
        await store.open()
        await store.put("w", b"x")
        await store.open()
        assert await store.head("w") is not None
        capabilities = store.capabilities
        await store.close()
        await store.close()
        assert store.capabilities == capabilities

    async def test_an_open_store_is_healthy_and_a_closed_one_may_be_opened_again(self, store: BlobStore) -> None:
        assert await store.health() is None
        await store.put("w", b"x")
        await store.close()
        async with asyncio.timeout(10):
            said = await store.health()
        assert said is None or said
        await store.open()
        assert await store.health() is None
        await store.put("v", b"y")
        if store.capabilities.shared:
            assert await store.head("w") is not None

    async def test_a_closed_store_refuses_with_an_error_of_ours(self, store: BlobStore) -> None:
        await store.close()
        for call in (store.put("w", b"x"), store.get("w"), store.head("w"), store.delete(["w"])):
            try:
                await call
            except DalError as error:
                assert not error.retryable, "no call can succeed until somebody opens the store"
                continue
            assert not store.capabilities.shared, "only what is not shared may be used without being open"

    async def test_capabilities_are_what_they_must_be(self, store: BlobStore) -> None:
        can = store.capabilities
        assert can.backend
        assert 1 <= can.min_part_bytes <= can.max_part_bytes <= can.max_bytes
        assert can.max_parts >= 1
