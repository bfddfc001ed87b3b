"""Uploads in parts."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from dal.blobs.base import BlobStore, Part
from dal.errors import (
    AlreadyExistsError,
    CorruptDataError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)
from dal.testing.blobs.data import content, keys, pieces, read


def part_bytes(store: BlobStore) -> int:
    """What every part but the last has in these tests."""
    return max(store.capabilities.min_part_bytes, 70_000)


class PartsConformance:
    """`start_parts`, `put_part`, `list_parts`, `complete_parts`, `abort_parts` and `list_uploads`."""

    async def test_parts_in_any_order_become_one_blob(self, store: BlobStore) -> None:
        size = part_bytes(store)
        whole = content(2 * size + 1234)
        upload_id = await store.start_parts("p/a", content_type="image/webp")
        parts = []
        for number in (3, 1, 2):
            part = whole[(number - 1) * size : number * size]
            stream = pieces(part) if number == 2 else part
            parts.append(await store.put_part("p/a", upload_id, number, stream, size=len(part)))
        assert [(part.number, part.size) for part in parts] == [(3, 1234), (1, size), (2, size)]
        assert await store.head("p/a") is None, "it is not there before it is complete"
        info = await store.complete_parts("p/a", upload_id, parts)
        assert (info.key, info.size) == ("p/a", len(whole))
        found = await store.head("p/a")
        assert found is not None
        assert (found.size, found.content_type) == (len(whole), "image/webp")
        assert await read(store, "p/a") == whole
        assert await read(store, "p/a", size - 3, size + 3) == whole[size - 3 : size + 3]
        with pytest.raises(NotFoundError):
            await store.complete_parts("p/a", upload_id, parts)
        with pytest.raises(NotFoundError):
            await store.put_part("p/a", upload_id, 4, b"x", size=1)
        await store.abort_parts("p/a", upload_id)
        assert await read(store, "p/a") == whole

    async def test_parts_arrive_at_once(self, store: BlobStore) -> None:
        size = part_bytes(store)
        whole = content(3 * size)
        upload_id = await store.start_parts("p/a")
        parts = await asyncio.gather(
            *(store.put_part("p/a", upload_id, n + 1, whole[n * size : (n + 1) * size], size=size) for n in range(3))
        )
        await store.complete_parts("p/a", upload_id, parts)
        assert await read(store, "p/a") == whole

    async def test_a_part_sent_again_takes_the_place_of_the_first(self, store: BlobStore) -> None:
        upload_id = await store.start_parts("p/a")
        first = await store.put_part("p/a", upload_id, 1, b"first", size=5)
        second = await store.put_part("p/a", upload_id, 1, b"second", size=6)
        with pytest.raises(InvalidInputError):
            await store.complete_parts("p/a", upload_id, [first])
        await store.complete_parts("p/a", upload_id, [second])
        assert await read(store, "p/a") == b"second"

    async def test_what_arrived_is_listed_and_the_upload_goes_on(self, store: BlobStore) -> None:
        if not store.capabilities.list_parts:
            upload_id = await store.start_parts("p/a")
            with pytest.raises(UnsupportedError):
                await store.list_parts("p/a", upload_id)
            with pytest.raises(UnsupportedError):
                [upload async for upload in store.list_uploads()]
            await store.abort_parts("p/a", upload_id)
            return
        before = datetime.now(UTC) - timedelta(seconds=2)
        size = part_bytes(store)
        upload_id = await store.start_parts("p/a")
        assert await store.list_parts("p/a", upload_id) == []
        parts = [
            await store.put_part("p/a", upload_id, 2, b"end", size=3),
            await store.put_part("p/a", upload_id, 1, content(size), size=size),
        ]
        assert list(await store.list_parts("p/a", upload_id)) == sorted(parts)
        other = await store.start_parts("q")
        uploads = [upload async for upload in store.list_uploads()]
        assert sorted((upload.key, upload.upload_id) for upload in uploads) == [("p/a", upload_id), ("q", other)]
        assert all(before <= upload.started_at <= datetime.now(UTC) + timedelta(seconds=2) for upload in uploads)
        assert [upload.key async for upload in store.list_uploads("p/")] == ["p/a"]
        await store.complete_parts("p/a", upload_id, await store.list_parts("p/a", upload_id))
        assert await read(store, "p/a") == content(size) + b"end"
        assert [upload.key async for upload in store.list_uploads()] == ["q"]

    async def test_an_aborted_upload_is_gone(self, store: BlobStore) -> None:
        upload_id = await store.start_parts("p/a")
        part = await store.put_part("p/a", upload_id, 1, b"x", size=1)
        await store.abort_parts("p/a", upload_id)
        await store.abort_parts("p/a", upload_id)
        with pytest.raises(NotFoundError):
            await store.complete_parts("p/a", upload_id, [part])
        with pytest.raises(NotFoundError):
            await store.put_part("p/a", upload_id, 1, b"x", size=1)
        assert await keys(store) == []

    async def test_an_upload_that_never_was_is_said(self, store: BlobStore) -> None:
        upload_id = await store.start_parts("p/a")
        for wrong in ("0" * 32, "../../etc", "", "a&b=c", "ü"):
            with pytest.raises(NotFoundError):
                await store.put_part("p/a", wrong, 1, b"x", size=1)
            with pytest.raises(NotFoundError):
                await store.complete_parts("p/a", wrong, [Part(1, 1, "x")])
            await store.abort_parts("p/a", wrong)
        await store.put_part("p/a", upload_id, 1, b"x", size=1)
        assert await store.head("p/a") is None

    async def test_an_upload_is_of_one_key(self, store: BlobStore) -> None:
        upload_id = await store.start_parts("p/a")
        with pytest.raises(NotFoundError):
            await store.put_part("p/b", upload_id, 1, b"x", size=1)
        with pytest.raises(NotFoundError):
            await store.complete_parts("p/b", upload_id, [Part(1, 1, "x")])
        part = await store.put_part("p/a", upload_id, 1, b"x", size=1)
        await store.complete_parts("p/a", upload_id, [part])
        assert await keys(store) == ["p/a"]

    async def test_a_part_that_differs_from_its_announcement_is_not_stored(self, store: BlobStore) -> None:
        upload_id = await store.start_parts("p/a")
        for wrong in (b"four", pieces(b"four"), pieces(content(100_000))):
            with pytest.raises(CorruptDataError):
                await store.put_part("p/a", upload_id, 1, wrong, size=5)
        if store.capabilities.list_parts:
            assert await store.list_parts("p/a", upload_id) == []
        part = await store.put_part("p/a", upload_id, 1, b"fiver", size=5)
        await store.complete_parts("p/a", upload_id, [part])
        assert await read(store, "p/a") == b"fiver"

    async def test_parts_that_the_rules_forbid_are_refused(self, store: BlobStore) -> None:
        can, size = store.capabilities, part_bytes(store)
        upload_id = await store.start_parts("p/a")
        for number in (0, -1):
            with pytest.raises(InvalidInputError):
                await store.put_part("p/a", upload_id, number, b"x", size=1)
        with pytest.raises(LimitExceededError):
            await store.put_part("p/a", upload_id, can.max_parts + 1, b"x", size=1)
        with pytest.raises(LimitExceededError):
            await store.put_part("p/a", upload_id, 1, b"x", size=can.max_part_bytes + 1)
        small = await store.put_part("p/a", upload_id, 1, b"x", size=1)
        large = await store.put_part("p/a", upload_id, 2, content(size + 1), size=size + 1)
        forbidden: list[list[Part]] = [[], [small, small], [small, Part(9, 1, small.etag)]]
        if can.min_part_bytes > 1:
            forbidden.append([small, large])
        if can.equal_parts:
            equal = await store.put_part("p/a", upload_id, 1, content(size), size=size)
            forbidden.append([equal, large])
        for parts in forbidden:
            with pytest.raises(InvalidInputError):
                await store.complete_parts("p/a", upload_id, parts)
        assert await store.head("p/a") is None

    async def test_completing_replaces_what_was_there(self, store: BlobStore) -> None:
        await store.put("p/a", b"before")
        upload_id = await store.start_parts("p/a")
        part = await store.put_part("p/a", upload_id, 1, b"after", size=5)
        assert await read(store, "p/a") == b"before"
        if store.capabilities.if_absent:
            with pytest.raises(AlreadyExistsError):
                await store.complete_parts("p/a", upload_id, [part], if_absent=True)
            assert await read(store, "p/a") == b"before"
        await store.complete_parts("p/a", upload_id, [part])
        assert await read(store, "p/a") == b"after"
        if store.capabilities.if_absent:
            upload_id = await store.start_parts("p/b")
            part = await store.put_part("p/b", upload_id, 1, b"first", size=5)
            await store.complete_parts("p/b", upload_id, [part], if_absent=True)
            assert await read(store, "p/b") == b"first"

    async def test_the_checksum_of_the_whole_is_kept_where_it_is_said(self, store: BlobStore) -> None:
        checksum = f"sha256:{hashlib.sha256(b'content').hexdigest()}"
        upload_id = await store.start_parts("p/a", checksum=checksum)
        part = await store.put_part("p/a", upload_id, 1, b"content", size=7)
        await store.complete_parts("p/a", upload_id, [part])
        found = await store.head("p/a")
        assert found is not None
        assert found.checksum == checksum
        if store.capabilities.hashes:
            upload_id = await store.start_parts("p/b")
            part = await store.put_part("p/b", upload_id, 1, b"content", size=7)
            assert (await store.complete_parts("p/b", upload_id, [part])).checksum == checksum
