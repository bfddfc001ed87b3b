"""Blobs written and read whole, in ranges, and by their names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from dal.blobs.base import BlobStore
from dal.errors import (
    AlreadyExistsError,
    CorruptDataError,
    DalError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)
from dal.testing.blobs import data
from dal.testing.blobs.data import checksum, content, keys, pieces, read
from dal.testing.reaching import reached

#: Neighbours in the order of bytes: '-' '.' '/' '0' 'A' '_' 'a'.
ORDERED = ("o-", "o.", "o/-", "o/a/b", "o/a0", "o0", "oA", "oB/c", "o_", "oa/B", "oa/b", "ob")
LARGE_BYTES = 9 * 1024 * 1024 + 1  # more than one part of any store


class WholeConformance:
    """`put`, `get`, `head`, `delete`, `list` and `copy`."""

    async def test_what_was_put_reads_back_with_all_that_is_known_of_it(self, store: BlobStore) -> None:
        for number, size in enumerate((0, 1, 1000, 1024 * 1024, 1024 * 1024 + 1)):
            stored = content(size, number)
            before = datetime.now(UTC) - timedelta(seconds=2)
            info = await store.put(f"w/{size}", stored, content_type="text/plain; charset=utf-8")
            assert (info.key, info.size, info.checksum) == (f"w/{size}", size, checksum(stored))
            found = await store.head(f"w/{size}")
            assert found is not None
            assert (found.key, found.size) == (f"w/{size}", size)
            assert found.content_type == "text/plain; charset=utf-8"
            assert found.checksum in (checksum(stored), None)
            assert found.modified_at.utcoffset() == timedelta(0)
            assert before <= found.modified_at <= datetime.now(UTC) + timedelta(seconds=2)
            reading = await store.get(f"w/{size}")
            assert reading.info[:2] == found[:2]
            assert await reading.read() == stored

    async def test_a_large_stream_is_stored_and_read_in_small_pieces(self, store: BlobStore) -> None:
        stored = content(LARGE_BYTES)
        for size in (None, LARGE_BYTES):
            info = await store.put("large", pieces(stored), size=size, content_type="video/mp4")
            assert (info.size, info.content_type, info.checksum) == (LARGE_BYTES, "video/mp4", checksum(stored))
            reading = await store.get("large")
            found = [piece async for piece in reading.data]
            assert b"".join(found) == stored
            assert max(map(len, found)) <= 1024 * 1024
        known = await store.put("large", pieces(stored), checksum=checksum(stored))
        assert known.checksum == checksum(stored)

    async def test_a_range_is_read_alone(self, store: BlobStore) -> None:
        stored = content(600_000)
        await store.put("r", stored)
        for start, end in ((0, 1), (1, 4), (0, None), (599_999, None), (250_000, 550_001), (0, 10**12), (7, 7)):
            reading = await store.get("r", start=start, end=end)
            assert reading.info.size == len(stored), "the info is the whole blob's"
            assert await reading.read() == stored[start:end], (start, end)
        assert await read(store, "r", 600_000) == b"", "the end of a blob is a place in it"
        await store.put("empty", b"")
        assert await read(store, "empty") == b""
        assert await read(store, "empty", 0, 10) == b""

    async def test_a_range_that_is_none_is_refused(self, store: BlobStore) -> None:
        await store.put("r", b"0123456789")
        for start, end in ((-1, None), (5, 4), (11, None), (11, 12)):
            with pytest.raises(InvalidInputError):
                await store.get("r", start=start, end=end)

    async def test_a_reading_may_be_left_early(self, store: BlobStore) -> None:
        await store.put("r", content(2_000_000))
        for _ in range(20):
            reading = await store.get("r")
            async with reading:
                assert await anext(reading.data)
        untouched = await store.get("r")
        await untouched.data.aclose()
        await untouched.data.aclose()
        assert len(await read(store, "r")) == 2_000_000

    async def test_a_blob_is_replaced_as_a_whole(self, store: BlobStore) -> None:
        await store.put("w", content(200_000, 1), content_type="text/plain")
        first = await store.head("w")
        await store.put("w", content(100, 2), content_type="text/html")
        second = await store.head("w")
        assert first is not None
        assert second is not None
        assert await read(store, "w") == content(100, 2)
        assert (second.size, second.content_type) == (100, "text/html")
        assert first.etag is None or first.etag != second.etag

    async def test_if_absent_never_replaces(self, store: BlobStore) -> None:
        if not store.capabilities.if_absent:
            with pytest.raises(UnsupportedError):
                await store.put("w", b"1", if_absent=True)
            return
        await store.put("w", b"1", if_absent=True)
        with pytest.raises(AlreadyExistsError):
            await store.put("w", b"2", if_absent=True)
        with pytest.raises(AlreadyExistsError):
            await store.put("w", pieces(content(LARGE_BYTES)), if_absent=True)
        assert await read(store, "w") == b"1"
        results = await asyncio.gather(
            *(store.put("race", bytes([n]), if_absent=True) for n in range(8)), return_exceptions=True
        )
        (winner,) = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert sum(isinstance(result, AlreadyExistsError) for result in results) == 7, results
        assert await read(store, "race") == bytes([winner])

    async def test_what_differs_from_its_announcement_is_not_stored(self, store: BlobStore) -> None:
        small, large = content(1000), content(LARGE_BYTES)
        for stored in (small, pieces(small), pieces(large)):
            with pytest.raises(CorruptDataError):
                await store.put("w", stored, size=LARGE_BYTES - 1 if stored is not small else 999)
            assert await store.head("w") is None
        for wrong in (small, pieces(small), pieces(large)):
            with pytest.raises(CorruptDataError):
                await store.put("w", wrong, checksum=checksum(b"other"))
            assert await store.head("w") is None
        await store.put("w", small, size=1000, checksum=checksum(small))
        with pytest.raises(CorruptDataError):
            await store.put("w", pieces(large), size=5)
        assert await read(store, "w") == small
        await self._nothing_under_way(store)

    async def test_no_more_is_taken_than_was_announced(self, store: BlobStore) -> None:
        taken = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal taken
            while True:
                taken += 1
                yield bytes(100_000)

        with pytest.raises(CorruptDataError):
            await store.put("w", endless(), size=300_000)
        assert taken <= 4
        assert await store.head("w") is None
        upload_id = await store.start_parts("p")
        with pytest.raises(CorruptDataError):
            await store.put_part("p", upload_id, 1, endless(), size=300_000)
        assert taken <= 8
        await store.abort_parts("p", upload_id)

    async def test_a_stream_that_fails_leaves_what_was_there(self, store: BlobStore) -> None:
        await store.put("w", b"before")
        for size in (10, LARGE_BYTES):
            with pytest.raises(ZeroDivisionError):
                await store.put("w", data.broken(content(size), ZeroDivisionError()))
        assert await read(store, "w") == b"before"
        await self._nothing_under_way(store)

    async def test_a_cancelled_put_leaves_what_was_there(self, store: BlobStore) -> None:
        await store.put("w", b"before")
        for size in (10, LARGE_BYTES):
            there = asyncio.Event()

            async def stuck(size: int = size, there: asyncio.Event = there) -> AsyncIterator[bytes]:
                async for piece in pieces(content(size)):
                    yield piece
                there.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(store.put("w", stuck()))
            await reached(there, task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await read(store, "w") == b"before"
        await self._nothing_under_way(store)

    async def test_what_is_not_there_is_said(self, store: BlobStore) -> None:
        assert await store.head("nothing/here") is None
        for start, end in ((0, None), (1, 2), (0, 0)):
            with pytest.raises(NotFoundError):
                await store.get("nothing/here", start=start, end=end)
        with pytest.raises(NotFoundError):
            await store.copy("nothing/here", "there")
        assert await store.head("there") is None

    async def test_deleted_blobs_are_gone_and_the_others_stay(self, store: BlobStore) -> None:
        for key in ("d/1", "d/2", "d/3"):
            await store.put(key, b"x")
        await store.delete(["d/1", "d/3", "d/none"])
        await store.delete(["d/1"])
        await store.delete([])
        assert await keys(store) == ["d/2"]
        assert await store.head("d/1") is None

    async def test_a_listing_is_in_the_order_of_bytes_from_any_place(self, store: BlobStore) -> None:
        wanted = list(ORDERED)
        for key in reversed(wanted):
            await store.put(key, key.encode())
        await store.put("n/before", b"")
        assert await keys(store) == ["n/before", *wanted]
        assert await keys(store, "o") == wanted
        for prefix in ("o/", "o/a", "oa", "oB", "o/a/b", "o/a/b/c", "p"):
            assert await keys(store, prefix) == [key for key in wanted if key.startswith(prefix)], prefix
        for after in ("o", "o.", "o/", "o/a/b", "o0", "oa/b", "z"):
            assert await keys(store, "", after) == [key for key in ["n/before", *wanted] if key > after], after
        assert await keys(store, "o/", "o/-") == ["o/a/b", "o/a0"]
        found = [info async for info in store.list("oB")]
        assert [info.size for info in found] == [4]
        assert found[0].modified_at.utcoffset() == timedelta(0)

    async def test_a_listing_may_be_left_early(self, store: BlobStore) -> None:
        for number in range(5):
            await store.put(f"l/{number}", b"x")
        listing = store.list("l/")
        assert (await anext(listing)).key == "l/0"
        await listing.aclose()  # type: ignore[attr-defined]  # every one of ours is a generator
        assert len(await keys(store)) == 5

    async def test_a_copy_is_a_blob_of_its_own(self, store: BlobStore) -> None:
        stored = content(300_000)
        await store.put("c/1", stored, content_type="image/png")
        info = await store.copy("c/1", "c/2")
        assert (info.key, info.size) == ("c/2", 300_000)
        await store.copy("c/1", "c/2")
        await store.delete(["c/1"])
        found = await store.head("c/2")
        assert found is not None
        assert found.content_type == "image/png"
        assert found.checksum in (checksum(stored), None)
        assert await read(store, "c/2") == stored

    async def test_keys_that_are_none_are_refused_by_every_call(self, store: BlobStore) -> None:
        bad = (
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "a/../b",
            "../a",
            "a/.",
            "a b",
            "a\0",
            "a\n",
            "ü",
            "a%2e",
            "a\\b",
            "x" * 1025,
        )
        for key in bad:
            for call in (
                store.put(key, b"x"),
                store.get(key),
                store.head(key),
                store.delete([key]),
                store.copy(key, "good"),
                store.start_parts(key),
            ):
                with pytest.raises(InvalidInputError):
                    await call
        await store.put("good", b"x")
        with pytest.raises(InvalidInputError):
            await store.copy("good", "../bad")
        with pytest.raises(InvalidInputError):
            await keys(store, "a b")
        assert await keys(store) == ["good"]

    async def test_odd_keys_are_kept_apart(self, store: BlobStore) -> None:
        odd = ["b", "A", "a/a", "a.b", "a..b", "...", "-", "_", "Aa/aA", "x" * 250 + "/" + "Y" * 200, "k" * 900]
        for key in odd:
            await store.put(key, key.encode())
        assert await keys(store) == sorted(odd)
        for key in odd:
            assert await read(store, key) == key.encode()

    async def test_a_key_may_be_the_beginning_of_another(self, store: BlobStore) -> None:
        for key in ("a/b/c", "a", "a/b", "ab"):
            await store.put(key, key.encode())
        assert await keys(store) == ["a", "a/b", "a/b/c", "ab"]
        assert await keys(store, "a/") == ["a/b", "a/b/c"]
        await store.delete(["a/b"])
        assert await read(store, "a/b/c") == b"a/b/c"
        assert await read(store, "a") == b"a"

    async def test_what_a_media_type_cannot_be_is_refused(self, store: BlobStore) -> None:
        for content_type in ("", "text", "text/plain\r\nx: y", "text/plain; x=\n", "a/b" * 100, "text/ü"):
            with pytest.raises(InvalidInputError):
                await store.put("w", b"x", content_type=content_type)
        for size, digest in ((-1, None), (1, "sha256:xyz"), (1, "md5:abc")):
            with pytest.raises(InvalidInputError):
                await store.put("w", b"x", size=size, checksum=digest)
        assert await store.head("w") is None

    async def test_many_tasks_at_once_do_not_mix_blobs_up(self, store: BlobStore) -> None:
        async def round_trip(number: int) -> None:
            stored = content(100_000 + number, number)
            await store.put(f"m/{number}", pieces(stored))
            assert await read(store, f"m/{number}") == stored

        await asyncio.gather(*(round_trip(number) for number in range(24)))

    async def test_readers_of_a_blob_that_is_replaced_see_one_or_the_other(self, store: BlobStore) -> None:
        versions = [content(500_000 + n, n) for n in range(4)]
        await store.put("v", versions[0])

        async def write() -> None:
            for version in versions[1:]:
                await store.put("v", version)

        async def look() -> None:
            try:
                assert await read(store, "v") in versions
            except DalError as error:
                assert not isinstance(error, CorruptDataError | NotFoundError), error

        await asyncio.gather(write(), *(look() for _ in range(8)))
        assert await read(store, "v") == versions[-1]

    async def _nothing_under_way(self, store: BlobStore) -> None:
        if store.capabilities.list_parts:
            assert [upload async for upload in store.list_uploads()] == []
