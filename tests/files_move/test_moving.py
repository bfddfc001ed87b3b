"""Contents on their way from one blob store to another: whole, verified, once, and while the application goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from dal.access import DataAccess
from dal.blobs.base import BlobInfo
from dal.blobs.memory import MemoryBlobStore
from dal.errors import ConflictError, UnavailableError
from dal.files.frames import compressed
from dal.files_move import moving, turn, walking
from dal.files_move.moving import move
from dal.files_move.options import MoveOptions
from dal.files_move.report import ContentsProgress, ContentsReport
from dal.limits import CONTENTS_LEASE_S, CONTENTS_LOOKS, CONTENTS_TRIES
from tests.files_move.contents import Watched, checksum, everything, keep


def some(count: int) -> dict[str, bytes]:
    return {f"{number % 7}/{number:04}": f"content {number}".encode() * (number % 5) for number in range(count)}


async def frames_of(content: bytes) -> bytes:
    async def whole() -> AsyncIterator[bytes]:
        yield content

    return b"".join([piece async for piece in compressed(whole())])


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "CONTENTS_RANGE_KEYS", 50)
    monkeypatch.setattr(walking, "CONTENTS_PAGE_ROWS", 70)


async def moved(source: Watched, target: Watched, dal: DataAccess, **options: Any) -> ContentsReport:
    return await move(source, target, dal.store, options=MoveOptions(**{"sleep": no_sleep, **options}))


@pytest.mark.parametrize("sums", [True, False])
async def test_everything_is_copied_once_and_a_second_run_copies_nothing(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, sums: bool
) -> None:
    source.sums = target.sums = sums
    contents = some(320)
    await keep(dal, source, user_id, contents)
    told: list[ContentsProgress] = []

    report = await moved(source, target, dal, on_progress=told.append)

    assert await everything(target) == contents == await everything(source)
    assert (report.files, report.copied, report.there, report.problems.counts) == (320, 320, 0, {})
    assert report.copied_bytes == report.bytes == sum(map(len, contents.values()))
    assert (await target.head("0/0007")).content_type == "text/plain"  # type: ignore[union-attr]
    assert (told[-1].files, told[-1].bytes, told[-1].eta_s) == (320, report.bytes, 0.0)
    assert all(now.bytes <= now.total_bytes and now.files <= now.total_files for now in told)
    assert target.calls["put"] == 320

    again = await moved(source, target, dal)
    assert (again.files, again.copied, again.there) == (320, 0, 320)
    assert target.calls["put"] == 320


async def test_a_large_blob_passes_in_pieces_and_is_verified(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    content = bytes(range(256)) * 4 * 1024 * 64  # 64 MiB
    await keep(dal, source, user_id, {"large": content})
    passed: list[int] = []
    report = await moved(source, target, dal, on_progress=lambda now: passed.append(now.bytes))
    assert report.copied_bytes == len(content)
    assert (await target.head("large")).checksum == checksum(content)  # type: ignore[union-attr]
    assert passed == sorted(passed)
    assert len(passed) > 200


@pytest.mark.parametrize("size", [100, 3 * 1024 * 1024])
async def test_a_corrupt_byte_in_the_source_is_found_and_nothing_of_it_is_stored(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, size: int
) -> None:
    await keep(dal, source, user_id, {"a": b"a" * size, "b": b"b" * size, "c": b"c" * size})
    source.spoil("b", b"b" * (size - 1) + b"B")
    report = await moved(source, target, dal)
    assert set(await everything(target)) == {"a", "c"}
    assert report.problems.counts == {"corrupt": 1}
    assert report.problems.samples[0].key == "b"
    assert not report.is_clean


async def test_a_row_decides_where_the_source_keeps_no_checksum(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    source.sums = False
    await keep(dal, source, user_id, {"a": b"right"})
    source.spoil("a", b"wrong")
    report = await moved(source, target, dal)
    assert report.problems.counts == {"corrupt": 1}
    assert await everything(target) == {}


async def test_the_content_inside_a_compressed_blob_is_verified(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    content = b"a difference engine " * 100_000
    good, bad, broken = (f"files/{uuid4()}.zst" for _ in range(3))
    for key, held in ((good, content), (bad, content[:-1]), (broken, None), ("registered.zst", None)):
        packed = b"no frame" if held is None else await frames_of(held)
        await source.put(key, packed)
        if key == "registered.zst":  # an application's own, which says nothing about how it lies there
            await dal.files.create(user_id, key, storage_key=key, file_size=8, checksum=checksum(packed))
            continue
        await dal.files.create(user_id, key, storage_key=key, file_size=len(content), checksum=checksum(content))
    report = await moved(source, target, dal)
    assert set(await everything(target)) == {good, "registered.zst"}
    assert report.problems.counts == {"corrupt": 2}
    assert (await moved(source, target, dal)).there == 2


async def test_a_target_that_stored_something_else_is_not_believed(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(dal, source, user_id, {"a": b"content", "b": b"other"})
    honest = target.put

    async def lying(key: str, data: Any, **options: Any) -> BlobInfo:
        stored = await honest(key, data, **options)
        return stored._replace(checksum=checksum(b"?")) if key == "a" else stored

    monkeypatch.setattr(target, "put", lying)
    report = await moved(source, target, dal)
    assert set(await everything(target)) == {"b"}
    assert report.problems.counts == {"corrupt": 1}


async def test_what_the_row_says_wins_and_without_one_the_newer(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {"row-source": b"right", "row-target": b"right"})
    source.spoil("row-target", b"wrong")
    await target.put("row-source", b"wrong")
    await target.put("row-target", b"right")
    await target.put("newer-source", b"old")
    await source.put("newer-source", b"new")
    await source.put("newer-target", b"old")
    await target.put("newer-target", b"new")
    report = await moved(source, target, dal)
    assert await everything(target) == {
        "newer-source": b"new",
        "newer-target": b"new",
        "row-source": b"right",
        "row-target": b"right",
    }
    assert (report.copied, report.there, report.kept) == (2, 1, 1)
    assert [(found.kind, found.key) for found in report.problems.samples] == [("differs", "newer-target")]


async def test_an_upload_during_the_move_stays_and_what_the_source_gains_is_taken_along(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, some(120))

    async def first(key: str) -> None:
        del source.before["get"]
        await keep(dal, target, user_id, {"3/new": b"uploaded to the target"})
        await source.put("0/0000x", b"an instance that was not switched yet")
        await target.put("6/0118", b"the application was faster")  # the very key that is to be copied

    source.before["get"] = first
    await moved(source, target, dal)
    held = await everything(target)
    assert held["3/new"] == b"uploaded to the target"
    assert held["0/0000x"] == b"an instance that was not switched yet"
    assert held["6/0118"] == some(120)["6/0118"]  # what the row says
    assert set(held) == {*some(120), "3/new", "0/0000x"}


async def test_what_the_application_stores_in_the_target_under_a_key_that_is_being_copied_stays(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {"row": b"right"})
    await source.put("bare", b"old")
    source.spoil("row", b"wrong")  # as it was before the application corrected it in the target

    async def first(key: str) -> None:
        """The target held nothing when it was listed; now, right before the copy arrives, it does."""
        await MemoryBlobStore.put(target, key, b"new" if key == "bare" else b"right")

    source.after["get"] = first
    report = await moved(source, target, dal)
    del source.after["get"]
    assert await everything(target) == {"bare": b"new", "row": b"right"}
    assert {found.key: found.kind for found in report.problems.samples} == {"bare": "differs", "row": "corrupt"}


async def test_what_is_deleted_while_it_is_copied_does_not_come_back(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, some(60))

    async def delete(key: str) -> None:
        """The application deletes the file in both stores, just before its copy arrives."""
        if key in ("0/0007", "5/0005"):
            record = await dal.files.get_by_storage_key(key)
            assert record is not None
            await dal.files.delete(record.id)
            await target.delete([key])
            await source.delete([key])

    target.before["put"] = delete
    report = await moved(source, target, dal)
    assert set(await everything(target)) == set(some(60)) - {"0/0007", "5/0005"}
    assert (report.removed, report.is_clean) == (2, True)


async def test_what_changes_while_it_is_copied_is_copied_again(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await source.put("once", b"1")
    await source.put("again-and-again", b"1")
    changes = {"once": 1, "again-and-again": 100}

    async def change(key: str) -> None:
        if changes[key]:
            changes[key] -= 1
            await source.put(key, source.content(key) + b"1")

    source.after["get"] = change
    report = await moved(source, target, dal)
    del source.after["get"]
    assert (await everything(target))["once"] == (await everything(source))["once"] == b"11"
    assert report.problems.counts == {"changing": 1}
    assert changes["again-and-again"] == 100 - 1 - CONTENTS_LOOKS
    assert report.files == 2


async def test_a_row_without_bytes_is_told_and_one_that_goes_is_not(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {"a": b"a", "z": b"z"})
    for key in ("b", "b/..", "../etc/passwd", "naïve"):
        await dal.files.create(user_id, "lost", storage_key=key, file_size=1)
    report = await moved(source, target, dal)
    assert report.problems.counts == {"missing": 4}
    assert {sample.key for sample in report.problems.samples} == {"b", "b/..", "../etc/passwd", "naïve"}


async def test_a_store_that_does_not_answer_is_asked_again_and_in_the_end_ends_the_move(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, some(200))
    left = CONTENTS_TRIES - 1

    async def fail(key: str) -> None:
        nonlocal left
        if key == "3/0017" and left:
            left -= 1
            raise UnavailableError("no answer")

    target.before["put"] = fail
    report = await moved(source, target, dal)
    assert (report.copied, report.is_clean, left) == (200, True, 0)

    await target.delete(list(some(200)))
    left = CONTENTS_TRIES
    with pytest.raises(UnavailableError, match="no answer"):
        await moved(source, target, dal)
    assert turn.KEY not in await everything(target)
    left = 0
    await moved(source, target, dal)
    assert await everything(target) == some(200)


async def test_at_most_so_many_are_copied_at_a_time(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, some(200))
    running = most = 0

    async def begin(key: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)

    async def end(key: str) -> None:
        nonlocal running
        running -= 1

    target.before["put"], target.after["put"] = begin, end
    await moved(source, target, dal, jobs=3)
    assert most == 3


async def test_bytes_pass_at_the_rate_that_is_allowed(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {"a": b"a" * 3_000_000, "b": b"b" * 1_000_000})
    clock = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds
        await asyncio.sleep(0)

    report = await move(
        source, target, dal.store, options=MoveOptions(limit_bytes_s=100_000, timer=lambda: clock, sleep=sleep, jobs=1)
    )
    assert report.seconds == pytest.approx(40, rel=0.01)


async def test_two_movers_do_not_work_at_once_and_the_lease_of_a_dead_one_runs_out(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {"a": b"a"})
    time = datetime(2026, 1, 1, tzinfo=UTC)

    async def sleep(seconds: float) -> None:
        nonlocal time
        time += timedelta(seconds=seconds)

    async def second(key: str) -> None:
        with pytest.raises(ConflictError, match="another mover is at work"):
            # The first one's lease does not age: it is renewed.
            await move(source, target, dal.store, options=MoveOptions(clock=lambda: time, sleep=no_sleep))

    target.before["put"] = second
    await move(source, target, dal.store, options=MoveOptions(clock=lambda: time))
    assert target.calls["put"] == 1
    assert set(await everything(target)) == {"a"}

    lease = b'{"owner": "?", "host": "elsewhere", "pid": 1, "at": "2026-01-01T00:00:00+00:00"}'
    await target.put(turn.KEY, lease)
    report = await move(source, target, dal.store, options=MoveOptions(clock=lambda: time, sleep=sleep))
    assert report.there == 1
    assert (time - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds() == pytest.approx(CONTENTS_LEASE_S, abs=1)

    await target.put(turn.KEY, b"nonsense")
    assert (await moved(source, target, dal)).there == 1
