"""Opening and closing, health, durability, and use of what is closed, on every backend and through every layer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dal import Capabilities, DalError, DataAccess, Health, NewMessage, create_data_access
from dal.ops import Op, Query, Receipt, Row
from dal.store import Store, StoreHealth
from dal.testing import rows
from tests.subjects import Subject, on_every_backend, wrap

CALLS: list[Callable[[DataAccess], Awaitable[object]]] = [
    lambda dal: dal.users.create(),
    lambda dal: dal.users.get(rows.row_id(1)),
    lambda dal: dal.users.list(),
    lambda dal: dal.chats.create("c"),
    lambda dal: dal.chats.get("c"),
    lambda dal: dal.chats.delete("c"),
    lambda dal: dal.messages.add("c", "user", "x"),
    lambda dal: dal.messages.add_many("c", [NewMessage("user", "x")]),
    lambda dal: dal.messages.history("c"),
    lambda dal: dal.messages.search("x"),
    lambda dal: dal.memory.set(rows.row_id(1), "t", "k", 1),
    lambda dal: dal.memory.list(rows.row_id(1)),
    lambda dal: dal.files.list(),
    lambda dal: dal.audit.record("a"),
    lambda dal: dal.run_in_transaction(lambda tx: tx.users.list()),
]


async def test_a_closed_dal_refuses_every_call_with_an_error_of_ours(dal: DataAccess) -> None:
    await dal.users.create()
    await dal.close()
    for call in CALLS:
        with pytest.raises(DalError) as caught:
            async with asyncio.timeout(20):
                await call(dal)
        assert caught.value.outcome == "not_applied"
        assert not caught.value.retryable


async def test_closing_twice_and_opening_twice_do_nothing(dal: DataAccess) -> None:
    assert await dal.open() is dal
    await dal.users.create()
    await dal.close()
    await dal.close()
    assert await dal.open() is dal
    await dal.users.create()


async def test_what_was_written_is_there_after_closing_and_opening(dal: DataAccess) -> None:
    user = await dal.users.create(clerk_id="c")
    await dal.chats.create("c", user_id=user.id)
    added = await dal.messages.add_many("c", [NewMessage("user", f"m{n} \u2028 \U0001f600") for n in range(50)])
    await dal.messages.flag(added[7].id)
    await dal.memory.set_many(user.id, "t", {"k": [1.0, -0.0], "é": None})
    await dal.memory.delete(user.id, "t", "é")
    await dal.files.create(user.id, "f", storage_key="s", file_size=1)
    await dal.audit.record("login")
    before = await rows.everything(dal.store)
    await dal.close()
    await dal.open()
    if dal.capabilities.durable:
        assert await rows.everything(dal.store) == before
        assert len((await dal.messages.search("m7")).items) == 1
        assert (await dal.messages.add("c", "user", "after")).sequence_number == 51


@on_every_backend
async def test_what_was_written_is_there_for_another_handle(dal: DataAccess, store_url: str, subject: Subject) -> None:
    """Two handles on one store in one process, as two processes would have."""
    if not dal.capabilities.multi_process:
        pytest.skip("capabilities.multi_process is False")
    await dal.chats.create("c")
    async with create_data_access(store_url) as other:
        assert await other.chats.get("c") == await dal.chats.get("c")
        for number in range(1, 11):
            writer, reader = (dal, other) if number % 2 else (other, dal)
            message = await writer.messages.add("c", "user", f"m{number}")
            assert message.sequence_number == number
            assert await reader.messages.get(message.id) == message
            assert (await reader.messages.history("c", limit=1)) == [message]
        await asyncio.gather(*(handle.messages.add("c", "user", "x") for handle in (dal, other) * 10))
        assert [m.sequence_number for m in await other.messages.history("c", limit=100)] == list(range(1, 31))
        await other.chats.delete("c")
        assert await dal.chats.get("c") is None


async def test_health_is_ok_when_open_and_down_when_closed(dal: DataAccess) -> None:
    health = await dal.health()
    assert isinstance(health, Health)
    assert health.status == "ok", health
    assert health.parts["reachable"] is True
    assert not health.parts.get("problems")
    await dal.close()
    health = await dal.health()
    assert health.status == "down"
    assert health.parts["reachable"] is False


async def test_capabilities_are_data(dal: DataAccess, subject: Subject) -> None:
    assert isinstance(dal.capabilities, Capabilities)
    assert dal.capabilities.backend == subject.backend
    assert dal.capabilities.durable is (subject.backend != "memory")
    assert dal.capabilities.multi_process is (subject.backend != "memory")
    assert dal.capabilities.search is True


async def test_an_error_says_where_it_happened(dal: DataAccess, subject: Subject) -> None:
    await dal.chats.create("c")
    with pytest.raises(DalError) as caught:
        await dal.chats.create("c")
    assert caught.value.backend == subject.backend
    assert caught.value.operation
    assert caught.value.outcome == "not_applied"
    assert caught.value.retryable is False


class SickStore:
    """A store whose health check breaks its promise, and whose every call fails."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    capabilities = property(lambda self: self.inner.capabilities)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, query: Query) -> list[Row]:
        raise RuntimeError("a bug")

    async def commit(self, ops: list[Op]) -> Receipt:
        raise RuntimeError("a bug")

    async def health(self) -> StoreHealth:
        raise RuntimeError("a bug")


async def test_health_never_raises(dal: DataAccess, subject: Subject) -> None:
    sick = DataAccess(wrap(SickStore(dal.store), subject.layers))  # type: ignore[arg-type]  # on purpose not a Store
    health = await sick.health()
    assert health.status == "down"
    assert health.parts["reachable"] is False
