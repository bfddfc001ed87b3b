"""What a directory alone promises: modes, no way out of it, damaged files, a full disk, leftovers, order."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import stat
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dal.blobs.local import LocalBlobStore, faults, listing
from dal.blobs.local.files import TRAILER_BYTES
from dal.blobs.local.tree import places
from dal.errors import ConfigurationError, CorruptDataError, NotFoundError, UnavailableError
from dal.limits import BLOB_LEFTOVER_S
from dal.testing.blobs.data import content, keys, pieces, read


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalBlobStore]:
    store = LocalBlobStore(tmp_path / "blobs")
    await store.open()
    yield store
    faults.hook = None
    await store.close()


def file_of(store_directory: Path, key: str) -> Path:
    return store_directory.joinpath("blobs", *places(key))


async def test_nobody_else_can_read_what_is_stored(store: LocalBlobStore, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await store.put("a", b"x")
        await store.put("n" * 500, b"x")
        upload_id = await store.start_parts("p")
        await store.put_part("p", upload_id, 1, b"x", size=1)
    finally:
        os.umask(before)
    for above, directories, files in os.walk(tmp_path / "blobs"):
        for name in directories:
            assert stat.S_IMODE(os.stat(Path(above, name)).st_mode) == 0o700
        for name in files:
            assert stat.S_IMODE(os.stat(Path(above, name)).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) == 0o700


async def test_whoever_completes_an_upload_that_another_has_just_completed_is_told_so(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LocalBlobStore(tmp_path / "blobs")
    await other.open()
    upload_id = await store.start_parts("p")
    parts = [await store.put_part("p", upload_id, number, b"x" * 9, size=9) for number in (1, 2)]
    write, finished = store._threads.run, list[object]()

    async def run(function: Callable[..., object], *arguments: object) -> object:
        result = await write(function, *arguments)
        if result == b"x" * 9 and not finished:  # the first part was read
            finished.append(await other.complete_parts("p", upload_id, parts))
        return result

    monkeypatch.setattr(store._threads, "run", run)
    with pytest.raises(NotFoundError, match="completed or aborted"):
        await store.complete_parts("p", upload_id, parts)
    assert finished
    assert await read(store, "p") == b"x" * 18
    await other.close()


async def test_blobs_are_spread_over_directories_and_their_content_is_plain(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    await asyncio.gather(*(store.put(f"s/{number}", b"plain") for number in range(100)))
    used = {path.parent.name for path in (tmp_path / "blobs" / "blobs").glob("*/*")}
    assert len(used) > 50
    assert file_of(tmp_path / "blobs", "s/7").read_bytes()[:-TRAILER_BYTES] == b"plain"


async def test_a_symbolic_link_is_never_followed(store: LocalBlobStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100)
    await store.put("a", b"x")
    place = file_of(tmp_path / "blobs", "a")
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(CorruptDataError, match="symbolic link"):
        await store.get("a")
    with pytest.raises(CorruptDataError, match="symbolic link"):
        await store.head("a")
    assert await keys(store) == []
    await store.put("a", b"again")
    assert secret.read_bytes() == b"secret" * 100
    assert await read(store, "a") == b"again"
    # A directory that was replaced by a link leads nowhere either.
    await store.put("b" * 300, b"x")
    above = file_of(tmp_path / "blobs", "b" * 300).parent
    away = tmp_path / "away"
    above.rename(away)
    above.symlink_to(away)
    for call in (store.get("b" * 300), store.put("b" * 300, b"x"), store.delete(["b" * 300])):
        with pytest.raises(CorruptDataError):
            await call
    assert "b" * 300 not in await keys(store)
    upload_id = await store.start_parts("p")
    (tmp_path / "blobs" / "uploads" / upload_id / "00001").symlink_to(secret)
    with pytest.raises(CorruptDataError):
        await store.list_parts("p", upload_id)


async def test_a_file_that_was_cut_short_or_is_foreign_is_named_and_not_guessed_at(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    place = file_of(tmp_path / "blobs", "a")
    for damage in ("cut", "grown", "emptied", "foreign", "shortened"):
        await store.put("a", content(1000))
        with place.open("r+b") as file:
            if damage == "cut":
                file.truncate(700)
            elif damage == "grown":
                file.seek(0, os.SEEK_END)
                file.write(b"x")
            elif damage == "shortened":
                whole = file.read()
                file.seek(500)
                file.write(whole[1000:])
                file.truncate()
            elif damage == "emptied":
                file.truncate(0)
            else:
                file.truncate(0)
                file.write(b"z" * 5000)
        with pytest.raises(CorruptDataError, match="a was cut short"):
            await store.get("a")
    await store.put("b", b"fine")
    assert await read(store, "b") == b"fine"


@contextmanager
def _small_files(limit_bytes: int) -> Iterator[None]:
    """A disk that is full behind so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_full_disk_is_said_and_leaves_no_part_of_a_blob(store: LocalBlobStore, tmp_path: Path) -> None:
    await store.put("a", b"before")
    upload_id = await store.start_parts("p")
    with _small_files(1_500_000):
        for data in (content(2_000_000), pieces(content(2_000_000))):
            with pytest.raises(UnavailableError, match="free some space") as caught:
                await store.put("a", data)
            assert caught.value.outcome == "not_applied"
            assert caught.value.retryable
            assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(UnavailableError, match="free some space"):
            await store.put_part("p", upload_id, 1, content(2_000_000), size=2_000_000)
    assert os.listdir(tmp_path / "blobs" / "unfinished") == []
    assert await read(store, "a") == b"before"
    assert await keys(store) == ["a"]
    await store.put("a", content(2_000_000))


