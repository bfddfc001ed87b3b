"""SQLite in trouble: each fault is named in the taxonomy's words, and what was there before stays usable."""

# ruff: noqa: ASYNC240  (a test has its loop to itself)

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dal.backends.sql import SqlStore, Statement
from dal.backends.sqlite import sqlite_store
from dal.backends.sqlite.connection import SqliteThread
from dal.backends.sqlite.executor import SqliteExecutor
from dal.errors import (
    ConfigurationError,
    CorruptDataError,
    DalTimeoutError,
    SchemaError,
    UnavailableError,
)
from dal.ops import Count, Insert, Op, Select, Update, Value
from dal.testing import rows
from dal.testing.reaching import reached
from tests.rows import append

COUNT = Count("users")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dal.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    opened = sqlite_store(path)
    await opened.open()
    yield opened
    await opened.close()


def writer_of(store: SqlStore) -> SqliteThread:
    executor = store._executor
    assert isinstance(executor, SqliteExecutor)
    return executor._writer


@contextlib.contextmanager
def other_process(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection outside the store, as another process would have."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are waited for a moment only; for stores opened after this."""
    monkeypatch.setattr("dal.backends.sqlite.connection.LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr("dal.backends.sqlite.executor.LOCK_TIMEOUT_S", 0.1)


# Opening


async def test_files_and_directories_are_the_owners_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = sqlite_store(tmp_path / "a" / "b" / "dal.db")
        await store.open()
        await store.commit([Insert("users", rows.user(1))])
        modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "a").rglob("*")}
        modes["a"] = (tmp_path / "a").stat().st_mode & 0o777
        await store.close()
    finally:
        os.umask(old)
    assert modes == {"a": 0o700, "b": 0o700, "dal.db": 0o600, "dal.db-wal": 0o600, "dal.db-shm": 0o600}


async def test_nothing_is_made_where_nothing_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="dal schema up"):
        await sqlite_store(tmp_path / "a" / "dal.db", auto_migrate=False).open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/dal.db", "directory"])
async def test_a_path_that_cannot_be_a_database_is_a_configuration_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigurationError, match="check that the file"):
        await sqlite_store(tmp_path / place).open()


_OPEN_AS_NOBODY = """
import asyncio, os, sys
from dal.backends.sqlite import sqlite_store
from dal.errors import ConfigurationError
if os.geteuid() == 0:  # the superuser may write anywhere
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(sqlite_store(sys.argv[1]).open())
except ConfigurationError as error:
    print("refused:", error.operation, error.backend)
"""


