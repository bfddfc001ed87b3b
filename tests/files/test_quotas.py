"""Quotas: never passed, never refusing while there is room, and always the sum of what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from dal import AlreadyExistsError, DataAccess, MissingReferenceError, QuotaExceededError, User
from dal.blobs.base import BlobStore
from dal.limits import FILE_UPLOAD_LIFE_S
from dal.testing import FakeClock
from dal.testing.reaching import reached
from tests.files.conftest import Opened, keys
from tests.files.test_upload import UNKNOWN, content, pieces


async def outcome(upload: object) -> str:
    try:
        await upload  # type: ignore[misc]
    except QuotaExceededError:
        return "refused"
    return "stored"


@pytest.mark.parametrize("by", ["bytes", "files"])
async def test_a_hundred_uploads_at_the_edge_fill_the_quota_exactly(
    dal: DataAccess, opened: Opened, ada: User, blobs: BlobStore, by: str
) -> None:
    other = await opened()
    room = 37
    await dal.files.set_quota(
        ada.id, max_bytes=room * 1000 + 999 if by == "bytes" else None, max_files=room if by == "files" else None
    )
    uploads = [(dal, other)[n % 2].files.upload(ada.id, f"{n}", content(1000)) for n in range(100)]
    outcomes = await asyncio.gather(*map(outcome, uploads))
    assert outcomes.count("stored") == room
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files, usage.reserved_bytes) == (room * 1000, room, 0)
    assert len(await keys(blobs)) == room
    if by == "bytes":
        assert usage.bytes_left == 999
        await other.files.upload(ada.id, "last", content(999))
        assert (await dal.files.usage(ada.id)).bytes_left == 0


async def test_reservations_count_and_are_given_back(dal: DataAccess, ada: User, blobs: BlobStore) -> None:
    await dal.files.set_quota(ada.id, max_bytes=40_000_000, max_files=10)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(size: int) -> AsyncIterator[bytes]:
        yield content(2_000_000)
        begun.set()
        await go_on.wait()
        yield content(size)

    task = asyncio.create_task(dal.files.upload(ada.id, "slow", slow(18_000_000)))
    await reached(begun, task)
    quota = await dal.files.quota(ada.id)
    assert (quota.used_files, quota.reserved_files) == (0, 1)
    assert 2_000_000 <= quota.reserved_bytes <= 40_000_000
    with pytest.raises(QuotaExceededError):
        await dal.files.upload(ada.id, "b", content(40_000_000 - quota.reserved_bytes + 1))
    assert await keys(blobs) == []
    go_on.set()
    file = await task
    usage = await dal.files.usage(ada.id)
    assert file.file_size == usage.used_bytes == 20_000_000
    assert (usage.used_files, usage.reserved_bytes, usage.reserved_files) == (1, 0, 0)
    assert usage.bytes_left == 20_000_000
    # Unknown size, as much room as it takes and not a byte more: neither step of the reservation stands in the way.
    last = await dal.files.upload(ada.id, "last", pieces(content(20_000_000), 1_000_000))
    assert (await dal.files.usage(ada.id)).bytes_left == 0
    await dal.files.delete(last.id)
    with pytest.raises(QuotaExceededError):
        await dal.files.upload(ada.id, "more", pieces(content(20_000_001), 1_000_000))
    assert (await dal.files.usage(ada.id)).used_bytes == 20_000_000
    assert await keys(blobs) == sorted([file.storage_key, last.storage_key])


async def test_a_cancelled_upload_gives_its_room_back(dal: DataAccess, ada: User, blobs: BlobStore) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield content(1_500_000)  # more than is gathered before room is reserved
        yield content(500_000)
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(dal.files.upload(ada.id, "a", endless()))
    await reached(begun, task)
    assert (await dal.files.usage(ada.id)).reserved_bytes > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files, usage.reserved_bytes, usage.reserved_files) == (0, 0, 0, 0)
    assert await keys(blobs) == []
    [entry] = (await dal.files.access_log(user_id=ada.id)).items
    assert (entry.action, entry.success, entry.error_message) == ("upload", False, "cancelled")


async def test_an_expired_reservation_is_given_back_and_its_upload_refused(
    dal: DataAccess, ada: User, clock: FakeClock, blobs: BlobStore
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield content(2_000_000)
        begun.set()
        await go_on.wait()

    task = asyncio.create_task(dal.files.upload(ada.id, "slow", slow()))
    await reached(begun, task)
    assert (await dal.files.usage(ada.id)).reserved_files == 1
    assert (await dal.files.sweep()).expired_uploads == 0
    clock.advance(FILE_UPLOAD_LIFE_S)
    assert (await dal.files.sweep(dry_run=True)).expired_uploads == 1
    assert (await dal.files.usage(ada.id)).reserved_files == 1
    assert (await dal.files.sweep()).expired_uploads == 1
    assert (await dal.files.usage(ada.id)).reserved_files == 0
    go_on.set()
    with pytest.raises(Exception, match="gone"):
        await task
    assert await keys(blobs) == []
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files, usage.reserved_bytes, usage.reserved_files) == (0, 0, 0, 0)


async def test_delete_frees_room_and_restore_takes_it_again(dal: DataAccess, ada: User) -> None:
    await dal.files.set_quota(ada.id, max_bytes=10, max_files=None)
    first = await dal.files.upload(ada.id, "a", b"0123456789")
    await dal.files.delete(first.id)
    second = await dal.files.upload(ada.id, "b", b"9876543210")
    with pytest.raises(QuotaExceededError):
        await dal.files.restore(first.id)
    await dal.files.delete(second.id)
    restored = await dal.files.restore(first.id)
    assert (restored.status, restored.version) == ("active", 3)
    assert await dal.files.read(first.id, verify=True) == b"0123456789"
    assert (await dal.files.usage(ada.id)).bytes_left == 0


async def test_a_quota_is_read_and_set(opened: Opened) -> None:
    dal = await opened(quota_bytes=100, quota_files=2)
    ada = await dal.users.create()
    assert (await dal.files.quota(ada.id)).max_bytes == 100
    await dal.files.upload(ada.id, "a", b"12345")
    quota = await dal.files.quota(ada.id)
    assert (quota.max_bytes, quota.max_files, quota.used_bytes, quota.used_files) == (100, 2, 5, 1)
    quota = await dal.files.set_quota(ada.id, max_bytes=None, max_files=1)
    assert (quota.max_bytes, quota.max_files, quota.used_bytes) == (None, 1, 5)
    with pytest.raises(QuotaExceededError, match="file"):
        await dal.files.upload(ada.id, "b", b"")
    for unknown in (UNKNOWN, "no uuid"):
        assert (await dal.files.usage(unknown)).used_files == 0
        with pytest.raises(MissingReferenceError):
            await dal.files.set_quota(unknown, max_bytes=1, max_files=1)


async def test_of_those_who_want_one_name_one_gets_it(dal: DataAccess, opened: Opened, ada: User) -> None:
    other = await opened()

    async def attempt(number: int) -> bool:
        access = (dal, other)[number % 2]
        try:
            await access.files.upload(ada.id, "name" if number % 5 else f"{number}", b"x", if_absent=bool(number % 5))
        except AlreadyExistsError:
            return False
        return True

    won = await asyncio.gather(*map(attempt, range(25)))
    assert won.count(True) == 1 + 5
    assert [f.filename for f in (await dal.files.list(user_id=ada.id)).items].count("name") == 1
    assert (await dal.files.usage(ada.id)).used_files == 6


async def test_a_deleted_user_leaves_nothing_behind(
    dal: DataAccess, ada: User, bob: User, clock: FakeClock, blobs: BlobStore
) -> None:
    for _ in range(3):
        await dal.files.upload(ada.id, "a", content(2000))
    upload = await dal.files.start_upload(ada.id, "parts", total_size=10)
    kept = await dal.files.upload(bob.id, "b", b"b")
    await dal.users.delete(ada.id)
    clock.advance(timedelta(days=2).total_seconds())
    now = max([blob.modified_at async for blob in blobs.list()]) + timedelta(days=1)
    clock.now = max(clock.now, now)
    report = await dal.files.sweep()
    assert (report.orphan_blobs, report.orphan_bytes, report.orphan_uploads) == (3, 6000, 1)
    assert await keys(blobs) == [kept.storage_key]
    assert [u async for u in blobs.list_uploads()] == [], upload
    assert (await dal.files.usage(ada.id)).used_files == 0
