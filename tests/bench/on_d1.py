"""D1 on its own engine, on this machine: beside a hand-written httpx client that sends the best SQL.

The way to the engine is a loopback socket, so what is seen is the cost of the client and of the engine; hosted D1 adds
its round trip to both sides alike.
"""

from __future__ import annotations

import subprocess
from typing import Final

from dal import DataAccess, Settings, create_data_access
from dal.factory import create_store
from dal.layers.retry import Retry
from dal.values import new_id, now
from tests.bench import paths
from tests.bench.baselines.d1 import HandWrittenD1
from tests.bench.measure import Side
from tests.bench.paths import DAL, DAL_SEARCH, Against, Row
from tests.bench.stage import Stage, fill_sql
from tests.bench.subject import Ours, Subject
from tests.bench.targets import Measure, Target
from tests.engines.d1 import D1Database, D1Engine, find_binary

_HAND: Final = "httpx"
_HAND_TWIN: Final = "httpx twin"
_HAND_SEARCH: Final = "httpx with search"
_ALONE: Final = "dal, no coalescing"
_FAR: Final = ", 50 ms away"
_FAR_MS: Final = 50

_SLOWDOWN: Final = Target(Measure.SLOWDOWN)
_THROUGHPUT: Final = Target(Measure.THROUGHPUT)
_COALESCED: Final = Target(Measure.THROUGHPUT, 3)


def _by_hand(*targets: Target) -> tuple[Against, ...]:
    return (Against(_HAND, targets or (Target(Measure.SLOWDOWN, 1.15),)),)


def _coalesced(*targets: Target) -> tuple[Against, ...]:
    return (Against(_ALONE, targets), *_by_hand(_THROUGHPUT))


class D1Stage(Stage):
    """Every subject has a database of its own on one engine, filled by the library."""

    backend = "d1"
    rows = (
        Row("control: get a chat", paths.get_chat, (Against(_HAND_TWIN, (_SLOWDOWN,)),), who=_HAND),
        Row("get a chat (by key)", paths.get_chat, _by_hand()),
        Row("get a message (by id)", paths.get_message, _by_hand()),
        Row("history(20), chat of {lengths[0]:,}", paths.history(0), _by_hand()),
        Row("history(20), chat of {lengths[1]:,}", paths.history(1), _by_hand()),
        Row("history(20), chat of {lengths[2]:,}", paths.history(2), _by_hand()),
        Row(
            "history(10), chat of {lengths[2]:,} beside one of {lengths[0]:,}",
            paths.history(2, 10),
            (Against(DAL, (Target(Measure.SLOWDOWN, 1.2),), workload=paths.history(0, 10)),),
        ),
        Row("list a page of 50 chats", paths.list_chats, _by_hand()),
        Row("memory.get", paths.memory_get, _by_hand()),
        Row("control: append, 1 task", paths.append(1), (Against(_HAND_TWIN, (_SLOWDOWN,)),), who=_HAND, writes=True),
        Row("append, 1 task", paths.append(1), _by_hand(), writes=True),
        Row("create a chat", paths.create_chat, _by_hand(), writes=True),
        Row("memory.set", paths.memory_set, _by_hand(), writes=True),
        Row("append, 16 tasks, one chat", paths.append_shared, _coalesced(_COALESCED), 16, writes=True),
        Row("append, 16 tasks, own chats", paths.append(16), _coalesced(_COALESCED), 16, writes=True),
        Row(
            f"append, 16 tasks, own chats{_FAR}",
            paths.append(16),
            (Against(_ALONE + _FAR, (_THROUGHPUT,)), Against(_HAND + _FAR, (_THROUGHPUT,))),
            16,
            who=DAL + _FAR,
            writes=True,
            calls=160,  # many round trips: the first of a round goes alone
        ),
        Row("mixed 80/20, 1 task", paths.mixed(1), _by_hand(), writes=True),
        Row("mixed 80/20, 16 tasks", paths.mixed(16), _by_hand(_THROUGHPUT), 16, writes=True),
        Row(
            "bulk import, {bulk_messages:,} messages",
            paths.bulk,
            _by_hand(Target(Measure.RATE, 10_000), _THROUGHPUT),
            writes=True,
            calls=1,
            bulk=True,
        ),
        Row(
            "search, a rare word",
            paths.search,
            (Against(_HAND_SEARCH, (Target(Measure.SLOWDOWN, 1.15),)),),
            who=DAL_SEARCH,
        ),
        Row(
            "append, 1 task, search on beside off",
            paths.append(1),
            (Against(DAL, (_SLOWDOWN,)),),
            who=DAL_SEARCH,
            writes=True,
        ),
    )

    async def set_up(self) -> None:
        self._engine = D1Engine()
        self.stack.callback(self._engine.close)
        self.engine = f"{_version()}, over HTTP/1.1 on loopback"
        self._far: list[D1Database] = []

    async def sides(self, row: Row) -> list[Side]:
        found = await super().sides(row)
        for database in self._far:  # just before it is measured: a database that falls asleep forgets it
            self._engine.faults(database, {"delay_ms": _FAR_MS, "count": 1_000_000_000})
        return found

    async def make(self, name: str) -> Subject:
        searchable = name in (DAL_SEARCH, _HAND_SEARCH)
        database = self._engine.create_database()
        settings = Settings(d1_api_base=database.base, d1_api_token=database.token)
        await fill_sql(database.url, self.data, search=searchable, settings=settings)
        if name.endswith(_FAR):
            self._far.append(database)
        if name.startswith(_HAND):
            subject: Subject = HandWrittenD1(database, searchable=searchable)
        elif name.startswith(_ALONE):
            store = Retry(create_store(database.url, settings=settings))
            subject = Ours(DataAccess(store, clock=now, new_id=new_id), _ALONE)
        else:
            subject = Ours(create_data_access(database.url, settings=settings), name.removesuffix(_FAR))
        subject.requests = lambda: self._engine.requests(database)
        return subject


def _version() -> str:
    said = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True, timeout=60)
    return said.stdout.strip()
