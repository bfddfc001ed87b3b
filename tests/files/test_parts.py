"""Uploads in parts: any order, any process, replaced, gone on with, completed once, given up, expired."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from dal import (
    AccessDeniedError,
    CorruptDataError,
    DataAccess,
    FileRecord,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    QuotaExceededError,
    User,
)
from dal.blobs.base import BlobStore
from dal.file_models import Caller
from dal.files.keys import place_of
from dal.limits import FILE_GRACE_S, FILE_UPLOAD_LIFE_S
from dal.testing import FakeClock
from dal.values import new_id
from tests.files.conftest import Opened, keys
from tests.files.test_upload import UNKNOWN, checksum, content, pieces

PART = 1_500_000


async def test_parts_in_any_order_from_anybody_make_the_file(
    dal: DataAccess, opened: Opened, ada: User, blobs: BlobStore, tmp_path: Path
) -> None:
    other = await opened()
    data = content(2 * PART + 700)
    upload = await dal.files.start_upload(
        ada.id, "big.bin", total_size=len(data), part_size=PART, metadata={"k": 1}, checksum=checksum(data)
    )
    quota = await dal.files.quota(ada.id)
    assert (quota.reserved_bytes, quota.reserved_files, quota.used_files) == (len(data), 1, 0)
    path = tmp_path / "second"
    path.write_bytes(data[PART : 2 * PART])
    last = await other.files.upload_part(upload.upload_id, 3, data[2 * PART :])
    assert (last.part_number, last.size, last.checksum) == (3, 700, checksum(data[2 * PART :]))
    with pytest.raises(InvalidInputError, match="2 of 3 parts are missing, the first is number 1"):
        await dal.files.complete_upload(upload.upload_id)
    await dal.files.upload_part(upload.upload_id, 2, path)
    await dal.files.upload_part(upload.upload_id, 1, b"\0" * PART)
    await other.files.upload_part(upload.upload_id, 1, pieces(data[:PART]))
    assert [p.part_number for p in await dal.files.list_parts(upload.upload_id)] == [1, 2, 3]
    [listed] = (await dal.files.list_uploads(user_id=ada.id)).items
    assert (listed.upload_id, listed.parts_uploaded, listed.status) == (upload.upload_id, 3, "active")
    done = await asyncio.gather(
        dal.files.complete_upload(upload.upload_id), other.files.complete_upload(upload.upload_id)
    )
    file = done[0]
    assert done[1] == file == await dal.files.complete_upload(upload.upload_id)
    assert (file.checksum, file.file_size, file.metadata) == (checksum(data), len(data), {"k": 1})
    assert await dal.files.read(file.id, verify=True) == data
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files, usage.reserved_bytes, usage.reserved_files) == (len(data), 1, 0, 0)
    assert (await dal.files.list_uploads(user_id=ada.id)).items == []
    assert len((await dal.files.list_uploads(user_id=ada.id, status="completed")).items) == 1
    assert await keys(blobs) == [file.storage_key]
    for call in (
        dal.files.upload_part(upload.upload_id, 1, data[:PART]),
        dal.files.list_parts(upload.upload_id),
        dal.files.list_parts(UNKNOWN),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert await dal.files.abort_upload(upload.upload_id) is False


async def test_parts_of_an_upload_of_unknown_size_reserve_their_own_room(dal: DataAccess, ada: User) -> None:
    await dal.files.set_quota(ada.id, max_bytes=5000, max_files=1)
    upload = await dal.files.start_upload(ada.id, "a")
    with pytest.raises(QuotaExceededError):
        await dal.files.upload(ada.id, "second file", b"")
    data = [content(2000), content(1000), content(2000)]
    for number in (2, 3, 1):
        await dal.files.upload_part(upload.upload_id, number, data[number - 1])
    await dal.files.upload_part(upload.upload_id, 2, data[1])
    assert (await dal.files.usage(ada.id)).reserved_bytes == 5000
    with pytest.raises(QuotaExceededError):
        await dal.files.upload_part(upload.upload_id, 4, b"x")
    file = await dal.files.complete_upload(upload.upload_id)
    assert await dal.files.read(file.id, verify=True) == b"".join(data)
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.reserved_bytes, usage.bytes_left) == (5000, 0, 0)


async def test_what_is_not_as_announced_is_refused_and_nothing_kept(opened: Opened, blobs: BlobStore) -> None:
    dal = await opened(allowed_types=("image/*",))
    ada = await dal.users.create()
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
    for data, announced in ((b"%PDF-1.4" + bytes(100), None), (png, checksum(b"other"))):
        upload = await dal.files.start_upload(ada.id, "a.png", total_size=len(data), checksum=announced)
        await dal.files.upload_part(upload.upload_id, 1, data)
        with pytest.raises(InvalidInputError if announced is None else CorruptDataError):
            await dal.files.complete_upload(upload.upload_id)
        with pytest.raises(NotFoundError):
            await dal.files.complete_upload(upload.upload_id)
    assert await keys(blobs) == []
    assert (await dal.files.usage(ada.id)).reserved_files == 0
    assert (await dal.files.list(user_id=ada.id)).items == []


async def test_an_upload_given_up_or_expired_leaves_nothing(
    dal: DataAccess, ada: User, blobs: BlobStore, clock: FakeClock
) -> None:
    for ending in ("abort", "expiry"):
        upload = await dal.files.start_upload(ada.id, "a", total_size=10)
        await dal.files.upload_part(upload.upload_id, 1, b"0123456789")
        if ending == "abort":
            assert await dal.files.abort_upload(upload.upload_id) is True
        else:
            clock.advance(FILE_UPLOAD_LIFE_S)
            with pytest.raises(NotFoundError):
                await dal.files.complete_upload(upload.upload_id)
            assert (await dal.files.sweep()).expired_uploads == 1
        assert await dal.files.abort_upload(upload.upload_id) is False
        assert (await dal.files.usage(ada.id)).reserved_bytes == 0
        assert [u async for u in blobs.list_uploads()] == []
        assert await keys(blobs) == []


async def test_sizes_that_cannot_be_are_refused_before_anything_is_sent(
    opened: Opened, ada: User, bob: User, dal: DataAccess
) -> None:
    limited = await opened(max_file_bytes=1000)
    with pytest.raises(LimitExceededError):
        await limited.files.start_upload(ada.id, "a", total_size=1001)
    upload = await dal.files.start_upload(ada.id, "a", total_size=25, part_size=10)
    assert upload.part_size == 10
    for number, size in ((1, 9), (1, 11), (3, 6), (4, 1), (0, 10)):
        with pytest.raises(InvalidInputError):
            await dal.files.upload_part(upload.upload_id, number, bytes(size))
    unknown = await limited.files.start_upload(ada.id, "b")
    with pytest.raises(LimitExceededError):
        await limited.files.upload_part(unknown.upload_id, 1, bytes(1001))

    async def many() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)

    with pytest.raises(InvalidInputError, match="size"):
        await dal.files.upload_part((await dal.files.start_upload(ada.id, "c")).upload_id, 1, many())
    with pytest.raises(AccessDeniedError):
        await dal.files.upload_part(upload.upload_id, 1, bytes(10), by=Caller(user_id=bob.id))
    with pytest.raises(AccessDeniedError):
        await dal.files.abort_upload(UNKNOWN, by=Caller(user_id=bob.id))
    empty = await dal.files.start_upload(ada.id, "empty", total_size=0)
    await dal.files.upload_part(empty.upload_id, 1, b"")
    assert (await dal.files.complete_upload(empty.upload_id)).file_size == 0
    assert os.path.sep not in empty.filename


async def test_what_came_in_parts_takes_the_place_of_equal_content_that_is_there(
    opened: Opened, blobs: BlobStore
) -> None:
    dal = await opened(deduplicate=True, retention_s=0.0)
    other = await opened(deduplicate=True)
    ada = await dal.users.create()
    data = content(PART + 7)

    async def in_parts(access: DataAccess) -> FileRecord:
        upload = await access.files.start_upload(ada.id, "big.bin", total_size=len(data), part_size=PART)
        for number in (2, 1):
            await access.files.upload_part(upload.upload_id, number, data[(number - 1) * PART : number * PART])
        done = await asyncio.gather(
            dal.files.complete_upload(upload.upload_id), other.files.complete_upload(upload.upload_id)
        )
        assert done[0] == done[1] == await access.files.complete_upload(upload.upload_id)
        return done[0]

    first = await in_parts(dal)
    whole = await dal.files.upload(ada.id, "whole", data)
    # At once, and none of them there before.
    files = [first, whole, *await asyncio.gather(in_parts(dal), in_parts(other))]
    [key] = await keys(blobs)
    assert {place_of(file.storage_key).blob_key for file in files} == {key}
    assert len({file.id for file in files}) == 4
    for file in files:
        assert await dal.files.read(file.id, verify=True) == data
    assert (await dal.files.usage(ada.id)).used_bytes == 4 * len(data)
    for file in files[:3]:
        await dal.files.delete(file.id)
    assert (await dal.files.sweep()).purged_files == 3
    assert await dal.files.read(files[3].id) == data
    await dal.files.delete(files[3].id)
    await dal.files.sweep()
    assert await keys(blobs) == []
    assert (await dal.files.usage(ada.id)).used_bytes == 0


async def test_an_upload_in_parts_that_would_be_shared_and_was_left_is_swept(
    opened: Opened, blobs: BlobStore, clock: FakeClock
) -> None:
    dal = await opened(deduplicate=True)
    ada = await dal.users.create()
    upload = await dal.files.start_upload(ada.id, "left")
    await dal.files.upload_part(upload.upload_id, 1, b"left")
    given_up = await dal.files.start_upload(ada.id, "given up")
    await dal.files.upload_part(given_up.upload_id, 1, b"given up")
    assert await dal.files.abort_upload(given_up.upload_id)
    clock.advance(FILE_UPLOAD_LIFE_S)
    report = await dal.files.sweep()
    assert (report.expired_uploads, report.orphan_uploads) == (1, 0)
    # A row that was lost: the blob store knows the upload, and the rows do not.
    lost = await blobs.start_parts(f"shared/{new_id()}")
    assert lost
    [found] = [u async for u in blobs.list_uploads("shared/")]
    clock.now = found.started_at + timedelta(seconds=2 * FILE_GRACE_S)
    assert (await dal.files.sweep()).orphan_uploads == 1
    assert [u async for u in blobs.list_uploads("shared/")] == []
