"""SQLite: beside sqlite3 itself, sqlite3 in one thread hop, and aiosqlite as usually written."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Final

from dal import create_data_access
from tests.bench import paths
from tests.bench.baselines.sqlite import OneHopSqlite, RawSqlite, UsualAiosqlite
from tests.bench.paths import DAL, DAL_SEARCH, Against, Row
from tests.bench.stage import Stage, fill_sql
from tests.bench.subject import Ours, Subject
from tests.bench.targets import Measure, Target

_RAW: Final = "raw"
_RAW_TWIN: Final = "raw twin"
_RAW_SEARCH: Final = "raw with search"
_ONE_HOP: Final = "one hop"
_AIOSQLITE: Final = "aiosqlite"

_OVER_THE_DRIVER: Final = Target(Measure.EXTRA_US, 25)
_SPEEDUP: Final = Target(Measure.SPEEDUP)
_SLOWDOWN: Final = Target(Measure.SLOWDOWN)
_THROUGHPUT: Final = Target(Measure.THROUGHPUT)


def _get(faster: float) -> tuple[Against, ...]:
    return (Against(_AIOSQLITE, (Target(Measure.SPEEDUP, faster),)), Against(_ONE_HOP, (_OVER_THE_DRIVER,)))


def _one_by_one(*targets: Target) -> tuple[Against, ...]:
    return (Against(_RAW, targets, tasks=1),)


class SqliteStage(Stage):
    """Every subject has a database file of its own, a copy of one that the library filled."""

    backend = "sqlite"
    rows = (
        Row("get a chat", paths.get_chat, _get(1.8)),
        Row("get a message", paths.get_message, _get(1.8)),
        Row("history(20), chat of {lengths[0]:,}", paths.history(0), _get(1.4)),
        Row("history(20), chat of {lengths[1]:,}", paths.history(1), _get(1.4)),
        Row("history(20), chat of {lengths[2]:,}", paths.history(2), _get(1.4)),
        Row(
            "history(10), chat of {lengths[2]:,} beside one of {lengths[0]:,}",
            paths.history(2, 10),
            (Against(DAL, (Target(Measure.SLOWDOWN, 1.2),), workload=paths.history(0, 10)),),
        ),
        Row("control: append, 1 task", paths.append(1), (Against(_RAW_TWIN, (_SLOWDOWN,)),), who=_RAW, writes=True),
        Row(
            "append, 1 task",
            paths.append(1),
            (Against(_RAW, (Target(Measure.SLOWDOWN, 1.4),)), Against(_AIOSQLITE, (_SPEEDUP,))),
            writes=True,
        ),
        Row("append, 16 tasks, own chats", paths.append(16), _one_by_one(_THROUGHPUT), 16, writes=True),
        Row("append, 16 tasks, one chat", paths.append_shared, _one_by_one(_THROUGHPUT), 16, writes=True),
        Row(
            "append, 100 tasks, own chats",
            paths.append(100),
            (
                Against(_RAW, (Target(Measure.THROUGHPUT, 4),), tasks=1, workload=paths.append(100)),
                Against(_AIOSQLITE, (_THROUGHPUT,)),
            ),
            100,
            writes=True,
        ),
        Row(
            "append, 100 tasks, one chat",
            paths.append_shared,
            _one_by_one(Target(Measure.THROUGHPUT, 6)),
            100,
            writes=True,
        ),
        Row("memory.get", paths.memory_get, (Against(_AIOSQLITE, (_SPEEDUP,)), Against(_ONE_HOP, (_OVER_THE_DRIVER,)))),
        Row(
            "memory.set",
            paths.memory_set,
            (Against(_RAW, (_SLOWDOWN,)), Against(_AIOSQLITE, (_SPEEDUP,))),
            writes=True,
        ),
        Row("mixed 80/20, 100 tasks", paths.mixed(100), (Against(_AIOSQLITE, (_THROUGHPUT,)),), 100, writes=True),
        Row(
            "bulk import, {bulk_messages:,} messages",
            paths.bulk,
            (Against(_RAW, (_THROUGHPUT,)),),
            writes=True,
            calls=1,
            bulk=True,
        ),
        Row("search, a rare word", paths.search, (Against(_RAW_SEARCH, (_SLOWDOWN,)),), who=DAL_SEARCH),
        Row(
            "append, 1 task, search on beside off",
            paths.append(1),
            (Against(DAL, (_SLOWDOWN,)),),
            who=DAL_SEARCH,
            writes=True,
        ),
        Row(
            "append, 100 tasks, search on beside off",
            paths.append(100),
            (Against(DAL, (_THROUGHPUT,)),),
            100,
            who=DAL_SEARCH,
            writes=True,
        ),
    )

    async def make(self, name: str) -> Subject:
        path = await self._copy(name, search=name in (DAL_SEARCH, _RAW_SEARCH))
        match name:
            case paths.DAL | paths.DAL_SEARCH:
                return Ours(create_data_access(f"sqlite:{path}", auto_migrate=False), name)
            case "one hop":
                return OneHopSqlite(path)
            case "aiosqlite":
                return UsualAiosqlite(path)
            case _:
                return RawSqlite(path)

    async def _copy(self, name: str, *, search: bool) -> Path:
        filled = self.directory / ("filled-search.db" if search else "filled.db")
        if not filled.exists():
            await fill_sql(f"sqlite:{filled}", self.data, search=search)
            with sqlite3.connect(filled) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("ANALYZE")
            connection.close()
        return Path(shutil.copy(filled, self.directory / f"{name.replace(' ', '-')}.db"))
