"""What a move of a plain directory would do, and whether it has done it."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from pathlib import Path
from random import Random

from dal.blobs.base import BlobStore
from dal.errors import DalError, NotFoundError
from dal.files.keys import place_of
from dal.files_move.assessing import Assessment, Sample
from dal.files_move.directory import MovedFile, OwnerOf, PathToMove, expect, paths_of
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.report import ContentsReport, Problem
from dal.files_move.side_by_side import side_by_side
from dal.files_move.throttle import OnBytes, Throttle, untold
from dal.files_move.transfer import complaint, read_sums
from dal.files_move.tree import ChangedError, Leaf, checksum_of_leaf, opened
from dal.files_move.trial import trial
from dal.files_move.walking import expected_of
from dal.files_move.work import Passing, Work
from dal.store import ReadCommit


async def assess_directory(
    root: Path,
    target: BlobStore | None,
    rows: ReadCommit,
    owner_of: OwnerOf,
    *,
    read: bool = False,
    try_out: bool = True,
    random: Random | None = None,
    options: MoveOptions = DEFAULTS,
) -> Assessment:
    """What a move of the directory would do. Types are guessed from names.

    read     read all files: duplicates are found by content.
    try_out  copy a few under keys of the target's own, and remove them, to tell how long a move takes.
    """
    made = Assessment(began=options.clock(), is_read=read)
    began = options.timer()
    sample = Sample[Leaf](random or Random())  # noqa: S311
    async with aclosing(paths_of(root, rows, owner_of, made.problems.add)) as paths:
        async for leaf, _, moved in paths:
            checksum = None
            try:
                if read:
                    checksum = await checksum_of_leaf(root, leaf, Throttle(None), untold)
            except ChangedError:
                pass  # being written just now; a move looks again
            except NotFoundError as error:
                made.problems.add(Problem("failed", leaf.path, error.message))
            made.tally.add(leaf.size, leaf.mime_type, checksum)
            if moved is None:
                made.moving = made.moving.plus(leaf.size)
                sample.offer(leaf, leaf.size)
    if target is not None and try_out:
        made.speed = await trial(partial(opened, root), target, sample.chosen(), options=options)
    made.seconds = options.timer() - began
    return made


async def verify_directory(
    root: Path,
    target: BlobStore,
    rows: ReadCommit,
    owner_of: OwnerOf,
    *,
    deep: bool = False,
    options: MoveOptions = DEFAULTS,
) -> ContentsReport:
    """Whether every path has become a file that holds the same; a file that was deleted since is in order, too.

    A path whose size and time are those of when it was moved is not read, and of its bytes in the target nothing but
    that they are there, as many as they should be.
    deep  paths and their bytes in the target are read and hashed.
    """
    work = Work(ContentsReport(action="verify", began=options.clock()), options)
    await expect(root, work)
    check = _Check(root, target, rows, work, deep=deep)
    async with (
        aclosing(paths_of(root, rows, owner_of, work.found)) as paths,
        side_by_side(work.jobs) as begin,
    ):
        async for path in paths:
            await begin(partial(check.one, path))
    return work.end()


class _Check:
    def __init__(self, root: Path, target: BlobStore, rows: ReadCommit, work: Work, *, deep: bool) -> None:
        self._root = root
        self._target = target
        self._rows = rows
        self._work = work
        self._deep = deep

    async def one(self, path: PathToMove) -> None:
        """Compares a path with its file, and that with its bytes."""
        leaf, passing = path.leaf, Passing(self._work)
        try:
            wrong = await passing.patiently(partial(self._look, leaf, path.moved))
        except ChangedError:
            wrong = Problem("changing", leaf.path, "it was written to while it was read")
        except DalError as error:
            if error.retryable:
                raise
            wrong = Problem("failed", leaf.path, f"{type(error).__name__}: {error.message}")
        if wrong is None:
            self._work.report.there += 1
        else:
            self._work.found(wrong)
        passing.end()
        self._work.done(leaf.size)

    async def _look(self, leaf: Leaf, moved: MovedFile | None, on_bytes: OnBytes) -> Problem | None:
        if moved is None:
            return Problem("absent", leaf.path, "it has not become a file")
        if self._deep or not moved.is_of(leaf):
            checksum = await checksum_of_leaf(self._root, leaf, self._work.throttle, untold)
            if checksum != moved.checksum:
                return Problem("differs", leaf.path, f"file {moved.id} holds something else")
        key = place_of(moved.storage_key).blob_key
        row = await expected_of(self._rows, key)
        held = await self._target.head(key)
        if held is None:
            return Problem("missing", leaf.path, f"the bytes of file {moved.id} are not in the target")
        if row is not None and row.size not in (None, held.size):
            return Problem("corrupt", leaf.path, f"file {moved.id} has {held.size} bytes, and its row says {row.size}")
        if self._deep:
            throttle = self._work.throttle
            info, sums = await read_sums(self._target, key, row, throttle=throttle, on_bytes=on_bytes)
            self._work.report.read += 1
            if wrong := complaint(sums, info, row):
                return Problem("corrupt", leaf.path, f"file {moved.id}: {wrong}")
        return None
