"""The cache: what is served from it, when it asks again, how it stays within its bytes, and who shares it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dal.blobs.base import BlobInfo, Reading
from dal.blobs.cache import Cached
from dal.blobs.layer import BlobLayer
from dal.blobs.memory import MemoryBlobStore
from dal.errors import ConfigurationError, CorruptDataError, InvalidInputError, UnavailableError
from dal.limits import BLOB_CACHE_TRUST_S
from dal.testing.blobs.data import content, read
from dal.testing.reaching import reached

MIB = 1024 * 1024


class Remote(BlobLayer):
    """A store whose questions are counted, and whose contents may be held back, cut, or changed on the way."""

    def __init__(self) -> None:
        super().__init__(MemoryBlobStore())
        self.gets: list[str] = []
        self.heads = 0
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.bend: bytes | None = None
        self.fails = False

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        self.gets.append(key)
        reading = await super().get(key, start=start, end=end)
        return Reading(reading.info, _Held(self, reading))

    async def head(self, key: str) -> BlobInfo | None:
        self.heads += 1
        return await super().head(key)


class _Held:
    def __init__(self, remote: Remote, reading: Reading) -> None:
        self._remote = remote
        self._data = reading.data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._data)
        self._remote.reached.set()
        if self._remote.gate is not None:
            await self._remote.gate.wait()
        if self._remote.fails:
            raise UnavailableError("the connection broke off")
        return piece if self._remote.bend is None else self._remote.bend * len(piece)

    async def aclose(self) -> None:
        await self._data.aclose()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
async def cache(remote: Remote, clock: Clock, tmp_path: Path) -> AsyncIterator[Cached]:
    cache = Cached(remote, tmp_path / "cache", max_bytes=8 * MIB, monotonic=clock)
    await cache.open()
    yield cache
    await cache.close()


async def settled(cache: Cached) -> None:
    """Until everything that is on its way has arrived."""
    while cache._fills:
        await asyncio.wait([fill.task for fill in cache._fills.values()])
        await asyncio.sleep(0)  # for what is told when a task is done


def files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("??/*") if path.is_file()]


async def test_what_was_read_is_not_fetched_again(cache: Cached, remote: Remote) -> None:
    await remote.put("a", content(100_000), content_type="text/css")
    assert await read(cache, "a") == content(100_000)
    await settled(cache)
    reading = await cache.get("a", start=10, end=70_000)
    assert reading.info.content_type == "text/css"
    assert reading.info == await remote.inner.head("a")
    assert await reading.read() == content(100_000)[10:70_000]
    assert await read(cache, "a", 100_000) == b""
    with pytest.raises(InvalidInputError):
        await cache.get("a", start=100_001)
    assert remote.gets == ["a"]
    assert remote.heads == 0
    stats = await cache.stats()
    assert (stats.hits, stats.misses) == (2, 1)
    assert stats.hit_rate == pytest.approx(2 / 3)
    assert 100_000 < stats.cached_bytes < 101_000


async def test_a_small_range_brings_the_whole_of_a_small_blob_and_not_of_a_large_one(
    remote: Remote, tmp_path: Path
) -> None:
    cache = Cached(remote, tmp_path / "cache", max_bytes=100 * MIB)
    await cache.open()
    await remote.put("small", content(MIB))
    await remote.put("large", content(9 * MIB))
    for _ in range(2):
        assert await read(cache, "small", 100, 200) == content(MIB)[100:200]
        assert await read(cache, "large", 100, 200) == content(9 * MIB)[100:200]
        await settled(cache)
    assert remote.gets.count("large") == 2
    assert remote.gets.count("small") == 2, "the range, and then the whole, once"
    await cache.close()


async def test_readers_at_once_share_one_fetch(cache: Cached, remote: Remote) -> None:
    await remote.put("a", content(MIB))
    remote.gate = asyncio.Event()
    readers = [asyncio.create_task(read(cache, "a", start)) for start in (0, 0, 0, 500_000, 10)]
    await reached(remote.reached, *readers)
    remote.gate.set()
    found = await asyncio.gather(*readers)
    assert found == [content(MIB)[start:] for start in (0, 0, 0, 500_000, 10)]
    assert remote.gets == ["a"]
    assert (await cache.stats()).hits == 4


async def test_a_reader_who_leaves_stops_nobody(cache: Cached, remote: Remote) -> None:
    await remote.put("a", content(MIB))
    remote.gate = asyncio.Event()
    first = await cache.get("a")
    second = asyncio.create_task(read(cache, "a"))
    waiting = asyncio.ensure_future(anext(first.data))
    await reached(remote.reached, waiting)
    waiting.cancel()
    await first.data.aclose()
    remote.gate.set()
    assert await second == content(MIB)
    assert remote.gets == ["a"]


async def test_what_was_changed_here_is_never_read_as_it_was(cache: Cached, remote: Remote) -> None:
    for change in ("put", "delete", "copy", "parts"):
        await cache.put("a", b"before")
        assert await read(cache, "a") == b"before"
        await settled(cache)
        if change == "put":
            await cache.put("a", b"after")
        elif change == "copy":
            await cache.put("b", b"after")
            await cache.copy("b", "a")
        elif change == "parts":
            upload_id = await cache.start_parts("a")
            await cache.complete_parts("a", upload_id, [await cache.put_part("a", upload_id, 1, b"after", size=5)])
        else:
            await cache.delete(["a"])
            assert await cache.head("a") is None
            continue
        assert await read(cache, "a") == b"after", change


async def test_a_blob_that_is_replaced_while_it_comes_is_not_kept(cache: Cached, remote: Remote) -> None:
    await remote.put("a", content(MIB, 1))
    remote.gate = asyncio.Event()
    reader = asyncio.create_task(read(cache, "a"))
    await reached(remote.reached, reader)
    await cache.put("a", content(MIB, 2))
    remote.gate.set()
    assert await reader == content(MIB, 1)
    assert await read(cache, "a") == content(MIB, 2)


async def test_the_store_is_asked_again_after_a_while(cache: Cached, remote: Remote, clock: Clock) -> None:
    await remote.put("a", b"first")
    await read(cache, "a")
    await settled(cache)
    await remote.put("a", b"other")
    assert await read(cache, "a") == b"first", "so long it is believed"
    clock.now += BLOB_CACHE_TRUST_S + 1
    assert await read(cache, "a") == b"other"
    await settled(cache)
    clock.now += BLOB_CACHE_TRUST_S + 1
    assert await read(cache, "a") == b"other"
    assert remote.gets == ["a", "a"]
    assert remote.heads == 2


async def test_what_was_damaged_on_the_disk_is_fetched_anew(
    cache: Cached, remote: Remote, tmp_path: Path, clock: Clock
) -> None:
    await remote.put("a", content(100_000))
    await read(cache, "a")
    await settled(cache)
    for damage in ("flipped", "cut", "emptied"):
        (file,) = files(tmp_path / "cache")
        with file.open("r+b") as stream:
            if damage == "flipped":
                stream.seek(50_000)
                stream.write(b"!!!!")
            else:
                stream.truncate(90_000 if damage == "cut" else 0)
        other = Cached(remote, tmp_path / "cache", max_bytes=8 * MIB, monotonic=clock)
        await other.open()
        assert await read(other, "a") == content(100_000), damage
        await settled(other)
        await other.close()


async def test_what_came_wrong_is_said_and_not_kept(cache: Cached, remote: Remote, tmp_path: Path) -> None:
    await remote.put("a", content(600_000))
    remote.bend = b"?"
    with pytest.raises(CorruptDataError, match="checksum"):
        await read(cache, "a")
    remote.bend = None
    remote.fails = True
    with pytest.raises(UnavailableError):
        await read(cache, "a")
    remote.fails = False
    assert await read(cache, "a") == content(600_000)
    await settled(cache)
    assert list((tmp_path / "cache" / "unfinished").iterdir()) == []
    assert len(files(tmp_path / "cache")) == 1


async def test_it_keeps_what_was_used_last_within_its_bytes_and_over_a_restart(
    cache: Cached, remote: Remote, tmp_path: Path
) -> None:
    for number in range(20):
        await remote.put(f"k/{number}", content(MIB, number))
    for number in range(6):
        await read(cache, f"k/{number}")
        await settled(cache)
    old = {number: 1_000_000_000 + number for number in range(6)}
    for number in (2, 3, 4, 5, 0, 1):  # 0 and 1 were used last
        old[number] = 1_000_000_000 + (2, 3, 4, 5, 0, 1).index(number)
        place = cache._entries._path(f"k/{number}")
        os.utime(place, (old[number], old[number]))
    await cache.close()
    again = Cached(remote, tmp_path / "cache", max_bytes=8 * MIB)
    await again.open()
    for number in range(6, 10):
        await read(again, f"k/{number}")
        await settled(again)
        assert sum(file.stat().st_size for file in files(tmp_path / "cache")) <= 8 * MIB
    remote.gets.clear()
    for number in (0, 1, 8, 9):
        await read(again, f"k/{number}")
    assert remote.gets == [], "what was used lately stayed"
    await read(again, "k/2")
    assert remote.gets == ["k/2"]
    await settled(again)
    await remote.put("huge", content(3 * MIB))
    await read(again, "huge")
    await settled(again)
    assert await read(again, "huge") == content(3 * MIB)
    assert remote.gets.count("huge") == 2, "more than a quarter of it is never kept"
    await again.close()


async def test_a_cache_that_cannot_write_costs_nothing_but_its_use(
    cache: Cached, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remote.put("a", content(MIB))
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= 500_000:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    assert await read(cache, "a") == content(MIB)
    assert await read(cache, "a", 5, 10) == content(MIB)[5:10]
    monkeypatch.undo()
    await settled(cache)
    assert await read(cache, "a") == content(MIB)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="BLOB_CACHE_DIR"):
        await Cached(remote, tmp_path / "file", max_bytes=MIB).open()


async def test_closing_while_something_comes_leaves_nothing(remote: Remote, tmp_path: Path) -> None:
    cache = Cached(remote, tmp_path / "cache", max_bytes=8 * MIB)
    await cache.open()
    await remote.put("a", content(MIB))
    remote.gate = asyncio.Event()
    reading = await cache.get("a")
    await remote.reached.wait()
    await cache.close()
    await reading.data.aclose()
    assert list((tmp_path / "cache" / "unfinished").iterdir()) == []


async def test_who_reads_what_was_closed_before_it_began_to_come_reads_it_from_the_store(
    remote: Remote, tmp_path: Path
) -> None:
    cache = Cached(remote, tmp_path / "cache", max_bytes=8 * MIB)
    await cache.open()
    await remote.put("a", content(MIB))
    reading = await cache.get("a")
    await cache.close()
    async with asyncio.timeout(10):
        assert await reading.read() == content(MIB)
    assert list((tmp_path / "cache" / "unfinished").iterdir()) == []


async def test_processes_share_a_directory_and_stay_within_its_bytes(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from dal.blobs.cache import Cached
from dal.blobs.memory import MemoryBlobStore
from dal.testing.blobs.data import content, read
async def main():
    remote = MemoryBlobStore()
    cache = Cached(remote, Path({str(tmp_path / "cache")!r}), max_bytes=1_000_000)
    await cache.open()
    for number in range(30):
        await remote.put(f"k/{{number}}", content(100_000, number))
    for number in range(45):
        key = number * int(sys.argv[1]) % 30
        assert await read(cache, f"k/{{key}}") == content(100_000, key)
    await cache.close()
asyncio.run(main())
"""
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(step), stderr=subprocess.PIPE)
        for step in (7, 11)
    ]
    for process in running:
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
    total = sum(file.stat().st_size for file in files(tmp_path / "cache"))
    assert 100_000 < total <= 1_000_000
    told = int.from_bytes((tmp_path / "cache" / "total").read_bytes(), "big")
    assert told == total
