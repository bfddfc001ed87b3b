"""Group commit: who waits together is written together, and nobody pays for another's fate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from tests.group_commits import CHATS, Gate, append, gate, memory, number, settle, start, store, stored

from dal.backends.memory import MemoryStore
from dal.errors import AlreadyExistsError, ConflictError, DalError, DalTimeoutError, UnavailableError
from dal.layers.base import innermost
from dal.layers.group import GroupCommit
from dal.limits import MAX_GROUP_COMMITS, MAX_WAITING_COMMITS
from dal.ops import Compare, Delete, Guard, Op, Receipt, Update
from dal.values import new_id

__all__ = ["gate", "memory", "store"]


# Alone


async def test_a_commit_alone_goes_down_in_its_own_task(store: GroupCommit, gate: Gate) -> None:
    gate.let_all_pass()
    ops = append()
    assert number(await store.commit(ops)) == 1
    assert gate.batches == [list(ops)]
    assert gate.tasks == [asyncio.current_task()]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_of_a_commit_alone_is_its_own(store: GroupCommit, gate: Gate) -> None:
    gate.let_all_pass()
    gate.failures.append(error := ConflictError("stale"))
    with pytest.raises(ConflictError) as caught:
        await store.commit(append())
    assert caught.value is error
    assert number(await store.commit(append())) == 1


# Together


async def test_commits_that_wait_together_become_one_batch(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, *(append() for _ in range(10)))
    await settle()
    assert len(gate.batches) == 1
    assert store.waiting == 9
    gate.let_all_pass()
    assert [number(r) for r in await asyncio.gather(*tasks)] == list(range(1, 11))
    assert [len(batch) for batch in gate.batches] == [2, 1 + 9]
    assert await stored(store) == list(range(1, 11))


async def test_the_drain_lives_only_while_there_is_work(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, *(append() for _ in range(3)))
    await settle()
    gate.let_all_pass()
    await asyncio.gather(*tasks)
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await store.commit(append())
    assert gate.tasks[-1] is asyncio.current_task()


async def test_writers_in_a_loop_share_every_batch_but_the_first(store: GroupCommit, gate: Gate) -> None:
    gate.let_all_pass()
    ready = asyncio.Event()

    async def slow(ops: Sequence[Op]) -> Receipt:
        if not ready.is_set():
            await ready.wait()
        await asyncio.sleep(0)
        return await Gate.commit(gate, ops)

    gate.commit = slow  # type: ignore[method-assign]

    async def writer(chat_id: str) -> None:
        for _ in range(5):
            await store.commit(append(chat_id))

    writers = [asyncio.create_task(writer(CHATS[i % 4])) for i in range(20)]
    await settle()
    ready.set()
    await asyncio.gather(*writers)
    assert len(gate.batches) <= 7  # 100 commits
    for chat_id in CHATS:
        assert await stored(store, chat_id) == list(range(1, 26))


async def test_what_cannot_be_merged_goes_alone_and_in_its_turn(store: GroupCommit, gate: Gate) -> None:
    guard = Guard("chat_sessions", {"chat_id": "c0"}, {"message_count": 2})
    tasks = start(store, append("c1"), append(), append(), (guard, *append()), append(), append())
    await settle()
    gate.let_all_pass()
    receipts = await asyncio.gather(*tasks)
    assert [number(r) for r in receipts[1:]] == [1, 2, 3, 4, 5]
    assert [len(batch) for batch in gate.batches] == [2, 3, 3, 3]


async def test_a_merged_batch_has_its_limits(memory: MemoryStore) -> None:
    gate = Gate(memory)
    store = GroupCommit(gate)
    tasks = start(store, *(append() for _ in range(MAX_GROUP_COMMITS + 2)))
    await settle()
    gate.let_all_pass()
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in gate.batches] == [2, 1 + MAX_GROUP_COMMITS, 2]

    gate = Gate(memory, max_batch_ops=4)
    store = GroupCommit(gate)
    tasks = start(store, *(append("c1") for _ in range(5)))
    await settle()
    gate.let_all_pass()
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in gate.batches] == [2, 3, 3]
    assert await stored(store, "c1") == [1, 2, 3, 4, 5]


async def test_behind_a_full_queue_a_commit_is_refused_and_may_be_tried_again(store: GroupCommit, gate: Gate) -> None:
    ops = append("c0", "00000000-0000-7000-8000-000000000000")
    tasks = start(store, append(), *(ops for _ in range(MAX_WAITING_COMMITS)))
    await settle()
    assert store.waiting == MAX_WAITING_COMMITS
    with pytest.raises(UnavailableError, match=str(MAX_WAITING_COMMITS)) as refused:
        await store.commit(append())
    assert refused.value.retryable
    assert refused.value.outcome == "not_applied"
    assert refused.value.backend == "memory"

    tasks[-1].cancel()  # gives its place back
    await settle()
    tasks += start(store, append())
    await settle()
    assert store.waiting == MAX_WAITING_COMMITS
    for task in tasks[1:]:
        task.cancel()
    gate.let_all_pass()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert store.waiting == 0
    assert await stored(store) == [1]


# Refused


async def test_one_callers_conflict_is_never_anothers(store: GroupCommit, gate: Gate) -> None:
    taken = new_id()
    commits = [append("c0", taken)] + [append("c0") for _ in range(7)]
    commits[4] = append("c0", taken)
    tasks = start(store, *commits)
    await settle()
    gate.let_all_pass()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(4), AlreadyExistsError)
    assert [number(r) for r in results if isinstance(r, tuple)] == list(range(1, 8))
    assert await stored(store) == list(range(1, 8))


@pytest.mark.parametrize("error", [KeyError("no such column"), ValueError("bad"), TypeError("bad")])
async def test_a_programming_error_stays_with_its_caller(store: GroupCommit, gate: Gate, error: Exception) -> None:
    tasks = start(store, *(append() for _ in range(3)))
    await settle()
    gate.let_one_pass()
    await settle()
    gate.failures[:] = [error, error]  # the merged batch, then its first half
    gate.let_all_pass()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, tuple)
    assert second is error
    assert isinstance(third, tuple)
    assert await stored(store) == [1, 2]


async def test_what_is_no_operation_at_all_leaves_nobody_waiting(store: GroupCommit, gate: Gate) -> None:
    tasks = start(store, append(), append(), (None,), append())  # type: ignore[arg-type]
    await settle()
    gate.let_all_pass()
    async with asyncio.timeout(10):
        *sound, odd, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(odd, TypeError | AttributeError)
    assert [number(r) for r in (*sound, last) if isinstance(r, tuple)] == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("gone", outcome="not_applied", backend="memory", operation="commit"),
        UnavailableError("answer lost", outcome="unknown"),
        DalTimeoutError("too slow", retryable=False),
        ConflictError("lost in the middle", outcome="unknown"),
    ],
)
async def test_a_failure_of_the_store_goes_to_everyone_as_their_own(
    store: GroupCommit, gate: Gate, error: DalError
) -> None:
    tasks = start(store, *(append() for _ in range(4)))
    await settle()
    gate.let_one_pass()
    await settle()
    gate.failures.append(error)
    gate.let_all_pass()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, tuple)
    assert len({id(e) for e in others}) == 3
    for other in others:
        assert type(other) is type(error)
        assert isinstance(other, DalError)
        assert other.__reduce__() == error.__reduce__()
        assert other.__cause__ is error
    assert len(gate.batches) == 2


# Lanes


async def test_one_chat_stays_in_one_lane_and_others_need_not_wait(memory: MemoryStore) -> None:
    gate = Gate(memory, lanes=3)
    store = GroupCommit(gate)
    same = start(store, *(append("c0") for _ in range(5)))
    await settle()
    assert gate.in_flight == 1
    others = start(store, *((Delete("users", (Compare("id", "=", new_id()),)),) for _ in range(200)))
    await settle()
    assert gate.in_flight == 3
    gate.let_all_pass()
    assert [number(r) for r in await asyncio.gather(*same)] == [1, 2, 3, 4, 5]
    await asyncio.gather(*others)


async def test_odd_operations_reach_the_store_which_says_what_is_wrong(memory: MemoryStore) -> None:
    gate = Gate(memory, lanes=3)
    gate.let_all_pass()
    store = GroupCommit(gate)
    odd: list[Sequence[Op]] = [
        (Delete("users", ()),),
        (Guard("users", {}),),
        (Update("users", {"id": {"not": "hashable"}}),),
    ]
    for ops in odd:
        with pytest.raises((ValueError, KeyError, TypeError)):
            await store.commit(ops)
    assert await store.commit(()) == Receipt((), ())
    assert gate.batches == [*(list(ops) for ops in odd), []]


# What passes untouched


async def test_reads_transactions_and_health_go_to_the_store_below(store: GroupCommit, memory: MemoryStore) -> None:
    async with store.transaction() as transaction:
        await transaction.commit(append())
    assert await stored(store) == [1]
    assert (await store.health()).status == "ok"
    assert store.capabilities == memory.capabilities
    assert innermost(store) is memory
    assert "GroupCommit" in repr(store)
