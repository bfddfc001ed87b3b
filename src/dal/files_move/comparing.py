"""Whether two stores hold the same under a key, and if not, which of them holds what counts.

Checksums decide: those that the listings tell, else those that the stores are asked for, else those of the bytes
themselves. Where the contents differ, what the row says counts, and without a row the newer blob.
"""

from __future__ import annotations

from enum import Enum

from dal.blobs.base import BlobInfo, BlobStore
from dal.files_move.throttle import Throttle, untold
from dal.files_move.transfer import complaint, read_sums
from dal.files_move.walking import Expected, Found


class Verdict(Enum):
    EQUAL = "equal"
    SOURCE = "source"  # counts
    TARGET = "target"  # counts


async def compare(source: BlobStore, target: BlobStore, found: Found, throttle: Throttle) -> Verdict:
    """Of a key that both stores hold. NotFoundError: one of them lost it meanwhile.

    Cost  nothing where both listings tell checksums; else a head, and where a store keeps none, reading the blob.
    """
    ours, theirs = found.source, found.target
    assert ours is not None  # noqa: S101  # the caller sees to it
    assert theirs is not None  # noqa: S101
    if ours.size == theirs.size:
        known = found.row.stored_checksum if found.row is not None else None
        held = await checksum_of(target, theirs, throttle)
        if held == known or held == await checksum_of(source, ours, throttle):
            return Verdict.EQUAL
    if found.row is not None:
        is_target = await _is_right(target, theirs, found.row, throttle)
        return Verdict.TARGET if is_target else Verdict.SOURCE
    return Verdict.TARGET if theirs.modified_at >= ours.modified_at else Verdict.SOURCE


async def checksum_of(store: BlobStore, info: BlobInfo, throttle: Throttle) -> str:
    """Of the blob as it lies there: what the store keeps, else of its bytes. NotFoundError."""
    if info.checksum is not None:
        return info.checksum
    asked = await store.head(info.key)
    if asked is not None and asked.checksum is not None:
        return asked.checksum
    _, sums = await read_sums(store, info.key, None, throttle=throttle, on_bytes=untold)
    return sums.stored


async def _is_right(store: BlobStore, info: BlobInfo, row: Expected, throttle: Throttle) -> bool:
    """Whether the blob holds what its row says."""
    if row.size is not None and info.size != row.size:
        return False
    info, sums = await read_sums(store, info.key, row, throttle=throttle, on_bytes=untold)
    return not complaint(sums, info, row)
