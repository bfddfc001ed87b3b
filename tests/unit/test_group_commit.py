"""Group commit: who waits together is written together, and nobody pays for another's fate."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dal.backends.memory import MemoryStore
from dal.errors import AlreadyExistsError, ConflictError, DalError, DalTimeoutError, UnavailableError
from dal.layers import group
from dal.layers.base import Layer, innermost
from dal.layers.group import GroupCommit
from dal.limits import MAX_GROUP_COMMITS, MAX_WAITING_COMMITS
from dal.ops import Compare, Delete, Guard, Insert, Op, Receipt, Ref, Select, Update, Value
from dal.store import Capabilities, Store
from dal.tables import TABLES
from dal.values import new_id

T0 = datetime(2024, 1, 1, tzinfo=UTC)
CHATS = ("c0", "c1", "c2", "c3")


def chat(chat_id: str) -> Insert:
    row: dict[str, Value | Ref] = dict.fromkeys(TABLES["chat_sessions"].names)
    row |= {"id": new_id(), "chat_id": chat_id, "profile": "general", "metadata": {}, "status": "active"}
    row |= {"message_count": 0, "created_at": T0, "updated_at": T0, "last_activity_at": T0, "version": 1}
    return Insert("chat_sessions", row)


def append(chat_id: str = "c0", message_id: str | None = None, content: str = "hello") -> tuple[Op, ...]:
    key = {"chat_id": chat_id}
    row: dict[str, Value | Ref] = {
        "id": message_id or new_id(),
        "chat_session_id": Ref("chat_sessions", key, "id"),
        "role": "user",
        "content": content,
        "metadata": {},
        "sequence_number": Ref("chat_sessions", key, "message_count"),
        "token_count": None,
        "abuse_flagged": False,
        "created_at": T0,
        "version": 1,
    }
    update = Update("chat_sessions", key, {"updated_at": T0}, {"message_count": 1, "version": 1})
    return (update, Insert("messages", row, ("sequence_number",)))


def number(receipt: Receipt) -> Value:
    row = receipt.rows[-1]
    assert row is not None
    return row[0]


class Gate(Layer):
    """Lets batches through one by one, remembers them, and fails those it is told to."""

    def __init__(self, inner: Store, *, lanes: int = 1, max_batch_ops: int | None = None) -> None:
        super().__init__(inner)
        self.batches: list[list[Op]] = []
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.in_flight = 0
        self.failures: list[Exception] = []
        self._pass = asyncio.Semaphore(0)
        self._is_open = False
        self._lanes = lanes
        self._max_batch_ops = max_batch_ops

    @property
    def capabilities(self) -> Capabilities:
        below = self.inner.capabilities
        return replace(below, commit_lanes=self._lanes, max_batch_ops=self._max_batch_ops or below.max_batch_ops)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self.batches.append(list(ops))
        self.tasks.append(asyncio.current_task())
        self.in_flight += 1
        try:
            if not self._is_open:
                await self._pass.acquire()
            if self.failures:
                raise self.failures.pop(0)
            return await self.inner.commit(ops)
        finally:
            self.in_flight -= 1

    def let_one_pass(self) -> None:
        self._pass.release()

    def let_all_pass(self) -> None:
        self._is_open = True
        for _ in range(1000):
            self._pass.release()


@pytest.fixture
async def memory() -> MemoryStore:
    store = MemoryStore()
    await store.open()
    await store.commit([chat(c) for c in CHATS])
    return store


@pytest.fixture
async def gate(memory: MemoryStore) -> Gate:
    return Gate(memory)


@pytest.fixture
async def store(gate: Gate) -> GroupCommit:
    return GroupCommit(gate)


async def settle() -> None:
    """Every task has run until it waits for something that does not come by itself."""
    for _ in range(50):
        await asyncio.sleep(0)


def start(store: GroupCommit, *commits: Sequence[Op]) -> list[asyncio.Task[Receipt]]:
    return [asyncio.create_task(store.commit(ops)) for ops in commits]


async def stored(store: Store, chat_id: str = "c0") -> list[Value]:
    """The sequence numbers in a chat, each as often as it is there; its counter agrees."""
    rows = await store.read(
        Select(
            "messages",
            (Compare("chat_session_id.chat_id", "=", chat_id),),
            ("sequence_number",),
            columns=("sequence_number",),
        )
    )
    count = await store.read(Select("chat_sessions", (Compare("chat_id", "=", chat_id),), columns=("message_count",)))
    assert count == [(len(rows),)]
    return [row[0] for row in rows]


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


# What passes untouched


async def test_reads_transactions_and_health_go_to_the_store_below(store: GroupCommit, memory: MemoryStore) -> None:
    async with store.transaction() as transaction:
        await transaction.commit(append())
    assert await stored(store) == [1]
    assert (await store.health()).status == "ok"
    assert store.capabilities == memory.capabilities
    assert innermost(store) is memory
    assert "GroupCommit" in repr(store)
