"""Two blob stores, and the rows that speak of their blobs, side by side in the order of their keys.

Each is read once and in pages, so memory is the same for a hundred blobs and for a hundred million. Keys are ASCII and
stores compare rows' keys by code point, which is the order in which blobs are listed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from dal.blobs.base import BlobInfo, BlobStore
from dal.files.keys import COMPRESSED, MOVER, place_of
from dal.files.paging import pages
from dal.limits import CONTENTS_PAGE_ROWS
from dal.ops import Compare, Row, Select
from dal.store import ReadCommit

_FILE: Final = ("storage_key", "checksum", "file_size", "mime_type", "id")
_CONTENT: Final = ("blob_key", "checksum", "stored_size")
_IN_USE: Final = Compare("ref_count", ">", 0)


class Expected(NamedTuple):
    """What a row says of a blob.

    checksum       `sha256:…` of the content, which is inside the blob where `is_compressed`.
    size           bytes of the blob; None where the row does not say (compressed, and not shared).
    file_id        None for contents that files share.
    """

    key: str
    checksum: str | None
    size: int | None
    is_compressed: bool
    mime_type: str | None = None
    file_id: str | None = None

    @property
    def stored_checksum(self) -> str | None:
        """Of the blob as it lies there; None where only its content's is known."""
        return None if self.is_compressed else self.checksum


class Found(NamedTuple):
    """What is known of one key."""

    key: str
    source: BlobInfo | None = None
    target: BlobInfo | None = None
    row: Expected | None = None


async def walk(source: BlobStore, target: BlobStore | None, rows: ReadCommit) -> AsyncGenerator[Found, None]:
    """Every key that either store or a row names, once, in the order of keys. Close it with `aclosing`."""
    async with AsyncExitStack() as stack:
        ours = await _begun(stack, source.list())
        theirs = await _begun(stack, _nothing() if target is None else target.list())
        named = await _begun(stack, expectations(rows))
        while keys := [stream.head.key for stream in (ours, theirs, named) if stream.head is not None]:
            key = min(keys)
            found = Found(key, await ours.take(key), await theirs.take(key), await named.take(key))
            if not key.startswith(MOVER):
                yield found


async def expectations(rows: ReadCommit) -> AsyncGenerator[Expected, None]:
    """What the rows say of blobs, in the order of keys: one for each file, but one for contents that files share."""
    async with AsyncExitStack() as stack:
        files = await _begun(stack, _files(rows))
        shared = await _begun(stack, _contents(rows))
        while heads := [stream.head for stream in (files, shared) if stream.head is not None]:
            key = min(head.key for head in heads)
            alone, together = await files.take(key), await shared.take(key)
            yield cast(Expected, together or alone)


async def expected_of(rows: ReadCommit, key: str) -> Expected | None:
    """What the rows say now of the blob under this key; None where none speaks of it."""
    found = await rows.read(Select("files", (Compare("storage_key", "=", key),), limit=1, columns=_FILE))
    if found:
        return _of_file(found[0])
    found = await rows.read(
        Select("file_contents", (Compare("blob_key", "=", key), _IN_USE), limit=1, columns=_CONTENT)
    )
    return _of_content(found[0]) if found else None


async def _files(rows: ReadCommit) -> AsyncGenerator[Expected, None]:
    query = Select("files", order=("storage_key",), columns=_FILE)
    async for page in pages(rows, query, CONTENTS_PAGE_ROWS):
        for row in page:
            if not place_of(str(row[0])).is_shared:
                yield _of_file(row)


async def _contents(rows: ReadCommit) -> AsyncGenerator[Expected, None]:
    query = Select("file_contents", (_IN_USE,), ("blob_key",), columns=_CONTENT)
    async for page in pages(rows, query, CONTENTS_PAGE_ROWS):
        for row in page:
            yield _of_content(row)


def _of_file(row: Row) -> Expected:
    key, checksum, size, mime_type, file_id = cast("tuple[str, str | None, int, str, str]", row)
    is_compressed = place_of(key).is_compressed
    return Expected(key, checksum, None if is_compressed else size, is_compressed, mime_type, file_id)


def _of_content(row: Row) -> Expected:
    key, checksum, size = cast("tuple[str, str, int]", row)
    return Expected(key, checksum, size, key.endswith(COMPRESSED))


T = TypeVar("T", BlobInfo, Expected)


class _Stream(Generic[T]):
    """Items in the order of their keys, of which the next one can be seen."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items: AsyncIterator[T] = items
        self.head: T | None = None

    async def take(self, key: str) -> T | None:
        """The next item if it is of this key."""
        item = self.head
        if item is None or item.key != key:
            return None
        await self.advance()
        return item

    async def advance(self) -> None:
        self.head = await anext(self._items, None)


async def _begun(stack: AsyncExitStack, items: AsyncIterator[T]) -> _Stream[T]:
    if hasattr(items, "aclose"):
        await stack.enter_async_context(aclosing(cast(Any, items)))
    stream = _Stream(items)
    await stream.advance()
    return stream


async def _nothing() -> AsyncIterator[BlobInfo]:
    return
    yield
