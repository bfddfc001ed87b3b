"""Contents of a directory come at once where the system has them in memory, and by a thread where the disk is asked:
the same bytes either way, whichever of them the system cannot do."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from dal.blobs.local import LocalBlobStore, reading
from dal.blobs.local.tree import places
from dal.errors import CorruptDataError, UnavailableError
from dal.limits import BLOB_BLOCK_BYTES, BLOB_PIECE_BYTES, BLOB_UNPAUSED_BYTES
from dal.testing.blobs.data import content, read

Preadv = Callable[[int, Sequence[memoryview], int, int], int]
MIB = 1024 * 1024


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalBlobStore]:
    store = LocalBlobStore(tmp_path)
    await store.open()
    yield store
    await store.close()


def in_memory(descriptor: int, buffers: Sequence[memoryview], offset: int, flags: int) -> int:
    """A system that has every file in memory."""
    assert flags == 8, "RWF_NOWAIT: never waits for the disk"
    [buffer] = buffers
    found = os.pread(descriptor, len(buffer), offset)
    buffer[: len(found)] = found
    return len(found)


def short(descriptor: int, buffers: Sequence[memoryview], offset: int, flags: int) -> int:
    """One that has pages here and there."""
    return in_memory(descriptor, [buffers[0][: 4096 - offset % 4096]], offset, flags)


def failing(number: int, *, after: int = 0) -> Preadv:
    """One that refuses from the next call but so many on; it must not be asked again then."""
    asked = 0

    def preadv(descriptor: int, buffers: Sequence[memoryview], offset: int, flags: int) -> int:
        nonlocal asked
        asked += 1
        assert asked <= after + 1, "asked again"
        if asked > after:
            raise OSError(number, os.strerror(number))
        return in_memory(descriptor, buffers, offset, flags)

    return preadv


def pretend(monkeypatch: pytest.MonkeyPatch, preadv: Preadv | None) -> None:
    """A system that reads so; None is one that knows no such call."""
    monkeypatch.setattr(reading, "_NOWAIT", None if preadv is None else 8)
    monkeypatch.setattr(os, "preadv", preadv, raising=False)


SYSTEMS: list[tuple[str, Callable[[], Preadv | None]]] = [
    ("all in memory", lambda: in_memory),
    ("pages", lambda: short),
    ("on the disk", lambda: failing(errno.EAGAIN)),
    ("in part on the disk", lambda: failing(errno.EAGAIN, after=3)),
    ("file system without", lambda: failing(errno.EOPNOTSUPP)),
    ("system without", lambda: failing(errno.ENOSYS)),
    ("flag refused", lambda: failing(errno.EINVAL)),
    ("call unknown", lambda: None),
]


@pytest.fixture(params=[system for _, system in SYSTEMS], ids=[name for name, _ in SYSTEMS])
def system(request: pytest.FixtureRequest) -> Callable[[], Preadv | None]:
    found: Callable[[], Preadv | None] = request.param
    return found


async def test_every_range_is_the_same_on_every_system(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, system: Callable[[], Preadv | None]
) -> None:
    for size in (BLOB_BLOCK_BYTES + 1, 5 * BLOB_PIECE_BYTES, 2 * BLOB_BLOCK_BYTES + 12_345):
        whole = content(size)
        await store.put("a", whole)
        for start, end in ((0, size), (1, size - 1), (0, BLOB_BLOCK_BYTES + 1), (12_345, size), (0, 7), (size, size)):
            pretend(monkeypatch, system())
            assert await read(store, "a", start, end) == whole[start:end]
            monkeypatch.undo()


async def test_what_is_in_memory_needs_no_thread(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.put("a", content(2 * MIB))
    pretend(monkeypatch, in_memory)
    async with await store.get("a") as found:
        await store._threads.close()
        monkeypatch.setattr(store._threads, "run", None)
        assert b"".join([piece async for piece in found.data]) == content(2 * MIB)


async def test_pieces_stay_what_they_were_when_others_come(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(4 * MIB)
    await store.put("a", whole)
    pretend(monkeypatch, in_memory)
    async with await store.get("a") as found:
        pieces = [piece async for piece in found.data]
    assert [len(piece) for piece in pieces] == [BLOB_PIECE_BYTES] * 16
    assert b"".join(pieces) == whole
    async with await store.get("a") as found:
        kept = [await anext(found.data)]
        async for piece in found.data:  # all but the first are let go of
            assert type(piece) is bytes
    assert kept == pieces[:1]


async def test_a_file_that_is_cut_short_while_it_is_read_is_said_to_be(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: Callable[[], Preadv | None]
) -> None:
    whole = content(6 * MIB)
    await store.put("a", whole)
    pretend(monkeypatch, system())
    found = await store.get("a")
    pieces = [await anext(found.data)]
    os.truncate(tmp_path.joinpath("blobs", *places("a")), 5 * MIB + 7)
    with pytest.raises(CorruptDataError, match="a ends before its time"):
        while True:
            pieces.append(await anext(found.data))
    assert b"".join(pieces) == whole[: 5 * MIB + 7]


async def test_a_disk_that_gives_less_than_asked_leaves_no_gap(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", content(2 * MIB + 1))
    pretend(monkeypatch, None)
    pread = os.pread
    found = await store.get("a")
    monkeypatch.setattr(os, "pread", lambda file, size, start: pread(file, max(1, size * 2 // 3), start))
    assert await found.read() == content(2 * MIB + 1)


async def test_a_disk_that_fails_is_said_and_can_be_tried_again(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", content(2 * MIB))
    pretend(monkeypatch, failing(errno.EIO, after=2))
    with pytest.raises(UnavailableError, match="get: a: Input/output error") as caught:
        await read(store, "a")
    assert caught.value.retryable


async def test_reading_from_memory_lets_other_tasks_run(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.put("a", content(3 * BLOB_UNPAUSED_BYTES))
    pretend(monkeypatch, in_memory)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with await store.get("a") as found:
        other = asyncio.create_task(count())
        async for _ in found.data:
            pass
    other.cancel()
    assert turns >= 2


async def test_a_piece_whose_wait_was_cancelled_comes_next(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(3 * BLOB_UNPAUSED_BYTES)
    await store.put("a", whole)
    pretend(monkeypatch, in_memory)
    found = await store.get("a")
    pieces, cancelled = b"", 0
    while len(pieces) < len(whole):
        task = asyncio.ensure_future(found.data.__anext__())
        await asyncio.sleep(0)
        cancelled += task.cancel()
        with suppress(asyncio.CancelledError):
            pieces += await task
    assert cancelled >= 2
    assert pieces == whole


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told to forget a file")
async def test_a_file_that_the_system_has_forgotten_comes_from_the_disk(store: LocalBlobStore, tmp_path: Path) -> None:
    await store.put("a", content(5 * MIB))
    file = os.open(tmp_path.joinpath("blobs", *places("a")), os.O_RDONLY)
    for start in (0, MIB, 4 * MIB):
        os.posix_fadvise(file, start, 0, os.POSIX_FADV_DONTNEED)
        assert await read(store, "a") == content(5 * MIB)
    os.close(file)
