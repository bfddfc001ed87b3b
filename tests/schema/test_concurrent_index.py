"""Migrations beside an application at work on PostgreSQL: nobody's write fails, and nobody waits behind a migration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import psycopg
import pytest

from dal import schema
from dal.errors import DalTimeoutError
from dal.schema import Connection
from dal.schema.progress import Progress
from tests.engines import postgres
from tests.schema.opened import execute, opened, rows
from tests.schema.written import write_set

WRITERS = 8
ROWS = 20_000
TABLE = "CREATE TABLE messages (id bigint PRIMARY KEY, chat int NOT NULL, body text NOT NULL, seen boolean)"
FILL = f"INSERT INTO messages SELECT g, g % 100, md5(g::text), false FROM generate_series(1, {ROWS}) g"
BUILD = "CREATE INDEX CONCURRENTLY messages_by_chat ON messages (chat, id)"
INDEXES = (
    "SELECT c.relname::text, i.indisvalid::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE i.indrelid = 'messages'::regclass AND NOT i.indisprimary ORDER BY 1"
)
#: The runner's session waits for a lock; on an old transaction in a concurrent build, on the table in any other.
RUNNER_WAITS = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'dal schema' AND wait_event_type = 'Lock'"
)


@pytest.fixture
def url(postgres_server: postgres.PostgresServer) -> str:
    made = postgres_server.create_database()
    execute(made, TABLE, FILL)
    return made


async def until(url: str, condition: str) -> None:
    """Returns when the server's answer is true, as seen from a connection of its own."""
    async with asyncio.timeout(60), await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while (await (await connection.execute(condition.encode())).fetchone()) != (True,):
            pass


def index_set(directory: Path) -> schema.MigrationSet:
    return write_set(
        directory,
        "postgresql",
        {
            "0001_index_chats.sql": f"-- dal:no-transaction\n{BUILD};\n",
            "rollback/0001_index_chats.sql": "-- dal:no-transaction\n"
            "DROP INDEX CONCURRENTLY IF EXISTS messages_by_chat;\n",
        },
    )


@dataclass
class Application:
    """Writers on connections of their own, who go on until they are told to stop."""

    url: str
    written: int = 0
    longest_s: float = 0.0
    errors: list[BaseException] = field(default_factory=list)
    stopping: bool = False
    _milestones: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    async def more(self, count: int) -> None:
        """Returns when so many more writes have been made, or one has failed."""
        reached = asyncio.Event()
        self._milestones.append((self.written + count, reached))
        async with asyncio.timeout(60):
            await reached.wait()

    def _tell(self) -> None:
        for wanted, reached in self._milestones:
            if self.written >= wanted or self.errors:
                reached.set()

    async def write(self, number: int) -> None:
        place = ROWS + number
        try:
            async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
                while not self.stopping:
                    started = perf_counter()
                    async with connection.transaction():
                        await connection.execute("INSERT INTO messages VALUES (%s, %s, 'new', false)", (place, number))
                        await connection.execute(
                            "UPDATE messages SET chat = chat + 1, seen = true WHERE id = %s", (place % ROWS + 1,)
                        )
                    self.longest_s = max(self.longest_s, perf_counter() - started)
                    self.written += 1
                    place += WRITERS
                    self._tell()
        except psycopg.Error as error:
            self.errors.append(error)
            self._tell()


@asynccontextmanager
async def at_work(url: str) -> AsyncIterator[Application]:
    """An application that writes all the time, and all of whose writes succeed."""
    application = Application(url)
    writers = [asyncio.create_task(application.write(number)) for number in range(1, WRITERS + 1)]
    try:
        await application.more(2 * WRITERS)
        yield application
        await application.more(WRITERS)
    finally:
        application.stopping = True
        await asyncio.gather(*writers)
    assert application.errors == []


