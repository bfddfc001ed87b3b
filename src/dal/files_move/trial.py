"""A small trial transfer: what a blob and what a byte take between two stores, and so what all of them do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple, TypeVar

from dal.blobs.base import BlobStore, Reading
from dal.errors import NotFoundError
from dal.files_move.tally import Amount
from dal.files_move.throttle import Timer
from dal.files_move.walking import OWN_PREFIX
from dal.files_move.work import side_by_side
from dal.limits import CONTENTS_WHOLE_BYTES
from dal.ops import JsonValue

T = TypeVar("T")


class Speed(NamedTuple):
    """Seconds for each blob and for each byte, with as many at a time as were tried; and what was tried."""

    file_s: float
    byte_s: float
    tried: Amount

    def seconds(self, amount: Amount) -> float:
        return amount.files * self.file_s + amount.bytes * self.byte_s

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "files_per_s": round(1 / self.file_s, 1) if self.file_s else None,
            "bytes_per_s": round(1 / self.byte_s) if self.byte_s else None,
            "tried": self.tried.as_dict(),
        }


async def trial(
    read: Callable[[T], Awaitable[Reading]],
    target: BlobStore,
    sample: Sequence[tuple[T, int]],
    *,
    jobs: int,
    timer: Timer = monotonic,
) -> Speed | None:
    """Copies a sample (what, and its size) that `read` opens, under keys of its own, which it removes; None: nothing.

    Small and large ones are timed apart, so that the time of a blob and the time of a byte can be told.
    """
    small = [(key, size) for key, size in sample if size <= CONTENTS_WHOLE_BYTES]
    large = [(key, size) for key, size in sample if size > CONTENTS_WHOLE_BYTES]
    small_s, few = await _timed(read, target, small, jobs, timer)
    large_s, much = await _timed(read, target, large, jobs, timer)
    if not few.files and not much.files:
        return None
    byte_s = large_s / much.bytes if much.bytes else 0.0
    file_s = max(0.0, small_s - few.bytes * byte_s) / few.files if few.files else 0.0
    if not much.files and few.bytes > few.files * CONTENTS_WHOLE_BYTES / 16:
        file_s, byte_s = 0.0, small_s / few.bytes  # nothing but small blobs, and not that small: bytes are what counts
    return Speed(file_s, byte_s, Amount(few.files + much.files, few.bytes + much.bytes))


async def _timed(
    read: Callable[[T], Awaitable[Reading]], target: BlobStore, sample: Sequence[tuple[T, int]], jobs: int, timer: Timer
) -> tuple[float, Amount]:
    """Seconds, and how much was copied in them."""
    made: list[tuple[str, int]] = []

    async def one(key: T, size: int, copy: str) -> None:
        try:
            async with await read(key) as reading:
                await target.put(copy, reading.data, size=reading.info.size)
        except NotFoundError:
            return
        made.append((copy, size))

    began = timer()
    try:
        async with side_by_side(asyncio.Semaphore(jobs)) as begin:
            for number, (key, size) in enumerate(sample):
                await begin(partial(one, key, size, f"{OWN_PREFIX}trial/{number}"))
        return timer() - began, Amount(len(made), sum(size for _, size in made))
    finally:
        await target.delete([copy for copy, _ in made])
