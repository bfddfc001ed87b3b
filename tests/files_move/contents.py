"""Files with contents for tests of moves: rows in a store, bytes in a blob store, and blob stores that misbehave."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dal.access import DataAccess
from dal.blobs.base import BlobInfo, BlobStore, Data, Part, Reading
from dal.blobs.memory import MemoryBlobStore
from dal.files.keys import MOVER

Hook = Callable[[str], Awaitable[None]]


def checksum(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def keep(dal: DataAccess, blobs: BlobStore, user_id: str, contents: dict[str, bytes]) -> None:
    """A file for each content, its bytes under the key that is its name too."""
    for key, content in contents.items():
        await blobs.put(key, content, content_type="text/plain")
        await dal.files.create(
            user_id, key.rpartition("/")[2], storage_key=key, file_size=len(content), checksum=checksum(content)
        )


async def everything(blobs: BlobStore) -> dict[str, bytes]:
    """Every blob by its key; what a move left of its own would be among them."""
    return {info.key: await (await blobs.get(info.key)).read() async for info in blobs.list()}


class Killed(BaseException):
    """What ends a mover between two requests: nothing catches it."""


@dataclass
class Watched(MemoryBlobStore):
    """A blob store whose calls are counted, and of which some can be held up or made to fail.

    before    by the name of a call: what happens before it is carried out.
    after     by the name of a call: what happens when it is done.
    sums      False: it keeps no checksums, as many an S3 store does; listings never tell them then.
    """

    before: dict[str, Hook] = field(default_factory=dict)
    after: dict[str, Hook] = field(default_factory=dict)
    sums: bool = True
    calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    async def get(self, key: str, **options: Any) -> Reading:
        await self._called("get", key)
        found = await super().get(key, **options)
        await self._done("get", key)
        return found._replace(info=self._told(found.info))

    async def put(self, key: str, data: Data, **options: Any) -> BlobInfo:
        await self._called("put", key)
        stored = await super().put(key, data, **options)
        await self._done("put", key)
        return self._told(stored)

    async def start_parts(self, key: str, **options: Any) -> str:
        await self._called("start_parts", key)
        upload_id = await super().start_parts(key, **options)
        await self._done("start_parts", key)
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        await self._called("put_part", key)
        part = await super().put_part(key, upload_id, number, data, size=size)
        await self._done("put_part", key)
        return part

    async def complete_parts(self, key: str, upload_id: str, parts: Sequence[Part], **options: Any) -> BlobInfo:
        await self._called("complete_parts", key)
        stored = await super().complete_parts(key, upload_id, parts, **options)
        await self._done("complete_parts", key)
        return self._told(stored)

    async def head(self, key: str) -> BlobInfo | None:
        await self._called("head", key)
        found = await super().head(key)
        return None if found is None else self._told(found)

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        async for info in super().list(prefix, after=after):
            yield self._told(info)

    def content(self, key: str) -> bytes:
        """What is under a key, past everything that watches."""
        return self._blobs[key][1]

    def spoil(self, key: str, content: bytes) -> None:
        """Other bytes under a key, behind the store's back."""
        info, _ = self._blobs[key]
        self._blobs[key] = info, content

    def _told(self, info: BlobInfo) -> BlobInfo:
        return info if self.sums else info._replace(checksum=None)

    async def _called(self, name: str, key: str) -> None:
        if key.startswith(MOVER):
            return
        self.calls[name] = self.calls.get(name, 0) + 1
        if (hook := self.before.get(name)) is not None:
            await hook(key)

    async def _done(self, name: str, key: str) -> None:
        if not key.startswith(MOVER) and (hook := self.after.get(name)) is not None:
            await hook(key)
