"""Opening, closing, opening again, and what a store says of itself."""

from __future__ import annotations

import asyncio
import json

import pytest

from dal.errors import DalError
from dal.limits import HEALTH_TIMEOUT_S
from dal.ops import Count, Insert, Search, Select
from dal.search import parse_query
from dal.store import Store
from dal.testing import rows


class LifecycleConformance:
    """`open`, `close`, `health` and `capabilities`."""

    async def test_a_fresh_store_is_empty(self, store: Store) -> None:
        assert not any((await rows.everything(store)).values())

    async def test_opening_an_open_store_does_nothing(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        await store.open()
        assert await store.read(Count("users")) == [(1,)]

    async def test_closing_twice_does_nothing(self, store: Store) -> None:
        await store.close()
        await store.close()

    async def test_a_closed_store_refuses_every_call_with_an_error_of_ours(self, store: Store) -> None:
        await store.close()
        raised = []
        for query in (Count("users"), Select("users"), Search("messages", parse_query("x"))):
            with pytest.raises(DalError) as caught:
                await store.read(query)
            raised.append(caught.value)
        with pytest.raises(DalError) as caught:
            await store.commit([Insert("users", rows.user(1))])
        raised.append(caught.value)
        with pytest.raises(DalError) as caught:
            async with store.transaction() as transaction:
                await transaction.read(Count("users"))
        raised.append(caught.value)
        assert not [error for error in raised if error.retryable], "no call can succeed until somebody opens the store"

    async def test_a_closed_store_may_be_opened_again(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1)), Insert("chat_sessions", rows.chat(2)), *rows.append(3, 2)])
        before = await rows.everything(store)
        await store.close()
        await store.open()
        if store.capabilities.durable:
            assert await rows.everything(store) == before
        await store.commit([Insert("users", rows.user(9))])
        assert 9 in await rows.numbers(store, Select("users"))

    async def test_calls_under_way_when_a_store_closes_finish_or_fail_clearly(self, store: Store) -> None:
        tasks = [asyncio.create_task(store.commit([Insert("users", rows.user(n))])) for n in range(20)]
        await asyncio.sleep(0)
        await store.close()
        async with asyncio.timeout(30):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(not isinstance(result, BaseException) or isinstance(result, DalError) for result in results), results
        if store.capabilities.durable:
            await store.open()
            there = set(await rows.numbers(store, Select("users")))
            assert {n for n, result in enumerate(results) if not isinstance(result, BaseException)} <= there

    async def test_an_open_store_is_healthy_and_a_closed_one_is_down(self, store: Store) -> None:
        health = await store.health()
        assert health.status == "ok", health
        assert health.parts["reachable"] is True
        json.dumps(dict(health.parts))
        await store.close()
        async with asyncio.timeout(HEALTH_TIMEOUT_S + 1):
            health = await store.health()
        assert health.status == "down"
        assert health.parts["reachable"] is False
        await store.open()
        assert (await store.health()).status == "ok"

    async def test_capabilities_are_known_open_or_closed(self, store: Store) -> None:
        capabilities = store.capabilities
        assert capabilities.backend
        assert capabilities.commit_lanes >= 1
        assert capabilities.max_text_bytes > 0
        assert capabilities.max_batch_ops > 0
        await store.close()
        assert store.capabilities == capabilities
