"""PostgreSQL with its default durability: beside psycopg's own pool, and asyncpg's where it is installed."""

from __future__ import annotations

from typing import Final, LiteralString

import psycopg
from psycopg import sql

from dal import create_data_access
from tests.bench import paths
from tests.bench.baselines.postgresql import PooledAsyncpg, PooledPsycopg, has_asyncpg
from tests.bench.paths import DAL, DAL_SEARCH, Against, Row
from tests.bench.stage import Stage, fill_sql
from tests.bench.subject import Ours, Subject
from tests.bench.targets import Measure, Target
from tests.engines import postgres

_PSYCOPG: Final = "psycopg"
_PSYCOPG_TWIN: Final = "psycopg twin"
_PSYCOPG_SEARCH: Final = "psycopg with search"
_ASYNCPG: Final = "asyncpg"

_SLOWDOWN: Final = Target(Measure.SLOWDOWN)
_THROUGHPUT: Final = Target(Measure.THROUGHPUT)


def _beside_psycopg(*targets: Target) -> tuple[Against, ...]:
    return (Against(_PSYCOPG, targets),)


def _read() -> tuple[Against, ...]:
    return _beside_psycopg(Target(Measure.SLOWDOWN, 1.15))


_MIXED_AGAINST: Final = (
    *_beside_psycopg(Target(Measure.THROUGHPUT, 1.2)),
    *((Against(_ASYNCPG, (_THROUGHPUT,)),) if has_asyncpg() else ()),
)


class PostgresqlStage(Stage):
    """Every subject has a database of its own on one server, a copy of one that the library filled."""

    backend = "postgresql"
    rows = (
        Row("get a chat", paths.get_chat, _read()),
        Row("get a message", paths.get_message, _read()),
        Row("history(20), chat of {lengths[0]:,}", paths.history(0), _read()),
        Row("history(20), chat of {lengths[1]:,}", paths.history(1), _read()),
        Row("history(20), chat of {lengths[2]:,}", paths.history(2), _read()),
        Row(
            "history(10), chat of {lengths[2]:,} beside one of {lengths[0]:,}",
            paths.history(2, 10),
            (Against(DAL, (Target(Measure.SLOWDOWN, 1.2),), workload=paths.history(0, 10)),),
        ),
        Row(
            "control: append, 1 task",
            paths.append(1),
            (Against(_PSYCOPG_TWIN, (_SLOWDOWN,)),),
            who=_PSYCOPG,
            writes=True,
        ),
        Row("append, 1 task", paths.append(1), _read(), writes=True),
        Row("append, 16 tasks, own chats", paths.append(16), _beside_psycopg(_THROUGHPUT), 16, writes=True),
        Row("append, 16 tasks, one chat", paths.append_shared, _beside_psycopg(_THROUGHPUT), 16, writes=True),
        Row(
            "append, 100 tasks, own chats",
            paths.append(100),
            _beside_psycopg(Target(Measure.THROUGHPUT, 3)),
            100,
            writes=True,
        ),
        Row(
            "append, 100 tasks, one chat",
            paths.append_shared,
            _beside_psycopg(Target(Measure.THROUGHPUT, 5)),
            100,
            writes=True,
        ),
        Row("memory.get", paths.memory_get, _beside_psycopg(_SLOWDOWN)),
        Row("memory.set", paths.memory_set, _beside_psycopg(_SLOWDOWN), writes=True),
        Row("history(20), 100 tasks", paths.history(1), _beside_psycopg(_THROUGHPUT), 100),
        Row("mixed 80/20, 100 tasks", paths.mixed(100), _MIXED_AGAINST, 100, writes=True),
        Row(
            "bulk import, {bulk_messages:,} messages",
            paths.bulk,
            _beside_psycopg(Target(Measure.RATE, 60_000), Target(Measure.THROUGHPUT, 0.7)),
            writes=True,
            calls=1,
            bulk=True,
        ),
        Row("search, a rare word", paths.search, (Against(_PSYCOPG_SEARCH, (_SLOWDOWN,)),), who=DAL_SEARCH),
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

    async def set_up(self) -> None:
        self._server = postgres.obtain(durable=True)
        self.stack.callback(self._server.close)
        self._filled: dict[bool, str] = {}
        with psycopg.connect(self._server.url()) as connection:
            found = connection.execute(
                "SELECT current_setting('server_version'), current_setting('fsync'), "
                "current_setting('synchronous_commit'), current_setting('shared_buffers')"
            ).fetchone()
        assert found is not None
        self.engine = "{}; fsync {}, synchronous_commit {}, shared_buffers {}".format(*found)

    async def make(self, name: str) -> Subject:
        url = await self._copy(search=name in (DAL_SEARCH, _PSYCOPG_SEARCH))
        match name:
            case paths.DAL | paths.DAL_SEARCH:
                return Ours(create_data_access(url), name)
            case "asyncpg":
                return PooledAsyncpg(url)
            case _:
                return PooledPsycopg(url)

    async def _copy(self, *, search: bool) -> str:
        """A database with the schema and the data; the server copies the one that was filled."""
        if search not in self._filled:
            url = self._server.create_database("dal_bench")
            await fill_sql(url, self.data, search=search)
            self._filled[search] = url
            self._admin("VACUUM ANALYZE", url)
        url = self._server.create_database("dal_bench")
        new, filled = (sql.Identifier(u.rsplit("/", 1)[1].split("?")[0]) for u in (url, self._filled[search]))
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {}").format(new))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(new, filled))
            connection.execute("CHECKPOINT")
        return url

    def _admin(self, statement: LiteralString, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)
