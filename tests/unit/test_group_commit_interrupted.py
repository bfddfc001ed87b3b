"""Group commit interrupted: callers that are cancelled, a store that closes, and a loop or a drain that ends."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Sequence
from typing import Any

import pytest
from tests.group_commits import CHATS, Gate, append, chat, gate, memory, number, settle, start, store, stored

from dal.backends.memory import MemoryStore
from dal.errors import AlreadyExistsError, UnavailableError
from dal.layers import group
from dal.layers.group import GroupCommit
from dal.ops import Guard, Op, Receipt, Value
from dal.values import new_id

__all__ = ["gate", "memory", "store"]


# Cancelled


async def test_a_cancelled_commit_that_still_waits_is_never_written(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, append(), append(content="cancelled"), append())
    await settle()
    tasks[1].cancel()
    gate.let_all_pass()
    first, cancelled, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [number(r) for r in (first, third) if isinstance(r, tuple)] == [1, 2]
    assert await stored(store) == [1, 2]
    assert "cancelled" not in repr(gate.batches)


@pytest.mark.parametrize("steps", range(12))
async def test_a_commit_cancelled_at_any_step_is_written_only_if_it_was_taken(
    store: GroupCommit, gate: Gate, steps: int
) -> None:
    tasks = start(store, append(), append(content="cancelled"))
    await settle()
    gate.let_all_pass()
    for _ in range(steps):
        await asyncio.sleep(0)
    was_waiting = store.waiting == 1
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert await stored(store) == ([1] if was_waiting else [1, 2])


async def test_a_cancelled_commit_that_was_taken_happens_whole(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, append(), append(), append(), append())
    await settle()
    gate.let_one_pass()
    await settle()
    assert len(gate.batches) == 2  # the merged three are under way
    tasks[2].cancel()
    gate.let_all_pass()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(2), asyncio.CancelledError)
    assert [number(r) for r in results if isinstance(r, tuple)] == [1, 2, 4]
    assert await stored(store) == [1, 2, 3, 4]


async def test_a_cancelled_first_commit_leaves_the_queue_to_the_drain(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, append(), append(), append())
    await settle()
    tasks[0].cancel()
    gate.let_all_pass()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert [number(r) for r in others if isinstance(r, tuple)] == [1, 2]


async def test_a_queue_of_cancelled_commits_frees_the_lane(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, append(), append(), append())
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gate.let_all_pass()
    assert number(await store.commit(append())) == 1


async def test_nobody_complains_of_an_error_that_nobody_waited_for(store: GroupCommit, gate: Gate) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    tasks = start(store, append(), append(), append())
    await settle()
    gate.let_one_pass()
    await settle()
    gate.failures.append(UnavailableError("gone"))
    tasks[1].cancel()
    tasks[2].cancel()
    gate.let_all_pass()
    await asyncio.gather(*tasks, return_exceptions=True)
    del tasks
    await settle()
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_is_cancelled_numbers_have_no_gap_and_acknowledged_writes_are_there(
    memory: MemoryStore, seed: int
) -> None:
    chance = random.Random(seed)
    taken = new_id()

    class Hesitant(Gate):
        async def commit(self, ops: Sequence[Op]) -> Receipt:
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            receipt = await self.inner.commit(ops)
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            return receipt

    store = GroupCommit(Hesitant(memory, lanes=2))
    acknowledged: dict[str, list[Value]] = {c: [] for c in CHATS}

    async def writer(chat_id: str) -> None:
        for _ in range(5):
            message_id = taken if chance.random() < 0.1 else None
            try:
                acknowledged[chat_id].append(number(await store.commit(append(chat_id, message_id))))
            except AlreadyExistsError:
                assert message_id is not None

    writers = [asyncio.create_task(writer(CHATS[i % 4])) for i in range(40)]
    while not all(w.done() for w in writers):
        if chance.random() < 0.3:
            chance.choice(writers).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*writers, return_exceptions=True)
    await store.close()
    await memory.open()
    for chat_id in CHATS:
        numbers = await stored(memory, chat_id)
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(set(acknowledged[chat_id])) == len(acknowledged[chat_id])
        assert set(acknowledged[chat_id]) <= set(numbers)


# Open and close


async def test_close_waits_for_the_queue_and_refuses_what_comes_later(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, *(append() for _ in range(4)))
    await settle()
    closing = asyncio.create_task(store.close())
    await settle()
    assert not closing.done()
    with pytest.raises(UnavailableError, match="closed") as refused:
        await store.commit(append())
    assert not refused.value.retryable
    gate.let_all_pass()
    assert [number(r) for r in await asyncio.gather(*tasks)] == [1, 2, 3, 4]
    await closing
    await store.close()
    await store.open()
    assert number(await store.commit(append())) == 5


async def test_close_does_not_wait_for_ever(store: GroupCommit, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "CLOSE_TIMEOUT_S", 0)
    tasks = start(store, append(), append())
    await settle()
    await store.close()
    gate.let_all_pass()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, UnavailableError) for r in results)


async def test_two_closers_both_wait(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, append(), append())
    await settle()
    closers = [asyncio.create_task(store.close()) for _ in range(2)]
    await settle()
    assert not any(c.done() for c in closers)
    gate.let_all_pass()
    await asyncio.gather(*tasks, *closers)


@pytest.mark.parametrize("batches", [1, 2])
def test_a_loop_that_shuts_down_leaves_the_store_usable_in_the_next(batches: int) -> None:
    complaints: list[dict[str, Any]] = []

    async def abandoned() -> GroupCommit:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        memory = MemoryStore()
        await memory.open()
        await memory.commit([chat("c0")])
        gate = Gate(memory)
        store = GroupCommit(gate)
        start(store, *(append() for _ in range(10)))
        await settle()
        for _ in range(batches - 1):
            gate.let_one_pass()
            await settle()
        # The loop ends while the first commit, or the drain, is under way.
        assert len(gate.batches) == batches
        return store

    async def later(store: GroupCommit) -> Value:
        assert isinstance(store.inner, Gate)
        store.inner.let_all_pass()
        return number(await store.commit(append()))

    for _ in range(10):
        store = asyncio.run(abandoned())
        gc.collect()
        assert asyncio.run(later(store)) == batches
        assert complaints == []


async def test_nobody_waits_for_ever_when_the_drain_is_ended(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, append(), append(), (Guard("users", {"id": new_id()}),))
    await settle()
    gate.let_one_pass()
    await settle()
    drain = gate.tasks[1]
    assert drain is not None
    drain.cancel()
    first, taken, waiting = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, tuple)
    assert isinstance(taken, UnavailableError)
    assert taken.outcome == "unknown"
    assert isinstance(waiting, UnavailableError)
    assert waiting.outcome == "not_applied"
    gate.let_all_pass()
    assert number(await store.commit(append())) == 2
