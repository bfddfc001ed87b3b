"""The way back from files to a plain directory: what was uploaded since the move, written into the directory.

The directory still holds everything that was moved from it, so only what did not come from there is missing. It is
written below `since-the-move/OWNER/FILE_ID/NAME`, verified, and nothing that is there is replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from dal.errors import CorruptDataError, DalError
from dal.files_move.directory import SOURCE
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.report import ContentsReport, ProblemKind
from dal.files_move.side_by_side import side_by_side
from dal.files_move.work import Work
from dal.limits import MAX_PAGE_ROWS
from dal.models import FileRecord, Page

SINCE: Final = "since-the-move"


class Downloads(Protocol):
    """What lists files and writes their contents: `dal.files`."""

    async def list(self, *, limit: int = 50, after: str | None = None) -> Page[FileRecord]: ...

    async def download_to(self, file_id: str, path: Path, *, verify: bool = False) -> FileRecord: ...


async def roll_back_directory(
    root: Path,
    files: Downloads,
    *,
    options: MoveOptions = DEFAULTS,
) -> ContentsReport:
    """Writes every file that was not made of a path of a directory below `root`; rows and contents stay as they are.

    Run it again to go on: a file that is there whole is left alone. Raises UnavailableError.
    """
    work = Work(ContentsReport(action="rollback", began=options.clock()), options)
    after: str | None = None
    async with side_by_side(work.jobs) as begin:
        while True:
            part = await files.list(limit=MAX_PAGE_ROWS, after=after)
            for record in part.items:
                if SOURCE not in record.metadata:
                    await begin(partial(_one, root, files, work, record))
            if part.next is None:
                break
            after = part.next
    return work.end()


async def _one(root: Path, files: Downloads, work: Work, record: FileRecord) -> None:
    place = root / SINCE / record.user_id / record.id / record.filename
    report = work.report
    try:
        if await asyncio.to_thread(_checksum, place) == record.checksum is not None:
            report.there += 1
        else:
            await asyncio.to_thread(os.makedirs, place.parent, 0o700, True)
            await work.patiently(partial(files.download_to, record.id, place, verify=True))
            report.copied += 1
            report.copied_bytes += record.file_size
    except DalError as error:
        if error.retryable:
            raise
        kind: ProblemKind = "corrupt" if isinstance(error, CorruptDataError) else "failed"
        work.problem(kind, record.storage_key, f"file {record.id}: {type(error).__name__}: {error.message}")
    except OSError as error:
        work.problem("failed", record.storage_key, f"file {record.id} cannot be written: {error.strerror}")
    work.done(record.file_size)


def _checksum(path: Path) -> str | None:
    """`sha256:…` of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except FileNotFoundError:
        return None
