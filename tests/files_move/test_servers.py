"""Contents on their way to and from servers that speak S3: R2 in Miniflare, and rclone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dal.access import DataAccess
from dal.blobs.base import BlobStore
from dal.files_move.moving import move
from dal.files_move.verifying import verify
from dal.limits import S3_PART_BYTES
from tests.engines.s3 import S3Engine
from tests.files_move.contents import Watched, everything, keep

CONTENTS = {f"files/{number:03}": f"content {number}".encode() * (number % 40) for number in range(60)} | {
    "files/large": bytes(range(256)) * ((S3_PART_BYTES + 2 * 1024**2) // 256)
}


@pytest_asyncio.fixture(params=["r2_engine", "rclone_engine"])
async def bucket(request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
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
    reached = asyncio.Event()

    async def at(key: str) -> None:
        if key == "files/030":
            reached.set()

    source.after["get"] = at
    moving = asyncio.create_task(move(source, bucket, dal.store, jobs=4))
    await reached.wait()
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    held = await everything(bucket)
    assert all(CONTENTS[key] == content for key, content in held.items())
    report = await move(source, bucket, dal.store)
    assert report.there == len(held)
    assert await everything(bucket) == CONTENTS
