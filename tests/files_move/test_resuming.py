"""Large blobs whose move was broken off: what has arrived is not sent again, and what is given up leaves nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from dal.access import DataAccess
from dal.blobs.base import BlobInfo, BlobStore, Reading
from dal.blobs.memory import MemoryBlobStore
from dal.errors import ConflictError, UnavailableError
from dal.files.keys import MOVER_UPLOADS
from dal.files_move import resuming, throttle, transfer
from dal.files_move.moving import move
from dal.files_move.options import MoveOptions
from dal.files_move.report import Action, ContentsReport
from dal.limits import CONTENTS_TRIES
from dal.values import now
from tests.files_move.contents import Killed, Watched, checksum, everything, keep
from tests.files_move.test_moving import frames_of, no_sleep

MIB = 1024 * 1024
PARTS = 6
LARGE = bytes(range(256)) * 4 * 1024 * (PARTS - 1) + b"the last part"
KEY = "files/large"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "CONTENTS_PARTS_BYTES", 2 * MIB)
    monkeypatch.setattr(resuming, "S3_PART_BYTES", MIB)
    monkeypatch.setattr(resuming, "CONTENTS_NOTE_S", 0.0)
    monkeypatch.setattr(throttle, "CONTENTS_PARTS_AT_ONCE", 1)
    # As a bucket, which tells no checksum of what came in parts.
    monkeypatch.setattr(MemoryBlobStore, "capabilities", replace(MemoryBlobStore.capabilities, hashes=False))


async def moved(
    source: BlobStore, target: BlobStore, dal: DataAccess, *, action: Action = "move", **options: Any
) -> ContentsReport:
    return await move(source, target, dal.store, action=action, options=MoveOptions(**{"sleep": no_sleep, **options}))


def dies_at(store: Watched, call: str, count: int, *, after: bool = False) -> None:
    """The mover dies before the call of that number, from 0, or as soon as it is carried out."""
    left = count

    async def die(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    (store.after if after else store.before)[call] = die


async def broken_off(source: Watched, target: Watched, dal: DataAccess, **options: Any) -> None:
    with pytest.raises(Killed):
        await moved(source, target, dal, **options)
    target.before.clear()
    target.after.clear()
    target.calls.clear()


async def left_of(store: BlobStore) -> list[str]:
    """Uploads and notes that are there still."""
    return [upload.key async for upload in store.list_uploads()] + [info.key async for info in store.list("_dal/")]


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("arrived", range(PARTS + 1))
async def test_what_has_arrived_is_not_sent_again(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, arrived: int, lists: bool
) -> None:
    target.capabilities = replace(target.capabilities, list_parts=lists)
    await keep(dal, source, user_id, {KEY: LARGE})
    if arrived < PARTS:
        dies_at(target, "put_part", arrived)
    else:
        dies_at(target, "complete_parts", 0)
    await broken_off(source, target, dal)
    assert await target.head(KEY) is None

    told: list[int] = []
    report = await moved(source, target, dal, on_progress=lambda now: told.append(now.bytes))
    assert target.calls.get("put_part", 0) == PARTS - arrived
    assert target.calls.get("start_parts", 0) == (arrived == 0 and lists)
    assert (report.copied, report.copied_bytes, report.problems.counts) == (1, len(LARGE), {})
    assert told == sorted(told)
    assert await everything(target) == {KEY: LARGE}
    target.capabilities = MemoryBlobStore.capabilities
    assert await left_of(target) == []


@pytest.mark.parametrize("call", ["start_parts", "put_part", "complete_parts"])
async def test_killed_behind_any_request_nothing_is_left_in_the_end(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, call: str
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    dies_at(target, call, 0, after=True)
    await broken_off(source, target, dal)
    assert await left_of(target) != []
    report = await moved(source, target, dal)
    assert (report.copied, report.there) == ((0, 1) if call == "complete_parts" else (1, 0))
    assert await everything(target) == {KEY: LARGE}
    assert await left_of(target) == []


@pytest.mark.parametrize("change", ["replaced", "deleted", "corrupt"])
async def test_an_upload_of_what_has_changed_is_aborted(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, change: str
) -> None:
    await source.put(KEY, LARGE)
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    expected = {}
    if change == "replaced":
        expected = {KEY: LARGE[::-1]}
        await source.put(KEY, LARGE[::-1])
    elif change == "deleted":
        await source.delete([KEY])
    else:
        source.spoil(KEY, LARGE[:-1] + b"?")
    report = await moved(source, target, dal)
    assert await everything(target) == expected
    assert report.problems.counts == ({"corrupt": 1} if change == "corrupt" else {})
    assert target.calls.get("start_parts", 0) == (change == "replaced")
    assert target.calls.get("put_part", 0) in {"replaced": {PARTS}, "deleted": {0}, "corrupt": range(PARTS - 2)}[change]
    assert await left_of(target) == []


async def test_a_part_that_the_source_no_longer_gives_is_sent_again(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    """As where it was read wrong: nothing but the bytes says so."""
    await keep(dal, source, user_id, {KEY: LARGE})
    wrong = LARGE[: MIB + 7] + b"!" + LARGE[MIB + 8 :]
    assert wrong != LARGE
    source.spoil(KEY, wrong)
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    source.spoil(KEY, LARGE)
    await moved(source, target, dal)
    assert target.content(KEY) == LARGE
    assert target.calls["put_part"] == PARTS - 3 + 1


@pytest.mark.parametrize("lists", [True, False])
async def test_an_upload_that_the_target_has_forgotten_begins_anew(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, lists: bool
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    for upload in [upload async for upload in target.list_uploads()]:
        await target.abort_parts(upload.key, upload.upload_id)
    target.capabilities = replace(target.capabilities, list_parts=lists)
    report = await moved(source, target, dal)
    assert (report.copied, report.problems.counts) == (1, {})
    assert target.content(KEY) == LARGE


@pytest.mark.parametrize("lists", [True, False])
async def test_a_part_that_is_gone_is_sent_again(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, lists: bool
) -> None:
    target.capabilities = replace(target.capabilities, list_parts=lists)
    await keep(dal, source, user_id, {KEY: LARGE})
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    (upload,) = target._uploads.values()
    del upload.parts[2]
    report = await moved(source, target, dal)
    assert (report.copied, target.content(KEY)) == (1, LARGE)
    # Where nobody tells, all is sent, and completing it refused; then it is sent anew.
    assert target.calls["put_part"] == (PARTS - 3 + 1 if lists else PARTS - 3 + PARTS)
    assert target._uploads == {}


async def test_a_target_that_does_not_answer_is_asked_again_for_the_rest_alone(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    left = CONTENTS_TRIES - 1

    async def fail(_: str) -> None:
        nonlocal left
        if target.calls["put_part"] > 4 and left:
            left -= 1
            raise UnavailableError("no answer")

    target.before["put_part"] = fail
    report = await moved(source, target, dal)
    assert (report.copied, report.is_clean, target.content(KEY)) == (1, True, LARGE)
    assert target.calls["put_part"] == PARTS + CONTENTS_TRIES - 1


async def test_what_the_application_stores_under_the_key_meanwhile_stays(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await source.put(KEY, LARGE)

    async def first(key: str) -> None:
        await MemoryBlobStore.put(target, key, b"newer")

    target.before["complete_parts"] = first
    report = await moved(source, target, dal)
    assert target.content(KEY) == b"newer"
    assert report.problems.counts == {"differs": 1}
    assert await left_of(target) == []


async def test_the_way_back_aborts_what_a_killed_move_has_begun(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    assert await left_of(target) != []
    await moved(target, source, dal)
    assert await left_of(target) != [], "it is none of a move's business what lies in its source"
    await moved(target, source, dal, action="rollback")
    assert await left_of(target) == []
    assert await everything(source) == {KEY: LARGE}


async def test_the_way_back_waits_for_no_move_that_is_at_work(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})

    async def back(_: str) -> None:
        if target.calls["put_part"] == 3:
            with pytest.raises(ConflictError, match="another mover is at work"):
                await moved(target, source, dal, action="rollback")

    target.before["put_part"] = back
    report = await moved(source, target, dal)
    assert (report.copied, target.content(KEY), target.calls["put_part"]) == (1, LARGE, PARTS)


@pytest.mark.parametrize("known", ["by the row", "by the source", "not at all", "of the content inside"])
async def test_where_the_target_hashes_the_source_is_read_on_from_there(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.capabilities = replace(target.capabilities, hashes=True)
    source.sums = known in ("by the source", "of the content inside")
    key = f"files/{uuid4()}.zst" if known == "of the content inside" else KEY
    packed = await frames_of(Random(1).randbytes(len(LARGE))) if known == "of the content inside" else LARGE
    await source.put(key, packed)
    if known in ("by the row", "of the content inside"):
        inside = checksum(LARGE if known == "by the row" else Random(1).randbytes(len(LARGE)))
        await dal.files.create(user_id, "large", storage_key=key, file_size=len(LARGE), checksum=inside)
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    starts: list[int] = []
    get = source.get

    async def watched(key: str, *, start: int = 0, **options: Any) -> Reading:
        starts.append(start)
        return await get(key, start=start, **options)

    monkeypatch.setattr(source, "get", watched)
    report = await moved(source, target, dal)
    assert starts[-1] == (3 * MIB if known in ("by the row", "by the source") else 0)
    assert (report.copied, report.problems.counts, target.content(key)) == (1, {}, packed)
    assert await left_of(target) == []


async def test_what_had_arrived_wrong_is_sent_anew_where_only_the_target_hashes_it(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    target.capabilities = replace(target.capabilities, hashes=True)
    await keep(dal, source, user_id, {KEY: LARGE})
    source.spoil(KEY, b"!" + LARGE[1:])
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    source.spoil(KEY, LARGE)
    report = await moved(source, target, dal)
    assert (report.copied, report.problems.counts, target.content(KEY)) == (1, {}, LARGE)
    assert target.calls["put_part"] == PARTS - 3 + PARTS


async def test_between_directories_nothing_is_written_twice(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    source.capabilities = target.capabilities = replace(target.capabilities, backend="file")
    await keep(dal, source, user_id, {KEY: LARGE})
    await moved(source, target, dal)
    assert (target.calls, target.content(KEY)) == ({"put": 1}, LARGE)


async def test_what_has_arrived_does_not_wait_for_the_bound(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    dies_at(target, "put_part", 4)
    await broken_off(source, target, dal)
    clock = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds
        await asyncio.sleep(0)

    await moved(source, target, dal, limit_bytes_s=MIB, timer=lambda: clock, sleep=sleep)
    assert clock == pytest.approx(len(LARGE) / MIB - 4, abs=0.01)


async def test_a_sweep_leaves_an_upload_of_a_move_alone_for_a_day(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)

    async def swept(hours: int) -> int:
        access = DataAccess(dal.store, blobs=target, clock=lambda: now() + timedelta(hours=hours))
        report = await access.files.sweep()
        await access.files.close_contents()
        return report.orphan_uploads

    assert await swept(hours=20) == 0
    assert await swept(hours=25) == 1
    await moved(source, target, dal)
    assert target.content(KEY) == LARGE
    assert await left_of(target) == []


async def test_a_note_that_nobody_can_read_is_no_note(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    dies_at(target, "put_part", 3)
    await broken_off(source, target, dal)
    (note,) = [info.key async for info in target.list(MOVER_UPLOADS)]
    await target.put(note, b"{}")
    await moved(source, target, dal)
    assert target.content(KEY) == LARGE
    assert [info.key async for info in target.list("_dal/")] == []


async def test_the_checksum_of_a_large_blob_is_kept_with_it(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(dal, source, user_id, {KEY: LARGE})
    given: list[object] = []
    start_parts = target.start_parts

    async def start(key: str, **options: Any) -> str:
        given.append(options["checksum"])
        return await start_parts(key, **options)

    monkeypatch.setattr(target, "start_parts", start)
    await moved(source, target, dal)
    info = await source.head(KEY)
    assert isinstance(info, BlobInfo)
    assert given == [info.checksum]
    assert info.checksum is not None


async def test_no_more_parts_are_in_memory_than_may_be(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "CONTENTS_PARTS_AT_ONCE", 3)
    await keep(dal, source, user_id, {f"{KEY}{number}": LARGE for number in range(4)})
    running = most = 0
    three = asyncio.Barrier(3)

    async def begin(_: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await three.wait()

    async def end(_: str) -> None:
        nonlocal running
        running -= 1

    target.before["put_part"], target.after["put_part"] = begin, end
    await moved(source, target, dal)
    assert (most, running, target.calls["put_part"]) == (3, 0, 4 * PARTS)