@pytest.mark.parametrize("existing", [False, True], ids=["missing file", "existing file"])
def test_a_read_only_directory_is_a_configuration_error(existing: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "dal.db"
        if existing:
            sqlite3.connect(file).close()
            file.touch(mode=0o444)
        Path(directory).chmod(0o555)
        try:
            command = [sys.executable, "-c", _OPEN_AS_NOBODY, str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            Path(directory).chmod(0o755)
    assert done.stdout == "refused: open sqlite\n", done.stderr


async def test_a_foreign_file_is_named_and_left_alone(path: Path) -> None:
    path.write_bytes(b"this is not a database, whatever its name says\n" * 100)
    before = path.read_bytes()
    with pytest.raises(CorruptDataError, match=r"dal\.db is damaged or no SQLite database"):
        await sqlite_store(path).open()
    assert path.read_bytes() == before


async def test_a_failed_open_leaves_no_thread_and_can_be_repeated(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)
    store = sqlite_store(path)
    for _ in range(3):
        with pytest.raises(CorruptDataError):
            await store.open()
    path.unlink()
    await store.open()
    assert await store.read(COUNT) == [(0,)]
    await store.close()


async def test_a_file_system_without_wal_is_a_configuration_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.backends.sqlite.connection._WAL", "PRAGMA journal_mode = MEMORY")
    with pytest.raises(ConfigurationError, match="put the database on a local disk"):
        await sqlite_store(path).open()


async def test_an_old_sqlite_is_warned_of_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dal.backends.sqlite.executor._warned", False)
    for version, warnings in (((3, 51, 3), 0), ((3, 51, 2), 1), ((3, 51, 2), 1)):
        monkeypatch.setattr("sqlite3.sqlite_version_info", version)
        store = sqlite_store(path)
        await store.open()
        await store.close()
        assert len([r for r in caplog.records if r.name == "dal.sqlite"]) == warnings


async def test_the_connections_have_the_settings_that_the_promises_rest_on(store: SqlStore) -> None:
    async def setting(name: str, thread: SqliteThread) -> object:
        return (await thread.fetch(Statement(f"PRAGMA {name}")))[0][0]

    writer = writer_of(store)
    assert [await setting(s, writer) for s in ("synchronous", "foreign_keys", "journal_mode", "mmap_size")] == [
        *(2, 1, "wal", 0)
    ]
    executor = store._executor
    assert isinstance(executor, SqliteExecutor)
    for reader in executor._readers:
        assert [await setting(s, reader) for s in ("query_only", "mmap_size")] == [1, 0]


# Damage and shortage while it runs


async def test_a_damaged_page_is_corrupt_data_and_other_tables_still_read(path: Path) -> None:
    store = sqlite_store(path)
    await store.open()
    await store.commit([Insert("users", rows.user(i)) for i in range(300)])
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    await store.close()
    with other_process(path) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'users'").fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    await store.open()
    with pytest.raises(CorruptDataError):
        await store.read(Select("users"))
    with pytest.raises(CorruptDataError):
        await store.commit([Insert("users", rows.user(1000))])
    assert len(await store.read(Select("chat_sessions"))) == 1
    await store.close()


def _big_batch(start: int) -> list[Op]:
    return [Insert("users", rows.user(start + i, profile={"filler": "x" * 5000})) for i in range(100)]


@contextlib.asynccontextmanager
async def no_more_pages(store: SqlStore) -> AsyncIterator[None]:
    """SQLite's own limit: SQLITE_FULL, as on a full disk."""
    raw = writer_of(store)._raw

    def limit(pages: int) -> None:
        raw.execute(f"PRAGMA max_page_count = {pages}")

    def used() -> int:
        return int(raw.execute("PRAGMA page_count").fetchone()[0])

    thread = writer_of(store)
    await thread._run(limit, await thread._run(used) + 20)
    yield
    await thread._run(limit, 1 << 30)


@contextlib.asynccontextmanager
async def no_larger_files(store: SqlStore) -> AsyncIterator[None]:
    """The system's limit: a write that fails, as on a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = store._executor._path.with_name("dal.db-wal")  # type: ignore[attr-defined]
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("shortage", [no_more_pages, no_larger_files])
async def test_a_full_disk_refuses_the_batch_whole_and_passes(
    store: SqlStore, shortage: Callable[[SqlStore], contextlib.AbstractAsyncContextManager[None]]
) -> None:
    await store.commit([Insert("users", rows.user(0))])
    async with shortage(store):
        with pytest.raises(UnavailableError) as refused:
            await store.commit(_big_batch(1))
        assert refused.value.retryable
        assert await store.read(COUNT) == [(1,)]
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as tx:
                await tx.commit([Insert("users", rows.user(900))])
                with contextlib.suppress(UnavailableError):
                    await tx.commit(_big_batch(1))
                # Where SQLite has rolled everything back, nothing may slip in behind it as a commit of its own.
                with contextlib.suppress(UnavailableError):
                    await tx.commit([Insert("users", rows.user(901))])
                raise ZeroDivisionError
        assert await store.read(COUNT) == [(1,)]
    await store.commit(_big_batch(1))
    assert await store.read(COUNT) == [(101,)]


# Locks


async def test_another_process_holding_the_lock_is_waited_for_only_so_long(impatient: None, path: Path) -> None:
    store = sqlite_store(path)
    await store.open()
    with other_process(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DalTimeoutError) as refused:
            await store.commit([Insert("users", rows.user(1))])
        assert (refused.value.retryable, refused.value.outcome) == (True, "not_applied")
        with pytest.raises(DalTimeoutError):
            async with store.transaction():
                pass
        assert await store.read(COUNT) == [(0,)], "readers do not wait"
        other.execute("ROLLBACK")
    await store.commit([Insert("users", rows.user(1))])
    assert await store.read(COUNT) == [(1,)]
    await store.close()


async def test_commits_behind_a_foreign_lock_wait_together_not_in_turn(impatient: None, path: Path) -> None:
    store = sqlite_store(path)
    await store.open()
    with other_process(path) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(5):  # one after the other they would take 20 s
            results = await asyncio.gather(
                *(store.commit([Insert("users", rows.user(i))]) for i in range(200)), return_exceptions=True
            )
        assert all(isinstance(result, DalTimeoutError) for result in results)
        other.execute("ROLLBACK")
    await store.close()


async def test_a_commit_behind_a_transaction_is_waited_for_only_so_long(impatient: None, path: Path) -> None:
    store = sqlite_store(path)
    await store.open()
    async with store.transaction() as tx:
        await tx.commit([Insert("users", rows.user(1))])
        with pytest.raises(DalTimeoutError, match="a transaction of this process"):
            await store.commit([Insert("users", rows.user(2))])
        assert await store.read(COUNT) == [(0,)]
    await store.commit([Insert("users", rows.user(2))])
    assert await store.read(COUNT) == [(2,)]
    await store.close()


async def test_commits_wait_for_a_transaction_and_then_go_on(store: SqlStore) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def transaction() -> None:
        async with store.transaction() as tx:
            await tx.commit([Insert("users", rows.user(1))])
            begun.set()
            await go_on.wait()

    held = asyncio.create_task(transaction())
    await reached(begun, held)
    commits = [asyncio.create_task(store.commit([Insert("users", rows.user(i))])) for i in range(2, 12)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in commits)
    go_on.set()
    await asyncio.gather(held, *commits)
    assert await store.read(COUNT) == [(11,)]


# Cancellation


async def test_a_storm_of_cancellations_leaves_no_lock_and_nothing_half_done(store: SqlStore, path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await store.commit([Insert("chat_sessions", rows.chat(i)) for i in range(5)])
    numbers = iter(range(1, 100_000))

    async def one() -> None:
        key: dict[str, Value] = {"chat_id": f"chat-{dice.randrange(5)}"}
        match dice.randrange(3):
            case 0:
                await store.commit(append(next(numbers), key))
            case 1:
                async with store.transaction() as tx:
                    await tx.commit(append(next(numbers), key))
                    await tx.read(COUNT)
                    await tx.commit(append(next(numbers), key))
            case _:
                await store.read(Select("messages", limit=5))

    async def cancelled_somewhere() -> None:
        task = asyncio.create_task(one())
        for _ in range(dice.randrange(30)):
            await asyncio.sleep(0)
        for _ in range(1 + dice.randrange(3)):
            task.cancel()
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    for _ in range(20):
        await asyncio.gather(*(cancelled_somewhere() for _ in range(20)))
    async with asyncio.timeout(5):
        async with store.transaction() as tx:
            await tx.commit([Update("chat_sessions", {"chat_id": "chat-0"}, {"title": "free"})])
    with other_process(path) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        for chat, count in other.execute("SELECT id, message_count FROM chat_sessions").fetchall():
            numbered = other.execute(
                "SELECT sequence_number FROM messages WHERE chat_session_id = ? ORDER BY 1", (chat,)
            ).fetchall()
            assert [row[0] for row in numbered] == list(range(1, count + 1))


async def test_a_commit_cancelled_on_its_way_still_happens_whole(store: SqlStore) -> None:
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    task = asyncio.create_task(store.commit(append(1, {"chat_id": "chat-1"})))
    await asyncio.sleep(0)  # it is in the writer's queue
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.commit(append(2, {"chat_id": "chat-1"}))
    assert await store.read(Select("messages", columns=("sequence_number",), order=("sequence_number",))) == [
        (1,),
        (2,),
    ]


# Closing and health


async def test_close_lets_what_is_under_way_finish(path: Path) -> None:
    store = sqlite_store(path)
    await store.open()
    commits = [asyncio.create_task(store.commit([Insert("users", rows.user(i))])) for i in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*commits)
    with pytest.raises(UnavailableError, match="is not open"):
        await store.read(COUNT)
    await store.open()
    assert await store.read(COUNT) == [(50,)]
    await store.close()
    await store.close()


async def test_close_interrupts_a_read_that_would_never_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.backends.sqlite.executor.CLOSE_TIMEOUT_S", 0.05)
    store = sqlite_store(path)
    await store.open()
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    read = asyncio.create_task(store._executor.fetch(Statement(endless)))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await store.close()
        with pytest.raises(UnavailableError):
            await read


async def test_an_open_cancelled_on_its_way_leaves_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    for steps in range(1, 8):
        store = sqlite_store(path)
        task = asyncio.create_task(store.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join, 5)
    assert not [t for t in set(threading.enumerate()) - before if "aiosqlite" in repr(t) or "worker_thread" in repr(t)]


async def test_closing_leaves_no_thread_and_no_wal(path: Path) -> None:
    before = set(threading.enumerate())
    store = sqlite_store(path)
    await store.open()
    await store.commit([Insert("users", rows.user(1))])
    threads = set(threading.enumerate()) - before
    assert threads
    await store.close()
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
    assert not any(thread.is_alive() for thread in threads)
    assert [p.name for p in path.parent.iterdir()] == ["dal.db"]


async def test_health_tells_ok_degraded_and_down(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite_store(path)
    assert (await store.health()).status == "down"
    await store.open()
    health = await store.health()
    assert health.status == "ok"
    assert health.parts["schema"] == "0004_file_names"
    assert health.parts["problems"] == []
    assert isinstance(health.parts["disk_free_bytes"], int)
    monkeypatch.setattr("dal.backends.sqlite.executor.DEGRADED_DISK_FREE_BYTES", 1 << 62)
    health = await store.health()
    assert health.status == "degraded"
    assert "MiB of disk space are left" in str(health.parts["problems"])
    monkeypatch.undo()
    path.unlink()
    health = await store.health()
    assert health.status == "degraded"
    assert "was moved or removed" in str(health.parts["problems"])
    await store.close()
    assert (await store.health()).status == "down"
