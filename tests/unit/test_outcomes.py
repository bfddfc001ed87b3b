"""A read behind a write that fails does not make the write undone: its error says what may have become of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from dal import DataAccess
from dal.backends.memory import MemoryStore
from dal.errors import UnavailableError
from dal.layers.base import Layer
from dal.layers.retry import Retry
from dal.ops import Op, Query, Receipt, Row
from dal.values import new_id


class Vanishing(Layer):
    """Once told to, it loses the answer of one commit, and after that takes commits and answers no read."""

    is_vanishing = False
    has_lost = False

    async def read(self, query: Query) -> list[Row]:
        if self.is_vanishing:
            raise UnavailableError("no answer", operation="read")
        return await self.inner.read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        receipt = await self.inner.commit(ops)
        if self.is_vanishing and not self.has_lost:
            self.has_lost = True
            raise UnavailableError("the answer was lost", operation="commit", outcome="unknown")
        return receipt


@pytest_asyncio.fixture
async def vanishing() -> AsyncIterator[Vanishing]:
    store = Vanishing(MemoryStore())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def dal(vanishing: Vanishing) -> DataAccess:
    return DataAccess(Retry(vanishing, sleep=lambda _seconds: asyncio.sleep(0)))


async def test_a_message_whose_repeat_was_refused_may_be_there(dal: DataAccess, vanishing: Vanishing) -> None:
    await dal.chats.create("c")
    vanishing.is_vanishing = True
    with pytest.raises(UnavailableError) as caught:
        await dal.messages.add("c", "user", "hello", id=new_id())
    assert caught.value.outcome == "unknown"
    vanishing.is_vanishing = False
    assert await dal.messages.count("c") == 1


async def test_a_row_whose_repeat_was_refused_may_be_there(dal: DataAccess, vanishing: Vanishing) -> None:
    vanishing.is_vanishing = True
    with pytest.raises(UnavailableError) as caught:
        await dal.users.create(name="Ada")
    assert caught.value.outcome == "unknown"
    vanishing.is_vanishing = False
    assert len((await dal.users.list()).items) == 1


async def test_a_flag_that_was_set_and_not_read_back_may_be_set(dal: DataAccess, vanishing: Vanishing) -> None:
    await dal.chats.create("c")
    message = await dal.messages.add("c", "user", "hello")
    vanishing.is_vanishing = vanishing.has_lost = True
    with pytest.raises(UnavailableError) as caught:
        await dal.messages.flag(message.id)
    assert caught.value.outcome == "unknown"


async def test_a_row_that_was_there_before_is_plainly_not_written(dal: DataAccess, vanishing: Vanishing) -> None:
    user = await dal.users.create(name="Ada")
    vanishing.is_vanishing = vanishing.has_lost = True
    with pytest.raises(UnavailableError) as caught:
        await dal.users.create(name="Ada", id=user.id)
    assert caught.value.outcome == "not_applied"
