"""Answers that are lost, stores that fail, an access log that cannot be written: nothing disagrees or waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from dal import AlreadyExistsError, DataAccess, FencedError, NotFoundError, UnavailableError, User
from dal.backends.memory import MemoryStore
from dal.blobs.memory import MemoryBlobStore
from dal.files import log as log_module
from dal.files.entering import NewFile
from dal.files.log import AccessLog
from dal.files.options import FileOptions
from dal.layers.base import Layer
from dal.layers.retry import Retry
from dal.limits import FILE_GRACE_S, FILE_LOG_ROWS
from dal.ops import Insert, Op, Query, Receipt, Row, Select
from dal.store import Store
from dal.values import now
from tests.files.conftest import keys
from tests.files.test_upload import content, pieces


def never(ops: Sequence[Op]) -> bool:
    return False


class Faulty(Layer):
    """A store that fails as a test says: before a commit, or after it, its answer lost."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.before: Callable[[Sequence[Op]], bool] = never
        self.after: Callable[[Sequence[Op]], bool] = never

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        if self.before(ops):
            raise UnavailableError("no answer", backend="memory")
        receipt = await self.inner.commit(ops)
        if self.after(ops):
            raise UnavailableError("no answer", backend="memory", outcome="unknown")
        return receipt


def has(table: str) -> Callable[[Sequence[Op]], bool]:
    return lambda ops: any(type(op) is Insert and op.table == table for op in ops)


def once(condition: Callable[[Sequence[Op]], bool]) -> Callable[[Sequence[Op]], bool]:
    seen: list[bool] = []

    def first(ops: Sequence[Op]) -> bool:
        if seen or not condition(ops):
            return False
        seen.append(True)
        return True

    return first


@pytest.fixture
def store() -> Faulty:
    return Faulty(MemoryStore())


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture
async def ada(dal: DataAccess) -> User:
    return await dal.users.create()


@pytest.fixture
async def dal(store: Faulty, blobs: MemoryBlobStore) -> Any:
    async with DataAccess(store, blobs=blobs) as opened:
        yield opened


