"""The library's own cost: every layer and repository over a store that answers at once with what it always answers.

The baseline is that store, asked directly with a query or batch made beforehand, so the difference is what the library
adds to a driver that already gives typed values: checks, ids, layers, records.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from dal import DataAccess
from dal.layers.group import GroupCommit
from dal.layers.retry import Retry
from dal.ops import JsonValue, Op, Query, Receipt, Row, Select, Upsert, Value
from dal.store import Capabilities, ReadCommit, StoreHealth
from dal.tables import TABLES, Kind
from dal.values import new_id
from tests.bench import paths
from tests.bench.paths import DAL, Against
from tests.bench.paths import Row as Path
from tests.bench.stage import Stage
from tests.bench.subject import Ours, Subject
from tests.bench.targets import Measure, Target

_STORE: Final = "store"
_BESIDE_STORE: Final = (Against(_STORE, (Target(Measure.EXTRA_US, 25),)),)

_VALUES: Final[dict[Kind, Value]] = {
    Kind.ID: new_id(),
    Kind.TEXT: "What is a difference engine?",
    Kind.INT: 7,
    Kind.BIGINT: 1,
    Kind.BOOL: False,
    Kind.TIME: datetime.now(UTC),
    Kind.JSON: {"tone": "brief"},
    Kind.IP: "127.0.0.1",
}


class ConstantStore:
    """A store that keeps nothing: reads give as many made-up rows as they ask for, commits are always accepted."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, tuple[str, ...]], Row] = {}
        self.capabilities = Capabilities(
            backend="nothing",
            durable=False,
            multi_process=False,
            interactive_transactions=True,
            search=False,
            triggers=False,
            commit_lanes=1,
            max_text_bytes=1 << 30,
            max_batch_ops=20_000,
        )

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def read(self, query: Query) -> list[Row]:
        if type(query) is not Select:
            return [(0,)]
        key = query.table, query.columns
        row = self._answers.get(key)
        if row is None:
            row = self._answers[key] = _row(query.table, query.columns)
        return [row] * (query.limit or 1)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        returned = [_returned(op) for op in ops]
        return Receipt((1,) * len(ops), tuple(returned))

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[ReadCommit]:
        yield self

    async def health(self) -> StoreHealth:
        return StoreHealth(status="ok", parts={"reachable": True})


class Direct(Subject):
    """The store itself, asked with values that were made once."""

    name = "the store asked directly"

    def __init__(self) -> None:
        self._store = _Recorder()

    async def open(self) -> None:
        """Notes what each call of the library asks the store."""
        ours, store = Ours(_layered(self._store)), self._store
        user = new_id()
        await ours.get_chat("c")
        self._chat = store.asked[-1]
        await ours.history("c", 20)
        self._history = store.asked[-1]
        await ours.append("c", "user", "text")
        self._append = store.committed[-1]
        await ours.memory_set(user, "key", {"tone": "brief"})
        self._set = store.committed[-1]
        await ours.memory_get(user, "key")
        self._get = store.asked[-1]

    async def close(self) -> None:
        """Nothing to close."""

    async def get_chat(self, chat_id: str) -> object:
        return await self._store.read(self._chat)

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        return await self._store.read(self._history)

    async def append(self, chat_id: str, role: str, content: str) -> int:
        await self._store.commit(self._append)
        return 1

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        return await self._store.commit(self._set)

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        return (await self._store.read(self._get))[0][0]  # type: ignore[return-value]  # the column holds JSON


class NothingStage(Stage):
    backend = "nothing"
    rows = (
        Path("own cost: get a chat", paths.get_chat, _BESIDE_STORE),
        Path("own cost: history(20)", paths.history(1), _BESIDE_STORE),
        Path("own cost: append", paths.append(1), _BESIDE_STORE),
        Path("own cost: memory.set", paths.memory_set, _BESIDE_STORE),
        Path("own cost: memory.get", paths.memory_get, _BESIDE_STORE),
    )

    async def make(self, name: str) -> Subject:
        return Ours(_layered(ConstantStore())) if name == DAL else Direct()


class _Recorder(ConstantStore):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Query] = []
        self.committed: list[Sequence[Op]] = []

    async def read(self, query: Query) -> list[Row]:
        self.asked.append(query)
        return await super().read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self.committed.append(ops)
        return await super().commit(ops)


def _layered(store: ConstantStore) -> DataAccess:
    """As the factory puts it together."""
    return DataAccess(Retry(GroupCommit(store)))


def _row(table: str, columns: tuple[str, ...]) -> Row:
    declared = TABLES[table].by_name
    names = columns or TABLES[table].names
    return tuple(_VALUES[declared[name].kind] if name in declared else "c" for name in names)


def _returned(op: Op) -> Row | None:
    returning = getattr(op, "returning", ())
    if not returning:
        return None
    if type(op) is Upsert:
        return tuple(op.row[name] for name in returning)
    return _row(op.table, returning)
