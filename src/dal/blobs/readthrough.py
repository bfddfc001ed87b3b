"""Two blob stores as one while contents move from the old one to the new: reads find both, writes go to the new."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from dal.blobs.base import BINARY, BlobInfo, BlobStore, Data, Method, Part, Reading, SignedRequest
from dal.blobs.checks import already_there
from dal.blobs.data import put_again
from dal.blobs.layer import BlobLayer
from dal.errors import NotFoundError


class ReadThrough(BlobLayer):
    """A BlobStore that is `new`, and knows what lies in `old` still.

    Reads    look into the new store first, and into the old one for what is not there.
    Writes   go to the new store alone; what is deleted is deleted in both, so that it is gone.
    Uploads  in parts that were begun in the old store are not seen: complete or abort them before.
    Cost     a read of what has not moved asks twice.
    """

    def __init__(self, new: BlobStore, old: BlobStore) -> None:
        super().__init__(new)
        self.old = old

    def __repr__(self) -> str:
        return f"ReadThrough({self.inner!r}, {self.old!r})"

    async def open(self) -> None:
        await self.inner.open()
        await self.old.open()

    async def close(self) -> None:
        try:
            await self.inner.close()
        finally:
            await self.old.close()

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
        if if_absent:
            await self._require_absent("put", key)
        return await super().put(
            key, data, size=size, content_type=content_type, checksum=checksum, if_absent=if_absent
        )

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        try:
            return await self.inner.get(key, start=start, end=end)
        except NotFoundError:
            pass
        try:
            return await self.old.get(key, start=start, end=end)
        except NotFoundError:
            # A mover may have taken it between the two looks.
            return await self.inner.get(key, start=start, end=end)

    async def head(self, key: str) -> BlobInfo | None:
        return await self.inner.head(key) or await self.old.head(key) or await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        # The old one first: a mover that copies meanwhile brings nothing back then, and else a second try is needed.
        await self.old.delete(keys)
        await self.inner.delete(keys)

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        new, old = aiter(self.inner.list(prefix, after=after)), aiter(self.old.list(prefix, after=after))
        ours, theirs = await anext(new, None), await anext(old, None)
        while ours is not None or theirs is not None:
            if theirs is None or (ours is not None and ours.key <= theirs.key):
                assert ours is not None  # noqa: S101  # one of them is there
                if theirs is not None and ours.key == theirs.key:
                    theirs = await anext(old, None)
                yield ours
                ours = await anext(new, None)
            else:
                yield theirs
                theirs = await anext(old, None)

    async def copy(self, source: str, target: str) -> BlobInfo:
        try:
            return await self.inner.copy(source, target)
        except NotFoundError:
            return await put_again(await self.old.get(source), self.inner, target)

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        if if_absent:
            await self._require_absent("complete_parts", key)
        return await super().complete_parts(key, upload_id, parts, if_absent=if_absent)

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
        is_old = method == "GET" and await self.inner.head(key) is None and await self.old.head(key) is not None
        return await (self.old if is_old else self.inner).presign(
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
        return await self.inner.health() or await self.old.health()

    async def _require_absent(self, operation: str, key: str) -> None:
        if await self.old.head(key) is not None:
            raise already_there(operation, key, self.capabilities.backend)