async def test_a_small_file_costs_one_request_and_one_round_trip_more(
    dal: DataAccess, store: Faulty, ada: User, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dal.files.upload(ada.id, "first", b"begins the user's quota")
    asked: list[str] = []

    def count(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            asked.append(name)
            return call(*given, **named)

        return counted

    for target, names in ((store, ("read", "commit")), (blobs, ("put", "get", "head", "delete", "list", "copy"))):
        for name in names:
            monkeypatch.setattr(target, name, count(name, getattr(target, name)))
    file = await dal.files.upload(ada.id, "a", b"content")
    assert asked == ["put", "commit"]
    asked.clear()
    await dal.files.upload(ada.id, "b", pieces(content(1_000_000)))
    assert asked == ["put", "commit"]
    asked.clear()
    await dal.files.read(file.id)
    assert asked == ["read", "get"]


@pytest.mark.parametrize("size", [10, 1_500_000])
async def test_a_lost_answer_is_looked_for(
    dal: DataAccess, store: Faulty, ada: User, blobs: MemoryBlobStore, size: int
) -> None:
    store.after = once(has("files"))
    file = await dal.files.upload(ada.id, "a", pieces(content(size)))
    assert await dal.files.read(file.id, verify=True) == content(size)
    assert await keys(blobs) == [file.storage_key]
    assert (await dal.files.usage(ada.id)).used_files == 1
    assert (await dal.files.usage(ada.id)).reserved_files == 0


async def test_lost_answers_of_everything_else_are_looked_for_too(ada: User, store: Faulty, dal: DataAccess) -> None:
    """Through the layer that repeats what may be repeated: the second try is refused by what the first one did."""
    tried = DataAccess(Retry(store), blobs=dal.files._core.blobs)
    files = tried.files
    file = await files.upload(ada.id, "a", b"content")
    log = has("file_access_logs")

    async def losing(call: Any) -> Any:
        store.after = once(log)
        return await call

    assert (await losing(files.rename(file.id, "b"))).filename == "b"
    assert (await losing(files.grant(file.id, "somebody", "write"))).permission == "write"
    link = await losing(files.link(file.id))
    assert await losing(files.revoke(file.id, permission_id=link.id)) is True
    assert await losing(files.delete(file.id)) is True
    restored = await losing(files.restore(file.id))
    assert (restored.status, restored.version) == ("active", 4)
    upload = await losing(files.start_upload(ada.id, "c", total_size=5))
    await losing(files.upload_part(upload.upload_id, 1, b"parts"))
    done = await losing(files.complete_upload(upload.upload_id))
    assert await files.read(done.id, verify=True) == b"parts"
    await files.set_quota(ada.id, max_bytes=20, max_files=None)
    full = await losing(files.upload(ada.id, "d", b"12345678"))
    assert await files.read(full.id, verify=True) == b"12345678"
    usage = await files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files, usage.reserved_bytes, usage.bytes_left) == (20, 3, 0, 0)
    store.after = once(has("multipart_uploads"))
    await files.set_quota(ada.id, max_bytes=None, max_files=None)
    large = await files.upload(ada.id, "e", content(1_500_000))
    assert await files.read(large.id, verify=True) == content(1_500_000)
    assert (await files.usage(ada.id)).reserved_files == 0


@pytest.mark.parametrize("size", [10, 1_500_000])
async def test_a_commit_that_did_not_happen_leaves_nothing(
    dal: DataAccess, store: Faulty, ada: User, blobs: MemoryBlobStore, size: int
) -> None:
    store.before = has("files")
    with pytest.raises(UnavailableError) as failed:
        await dal.files.upload(ada.id, "a", pieces(content(size)))
    assert (failed.value.outcome, failed.value.retryable) == ("not_applied", True)
    assert failed.value.operation == "files.upload"
    assert await keys(blobs) == []
    usage = await dal.files.usage(ada.id)
    assert (usage.used_files, usage.reserved_files) == (0, 0)


async def test_bytes_stay_while_nobody_knows_whether_their_row_is_there(
    dal: DataAccess, store: Faulty, ada: User, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        raise UnavailableError("no answer", backend="memory")

    given = "01900000-0000-7000-8000-0000000000aa"
    store.after = once(has("files"))
    monkeypatch.setattr(dal.files._core, "record", silent)
    with pytest.raises(UnavailableError) as failed:
        await dal.files.upload(ada.id, "a", b"content")
    assert failed.value.outcome == "unknown"
    monkeypatch.undo()
    [file] = (await dal.files.list(user_id=ada.id)).items
    assert await dal.files.read(file.id) == b"content"
    assert await dal.files.upload(ada.id, "b", b"other", id=given) == await dal.files.upload(
        ada.id, "b", b"other", id=given
    )


async def test_a_log_that_cannot_be_written_fails_and_holds_up_nothing(
    dal: DataAccess, store: Faulty, ada: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_module, "FILE_LOG_WAIT_S", 0.05)
    monkeypatch.setattr(log_module, "FILE_LOG_RETRY_S", 0.0)
    file = await dal.files.upload(ada.id, "a", b"content")
    alone = lambda ops: all(type(op) is Insert and op.table == "file_access_logs" for op in ops)  # noqa: E731
    store.before = alone
    for _ in range(3):
        assert await dal.files.read(file.id) == b"content"
    assert [e.action for e in (await dal.files.access_log()).items] == ["upload"]
    assert dal.files._core.log.waiting == 3
    store.before = never
    assert len((await dal.files.access_log()).items) == 4
    store.after = once(alone)  # written, and the answer lost: not twice
    await dal.files.read(file.id)
    assert len((await dal.files.access_log()).items) == 5
    store.before = alone
    await dal.files.read(file.id)
    await dal.close()
    assert dal.files._core.log.lost == 1
    assert "1 rows lost" in caplog.text


async def test_a_store_that_a_move_has_left_removes_no_bytes(
    dal: DataAccess, store: Faulty, ada: User, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are of yesterday: what is written since, elsewhere, looks like an orphan to it."""
    await blobs.put("files/01900000-0000-7000-8000-0000000000aa", b"new", size=3)
    later = now() + timedelta(days=1)
    monkeypatch.setattr(dal.files._core, "now", lambda: later)
    assert (await dal.files.sweep(dry_run=True)).orphan_blobs == 1

    async def fenced(ops: Sequence[Op]) -> Receipt:
        raise FencedError("switched", backend="memory")

    monkeypatch.setattr(store, "commit", fenced)
    with pytest.raises(FencedError):
        await dal.files.sweep()
    assert len(await keys(blobs)) == 1
    monkeypatch.undo()


async def test_a_file_is_not_entered_once_its_bytes_may_be_swept(
    dal: DataAccess, ada: User, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = blobs.put

    async def sleepy(*given: Any, **named: Any) -> Any:
        later = now() + timedelta(seconds=FILE_GRACE_S)
        monkeypatch.setattr(dal.files._core, "now", lambda: later)
        return await put(*given, **named)

    monkeypatch.setattr(blobs, "put", sleepy)
    with pytest.raises(UnavailableError, match="begin again"):
        await dal.files.upload(ada.id, "a", b"x")
    assert await keys(blobs) == []
    assert (await dal.files.list()).items == []


@pytest.mark.parametrize("size", [10, 1_500_000])
async def test_a_name_that_is_taken_between_the_look_and_the_commit_is_refused(
    dal: DataAccess, ada: User, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    entering = dal.files._uploading._entering
    look = entering.check_name
    taken: list[bool] = []

    async def slow(new: NewFile) -> int:
        version = await look(new)
        if len(taken) < (1 if size == 10 else 2):  # what is large looks before it is sent, too
            taken.append(True)
            if len(taken) == (1 if size == 10 else 2):
                await dal.files.rename((await dal.files.list()).items[0].id, "name")
        return version

    await dal.files.upload(ada.id, "other", b"x")
    monkeypatch.setattr(entering, "check_name", slow)
    with pytest.raises(AlreadyExistsError):
        await dal.files.upload(ada.id, "name", pieces(content(size)), if_absent=True)
    assert len(await keys(blobs)) == 1
    assert (await dal.files.usage(ada.id)).reserved_files == 0


async def test_shared_content_that_is_used_again_while_it_is_swept_stays(
    store: Faulty, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with DataAccess(store, blobs=blobs, files=FileOptions(deduplicate=True, retention_s=0.0)) as dal:
        ada = await dal.users.create()
        await dal.files.delete((await dal.files.upload(ada.id, "a", b"content")).id)
        read = store.read
        made: list[Any] = []

        async def racing(query: Query) -> list[Row]:
            rows = await read(query)
            if type(query) is Select and query.columns == ("storage_key",) and query.table == "files" and not made:
                made.append(query)
                made.append(await dal.files.upload(ada.id, "b", b"content"))
            return rows

        monkeypatch.setattr(store, "read", racing)
        report = await dal.files.sweep()
        assert (report.purged_files, report.unused_contents, len(made)) == (1, 0, 2)
        assert await dal.files.read(made[1].id, verify=True) == b"content"
        assert (await dal.files.sweep()).model_dump(exclude_defaults=True) == {}


async def test_a_part_that_comes_after_the_end_of_its_upload_is_not_noted(
    dal: DataAccess, ada: User, blobs: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await dal.files.start_upload(ada.id, "a", total_size=5)
    put_part = blobs.put_part

    async def late(*given: Any, **named: Any) -> Any:
        part = await put_part(*given, **named)
        await dal.files.abort_upload(upload.upload_id)
        return part

    monkeypatch.setattr(blobs, "put_part", late)
    with pytest.raises(NotFoundError):
        await dal.files.upload_part(upload.upload_id, 1, b"parts")
    assert await dal.store.read(Select("multipart_parts", columns=("id",))) == []
    assert (await dal.files.usage(ada.id)).reserved_files == 0


async def test_a_full_log_drops_rows_and_counts_them() -> None:
    class Never:
        async def commit(self, ops: Sequence[Op]) -> Receipt:
            await asyncio.Event().wait()
            raise AssertionError

    log = AccessLog(Never())  # type: ignore[arg-type]  # it only commits
    for number in range(FILE_LOG_ROWS + 5):
        log.add(Insert("file_access_logs", {"id": str(number)}))
    assert (log.waiting, log.lost) == (FILE_LOG_ROWS, 5)


async def test_a_row_of_the_log_that_makes_no_sense_stops_no_other(dal: DataAccess, ada: User) -> None:
    dal.files._core.log.add(Insert("file_access_logs", {"nonsense": 1}))
    await dal.files._core.log.flush()
    assert dal.files._core.log.lost == 1
    await dal.files.upload(ada.id, "a", b"x")
    assert len((await dal.files.access_log()).items) == 1


async def test_health_tells_of_the_blob_store(dal: DataAccess, blobs: MemoryBlobStore) -> None:
    assert (await dal.health()).status == "ok"

    async def ill() -> str:
        return "the disk is full"

    blobs.health = ill  # type: ignore[method-assign]
    health = await dal.health()
    assert health.status == "degraded"
    assert health.parts["problems"] == ["contents of files: the disk is full"]


def test_options_come_from_the_settings() -> None:
    from dal import Settings
    from dal.factory import file_options

    options = file_options(
        Settings(
            file_max_bytes=5,
            file_allowed_types="image/*, Text/Plain,",
            file_compress=True,
            file_deduplicate=True,
            file_retention_days=2,
            file_quota_bytes=7,
            file_quota_count=8,
        )
    )
    assert options == FileOptions(
        max_file_bytes=5,
        allowed_types=("image/*", "text/plain"),
        compress=True,
        deduplicate=True,
        retention_s=172_800.0,
        quota_bytes=7,
        quota_files=8,
    )
