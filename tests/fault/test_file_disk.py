"""A full disk, a failing one, one that may not be written: a clear error, nothing half written, and the way back."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dal.backends.file import FileStore, faults, journal
from dal.errors import ConfigurationError, DalError, UnavailableError
from dal.ops import Compare, Count, Insert, Select
from dal.store import StoreHealth
from dal.testing import rows


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    store = FileStore(tmp_path / "store", segment_bytes=10_000)
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    yield store
    faults.hook = None
    await store.close()


def _fail_at(point: str, number: int, times: int = 1) -> None:
    """From now on the first system calls behind this point fail."""
    left = times

    def hook(reached: str) -> None:
        nonlocal left
        if reached == point and left:
            left -= 1
            raise OSError(number, os.strerror(number))

    faults.hook = hook


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    faults.hook = None


def _journal_bytes(store_directory: Path) -> bytes:
    (log,) = (store_directory / "journal").glob("*.log")
    return log.read_bytes().rstrip(b"\0")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO], ids=os.strerror)
async def test_a_write_that_fails_is_taken_back_and_can_be_repeated(
    store: FileStore, tmp_path: Path, number: int
) -> None:
    before = _journal_bytes(tmp_path / "store")
    _fail_at("journal.writing", number)
    with pytest.raises(UnavailableError, match="journal") as caught:
        await store.commit(rows.append(2, 1))
    assert caught.value.outcome == "not_applied"
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, OSError)
    assert _journal_bytes(tmp_path / "store") == before
    assert await store.read(Count("messages")) == [(0,)]
    await store.commit(rows.append(2, 1))
    assert await store.read(Count("messages")) == [(1,)]


async def test_a_record_that_was_half_written_is_cut_off(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _journal_bytes(tmp_path / "store")

    def write_half(descriptor: int, data: bytes, offset: int) -> None:
        os.pwrite(descriptor, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_all", write_half)
        with pytest.raises(UnavailableError, match="free some space"):
            await store.commit(rows.append(2, 1))
    assert _journal_bytes(tmp_path / "store") == before
    await store.commit(rows.append(3, 1))
    assert await rows.numbers(store, Select("messages")) == [3]


async def test_a_failed_sync_leaves_the_outcome_unknown_and_the_store_takes_no_more_writes(
    store: FileStore, tmp_path: Path
) -> None:
    _fail_at("journal.syncing", errno.EIO)
    with pytest.raises(UnavailableError) as caught:
        await store.commit(rows.append(2, 1))
    assert caught.value.outcome == "unknown"
    assert not caught.value.retryable
    with pytest.raises(UnavailableError, match="open it again") as refused:
        await store.commit(rows.append(3, 1))
    assert refused.value.outcome == "not_applied"
    assert await store.read(Count("chat_sessions")) == [(1,)], "reads go on"
    assert (await store.health()).status == "degraded"
    await store.close()
    await store.open()
    found = await rows.numbers(store, Select("messages"))
    assert found in ([], [2])
    await store.commit(rows.append(4, 1))
    assert await rows.numbers(store, Select("messages", order=("id",))) == [*found, 4]


@pytest.mark.parametrize("point", ["checkpoint.aside", "checkpoint.written", "checkpoint.synced", "replace.written"])
async def test_a_checkpoint_without_space_is_reported_and_made_up_for(
    store: FileStore, tmp_path: Path, point: str
) -> None:
    _fail_at(point, errno.ENOSPC, times=10_000)
    for n in range(2, 40):
        await store.commit(rows.append(n, 1))
    health = await _health_of_settled(store)
    assert health.status == "degraded"
    assert any("No space left" in str(problem) for problem in _list(health.parts["problems"]))
    assert await store.read(Count("messages")) == [(38,)], "commits and reads go on"
    faults.hook = None
    for n in range(40, 80):
        await store.commit(rows.append(n, 1))
    health = await _health_of_settled(store)
    assert health.status == "ok", health
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("messages", order=("id",))) == list(range(2, 80))


async def test_commits_wait_and_then_fail_clearly_when_the_documents_stay_behind(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store", segment_bytes=1, lock_timeout_s=0.05)
    await store.open()
    _fail_at("checkpoint.written", errno.ENOSPC, times=10_000)
    with pytest.raises(UnavailableError, match="No space left") as caught:
        for n in range(100):
            await store.commit([Insert("users", rows.user(n))])
    assert caught.value.retryable
    assert caught.value.outcome == "not_applied"
    there = await rows.numbers(store, Select("users", order=("id",)))
    assert there == list(range(len(there)))
    faults.hook = None
    with suppress(UnavailableError):  # begins the checkpoint, and may not wait long enough for it
        await store.commit([Insert("users", rows.user(500))])
    assert (await _health_of_settled(store)).status == "ok"
    await store.commit([Insert("users", rows.user(501))])
    await store.close()


async def _health_of_settled(store: FileStore) -> StoreHealth:
    """The health once no checkpoint is running."""
    opened = store._opened
    assert opened is not None
    while (task := opened._settling._task) is not None:
        await asyncio.wait([task])
        await asyncio.sleep(0)
    return await store.health()


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


@contextmanager
def _file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond this: what a full disk does, without filling one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


async def test_a_file_that_may_not_grow_refuses_the_write_and_keeps_the_rest(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    for log in (tmp_path / "store" / "journal").glob("*.log"):
        os.truncate(log, 4096)  # nothing is reserved behind this
    with _file_size_limit(8192):
        with pytest.raises(UnavailableError) as caught:
            await store.commit(rows.append(2, 1, content="x" * 20_000))
        assert caught.value.outcome == "not_applied"
        await store.commit(rows.append(3, 1))
    await store.commit(rows.append(4, 1))
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("messages", order=("id",))) == [3, 4]
    await store.close()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root on Linux")
async def test_a_store_on_a_full_disk_refuses_writes_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = await asyncio.create_subprocess_exec(
        "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk), stderr=asyncio.subprocess.DEVNULL
    )
    if await mounted.wait() != 0:
        pytest.skip("this machine does not allow mounts")
    try:
        await _fill_and_free(disk)
    finally:
        await (await asyncio.create_subprocess_exec("umount", str(disk))).wait()


async def _fill_and_free(disk: Path) -> None:
    store = FileStore(disk / "store", segment_bytes=100_000)
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    acknowledged = []
    with pytest.raises(UnavailableError) as caught:
        for n in range(2, 3000):
            await store.commit(rows.append(n, 1, content="x" * 2_000))
            acknowledged.append(n)
    assert caught.value.outcome == "not_applied"
    assert acknowledged
    assert (await store.health()).status == "degraded"
    assert await store.read(Count("messages")) == [(len(acknowledged),)]
    ballast.unlink()
    await store.commit(rows.append(5000, 1))
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("messages", order=("id",))) == [*acknowledged, 5000]
    await store.close()


# -- permissions


@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_files_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = FileStore(tmp_path / "new" / "store", segment_bytes=300)
        await store.open()
        await store.commit([Insert("users", rows.user(1)), Insert("chat_sessions", rows.chat(1))])
        await store.commit([Insert("user_memory", rows.memory(2, 1)), Insert("files", rows.file(3, 1))])
        await store.commit([*rows.append(4, 1), Insert("system_logs", rows.log(5))])
        await store.commit(rows.append(6, 1))
        await _health_of_settled(store)
        _assert_closed_to_others(tmp_path / "new")
        await store.close()
        _assert_closed_to_others(tmp_path / "new")
    finally:
        os.umask(before)


def _assert_closed_to_others(top: Path) -> None:
    seen = 0
    for directory, _, names in os.walk(top):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700, directory
        for name in names:
            with suppress(FileNotFoundError):
                assert stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) == 0o600, name
                seen += 1
    assert seen > 10


async def _open_without_rights(directory: Path) -> str:
    """What a process that may read the directory, and not write it, hears when it opens the store `store` there."""
    program = (
        "import asyncio, os\n"
        "from dal.backends.file import FileStore\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(FileStore('/proc/self/cwd/store').open())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "else: print('opened')\n"
    )
    _let_read_only(directory)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=directory
    )
    told, _ = await child.communicate()
    _let_read_only(directory, writable=True)
    return told.decode()


def _let_read_only(top: Path, *, writable: bool = False) -> None:
    for path in (top, *top.rglob("*")):
        path.chmod((0o555 if path.is_dir() else 0o444) | (0o200 if writable else 0))


@pytest.mark.skipif(sys.platform != "linux", reason="finds its way by /proc")
@pytest.mark.parametrize("is_made", [True, False], ids=("a store", "no store yet"))
async def test_a_directory_that_may_not_be_written_is_named_in_a_clear_error(tmp_path: Path, is_made: bool) -> None:
    if is_made:
        store = FileStore(tmp_path / "store")
        await store.open()
        await store.close()
    told = await _open_without_rights(tmp_path)
    assert told.startswith(ConfigurationError.__name__), told
    assert "/store" in told
    assert "Permission denied" in told


@pytest.mark.parametrize(
    "key", ["../../escape", "/etc/passwd", "..", ".", "a/../../b", "\\..\\..", "~root", "CON", "nul.txt", "a" * 255]
)
async def test_no_key_leads_out_of_the_directory(tmp_path: Path, key: str) -> None:
    store = FileStore(tmp_path / "store", segment_bytes=1)
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1, chat_id=key)), *rows.append(2, 1)])
    await store.close()
    assert {path.parent.parent for path in _files(tmp_path) if path.suffix == ".jsonl"} == {
        tmp_path / "store" / "chats"
    }
    assert all(path.is_relative_to(tmp_path / "store") for path in _files(tmp_path))
    await store.open()
    found = await store.read(Select("chat_sessions", (Compare("chat_id", "=", key),), columns=("chat_id",)))
    assert found == [(key,)]
    await store.close()


def _files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file()]


async def test_an_error_never_holds_what_was_written(store: FileStore) -> None:
    _fail_at("journal.writing", errno.ENOSPC)
    with pytest.raises(DalError) as caught:
        await store.commit(rows.append(2, 1, content="correct horse"))
    assert "correct horse" not in str(caught.value)
