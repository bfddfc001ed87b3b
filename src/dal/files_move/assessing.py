"""What a move of contents would do, before it begins: how much, of what, what is wrong, how long and how dear."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Generic, TypeVar

from dal.blobs.base import BlobInfo, BlobStore, Reading
from dal.blobs.checks import check_key
from dal.errors import CorruptDataError, InvalidInputError, NotFoundError
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.report import Problem, Problems
from dal.files_move.side_by_side import side_by_side
from dal.files_move.tally import NOTHING, Amount, Tally
from dal.files_move.throttle import Throttle, untold
from dal.files_move.transfer import complaint, read_sums
from dal.files_move.trial import Sampled, Speed, trial
from dal.files_move.walking import Expected, Found, expected_of, walk
from dal.limits import CONTENTS_TRIAL_BYTES, CONTENTS_TRIAL_FILES, FILE_GRACE_S
from dal.ops import JsonValue
from dal.store import ReadCommit
from dal.values import Clock

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Assessment:
    """What there is in the source, and what of it the target lacks. Bytes are those of blobs as they lie there.

    moving   what a move would copy.
    speed    of a small trial transfer; None where none was made.
    is_read  all bytes were read and compared with their checksums.
    """

    began: datetime
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    moving: Amount = NOTHING
    problems: Problems = field(default_factory=Problems)
    speed: Speed | None = None
    is_read: bool = False

    @property
    def move_s(self) -> float | None:
        """About how long a move takes; None where nobody knows."""
        return None if self.speed is None else self.speed.seconds(self.moving)

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "began": self.began.isoformat(),
            "seconds": round(self.seconds, 3),
            **self.tally.as_dict(),
            "moving": self.moving.as_dict(),
            "problems": self.problems.as_dict(),
            "speed": None if self.speed is None else self.speed.as_dict(),
            "move_seconds": None if self.move_s is None else round(self.move_s, 1),
            "read": self.is_read,
        }


async def assess(
    source: BlobStore,
    target: BlobStore | None,
    rows: ReadCommit,
    *,
    read: bool = False,
    try_out: bool = True,
    random: Random | None = None,
    options: MoveOptions = DEFAULTS,
) -> Assessment:
    """Looks at everything in the source, and at what of it the target holds already.

    read     read all bytes: corrupt ones are found, and duplicates are told by content, not by what rows say.
    try_out  copy up to CONTENTS_TRIAL_FILES blobs or CONTENTS_TRIAL_BYTES under names of its own, and remove them, to
             tell how long a move takes. Nothing else is written.
    Cost     a list for each thousand keys, and the trial; with `read` a get for each blob.
    """
    made = Assessment(began=options.clock(), is_read=read)
    began = options.timer()
    dice = random or Random()  # noqa: S311
    look = _Look(source, target, rows, made, options.clock)
    sample = Sample[str](dice)
    places = asyncio.Semaphore(options.jobs)
    async with aclosing(walk(source, target, rows)) as every, side_by_side(places) as begin:
        async for found in every:
            if found.source is None:
                await look.without_bytes(found)
                continue
            await look.at(found.key, found.source, found.row)
            if found.target is None or found.target.size != found.source.size:
                made.moving = made.moving.plus(found.source.size)
                sample.offer(found.key, found.source.size)
            if read:
                await begin(partial(look.read, found))
            else:
                look.count(found.source, found.row, found.row.checksum if found.row else found.source.checksum)
    if target is not None and try_out:
        made.speed = await trial(partial(_begin, source), target, sample.chosen(), options=options)
    made.seconds = options.timer() - began
    return made


async def _begin(store: BlobStore, key: str, end: int | None) -> Reading:
    return await store.get(key, end=end)


class _Look:
    def __init__(
        self, source: BlobStore, target: BlobStore | None, rows: ReadCommit, made: Assessment, clock: Clock
    ) -> None:
        self._source = source
        self._target = target
        self._rows = rows
        self._made = made
        self._old = clock() - timedelta(seconds=FILE_GRACE_S)

    def count(self, info: BlobInfo, row: Expected | None, checksum: str | None) -> None:
        self._made.tally.add(info.size, row.mime_type if row and row.mime_type else info.content_type, checksum)

    async def at(self, key: str, info: BlobInfo, row: Expected | None) -> None:
        """What can be wrong without reading the bytes."""
        if row is None:
            # Bytes are stored before their row: those of an upload under way are nobody's yet.
            if info.modified_at < self._old and await expected_of(self._rows, key) is None:
                self._problem(Problem("unowned", key, "no row names it; `dal files sweep` removes what is left over"))
        elif row.size not in (None, info.size):
            self._problem(Problem("corrupt", key, f"there are {info.size} bytes, and its row says {row.size}"))
        elif row.stored_checksum is not None and info.checksum not in (None, row.stored_checksum):
            self._problem(Problem("corrupt", key, f"it was stored as {info.checksum}, and its row says {row.checksum}"))

    async def without_bytes(self, found: Found) -> None:
        """A row whose bytes are not in the source."""
        key, row = found.key, found.row
        if row is None or found.target is not None or await expected_of(self._rows, key) is None:
            return
        try:
            check_key(key)
        except InvalidInputError as error:
            self._problem(Problem("name", key, f"no blob store takes the key of file {row.file_id}: {error.message}"))
            return
        if await self._source.head(key) is None:
            self._problem(Problem("missing", key, f"a row names it (file {row.file_id}), and there are no bytes"))

    async def read(self, found: Found) -> None:
        """Reads the bytes, and counts them by what they are."""
        throttle = Throttle(None)
        try:
            info, sums = await read_sums(self._source, found.key, found.row, throttle=throttle, on_bytes=untold)
        except NotFoundError:
            return  # deleted meanwhile
        except CorruptDataError as error:
            self._problem(Problem("corrupt", found.key, error.message))
            return
        if wrong := complaint(sums, info, found.row):
            self._problem(Problem("corrupt", found.key, wrong))
        self.count(info, found.row, sums.content)

    def _problem(self, problem: Problem) -> None:
        self._made.problems.add(problem)


class Sample(Generic[T]):
    """A few of things at random out of very many, each as likely as the others; and the largest, for its bytes."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._chosen: list[Sampled[T]] = []
        self._largest: Sampled[T] | None = None
        self._offered = 0

    def offer(self, item: T, size: int) -> None:
        offered = Sampled(item, size)
        self._offered += 1
        if self._largest is None or size > self._largest.size:
            self._largest = offered
        if len(self._chosen) < CONTENTS_TRIAL_FILES:
            self._chosen.append(offered)
        elif (place := self._dice.randrange(self._offered)) < CONTENTS_TRIAL_FILES:
            self._chosen[place] = offered

    def chosen(self) -> list[Sampled[T]]:
        """The smallest of them first, as many as CONTENTS_TRIAL_BYTES hold, of which the largest, cut, takes a half."""
        if self._largest is None:
            return []
        kept = [self._largest]
        if self._largest.size > CONTENTS_TRIAL_BYTES // 2:
            kept = [self._largest._replace(end=CONTENTS_TRIAL_BYTES // 2)]
        size_bytes = kept[0].tried_bytes
        others = [one for one in self._chosen if one is not self._largest]
        for one in sorted(others, key=lambda other: other.size)[: CONTENTS_TRIAL_FILES - 1]:
            size_bytes += one.size
            if size_bytes > CONTENTS_TRIAL_BYTES:
                break
            kept.append(one)
        return kept
