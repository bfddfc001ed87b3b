"""What is measured of live moves: a backfill, a check, the longest stall of a writer; and the same by hand.

A subject here has one piece of work, made ready when it is opened, so that only the work itself is timed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from time import perf_counter
from typing import Final

import psycopg
from psycopg import sql

from dal import Settings, create_data_access
from dal.factory import create_store
from dal.limits import GATE_MAX_AGE_S, MOVE_BATCH_ROWS
from dal.move.check_report import Mode
from dal.move.checking import check
from dal.move.mover import Mover, begin
from dal.move.operating import make_mover, switch_units
from dal.move.routing import Router
from dal.move.sides import Side, Sides, UnitGates, other, read_gates
from dal.ops import Count
from dal.replica import UNITS, Movable
from dal.store import Store
from dal.tables import TABLES
from tests.bench.data import Data
from tests.bench.measure import Call
from tests.bench.subject import Subject

#: Source and target by their addresses.
Pair = tuple[str, str]
WRITERS: Final = 8
_BETWEEN_APPENDS_S: Final = 0.005
#: What a cutover takes from its announcement to its end.
PAUSE_S: Final = GATE_MAX_AGE_S * 1.2


class Work(Subject):
    """One piece of work.

    handles  rows that one call of it handles.
    tells    a call gives the seconds that count, instead of those that it takes.
    """

    handles = 1
    tells = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack = AsyncExitStack()

    async def close(self) -> None:
        await self.stack.aclose()

    async def call(self, number: int) -> object:
        raise NotImplementedError

    async def _store(self, url: str) -> Store:
        store = create_store(url)
        await store.open()
        self.stack.push_async_callback(store.close)
        return store

    async def _begun(self, pair: Pair) -> tuple[Store, Store, Sides]:
        """Both stores, with a move of everything between them."""
        source, target = await self._store(pair[0]), await self._store(pair[1])
        assert isinstance(source, Movable)
        assert isinstance(target, Movable)
        sides = Sides(source.replica(), target.replica())
        await begin(sides, tuple(UNITS))
        return source, target, sides


def work(subject: Subject, _data: Data) -> Call:
    assert isinstance(subject, Work)
    return subject.call


class Moving(Work):
    """An application's appends while a move is installed in its store.

    pair  the source, and the target that the application pushes to itself; without one nobody copies.
    """

    def __init__(self, name: str, pair: Pair, *, pushing: bool) -> None:
        super().__init__(name)
        self._pair = pair
        self._dal = create_data_access(pair[0], settings=_dual_write(pair) if pushing else None, auto_migrate=False)

    async def open(self) -> None:
        async with AsyncExitStack() as self.stack:
            await self._begun(self._pair)
        await self._dal.open()
        self.stack.push_async_callback(self._dal.close)

    async def settled(self) -> None:
        """Until everything was pushed."""
        store: Store = self._dal.store
        while not isinstance(store, Router):
            if not hasattr(store, "inner"):
                return  # it takes no part in the move
            store = store.inner
        while (task := store._pusher._task) is not None:
            await asyncio.wait([task])

    async def append(self, chat_id: str, role: str, content: str) -> int:
        return (await self._dal.messages.add(chat_id, role, content)).sequence_number


def _dual_write(pair: Pair) -> Settings:
    return Settings(migration_enable_dual_write=True, migration_target_url=pair[1])


class Backfill(Work):
    """A move of everything, from its beginning until nothing is dirty. Each call has a pair of its own."""

    def __init__(self, pairs: Sequence[Pair], handles: int) -> None:
        super().__init__("dal")
        self.handles = handles
        self._pairs = pairs
        self._movers: list[Mover] = []

    async def open(self) -> None:
        for pair in self._pairs:
            source, _, sides = await self._begun(pair)
            self._movers.append(_mover(source, sides))

    async def call(self, number: int) -> object:
        await self._movers[number].run(_is_copied)
        return None


def _mover(source: Store, sides: Sides) -> Mover:
    """A mover that leaves the check out: it is measured by itself."""

    async def verify(_unit: str) -> int:
        return 0

    async def count(table: str) -> int:
        found = (await source.read(Count(table)))[0][0]
        assert isinstance(found, int)
        return found

    return Mover(sides, verify=verify, count=count)


def _is_copied(gates: Mapping[str, UnitGates]) -> bool:
    return all(found.phase == "VERIFIED" for found in gates.values())


class CopyByHand(Work):
    """All rows read with sqlite3 and written in one transaction: by COPY, or by executemany."""

    def __init__(self, name: str, pairs: Sequence[Pair], handles: int) -> None:
        super().__init__(name)
        self.handles = handles
        self._pairs = pairs

    async def open(self) -> None:
        """Nothing to open."""

    async def call(self, number: int) -> object:
        source, target = self._pairs[number]
        copy = _by_executemany if target.startswith("sqlite:") else _by_copy
        return await asyncio.to_thread(copy, source.removeprefix("sqlite:"), target)


def _by_copy(path: str, url: str) -> None:
    source = sqlite3.connect(path)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for table in TABLES.values():
            columns = sql.SQL(", ").join(map(sql.Identifier, table.names))
            with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), columns)) as copy:
                for row in source.execute(f"SELECT {', '.join(table.names)} FROM {table.name}"):
                    copy.write_row(row)
    source.close()


def _by_executemany(path: str, url: str) -> None:
    source, target = sqlite3.connect(path), sqlite3.connect(url.removeprefix("sqlite:"))
    target.execute("PRAGMA journal_mode = WAL")
    target.execute("PRAGMA synchronous = FULL")
    target.execute("PRAGMA foreign_keys = ON")
    with target:
        for table in TABLES.values():
            names, marks = ", ".join(table.names), ", ".join("?" * len(table.names))
            rows = source.execute(f"SELECT {names} FROM {table.name}")
            target.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)
    source.close()
    target.close()


class Checking(Work):
    """Checks of two stores in a move that are equal.

    copied  by pair, whose move has been carried out already.
    """

    def __init__(self, pair: Pair, mode: Mode, copied: set[Pair]) -> None:
        super().__init__("dal")
        self._pair = pair
        self._mode: Mode = mode
        self._copied = copied

    async def open(self) -> None:
        self._source, self._target, sides = await self._begun(self._pair)
        if self._pair not in self._copied:
            await _mover(self._source, sides).run(_is_copied)
            self._copied.add(self._pair)
        self.handles = sum([entries for _, _, entries in (await sides.source.backlog()).values()])

    async def call(self, number: int) -> object:
        report = await check(self._source, self._target, mode=self._mode)
        assert report.differences == 0
        return report


class CheckByHand(Work):
    """Ids and texts of both sides' messages, read in order and compared."""

    def __init__(self, pair: Pair) -> None:
        super().__init__("read and compared by hand")
        self._pair = pair

    async def open(self) -> None:
        self.handles = len(_ids_and_texts(self._pair[0]))

    async def call(self, number: int) -> object:
        def compare() -> bool:
            return _ids_and_texts(self._pair[0]) == _ids_and_texts(self._pair[1])

        assert await asyncio.to_thread(compare)
        return None


