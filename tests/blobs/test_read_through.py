"""Two stores as one while contents move between them, beyond what the kit proves."""

from __future__ import annotations

import pytest

from dal.blobs.base import BlobInfo
from dal.blobs.memory import MemoryBlobStore
from dal.blobs.readthrough import ReadThrough
from dal.errors import AlreadyExistsError, NotFoundError
from dal.testing.blobs.data import keys, read


@pytest.fixture
async def pair() -> ReadThrough:
    pair = ReadThrough(MemoryBlobStore(), MemoryBlobStore())
    await pair.old.put("both", b"old", content_type="text/old")
    await pair.old.put("old", b"old", content_type="text/old")
    await pair.inner.put("both", b"new", content_type="text/new")
    await pair.inner.put("new", b"new")
    return pair


async def test_reads_find_both_and_the_new_store_wins(pair: ReadThrough) -> None:
    assert [await read(pair, key) for key in ("both", "new", "old")] == [b"new", b"new", b"old"]
    assert await keys(pair) == ["both", "new", "old"]
    assert [info.content_type async for info in pair.list("b")] == ["text/new"]
    assert await keys(pair, "", "both") == ["new", "old"]
    found = await pair.head("old")
    assert found is not None
    assert found.content_type == "text/old"


async def test_writes_go_to_the_new_store_alone(pair: ReadThrough) -> None:
    await pair.put("old", b"newer")
    await pair.copy("old", "copied")
    assert await read(pair.old, "old") == b"old"
    assert await keys(pair.old) == ["both", "old"]
    await pair.inner.delete(["old"])
    info = await pair.copy("old", "from/old")
    assert (info.content_type, info.size) == ("text/old", 3)
    assert await read(pair.inner, "from/old") == b"old"
    with pytest.raises(AlreadyExistsError):
        await pair.put("old", b"x", if_absent=True)


async def test_what_is_deleted_is_gone_from_both(pair: ReadThrough) -> None:
    await pair.delete(["both", "old"])
    assert await keys(pair.old) == []
    assert await keys(pair) == ["new"]
    with pytest.raises(NotFoundError):
        await pair.get("both")


async def test_a_blob_that_moves_between_the_two_looks_is_found() -> None:
    class Moving(MemoryBlobStore):
        """Is moved away as soon as somebody asks for it."""

        target: MemoryBlobStore

        async def head(self, key: str) -> BlobInfo | None:
            await self.target.put(key, b"moved")
            await super().delete([key])
            return await super().head(key)

        async def get(self, key: str, *, start: int = 0, end: int | None = None):  # type: ignore[no-untyped-def]
            await self.target.put(key, b"moved")
            await super().delete([key])
            return await super().get(key, start=start, end=end)

    for look in ("head", "get"):
        old = Moving()
        old.target = MemoryBlobStore()
        pair = ReadThrough(old.target, old)
        if look == "head":
            assert await pair.head("a") is not None
        else:
            assert await read(pair, "a") == b"moved"
