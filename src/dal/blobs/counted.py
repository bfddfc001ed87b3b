"""A blob store whose requests are counted as object stores bill them, for `dal.files.monitoring`.

Class A are requests that write or list, class B those that read; deletes are free (R2 and S3 alike). What is stored and
larger than a part counts as an upload in parts. Signed requests are counted as they are given out; what others do
with them is seen only where `dal.blobs.asgi` serves it from this store. A client's own tries again are not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeVar

from dal.blobs.base import (
    BINARY,
    BlobInfo,
    BlobStore,
    Data,
    Method,
    Part,
    PartialUpload,
    Pieces,
    Reading,
    SignedRequest,
)
from dal.blobs.layer import BlobLayer
from dal.limits import BLOB_LIST_KEYS, S3_PART_BYTES

T = TypeVar("T", BlobInfo, PartialUpload)

#: Signed requests that were given out, by what they allow: to fetch, or to send (a part, or the whole).
SIGNED_GET: Final = "signed_get"
SIGNED_PUT: Final = "signed_put"


class Counted(BlobLayer):
    """A BlobStore that counts. `take` gives what came since it was last called.

    provider  whose prices hold: `r2`, `s3`, or the backend's name where requests cost nothing.
    """

    def __init__(self, inner: BlobStore, provider: str) -> None:
        super().__init__(inner)
        self.provider = provider
        self._counts: Counter[str] = Counter()

    def take(self) -> dict[str, int]:
        """Requests by class (`class_a`, `class_b`), bytes in and out (`ingress`, `egress`), and requests that were
        signed (`signed_get`, `signed_put`); begins anew."""
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    def give_back(self, counts: dict[str, int]) -> None:
        """What was taken and could not be recorded."""
        self._counts.update(counts)

    async def put(
        self,
        key: str,
        data: Data,
        *,
        size: int | None = None,
        content_type: str = BINARY,
        checksum: str | None = None,
        if_absent: bool = False,
    ) -> BlobInfo:
        self._counts["class_a"] += 1
        stored = await self.inner.put(
            key, data, size=size, content_type=content_type, checksum=checksum, if_absent=if_absent
        )
        self._counts["ingress"] += stored.size
        if stored.size > S3_PART_BYTES:
            self._counts["class_a"] += 1 - (-stored.size // S3_PART_BYTES)  # begun, each part, and ended
        return stored

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        self._counts["class_b"] += 1
        reading = await self.inner.get(key, start=start, end=end)
        return Reading(reading.info, _Counting(reading.data, self._sent))

    async def head(self, key: str) -> BlobInfo | None:
        self._counts["class_b"] += 1
        return await self.inner.head(key)

    def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        return self._listed(self.inner.list(prefix, after=after))

    async def copy(self, source: str, target: str) -> BlobInfo:
        self._counts["class_a"] += 1
        return await self.inner.copy(source, target)

    async def start_parts(self, key: str, *, content_type: str = BINARY, checksum: str | None = None) -> str:
        self._counts["class_a"] += 1
        return await self.inner.start_parts(key, content_type=content_type, checksum=checksum)

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        self._counts["class_a"] += 1
        part = await self.inner.put_part(key, upload_id, number, data, size=size)
        self._counts["ingress"] += size
        return part

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        self._counts["class_a"] += 1
        return await self.inner.list_parts(key, upload_id)

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        self._counts["class_a"] += 1
        return await self.inner.complete_parts(key, upload_id, parts, if_absent=if_absent)

    def list_uploads(self, prefix: str = "") -> AsyncIterator[PartialUpload]:
        return self._listed(self.inner.list_uploads(prefix))

    async def presign(
        self,
        method: Method,
        key: str,
        *,
        expires_in: float,
        content_type: str | None = None,
        size: int | None = None,
        filename: str | None = None,
        upload_id: str | None = None,
        part_number: int | None = None,
    ) -> SignedRequest:
        signed = await self.inner.presign(
            method,
            key,
            expires_in=expires_in,
            content_type=content_type,
            size=size,
            filename=filename,
            upload_id=upload_id,
            part_number=part_number,
        )
        self._counts[SIGNED_GET if method == "GET" else SIGNED_PUT] += 1
        return signed

    async def _listed(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """The items, a request for each page of them."""
        self._counts["class_a"] += 1
        seen = 0
        async for item in items:
            if seen and seen % BLOB_LIST_KEYS == 0:
                self._counts["class_a"] += 1
            seen += 1
            yield item

    def _sent(self, size: int) -> None:
        self._counts["egress"] += size


def counted_in(store: BlobStore | None) -> list[Counted]:
    """The stores that count, within layers around them; the one that is written to comes first."""
    if store is None:
        return []
    found = [store] if isinstance(store, Counted) else []
    # `old` is the other one of a ReadThrough.
    return found + counted_in(getattr(store, "inner", None)) + counted_in(getattr(store, "old", None))


class _Counting:
    """Pieces that are counted as they pass."""

    def __init__(self, pieces: Pieces, passed: Callable[[int], None]) -> None:
        self._pieces = pieces
        self._passed = passed

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self._passed(len(piece))
        return piece

    async def aclose(self) -> None:
        await self._pieces.aclose()
