"""Copies of a SQLite file and the way back: whole, of one moment, and safe for whoever has the file open."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from dal.backends.sqlite import dump as module
from dal.backends.sqlite.dump import dump, load
from dal.errors import CorruptDataError, DalTimeoutError, UnavailableError
from dal.schema.backups.digest import TableDigest, content_digests
from dal.schema.connection import Reader
from dal.testing.reaching import reached

_SPAWN = multiprocessing.get_context("spawn")


def make(path: Path, *, rows: int = 3000, wal: bool = True) -> None:
    """Two tables that always hold as many rows as one another; the second gives its rows ids that no key keeps."""
    with closing(sqlite3.connect(path)) as db:
        if wal:
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE one (id INTEGER PRIMARY KEY, body TEXT)")
        db.execute("CREATE TABLE two (id INTEGER, body TEXT)")
        db.executemany("INSERT INTO one VALUES (?, ?)", ((n, f"body {n} " * 20) for n in range(rows)))
        db.execute("INSERT INTO two SELECT * FROM one")
        db.execute("DELETE FROM two WHERE id % 2")
        db.execute("DELETE FROM one WHERE id % 2")
        db.commit()


def read(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


def content(path: Path) -> list[tuple[object, ...]]:
    return read(path, "SELECT 1, id, body FROM one UNION ALL SELECT rowid, id, body FROM two ORDER BY 1, 2")


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def write_pairs(path: Path, started: Event, stop: Event) -> None:
    """Another program: adds a row to both tables in one transaction, again and again."""
    with closing(sqlite3.connect(path, timeout=60)) as db:
        number = 1_000_000
        while not stop.is_set():
            with db:
                db.execute("INSERT INTO one VALUES (?, 'w')", (number,))
                db.execute("INSERT INTO two VALUES (?, 'w')", (number,))
            number += 1
            started.set()


@contextmanager
def writer(path: Path) -> Iterator[None]:
    started, stop = _SPAWN.Event(), _SPAWN.Event()
    process = _SPAWN.Process(target=write_pairs, args=(path, started, stop))
    process.start()
    try:
        assert started.wait(60)
        yield
    finally:
        stop.set()
        process.join(60)
        assert process.exitcode == 0


async def test_a_copy_is_the_database_in_one_private_file(tmp_path: Path) -> None:
    source, copy = tmp_path / "live.db", tmp_path / "copies" / "copy.db"
    copy.parent.mkdir()
    make(source)
    await dump(source, copy)
    assert content(copy) == content(source)
    assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert read(copy, "PRAGMA journal_mode") == [("delete",)]
    assert read(source, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("name", ["50% off?.db", "a #1;b.db", "日本 🙂.db", "caf\udce9.db"])
async def test_odd_paths_are_paths(tmp_path: Path, name: str) -> None:
    with closing(sqlite3.connect(os.fsencode(tmp_path / name))) as db:
        db.execute("CREATE TABLE t (a)")
    await dump(tmp_path / name, tmp_path / f"copy of {name}")
    await load(tmp_path / name, tmp_path / f"copy of {name}")
    assert len(os.listdir(tmp_path)) == 2


async def test_what_is_only_in_the_log_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "live.db"
    make(source)
    with closing(sqlite3.connect(source)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("INSERT INTO one VALUES (-1, 'only in the log')")
        other.commit()
        await dump(source, tmp_path / "copy.db")
    assert read(tmp_path / "copy.db", "SELECT body FROM one WHERE id = -1") == [("only in the log",)]


async def test_a_copy_is_of_one_moment_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps so small that the writer commits between them: a copy that began again each time would not end.
    monkeypatch.setattr(module, "_STEP_PAGES", 5)
    source = tmp_path / "live.db"
    make(source)
    with writer(source):
        for number in range(3):
            seen: list[dict[str, TableDigest]] = []

            async def look(moment: Reader, seen: list[dict[str, TableDigest]] = seen) -> None:
                seen.append(await content_digests(moment))

            copy = tmp_path / f"copy{number}.db"
            await dump(source, copy, look=look)
            ((ones,), (twos,)) = (read(copy, f"SELECT count(*) FROM {table}") for table in ("one", "two"))
            assert ones == twos
            assert (seen[0]["one"].rows, seen[0]["two"].rows) == (*ones, *twos)


async def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "live.db")
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(UnavailableError, match="exists"):
        await dump(tmp_path / "live.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


async def test_a_copy_that_fails_leaves_no_file(tmp_path: Path) -> None:
    make(tmp_path / "live.db")

    async def look(_moment: Reader) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError):
        await dump(tmp_path / "live.db", tmp_path / "copy.db", look=look)
    with pytest.raises(UnavailableError):
        await dump(tmp_path / "not there.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
    assert not (tmp_path / "not there.db").exists()


async def test_a_full_disk_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    make(tmp_path / "live.db")
    script = f"""
import asyncio, resource, signal
from pathlib import Path
from dal.backends.sqlite.dump import dump
from dal.errors import UnavailableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    asyncio.run(dump(Path({str(tmp_path / "live.db")!r}), Path({str(tmp_path / "copy.db")!r})))
except UnavailableError as error:
    print(error.message)