async def test_an_index_is_built_while_everybody_goes_on_writing(
    url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    migrations = index_set(tmp_path)
    async with opened(url) as connection, at_work(url) as application:
        before = application.written
        applied = await schema.up(connection, migrations)
        meanwhile = application.written - before
        assert [migrated.name for migrated in applied] == ["0001_index_chats.sql"]
        assert meanwhile > 0
        assert await connection.fetch(INDEXES) == [("messages_by_chat", "true")]
        await application.more(WRITERS)
        await schema.down(connection, migrations)
        assert await connection.fetch(INDEXES) == []
    record_property("longest_pause_ms", round(application.longest_s * 1000))
    print(f"{meanwhile} writes while the index was built; the longest took {application.longest_s * 1000:.0f} ms")
    # Every row of the writers is there, once.
    assert rows(url, f"SELECT count(*) FROM messages WHERE id > {ROWS}") == [(application.written,)]


async def test_a_build_that_waits_for_an_old_transaction_stops_nobody(url: str, tmp_path: Path) -> None:
    async with opened(url) as connection, at_work(url) as application:
        async with await psycopg.AsyncConnection.connect(url) as old:
            await old.execute("UPDATE messages SET seen = true WHERE id = 1")
            run = asyncio.create_task(schema.up(connection, index_set(tmp_path)))
            await until(url, RUNNER_WAITS)
            await application.more(10 * WRITERS)
            assert not run.done()
            assert await waiting_for_the_runner(url) == []
            await old.commit()
        await run
        assert await connection.fetch(INDEXES) == [("messages_by_chat", "true")]


async def test_what_a_cancelled_build_has_left_is_built_again(url: str, tmp_path: Path) -> None:
    migrations = index_set(tmp_path)
    async with at_work(url) as application:
        async with opened(url) as connection, await psycopg.AsyncConnection.connect(url) as old:
            await old.execute("UPDATE messages SET seen = true WHERE id = 1")
            run = asyncio.create_task(schema.up(connection, migrations))
            await until(url, RUNNER_WAITS)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        assert rows(url, INDEXES) == [("messages_by_chat", "false")]
        await application.more(WRITERS)
        async with opened(url) as connection:
            assert [migrated.name for migrated in await schema.up(connection, migrations)] == ["0001_index_chats.sql"]
            assert await connection.fetch(INDEXES) == [("messages_by_chat", "true")]
            assert await schema.up(connection, migrations) == []


# A migration that needs the table for itself --------------------------------------------------------------------------

ALTER = "ALTER TABLE messages ADD COLUMN note text"


async def waiting_for_the_runner(url: str) -> list[tuple[object, ...]]:
    """Sessions of others that a session of the schema engine keeps waiting, held or queued for."""
    return await asyncio.to_thread(
        rows,
        url,
        "SELECT w.pid, w.query FROM pg_stat_activity w "
        "JOIN pg_stat_activity r ON r.pid = ANY (pg_blocking_pids(w.pid)) "
        "WHERE w.datname = current_database() AND w.application_name <> 'dal schema' "
        "AND r.application_name = 'dal schema'",
    )


class Busy:
    """Counts the tries of a file that met locks."""

    def __init__(self) -> None:
        self._tries = asyncio.Semaphore(0)
        self.details: list[str] = []

    def __call__(self, progress: Progress) -> None:
        if progress.phase == "waiting":
            self.details.append(progress.detail)
            self._tries.release()

    async def again(self) -> None:
        async with asyncio.timeout(60):
            await self._tries.acquire()


def alter_set(directory: Path) -> schema.MigrationSet:
    return write_set(directory, "postgresql", {"0001_add_note.sql": f"{ALTER};\n", "rollback/0001_add_note.sql": ""})


async def test_a_migration_behind_a_long_query_steps_aside_until_it_is_over(url: str, tmp_path: Path) -> None:
    busy = Busy()
    async with opened(url) as connection, at_work(url) as application:
        async with await psycopg.AsyncConnection.connect(url) as report:
            await report.execute("SELECT count(*) FROM messages")
            run = asyncio.create_task(schema.up(connection, alter_set(tmp_path), on_progress=busy))
            for _ in range(2):
                # It gave up by itself: the reader holds its lock all the time.
                await busy.again()
                await application.more(WRITERS)
            assert not run.done()
        assert [migrated.name for migrated in await run] == ["0001_add_note.sql"]
    assert all("lock timeout" in detail for detail in busy.details)
    assert rows(url, "SELECT count(note) FROM messages") == [(0,)]


async def test_whoever_queues_behind_a_migration_is_let_through_when_it_gives_up(url: str, tmp_path: Path) -> None:
    busy = Busy()
    async with (
        opened(url) as connection,
        await psycopg.AsyncConnection.connect(url) as report,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as reader,
    ):
        await report.execute("SELECT count(*) FROM messages")
        run = asyncio.create_task(schema.up(connection, alter_set(tmp_path), on_progress=busy))
        await until(url, RUNNER_WAITS)
        # Queued for the table behind the ALTER, for as long as that waits and no longer: the report goes on.
        async with asyncio.timeout(60):
            cursor = await reader.execute("SELECT id FROM messages WHERE id = 1")
            assert await cursor.fetchall() == [(1,)]
        await busy.again()
        assert not run.done()
        assert await is_altered(connection) == []
        await report.rollback()
        await run


async def is_altered(connection: Connection) -> list[tuple[object, ...]]:
    query = "SELECT attname::text FROM pg_attribute WHERE attrelid = 'messages'::regclass AND attname = 'note'"
    return list(await connection.fetch(query))


async def test_a_migration_that_never_gets_its_lock_leaves_nothing(url: str, tmp_path: Path) -> None:
    migrations = alter_set(tmp_path)
    async with opened(url) as connection:
        async with await psycopg.AsyncConnection.connect(url) as report:
            await report.execute("SELECT count(*) FROM messages")
            with pytest.raises(DalTimeoutError, match=r"0001_add_note\.sql.*locks were in its way"):
                await schema.up(connection, migrations, wait_s=0)
            assert await waiting_for_the_runner(url) == []
            assert await is_altered(connection) == []
        assert [migrated.name for migrated in await schema.up(connection, migrations)] == ["0001_add_note.sql"]
