"""What every layer around a blob store starts from: it changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from dal.blobs.base import (
    BINARY,
    BlobCapabilities,
    BlobInfo,
    BlobStore,
    Data,
    Method,
    Part,
    PartialUpload,
    Reading,
    SignedRequest,
)


class BlobLayer:
    """A BlobStore that delegates everything to `inner`. A layer overrides what it changes."""

    def __init__(self, inner: BlobStore) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    @property
    def capabilities(self) -> BlobCapabilities:
        return self.inner.capabilities

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

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
        return await self.inner.put(
            key, data, size=size, content_type=content_type, checksum=checksum, if_absent=if_absent
        )

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        return await self.inner.get(key, start=start, end=end)

    async def head(self, key: str) -> BlobInfo | None:
        return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete(keys)

    def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        return self.inner.list(prefix, after=after)

    async def copy(self, source: str, target: str) -> BlobInfo:
        return await self.inner.copy(source, target)

    async def start_parts(self, key: str, *, content_type: str = BINARY, checksum: str | None = None) -> str:
        return await self.inner.start_parts(key, content_type=content_type, checksum=checksum)

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        return await self.inner.put_part(key, upload_id, number, data, size=size)

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        return await self.inner.list_parts(key, upload_id)

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        return await self.inner.complete_parts(key, upload_id, parts, if_absent=if_absent)

    async def abort_parts(self, key: str, upload_id: str) -> None:
        await self.inner.abort_parts(key, upload_id)

    def list_uploads(self, prefix: str = "") -> AsyncIterator[PartialUpload]:
        return self.inner.list_uploads(prefix)

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
        return await self.inner.presign(
            method,
            key,
            expires_in=expires_in,
            content_type=content_type,
            size=size,
            filename=filename,
            upload_id=upload_id,
            part_number=part_number,
        )

    async def health(self) -> str | None:
        return await self.inner.health()
