"""Many processes on one file store: each sees what the others have acknowledged, and none is harmed when one dies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dal.backends.file import FileStore, journal
from dal.errors import ConflictError, DalTimeoutError
from dal.ops import Compare, Count, Delete, Guard, Insert, Select, Update
from dal.testing import rows

PROCESSES = 8
MESSAGES = 40


@contextmanager
def _appenders(directory: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are about to append to the chat, waiting for a line each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.fault.appender", str(directory), str(1000 * (1 + n)), str(MESSAGES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    print(file=process.stdin, flush=True)


def _acknowledged(lines: Iterable[str]) -> dict[str, int]:
    """Sequence numbers by id, as the processes have printed them."""
    return {row_id: int(number) for row_id, number in (line.split() for line in lines)}


async def _new_chat(directory: Path) -> None:
    store = FileStore(directory)
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    await store.close()


async def _numbers(store: FileStore) -> dict[str, int]:
    """Sequence numbers of the chat's messages, by id, in order."""
    query = Select(
        "messages",
        (Compare("chat_session_id", "=", rows.row_id(1)),),
        ("sequence_number",),
        columns=("id", "sequence_number"),
    )
    return {str(row[0]): int(str(row[1])) for row in await store.read(query)}


async def test_eight_processes_number_the_messages_of_one_chat_without_gap_or_repeat(tmp_path: Path) -> None:
    await _new_chat(tmp_path)
    with _appenders(tmp_path, PROCESSES) as processes:
        for process in processes:
            _go(process)
        ledgers = [await asyncio.to_thread(process.communicate) for process in processes]
        assert all(process.returncode == 0 for process in processes)
    acknowledged = _acknowledged(line for ledger, _ in ledgers for line in ledger.splitlines())
    assert len(acknowledged) == PROCESSES * MESSAGES
    store = FileStore(tmp_path)
    await store.open()
    found = await _numbers(store)
    await store.close()
    assert list(found.values()) == list(range(1, PROCESSES * MESSAGES + 1))
    assert found == acknowledged


async def test_a_process_killed_among_others_takes_nothing_with_it(tmp_path: Path) -> None:
    await _new_chat(tmp_path)
    with _appenders(tmp_path, 3) as processes:
        for process in processes:
            _go(process)
        victim = processes[0]
        assert victim.stdout is not None
        told = [victim.stdout.readline() for _ in range(MESSAGES // 4)]
        victim.kill()
        told += victim.stdout.readlines()
        ledgers = [await asyncio.to_thread(process.communicate) for process in processes[1:]]
        assert all(process.returncode == 0 for process in processes[1:]), "the others go on"
    told += [line for ledger, _ in ledgers for line in ledger.splitlines(keepends=True)]
    acknowledged = _acknowledged(line for line in told if line.endswith("\n"))
    store = FileStore(tmp_path)
    await store.open()
    found = await _numbers(store)
    await store.close()
    assert list(found.values()) == list(range(1, len(found) + 1))
    assert acknowledged.items() <= found.items()
    assert len(found) <= len(acknowledged) + 1, "at most one was under way"


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[FileStore, FileStore]]:
    """Two stores on one directory: to the store it is all the same whether they live in one process or in two."""
    stores = FileStore(tmp_path, segment_bytes=600), FileStore(tmp_path, lock_timeout_s=0.05)
    for store in stores:
        await store.open()
    yield stores
    for store in stores:
        await store.close()


async def test_a_commit_is_seen_by_the_next_read_of_another_process(pair: tuple[FileStore, FileStore]) -> None:
    one, other = pair
    await one.commit([Insert("chat_sessions", rows.chat(1))])
    for n in range(2, 60):
        await one.commit(rows.append(n, 1))
        assert await _numbers(other) == {rows.row_id(m): m - 1 for m in range(2, n + 1)}
        assert await other.read(Select("messages", (Compare("id", "=", rows.row_id(n)),), columns=("id",)))


async def test_a_process_that_only_reads_holds_nothing_that_others_have_settled(
    pair: tuple[FileStore, FileStore],
) -> None:
    one, other = pair
    await one.commit([Insert("chat_sessions", rows.chat(1))])
    for n in range(2, 200):
        await one.commit(rows.append(n, 1))
        await other.read(Count("users"))
    await one.close()
    assert len(await _numbers(other)) == 198
    opened = other._opened
    assert opened is not None
    held = sum(1 for layer in opened.image.layers for _ in layer.lines["messages"].changes())
    assert held < 100, held


async def test_a_reader_that_was_away_for_longer_than_the_journal_reads_the_documents(
    pair: tuple[FileStore, FileStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT_SEGMENTS", 0)
    one, other = pair
    await one.commit([Insert("chat_sessions", rows.chat(1)), Insert("users", rows.user(9))])
    for n in range(2, 80):
        await one.commit(rows.append(n, 1))
    await one.commit([Delete("users", (Compare("id", "=", rows.row_id(9)),))])
    await one.close()  # everything is in the documents, and the journal's segments are gone
    assert list((await _numbers(other)).values()) == list(range(1, 79))
    assert await other.read(Count("users")) == [(0,)]
    await other.commit(rows.append(500, 1))
    assert len(await _numbers(other)) == 79


async def test_a_guard_sees_what_another_process_has_just_written(pair: tuple[FileStore, FileStore]) -> None:
    one, other = pair
    key = {"id": rows.row_id(1)}
    await one.commit([Insert("users", rows.user(1))])
    await other.commit([Update("users", key, {"name": "other"}, {"version": 1})])
    with pytest.raises(ConflictError):
        await one.commit([Guard("users", key, {"version": 1}), Update("users", key, {"name": "one"})])


async def test_a_transaction_keeps_other_processes_waiting_and_only_so_long(
    pair: tuple[FileStore, FileStore],
) -> None:
    one, other = pair
    async with one.transaction() as transaction:
        await transaction.commit([Insert("users", rows.user(1))])
        assert await other.read(Count("users")) == [(0,)], "reads do not wait, and see nothing of it"
        with pytest.raises(DalTimeoutError) as caught:
            await other.commit([Insert("users", rows.user(2))])
        assert caught.value.retryable
        assert caught.value.outcome == "not_applied"
    await other.commit([Insert("users", rows.user(2))])
    assert await one.read(Count("users")) == [(2,)]


async def test_a_wait_for_another_process_can_be_cancelled_and_leaves_no_lock(
    pair: tuple[FileStore, FileStore],
) -> None:
    one, other = pair
    async with other.transaction() as transaction:
        waiting = asyncio.create_task(one.commit([Insert("users", rows.user(1))]))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await transaction.commit([Insert("users", rows.user(2))])
    await other.commit([Insert("users", rows.user(3))])
    await one.commit([Insert("users", rows.user(4))])
    assert await rows.numbers(one, Select("users", order=("id",))) == [2, 3, 4]


async def test_a_row_in_the_place_of_one_that_is_gone_is_found_among_many_ids(
    pair: tuple[FileStore, FileStore],
) -> None:
    one, _ = pair
    for first in (100, 200):  # the second time in the same places: the index still knows the others there
        await one.commit([Insert("chat_sessions", rows.chat(1))])
        for n in range(first, first + 3):
            await one.commit(rows.append(n, 1))
        await one.close()
        await one.open()
        ids = tuple(rows.row_id(n) for n in (202, 102, 200, 100, 201, 101))
        found = await rows.numbers(one, Select("messages", (Compare("id", "in", ids),), ("id",)))
        assert found == [first, first + 1, first + 2]
        await one.commit([Delete("chat_sessions", (Compare("id", "=", rows.row_id(1)),))])