def _ids_and_texts(url: str) -> list[tuple[str, str]]:
    if not url.startswith("sqlite:"):
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT id::text, content FROM messages ORDER BY id").fetchall()
    file = sqlite3.connect(url.removeprefix("sqlite:"))
    found = file.execute("SELECT id, content FROM messages ORDER BY id").fetchall()
    file.close()
    return found


class Stall(Work):
    """The longest append of WRITERS writers while their chats change sides, forth and back.

    switching  False: the same for as long, with nothing switched: what the machine alone makes of it.
    """

    tells = True

    def __init__(self, pair: Pair, data: Data, *, switching: bool) -> None:
        super().__init__("dal" if switching else "no cutover")
        self._pair = pair
        self._chats = data.chats[:WRITERS]
        self._switching = switching
        self._dal = create_data_access(pair[0], settings=_dual_write(pair))

    async def open(self) -> None:
        source, target, self._sides = await self._begun(self._pair)
        mover = asyncio.create_task(
            make_mover(source, target, self._sides, batch_rows=MOVE_BATCH_ROWS).run(lambda _: False)
        )
        self.stack.push_async_callback(_ended, mover)
        await self._dal.open()
        self.stack.push_async_callback(self._dal.close)

    async def call(self, number: int) -> float:
        to = await self._settled()
        stop = asyncio.Event()
        writing = [asyncio.create_task(self._longest_s(chat, stop)) for chat in self._chats]
        try:
            if self._switching:
                async for _ in switch_units(self._sides, ["chats"], to, batch_rows=MOVE_BATCH_ROWS, on_retry=_again):
                    pass
            else:
                await asyncio.sleep(PAUSE_S)
        finally:
            stop.set()
            longest = await asyncio.gather(*writing)
        return max(longest)

    async def _settled(self) -> Side:
        """The side to switch to, once that can be done."""
        while True:
            found = (await read_gates(self._sides))["chats"]
            if found.phase in ("VERIFIED", "SWITCHED"):
                return other(found.holder)
            await asyncio.sleep(0.02)

    async def _longest_s(self, chat: str, stop: asyncio.Event) -> float:
        longest = 0.0
        while not stop.is_set():
            started = perf_counter()
            await self._dal.messages.add(chat, "user", "text")
            longest = max(longest, perf_counter() - started)
            await asyncio.sleep(_BETWEEN_APPENDS_S)
        return longest


def _again(*_: object) -> None:
    """A cutover that met something in its way is tried again; its writers' wait counts."""


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
