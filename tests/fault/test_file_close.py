"""Closing a file store that cannot end in time: nothing fails later, and what was written is there."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dal.backends.file import FileStore, faults, opened
from dal.backends.file.linerows import LineRows
from dal.backends.file.lines import LineFile
from dal.backends.file.lock import FileLock
from dal.backends.file.opened import Opened
from dal.backends.rows import Stored
from dal.errors import UnavailableError
from dal.ops import Count, Insert, Select
from dal.testing import rows

LATE = "closed with its documents behind the journal"


class Said(logging.Handler):
    """Everything that is logged; `is_late` is set when closing gives up waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.is_late = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if LATE in record.getMessage():
            self.is_late.set()


@pytest.fixture
def said() -> Iterator[Said]:
    handler = Said()
    loggers = [logging.getLogger(name) for name in ("dal.file", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
    assert [line for line in handler.lines if LATE not in line] == []


@pytest_asyncio.fixture
async def store(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileStore]:
    """A store that waits for hardly anything when it is closed, and for a checkpoint that is long in coming."""
    monkeypatch.setattr(opened, "CLOSE_TIMEOUT_S", 0.01)
    store = FileStore(tmp_path / "store", segment_bytes=20_000)
    await store.open()
    yield store
    faults.hook = None
    await store.close()


async def users(directory: Path) -> int:
    store = FileStore(directory)
    await store.open()
    found = await store.read(Select("users", columns=("id",)))
    await store.close()
    return len(found)


def held_at(point: str, said: Said) -> threading.Event:
    """Holds the thread that comes to this point until closing has given up; set when it is there."""
    is_there = threading.Event()

    def wait(reached: str) -> None:
        if reached == point and not is_there.is_set():
            is_there.set()
            said.is_late.wait(60)

    faults.hook = wait
    return is_there


async def begun(is_there: threading.Event) -> None:
    assert await asyncio.to_thread(is_there.wait, 60)


async def test_a_checkpoint_that_outlasts_closing_takes_note_of_its_end(
    store: FileStore, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_there = held_at("checkpoint.written", said)
    await store.commit([Insert("users", rows.user(1, profile={"is": "x" * 20_000}))])
    await begun(is_there)
    release, has_ended = Opened.release, list[bool]()

    def noted(opened: Opened) -> None:
        has_ended.append(opened._settling._task is None)
        release(opened)

    monkeypatch.setattr(Opened, "release", noted)
    await store.close()
    monkeypatch.undo()
    assert (said.is_late.is_set(), has_ended) == (True, [True])
    assert await users(tmp_path / "store") == 1


async def test_a_commit_that_outlasts_closing_is_acknowledged(store: FileStore, said: Said, tmp_path: Path) -> None:
    is_there = held_at("journal.syncing", said)
    committing = asyncio.create_task(store.commit([Insert("users", rows.user(1))]))
    await begun(is_there)
    await store.close()
    assert said.is_late.is_set()
    assert (await committing).counts == (1,)
    assert await users(tmp_path / "store") == 1


async def test_a_transaction_that_outlasts_closing_is_refused(store: FileStore, said: Said, tmp_path: Path) -> None:
    await store.commit([Insert("users", rows.user(1))])
    timer = _timer(store)
    assert not timer()
    with pytest.raises(UnavailableError, match="closing"):
        async with store.transaction() as transaction:
            await transaction.commit([Insert("users", rows.user(2))])
            await store.close()
    assert said.is_late.is_set()
    assert timer(), "no checkpoint is due any more"
    assert await users(tmp_path / "store") == 1


async def test_who_waits_for_another_process_finds_the_store_closed(
    store: FileStore, said: Said, tmp_path: Path
) -> None:
    another = FileLock(tmp_path / "store/journal/lock")
    assert another.try_acquire()
    writing = asyncio.create_task(store.commit([Insert("users", rows.user(1))]))
    await asyncio.sleep(0)
    await store.close()
    another.close()
    assert said.is_late.is_set()
    with pytest.raises(UnavailableError) as caught:
        await writing
    assert caught.value.outcome == "not_applied"
    assert await users(tmp_path / "store") == 0


async def test_a_reader_that_outlasts_closing_gets_an_error_of_ours(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([Insert("system_logs", rows.log(1))])
    await store.close()
    await store.open()
    is_there, is_closed = threading.Event(), threading.Event()
    row = LineRows._row

    def slowly(table: LineRows, file: LineFile, offset: int, line: bytes) -> Stored | None:
        is_there.set()
        is_closed.wait(60)
        return row(table, file, offset, line)

    monkeypatch.setattr(LineRows, "_row", slowly)
    reading = asyncio.create_task(store.read(Select("system_logs")))
    await begun(is_there)
    await store.close()
    is_closed.set()
    with pytest.raises(UnavailableError):
        await reading


def _timer(store: FileStore) -> Callable[[], bool]:
    """Whether the checkpoint that is due is called off."""
    assert store._opened is not None
    timer = store._opened._settling._timer
    assert timer is not None
    return timer.cancelled


async def test_a_read_that_finds_the_store_closed_meanwhile_need_not_be_tried_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    await store.open()
    under_way = store._get("read")
    await store.close()
    with pytest.raises(UnavailableError, match="closed") as caught:
        await under_way.read(Count("users"))
    assert not caught.value.retryable
