"""A small trial transfer: what a blob and what a byte take between two stores, and so what all of them do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from dal.blobs.base import BlobStore, Reading
from dal.errors import CorruptDataError, NotFoundError
from dal.files.keys import MOVER
from dal.files_move.effort import Effort, Fit
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.side_by_side import side_by_side
from dal.files_move.tally import NOTHING, Amount
from dal.limits import CONTENTS_WHOLE_BYTES
from dal.ops import JsonValue

T = TypeVar("T")


class Sampled(NamedTuple, Generic[T]):
    """What is copied for a trial. `end`: so many of its bytes; None for all."""

    item: T
    size: int
    end: int | None = None

    @property
    def tried_bytes(self) -> int:
        return self.size if self.end is None else self.end


class Speed(NamedTuple):
    """Seconds for each blob and for each byte, with as many at a time as were tried; and what was tried."""

    file_s: float
    byte_s: float
    tried: Amount

    def seconds(self, amount: Amount) -> float:
        return Effort(self.file_s, self.byte_s).seconds(amount.files, amount.bytes)

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "files_per_s": round(1 / self.file_s, 1) if self.file_s else None,
            "bytes_per_s": round(1 / self.byte_s) if self.byte_s else None,
            "tried": self.tried.as_dict(),
        }


async def trial(
    read: Callable[[T, int | None], Awaitable[Reading]],
    target: BlobStore,
    sample: Sequence[Sampled[T]],
    *,
    options: MoveOptions = DEFAULTS,
) -> Speed | None:
    """Copies a sample that `read` opens up to an end, under keys of its own, which it removes; None: nothing.

    Small and large ones are timed apart, so that the time of a blob and the time of a byte can be told.
    """
    fit, tried = Fit(), NOTHING
    small = [one for one in sample if one.size <= CONTENTS_WHOLE_BYTES]
    large = [one for one in sample if one.size > CONTENTS_WHOLE_BYTES]
    for part in (small, large):
        seconds, copied = await _timed(read, target, part, options)
        fit.add(seconds, copied.files, copied.bytes)
        tried = Amount(tried.files + copied.files, tried.bytes + copied.bytes)
    effort = fit.effort()
    return None if effort is None else Speed(*effort, tried)


async def _timed(
    read: Callable[[T, int | None], Awaitable[Reading]],
    target: BlobStore,
    sample: Sequence[Sampled[T]],
    options: MoveOptions,
) -> tuple[float, Amount]:
    """Seconds, and how much was copied in them."""
    made: list[tuple[str, int]] = []

    async def one(chosen: Sampled[T], copy: str) -> None:
        try:
            async with await read(chosen.item, chosen.end) as reading:
                size = reading.info.size if chosen.end is None else chosen.end
                await target.put(copy, reading.data, size=size)
        except (NotFoundError, CorruptDataError):  # gone, or another one, meanwhile
            return
        made.append((copy, size))

    began = options.timer()
    try:
        async with side_by_side(asyncio.Semaphore(options.jobs)) as begin:
            for number, chosen in enumerate(sample):
                await begin(partial(one, chosen, f"{MOVER}trial/{number}"))
        return options.timer() - began, Amount(len(made), sum(size for _, size in made))
    finally:
        await target.delete([copy for copy, _ in made])
