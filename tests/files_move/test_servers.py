"""Contents on their way to and from servers that speak S3: R2 in Miniflare, and rclone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dal.access import DataAccess
from dal.blobs.base import BlobStore, Data, Part
from dal.blobs.counted import Counted
from dal.blobs.s3 import S3BlobStore
from dal.files_move import resuming, throttle, transfer
from dal.files_move.moving import move
from dal.files_move.options import MoveOptions
from dal.files_move.verifying import verify
from dal.limits import S3_PART_BYTES
from dal.testing.reaching import reached
from tests.engines.s3 import S3Engine
from tests.files_move.contents import Killed, Watched, checksum, everything, keep

CONTENTS = {f"files/{number:03}": f"content {number}".encode() * (number % 40) for number in range(60)} | {
    "files/large": bytes(range(256)) * ((S3_PART_BYTES + 2 * 1024**2) // 256)
}


@pytest_asyncio.fixture(params=["r2_engine", "rclone_engine"])
async def bucket(request: pytest.FixtureRequest) -> AsyncIterator[S3BlobStore]:
    engine: S3Engine = request.getfixturevalue(request.param)
    store = engine.store()
    await store.open()
    yield store
    await store.close()


async def test_contents_go_into_a_bucket_and_come_back_the_same(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, bucket: BlobStore
) -> None:
    await keep(dal, source, user_id, CONTENTS)
    there = await move(source, bucket, dal.store)
    assert (there.copied, there.problems.counts) == (len(CONTENTS), {})
    checked = await verify(source, bucket, dal.store, deep=True)
    assert (checked.there, checked.read, checked.problems.counts) == (len(CONTENTS), len(CONTENTS), {})
    again = await move(source, bucket, dal.store)
    assert (again.there, again.copied) == (len(CONTENTS), 0)

    await keep(dal, bucket, user_id, {"files/zzz": b"uploaded since"})
    back = await move(bucket, target, dal.store, action="rollback")
    assert (back.copied, back.problems.counts) == (len(CONTENTS) + 1, {})
    assert await everything(target) == CONTENTS | {"files/zzz": b"uploaded since"}


async def test_a_move_into_a_bucket_that_is_broken_off_leaves_whole_blobs_alone(
    dal: DataAccess, source: Watched, user_id: str, bucket: BlobStore
) -> None:
    await keep(dal, source, user_id, CONTENTS)
    begun = asyncio.Event()

    async def at(key: str) -> None:
        if key == "files/030":
            begun.set()

    source.after["get"] = at
    moving = asyncio.create_task(move(source, bucket, dal.store, options=MoveOptions(jobs=4)))
    await reached(begun, moving)
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    held = await everything(bucket)
    assert all(CONTENTS[key] == content for key, content in held.items())
    report = await move(source, bucket, dal.store)
    assert report.there == len(held)
    assert await everything(bucket) == CONTENTS


async def test_a_large_blob_goes_on_in_a_bucket_behind_what_has_arrived(
    dal: DataAccess, source: Watched, user_id: str, bucket: S3BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_bytes, parts = bucket.capabilities.min_part_bytes, 5
    monkeypatch.setattr(transfer, "CONTENTS_PARTS_BYTES", part_bytes)
    monkeypatch.setattr(resuming, "S3_PART_BYTES", part_bytes)
    monkeypatch.setattr(resuming, "CONTENTS_NOTE_S", 0.0)
    monkeypatch.setattr(throttle, "CONTENTS_PARTS_AT_ONCE", 1)
    content = random.Random(1).randbytes((parts - 1) * part_bytes + 100)
    await keep(dal, source, user_id, {"files/a": b"small", "files/large": content})
    sent: list[int] = []
    put_part = bucket.put_part

    async def dying(key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        if len(sent) == 3:
            raise Killed
        sent.append(number)
        return await put_part(key, upload_id, number, data, size=size)

    monkeypatch.setattr(bucket, "put_part", dying)
    with pytest.raises(Killed):
        await move(source, bucket, dal.store)
    assert (sent, await bucket.head("files/large")) == ([1, 2, 3], None)

    monkeypatch.setattr(bucket, "put_part", put_part)
    counted = Counted(bucket, "s3")
    report = await move(source, counted, dal.store)
    assert (report.copied, report.there, report.problems.counts) == (1, 1, {})
    lease_and_notes = 10_000
    assert 0 < counted.take()["ingress"] - (len(content) - 3 * part_bytes) < lease_and_notes
    stored = await bucket.head("files/large")
    assert stored is not None
    assert stored.checksum == checksum(content)
    assert await everything(bucket) == {"files/a": b"small", "files/large": content}
    if bucket.capabilities.list_parts:
        assert [upload async for upload in bucket.list_uploads()] == []
