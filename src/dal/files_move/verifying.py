"""Whether the target holds what the source holds and what the rows name: by listings and checksums, or byte by byte."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from random import Random

from dal.blobs.base import BlobStore
from dal.errors import CorruptDataError, DalError, NotFoundError
from dal.files_move.comparing import Verdict, checksum_of, compare
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.report import ContentsReport, Problem
from dal.files_move.side_by_side import side_by_side
from dal.files_move.throttle import OnBytes
from dal.files_move.transfer import complaint, read_sums
from dal.files_move.walking import Found, expected_of, walk
from dal.files_move.work import Passing, Work
from dal.store import ReadCommit


async def verify(
    source: BlobStore,
    target: BlobStore,
    rows: ReadCommit,
    *,
    sample: int | None = None,
    deep: bool = False,
    random: Random | None = None,
    options: MoveOptions = DEFAULTS,
) -> ContentsReport:
    """Compares every key of the source, and of the rows, with the target. Nothing is written.

    sample    checksums of about so many blobs, at random, are compared; of the others only that they are there, with
              their sizes.
    deep      the target's bytes are read and hashed, instead of believing the checksums it keeps.
    Raises    UnavailableError: a store did not answer, again and again.
    Cost      a list for each thousand keys; a head for each blob whose listing tells no checksum; deep: a get each.
    """
    report = ContentsReport(action="verify", began=options.clock(), sampled=sample)
    work = Work(report, options)
    await work.expect(rows)
    chance = 1.0 if sample is None else min(1.0, sample / max(1, work.total_files))
    dice = random or Random()  # noqa: S311
    check = _Check(source, target, rows, work, deep=deep)
    async with aclosing(walk(source, target, rows)) as every, side_by_side(work.jobs) as begin:
        async for found in every:
            report.extra += found.source is None and found.target is not None
            if found.source is not None or found.row is not None:
                await begin(partial(check.one, found, looks_into=dice.random() < chance))
    return work.end()


class _Check:
    def __init__(self, source: BlobStore, target: BlobStore, rows: ReadCommit, work: Work, *, deep: bool) -> None:
        self._source = source
        self._target = target
        self._rows = rows
        self._work = work
        self._deep = deep

    async def one(self, found: Found, *, looks_into: bool) -> None:
        """Compares a key; what seems wrong is looked at once more, for it may have changed since it was listed."""
        passing = Passing(self._work)
        wrong = await self._look(found, passing, looks_into=looks_into)
        if wrong is not None:
            found = await self._again(found.key)
            wrong = await self._look(found, passing, looks_into=looks_into)
        passing.end()
        info = found.source or found.target
        if wrong is not None:
            self._work.problem(*wrong)
        elif info is None:
            return  # its row, or its bytes, went meanwhile
        else:
            self._work.report.there += 1
        self._work.done(0 if info is None else info.size)

    async def _look(self, found: Found, passing: Passing, *, looks_into: bool) -> Problem | None:
        try:
            return await passing.patiently(partial(self._compare, found, looks_into=looks_into))
        except NotFoundError:
            return Problem("absent", found.key, "it was listed, and is not there")
        except CorruptDataError as error:
            return Problem("corrupt", found.key, error.message)
        except DalError as error:
            if error.retryable:
                raise
            return Problem("failed", found.key, f"{type(error).__name__}: {error.message}")

    async def _again(self, key: str) -> Found:
        return Found(
            key,
            await self._work.head(self._source, key),
            await self._work.head(self._target, key),
            await expected_of(self._rows, key),
        )

    async def _compare(self, found: Found, on_bytes: OnBytes, *, looks_into: bool) -> Problem | None:
        """What is wrong with a key; None where nothing is."""
        key, ours, theirs, row = found
        if theirs is None:
            if ours is not None:
                return Problem("absent", key, "it is in the source, and not in the target")
            if row is not None:
                return Problem("missing", key, f"a row names it (file {row.file_id}), and neither store has it")
            return None
        if row is not None and row.size not in (None, theirs.size):
            return Problem("corrupt", key, f"the target has {theirs.size} bytes, and its row says {row.size}")
        if self._deep and looks_into:
            return await self._read(found, on_bytes)
        if ours is not None and ours.size != theirs.size and row is None:
            return Problem("differs", key, f"the source has {ours.size} bytes, the target {theirs.size}")
        if looks_into and ours is not None:
            verdict = await compare(self._source, self._target, found, self._work.throttle)
            if verdict is not Verdict.EQUAL and (row is None or verdict is Verdict.SOURCE):
                return Problem("differs", key, "source and target hold other bytes")
        elif looks_into and row is not None and row.stored_checksum is not None:
            held = await checksum_of(self._target, theirs, self._work.throttle)
            if held != row.stored_checksum:
                return Problem("corrupt", key, f"the target holds {held}, and its row says {row.checksum}")
        return None

    async def _read(self, found: Found, on_bytes: OnBytes) -> Problem | None:
        """Reads the target's bytes. Where no row and no store knows their checksum, the source's are read too."""
        throttle, row = self._work.throttle, found.row
        info, sums = await read_sums(self._target, found.key, row, throttle=throttle, on_bytes=on_bytes)
        self._work.report.read += 1
        if wrong := complaint(sums, info, row):
            return Problem("corrupt", found.key, f"the target: {wrong}")
        if found.source is not None and (row is None or row.checksum is None):
            held = await checksum_of(self._source, found.source, throttle)
            if held != sums.stored:
                return Problem("differs", found.key, f"the source has {held}, the target {sums.stored}")
        return None