"""
    done = run(script)
    assert str(tmp_path / "copy.db") in done.stdout
    assert not (tmp_path / "copy.db").exists()


async def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    make(tmp_path / "live.db")
    with pytest.raises(UnavailableError, match=os.strerror(errno.ENOENT)):
        await dump(tmp_path / "live.db", tmp_path / "missing" / "copy.db")


async def test_a_damaged_database_gives_no_copy(tmp_path: Path) -> None:
    source = tmp_path / "live.db"
    make(source, wal=False)
    with source.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\x07" * 4096 * 4)
    with pytest.raises(CorruptDataError, match=r"live\.db is damaged"):
        await dump(source, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


async def test_a_cancelled_copy_ends_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP_PAGES", 1)
    make(tmp_path / "live.db")
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    patience = module._Patience.__call__

    def call(self: module._Patience, status: int, remaining: int, total: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        patience(self, status, remaining, total)

    monkeypatch.setattr(module._Patience, "__call__", call)
    task = asyncio.ensure_future(dump(tmp_path / "live.db", tmp_path / "copy.db"))
    await reached(begun, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "copy.db").exists()


# The way back -------------------------------------------------------------------------------------------------------


async def copied(directory: Path, *, wal: bool = True) -> tuple[Path, Path, list[tuple[object, ...]]]:
    """A live file, a copy of it, and its content then; the live file has changed since."""
    source, copy = directory / "live.db", directory / "copy.db"
    make(source, wal=wal)
    await dump(source, copy)
    then = content(source)
    with closing(sqlite3.connect(source)) as db:
        db.execute("DELETE FROM one")
        db.execute("ALTER TABLE two RENAME TO renamed")
        db.execute("CREATE TABLE later (id INTEGER)")
        db.commit()
    return source, copy, then


@pytest.mark.parametrize("wal", [True, False])
async def test_a_database_is_brought_back_exactly(tmp_path: Path, wal: bool) -> None:
    source, copy, then = await copied(tmp_path, wal=wal)
    await load(source, copy)
    assert content(source) == then
    assert read(source, "SELECT name FROM sqlite_master ORDER BY name") == [("one",), ("two",)]
    assert read(source, "PRAGMA journal_mode") == [("wal" if wal else "delete",)]
    assert read(source, "PRAGMA integrity_check") == [("ok",)]


async def test_a_missing_file_is_made_private(tmp_path: Path) -> None:
    _, copy, then = await copied(tmp_path)
    await load(tmp_path / "new.db", copy)
    assert content(tmp_path / "new.db") == then
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


async def test_readers_keep_what_they_saw_and_then_see_the_old_state(tmp_path: Path) -> None:
    source, copy, then = await copied(tmp_path)
    with closing(sqlite3.connect(source, isolation_level=None)) as reader:
        assert reader.execute("SELECT count(*) FROM later").fetchone() == (0,)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM one").fetchone() == (0,)
        await load(source, copy)
        assert reader.execute("SELECT count(*) FROM one").fetchone() == (0,)
        reader.execute("COMMIT")
        assert (
            reader.execute(
                "SELECT 1, id, body FROM one UNION ALL SELECT rowid, id, body FROM two ORDER BY 1, 2"
            ).fetchall()
            == then
        )
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            reader.execute("SELECT * FROM later")


async def test_a_writer_that_goes_on_finds_a_sound_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP_PAGES", 5)
    source, copy = tmp_path / "live.db", tmp_path / "copy.db"
    make(source)
    await dump(source, copy)
    with writer(source):
        for _ in range(3):
            await load(source, copy)
    ones, twos = (read(source, f"SELECT count(*) FROM {table}") for table in ("one", "two"))
    assert ones == twos
    assert read(source, "PRAGMA integrity_check") == [("ok",)]


async def test_pages_of_another_size_come_back_too(tmp_path: Path) -> None:
    source, copy = tmp_path / "live.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(source)) as db:
        db.execute("PRAGMA page_size = 1024")
        db.execute("CREATE TABLE t (a)")
        db.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(5000)))
        db.commit()
    await dump(source, copy)
    other = tmp_path / "other.db"
    make(other)
    await load(other, copy)
    assert read(other, "SELECT count(*) FROM t") == [(5000,)]
    assert read(other, "PRAGMA integrity_check") == [("ok",)]
    assert read(other, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("wal", [True, False])
async def test_a_held_lock_ends_the_wait_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal: bool
) -> None:
    source, copy, _ = await copied(tmp_path, wal=wal)
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.2)
    with closing(sqlite3.connect(source, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(DalTimeoutError):
            await load(source, copy)
    assert read(source, "SELECT count(*) FROM one") == [(0,)]


@pytest.mark.parametrize("damage", ["no database at all", "truncated"])
async def test_a_damaged_copy_is_refused_before_anything_changes(tmp_path: Path, damage: str) -> None:
    source, copy, _ = await copied(tmp_path)
    copy.write_bytes(b"x" * 8192 if damage == "no database at all" else copy.read_bytes()[: 4096 * 5])
    with pytest.raises(CorruptDataError, match=r"copy\.db"):
        await load(source, copy)
    assert read(source, "SELECT count(*) FROM one") == [(0,)]


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("wal", [True, False])
async def test_a_kill_in_the_middle_leaves_the_present_state(tmp_path: Path, wal: bool, steps: int) -> None:
    source, copy, then = await copied(tmp_path, wal=wal)
    script = f"""
import asyncio, os, signal
from pathlib import Path
from dal.backends.sqlite import dump as module
module._STEP_PAGES = 3
calls = 0
def call(self, status, remaining, total):
    global calls
    calls += 1
    if calls == {steps}:
        os.kill(os.getpid(), signal.SIGKILL)
module._Patience.__call__ = call
asyncio.run(module.load(Path({str(source)!r}), Path({str(copy)!r})))
"""
    done = run(script)
    assert done.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(source)) as db:  # whoever comes next rolls back
        assert db.execute("SELECT count(*) FROM one").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM later").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await load(source, copy)
    assert content(source) == then