@pytest.mark.parametrize("point", ["blob.writing", "blob.syncing", "blob.naming"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=os.strerror)
async def test_a_disk_that_fails_anywhere_leaves_what_was_there(
    store: LocalBlobStore, tmp_path: Path, point: str, number: int
) -> None:
    await store.put("a", b"before")

    def fail(reached: str) -> None:
        if reached == point:
            raise OSError(number, os.strerror(number))

    faults.hook = fail
    for data in (b"after", pieces(content(2_000_000))):
        with pytest.raises(UnavailableError, match="retry"):
            await store.put("a", data)
    faults.hook = None
    assert os.listdir(tmp_path / "blobs" / "unfinished") == []
    assert await read(store, "a") == b"before"


async def test_a_name_that_may_not_last_is_told_as_such(store: LocalBlobStore) -> None:
    def fail(reached: str) -> None:
        if reached == "blob.named":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    faults.hook = fail
    with pytest.raises(UnavailableError, match="loss of power") as caught:
        await store.put("a", b"after")
    assert caught.value.outcome == "unknown"
    faults.hook = None
    assert await read(store, "a") == b"after"


async def test_only_old_leftovers_are_taken_away_and_opening_does_it(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    await store.open()
    unfinished = tmp_path / "blobs" / "unfinished"
    old = time.time() - BLOB_LEFTOVER_S - 1
    for name in ("1-young", "1-old"):
        (unfinished / name).write_bytes(b"x")
    (unfinished / "directory").mkdir()
    (unfinished / "directory" / "upload").write_bytes(b"{}")
    for name in ("1-old", "directory"):
        os.utime(unfinished / name, (old, old))
    await store.close()
    await store.open()
    assert os.listdir(unfinished) == ["1-young"]
    await store.close()


async def test_a_directory_that_cannot_be_used_is_said_at_opening(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="file: is no directory"):
        await LocalBlobStore(tmp_path / "file").open()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "blobs").symlink_to(tmp_path)
    with pytest.raises(CorruptDataError, match="symbolic link"):
        await LocalBlobStore(tmp_path / "linked").open()


async def test_what_is_wrong_with_a_store_is_told(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await store.health() is None
    monkeypatch.setattr("dal.blobs.local.store.DEGRADED_DISK_FREE_BYTES", 2**60)
    assert "nearly full" in (await store.health() or "")
    monkeypatch.undo()
    (tmp_path / "blobs").rename(tmp_path / "moved")
    assert "No such file" in (await store.health() or "")
    (tmp_path / "blobs").mkdir()
    assert "replaced" in (await store.health() or "")
    assert await LocalBlobStore(tmp_path / "closed").health() is not None


async def test_a_listing_is_sorted_in_bounded_memory(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"k/{number * 7919 % 10_007:05}" for number in range(10_007)]

    class Many:
        """A tree of so many keys, in no order, of which no file needs to be made."""

        path = store._tree.path

        def blob_keys(self) -> Iterator[str]:
            yield from names

    monkeypatch.setattr(listing, "BLOB_LIST_RUN_KEYS", 100)
    tracemalloc.start()
    found = 0
    last = ""
    for key in listing.sorted_keys(Many(), "k/", "k/00006"):  # type: ignore[arg-type]
        assert key > last
        last, found = key, found + 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 10_000
    print(f"{peak:,} bytes at most")
    assert peak < 3_000_000, "a hundred runs have a file's buffer each"


async def test_two_stores_on_one_directory_see_the_same(store: LocalBlobStore, tmp_path: Path) -> None:
    other = LocalBlobStore(tmp_path / "blobs")
    await other.open()
    reading = await store.get("a") if await store.head("a") else None
    assert reading is None
    await other.put("a", content(3_000_000, 1))
    reading = await store.get("a")
    first = await anext(reading.data)
    await other.put("a", content(3_000_000, 2))
    rest = b"".join([piece async for piece in reading.data])
    assert first + rest == content(3_000_000, 1), "what is being read is read on as it was"
    await other.delete(["a"])
    with pytest.raises(NotFoundError):
        await store.get("a")
    await other.close()


async def test_readings_left_early_let_go_of_their_files(store: LocalBlobStore) -> None:
    await store.put("a", content(5_000_000))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        async with await store.get("a") as reading:
            await anext(reading.data)
        await (await store.get("a")).data.aclose()
        await store.get("a")  # forgotten
        await read(store, "a", 10, 20)
    assert len(os.listdir("/proc/self/fd")) <= before
