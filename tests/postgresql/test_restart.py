"""A server that goes away under load and comes back: nothing acknowledged is lost, and the pool recovers."""

from __future__ import annotations

import asyncio

import pytest

from dal.backends.sql import SqlStore
from dal.errors import DalError, UnavailableError
from dal.layers.group import GroupCommit
from dal.ops import Compare, Select, Value
from dal.store import Store
from tests.engines import postgres
from tests.postgresql.conftest import OpenStore
from tests.postgresql.rows import append, chat

WRITERS = 20


class _Load:
    """Writers and readers that go on until told to stop; what was acknowledged, and what failed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged: set[str] = set()
        self.unknown: set[str] = set()
        self.errors: list[BaseException] = []
        self.stopping = False
        self._milestones: list[tuple[int, asyncio.Event]] = []

    async def write(self, chat_id: str) -> None:
        while not self.stopping:
            ops = append(chat_id)
            message_id = str(ops[1].row["id"])  # type: ignore[union-attr]
            try:
                await self.store.commit(ops)
            except DalError as error:
                self.errors.append(error)
                if error.outcome == "unknown":
                    self.unknown.add(message_id)
                await asyncio.sleep(0.01)  # as a caller's own retry would
            else:
                self.acknowledged.add(message_id)
                for wanted, event in self._milestones:
                    if len(self.acknowledged) >= wanted:
                        event.set()

    async def read(self) -> None:
        while not self.stopping:
            try:
                await self.store.read(Select("chat_sessions", (Compare("chat_id", "=", "c0"),)))
            except DalError as error:
                self.errors.append(error)
                await asyncio.sleep(0.01)

    async def more(self, n: int) -> None:
        """Waits until so many more writes are acknowledged."""
        event = asyncio.Event()
        self._milestones.append((len(self.acknowledged) + n, event))
        async with asyncio.timeout(30):
            await event.wait()


async def _stored(store: SqlStore) -> dict[Value, list[tuple[Value, Value]]]:
    rows = await store.read(Select("messages", columns=("chat_session_id", "sequence_number", "id")))
    found: dict[Value, list[tuple[Value, Value]]] = {}
    for session, number, message_id in rows:
        found.setdefault(session, []).append((number, message_id))
    return found


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "crash"])
@pytest.mark.parametrize("grouped", [False, True], ids=["bare", "grouped"])
async def test_every_acknowledged_write_survives_and_the_pool_recovers(
    open_store: OpenStore, own_postgres: postgres.OwnServer, crash: bool, grouped: bool
) -> None:
    store = await open_store(own_postgres.create_database(), auto_migrate=True)
    await store.commit([chat(f"c{k}") for k in range(WRITERS)])
    load = _Load(GroupCommit(store) if grouped else store)
    tasks = [asyncio.create_task(load.write(f"c{k}")) for k in range(WRITERS)]
    tasks += [asyncio.create_task(load.read()) for _ in range(5)]
    await load.more(100)
    for restarts in range(1, 20):
        await asyncio.to_thread(own_postgres.restart, crash=crash)
        await load.more(200)
        if restarts > 1 and load.errors:  # else no call was under way at that moment, and the pool saw to the rest
            break
    load.stopping = True
    await asyncio.gather(*tasks)

    assert load.errors, "the restart was not noticed: nothing was tested"
    for error in load.errors:
        assert isinstance(error, UnavailableError), error
        assert error.retryable
    stored = await _stored(store)
    ids = {message_id for rows in stored.values() for _, message_id in rows}
    assert load.acknowledged <= ids
    assert ids <= load.acknowledged | load.unknown
    for rows in stored.values():
        assert sorted(number for number, _ in rows) == list(range(1, len(rows) + 1))  # type: ignore[type-var]
    part = (await store.health()).parts["pool"]
    assert isinstance(part, dict)
    assert (part["in_use"], part["waiting"]) == (0, 0)
