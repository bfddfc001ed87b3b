"""Two stores with the same rows in them, of any two backends, for what compares stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple, cast

import pytest
import pytest_asyncio

from dal.backends.memory import MemoryStore
from dal.factory import create_store
from dal.move.check_report import CheckReport
from dal.move.checking import check
from dal.move.differences import Difference
from dal.ops import Insert, Value
from dal.store import Store
from dal.tables import TABLES
from dal.testing import nasty, rows
from tests.subjects import url_of

#: Rows of each table that `seeded` makes.
USERS, CHATS, MESSAGES, MEMORY, FILES, LOGS = 4, 4, 24, 12, 5, 9
_MAIN: Final = {"users": 1, "chat_sessions": 100, "messages": 200, "user_memory": 300, "files": 400, "system_logs": 500}
#: The tables of what is known of files besides, with two rows each.
_MORE: Final = {name: 600 + 10 * n for n, name in enumerate(name for name in TABLES if name not in _MAIN)}
FIRST: Final = {name: (_MAIN | _MORE)[name] for name in TABLES}
COUNTS: Final = dict.fromkeys(FIRST, 2) | dict(zip(_MAIN, (USERS, CHATS, MESSAGES, MEMORY, FILES, LOGS), strict=True))

#: Pairs in which every backend is a source and a target once, and meets another one.
PAIRS: Final = ("memory-file", "file-sqlite", "sqlite-postgresql", "postgresql-memory", "sqlite-d1", "d1-sqlite")


class Pair(NamedTuple):
    """Two stores, not yet open."""

    source: Store
    target: Store

    async def open(self) -> None:
        for store in self:
            await store.open()

    async def seed(self) -> None:
        for store in self:
            await seed(store)

    async def close(self) -> None:
        for store in self:
            await store.close()


def pair_of(name: str, request: pytest.FixtureRequest, directory: Path) -> Pair:
    """Two empty stores of the backends in the name."""
    stores: list[Store] = []
    for number, backend in enumerate(name.split("-")):
        (place := directory / str(number)).mkdir()
        stores.append(create_store(url_of(backend, request, place)))
    return Pair(*stores)


def seeded() -> dict[str, list[dict[str, Value]]]:
    """Rows of every table, parents first, with texts and documents that are hard to keep."""
    texts, documents = list(nasty.TEXTS.values()), list(nasty.DOCUMENTS.values())
    numbers = list(nasty.NUMBERS.values())

    def ids(table: str) -> range:
        return range(FIRST[table], FIRST[table] + COUNTS[table])

    made: dict[str, list[dict[str, Value]]] = {
        "users": [rows.user(n, clerk_id=f"clerk-{n}", preferences={"b": n, "a": 1.5}) for n in ids("users")],
        "chat_sessions": [
            rows.chat(n, user_id=rows.row_id(1 + n % USERS), title=texts[n % len(texts)]) for n in ids("chat_sessions")
        ],
        "messages": [
            cast("dict[str, Value]", rows.message(n, 100 + n % CHATS, content=texts[n % len(texts)], token_count=n))
            for n in ids("messages")
        ],
        "user_memory": [rows.memory(n, 1 + n % USERS, value=documents[n % len(documents)]) for n in ids("user_memory")],
        "files": [rows.file(n, 1 + n % USERS, metadata={"n": numbers[n % len(numbers)]}) for n in ids("files")],
        "system_logs": [rows.log(n, ip_address="192.0.2.1", context={"n": [n, True]}) for n in ids("system_logs")],
    }
    return {name: made.get(name) or [more(name, n) for n in ids(name)] for name in TABLES}


def more(table: str, number: int) -> dict[str, Value]:
    """A row of one of the tables with two rows, whose parents are the last ones of theirs."""
    last = {parent.column: FIRST[parent.table] + COUNTS[parent.table] - 1 for parent in TABLES[table].parents}
    parents = {column: rows.row_id(n - number % 2) for column, n in last.items()}
    return rows.whole(table, number, **parents)


async def seed(store: Store) -> None:
    """Writes the rows of `seeded`."""
    await store.commit([Insert(table, row) for table, found in seeded().items() for row in found])


def values_of(table: str, row: dict[str, Value]) -> tuple[Value, ...]:
    return tuple(row[name] for name in TABLES[table].names)


async def find(pair: Pair, **options: object) -> tuple[CheckReport, list[Difference]]:
    """What a check of the pair reports, and every difference it names."""
    found: list[Difference] = []
    report = await check(*pair, pause_s=0, on_difference=found.append, **options)  # type: ignore[arg-type]
    return report, found


class FakeTime:
    """A timer that moves when somebody sleeps; what others do meanwhile is `sleeping`."""

    def __init__(self, sleeping: Callable[[], Awaitable[object]]) -> None:
        self.now = 0.0
        self._sleeping = sleeping

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await self._sleeping()


# Fixtures ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def schemas_of_pairs(request: pytest.FixtureRequest) -> None:
    """What makes the databases' schemas has an event loop of its own, and goes before the test's."""
    for name in ("sqlite_with_schema", "postgres_with_schema", "d1_schema"):
        request.getfixturevalue(name)


@pytest_asyncio.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path, schemas_of_pairs: None) -> AsyncIterator[Pair]:
    """Two open stores of different backends with the same rows."""
    made = pair_of(request.param, request, tmp_path)
    await made.open()
    await made.seed()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def twins() -> AsyncIterator[Pair]:
    """The same in memory, for what does not depend on the backend."""
    made = Pair(MemoryStore(), MemoryStore())
    await made.open()
    await made.seed()
    yield made
    await made.close()
