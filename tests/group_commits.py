"""Appends to chats by group commit, and a gate below it that holds batches up, remembers them and fails some."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dal.backends.memory import MemoryStore
from dal.layers.base import Layer
from dal.layers.group import GroupCommit
from dal.ops import Compare, Insert, Op, Receipt, Ref, Select, Update, Value
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
