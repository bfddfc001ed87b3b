"""Moves contents from one blob store to another while the application goes on.

The application is configured with the target as its store and the source to fall back on: what it uploads goes to the
target, what was not moved yet is read from the source, and what it deletes is deleted in both. So nothing has to stop,
and the way back is the same move in the other direction.

Keys are copied a range at a time. Behind each range the source is listed again: what was deleted there meanwhile is
taken out of the target, what was changed is copied again. Every copy is verified (dal.files_move.transfer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from dal.blobs.base import BlobInfo, BlobStore
from dal.errors import AlreadyExistsError, CorruptDataError, DalError, NotFoundError
from dal.files.keys import MOVER, MOVER_UPLOADS
from dal.files_move.comparing import Verdict, compare
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.report import Action, ContentsReport
from dal.files_move.resuming import abandon_uploads, version_of
from dal.files_move.side_by_side import side_by_side
from dal.files_move.throttle import OnBytes
from dal.files_move.transfer import copy_blob
from dal.files_move.turn import turn
from dal.files_move.walking import Found, expected_of, walk
from dal.files_move.work import Passing, Work
from dal.limits import CONTENTS_LOOKS, CONTENTS_RANGE_KEYS, CONTENTS_RANGES
from dal.store import ReadCommit


async def move(
    source: BlobStore,
    target: BlobStore,
    rows: ReadCommit,
    *,
    action: Action = "move",
    options: MoveOptions = DEFAULTS,
) -> ContentsReport:
    """Copies every blob of the source that the target does not hold, each verified; what is there already is left.

    Run it again to go on after it was killed, and to take along what was stored since: what is done costs a listing.

    rows    the data store whose rows speak of the blobs; it is only read.
    action  `rollback` names the way back, from the new store to the old one; it does the same, and aborts the
            uploads that a killed move into the source has left there.
    Raises  ConflictError: another mover is at work on the target.  UnavailableError: a store did not answer,
            again and again; what was copied stays, and the same call goes on from there.
    Cost    a get and a put for each blob, or a put for each part of a large one, and for notes on it; a list
            for each thousand, on either side; a head of the target for each blob that is there and whose
            listing tells no checksum.
    """
    report = ContentsReport(action=action, began=options.clock())
    work = Work(report, options)
    await work.expect(rows)
    async with turn(target, options):
        if action == "rollback":
            await _abandon(source, options)
        await _Move(source, target, rows, work).run()
        await abandon_uploads(target)  # of what was deleted, or cannot be copied
    return work.end()


async def _abandon(store: BlobStore, options: MoveOptions) -> None:
    """Ends what a killed move into this store had under way. ConflictError: it is not killed, but at work."""
    async with aclosing(store.list(MOVER_UPLOADS)) as notes:  # type: ignore[type-var]  # a generator
        if await anext(notes, None) is None:
            return
    async with turn(store, options):
        await abandon_uploads(store)


@dataclass(slots=True)
class _Range:
    """Keys behind `lower` up to `upper` (None: all that follow), as they were listed, and what came of them."""

    lower: str
    upper: str | None
    found: list[Found]
    copied: dict[str, BlobInfo] = field(default_factory=dict)  # the target's word on them
    counted: set[str] = field(default_factory=set)


class _Move:
    def __init__(self, source: BlobStore, target: BlobStore, rows: ReadCommit, work: Work) -> None:
        self._source = source
        self._target = target
        self._rows = rows
        self._work = work

    async def run(self) -> None:
        lower, found = "", list[Found]()
        async with (
            aclosing(walk(self._source, self._target, self._rows)) as every,
            side_by_side(asyncio.Semaphore(CONTENTS_RANGES)) as begin,
        ):
            async for one in every:
                if one.source is None:
                    await self._without_source(one)
                    continue
                if len(found) == CONTENTS_RANGE_KEYS:
                    await begin(partial(self._range, _Range(lower, found[-1].key, found)))
                    lower, found = found[-1].key, []
                found.append(one)
            await begin(partial(self._range, _Range(lower, None, found)))

    async def _without_source(self, found: Found) -> None:
        """What only the target has, or only a row names."""
        if found.target is not None:
            self._work.report.extra += 1
            return
        key = found.key
        if found.row is None or await expected_of(self._rows, key) is None:
            return  # the row went meanwhile
        if not (await self._work.head(self._source, key) or await self._work.head(self._target, key)):
            self._work.problem("missing", key, f"a row names it (file {found.row.file_id}), and neither store has it")

    async def _range(self, part: _Range) -> None:
        await self._copy_all(part, part.found)
        if not part.copied:
            return  # what changed since it was listed, the next run takes along
        seen = {found.key: found.source for found in part.found}
        for _ in range(CONTENTS_LOOKS):
            changed = await self._look_again(part, seen)
            if not changed:
                return
            await self._copy_all(part, changed)
        for found in changed:
            self._work.problem("changing", found.key, f"it changed in the source {CONTENTS_LOOKS} times while copied")

    async def _copy_all(self, part: _Range, every: Sequence[Found]) -> None:
        async with side_by_side(self._work.jobs) as begin:
            for found in every:
                await begin(partial(self._one, part, found))

    async def _look_again(self, part: _Range, seen: dict[str, BlobInfo | None]) -> list[Found]:
        """Lists the range once more: what to copy (again). What was deleted is taken out of the target."""
        changed, gone = [], dict(seen)
        async with aclosing(self._source.list(after=part.lower)) as listing:  # type: ignore[type-var]
            async for info in listing:
                if part.upper is not None and info.key > part.upper:
                    break
                if info.key.startswith(MOVER):
                    continue
                before = gone.pop(info.key, None)
                if before is None or version_of(before) != version_of(info):
                    seen[info.key] = info
                    theirs, row = await self._target.head(info.key), await expected_of(self._rows, info.key)
                    changed.append(Found(info.key, info, theirs, row))
        for key in gone:
            del seen[key]
            if key in part.copied:
                await self._take_back(part, key)
        return changed

    async def _take_back(self, part: _Range, key: str) -> None:
        """A blob that was deleted in the source while it was copied: its copy goes too, if nobody needs it."""
        if await expected_of(self._rows, key) is not None or await self._source.head(key) is not None:
            return
        theirs = await self._target.head(key)
        if theirs is not None and self._is_ours(part, theirs):
            await self._target.delete([key])
            self._work.report.removed += 1

    async def _one(self, part: _Range, found: Found) -> None:
        """Copies a blob, where it has to be."""
        passing = Passing(self._work)
        assert found.source is not None  # noqa: S101  # `run` and `_look_again` see to it
        try:
            await passing.patiently(partial(self._settle, part, found))
        except NotFoundError:
            pass  # deleted meanwhile: the next look at the range says so
        except CorruptDataError as error:
            self._work.problem("corrupt", found.key, error.message)
        except DalError as error:
            if error.retryable:
                raise
            self._work.problem("failed", found.key, f"{type(error).__name__}: {error.message}")
        passing.end()
        if found.key not in part.counted:
            part.counted.add(found.key)
            self._work.done(found.source.size, is_there=found.key not in part.copied)

    async def _settle(self, part: _Range, found: Found, on_bytes: OnBytes) -> None:
        report, key = self._work.report, found.key
        while True:
            if found.target is not None and not self._is_ours(part, found.target):
                verdict = await compare(self._source, self._target, found, self._work.throttle)
                if verdict is Verdict.EQUAL:
                    report.there += 1
                    return
                if verdict is Verdict.TARGET:
                    report.kept += 1
                    if found.row is None:
                        self._work.problem("differs", key, "the target holds newer content, and no row decides")
                    return
            try:
                stored = await copy_blob(
                    self._source,
                    self._target,
                    key,
                    found.row,
                    throttle=self._work.throttle,
                    on_bytes=on_bytes,
                    if_absent=found.target is None and self._target.capabilities.if_absent,
                )
            except AlreadyExistsError:  # the application stored it meanwhile, or the answer to an earlier try was lost
                found = found._replace(target=await self._target.head(key))
                continue
            report.copied += key not in part.copied
            report.copied_bytes += stored.size
            part.copied[key] = stored
            return

    def _is_ours(self, part: _Range, theirs: BlobInfo) -> bool:
        """Whether that is the copy this very run made, of what the source held before."""
        ours = part.copied.get(theirs.key)
        return ours is not None and version_of(ours) == version_of(theirs)
