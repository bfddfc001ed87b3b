"""What the kit's tests store: bytes that differ at every place, in pieces of odd sizes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from dal.blobs.base import BlobStore


def content(size: int, seed: int = 0) -> bytes:
    """So many bytes, the same for the same seed, without a period that a block's size could hide."""
    block = b"".join(
        hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(1 + min(size, 99_991) // 32)
    )
    block = block[: min(size, 99_991)]
    return (block * (size // max(len(block), 1) + 1))[:size]


def checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces(data: bytes, size: int = 65_537) -> AsyncIterator[bytes]:
    """The same bytes as a stream, some of its pieces empty."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        yield b""


async def broken(data: bytes, error: BaseException) -> AsyncIterator[bytes]:
    """A stream that fails behind these bytes."""
    async for piece in pieces(data):
        yield piece
    raise error


async def read(store: BlobStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    """What a range holds."""
    return await (await store.get(key, start=start, end=end)).read()


async def keys(store: BlobStore, prefix: str = "", after: str = "") -> list[str]:
    """The keys of a listing."""
    return [info.key async for info in store.list(prefix, after=after)]
