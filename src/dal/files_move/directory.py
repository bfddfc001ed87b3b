"""Moves a plain directory, as a Django MEDIA_ROOT, into `dal.files`: each file becomes a row with its content.

The id of a file follows from its owner and its path, so a repeat is harmless: what has become a file is left alone,
also where the application has renamed or deleted that since. The directory is never written to.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

from dal.blobs.base import BlobStore
from dal.errors import CorruptDataError, DalError
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.report import ContentsReport, OnProblem, Problem, ProblemKind
from dal.files_move.side_by_side import side_by_side
from dal.files_move.throttle import OnBytes
from dal.files_move.tree import ChangedError, Leaf, checksum_of_leaf, leaves, look_again, read_leaf
from dal.files_move.turn import turn
from dal.files_move.work import Passing, Work
from dal.limits import CONTENTS_LOOKS, CONTENTS_PAGE_ROWS, CONTENTS_WHOLE_BYTES
from dal.models import FileRecord
from dal.ops import Compare, JsonValue, Select
from dal.store import ReadCommit

#: Whose a path is: a user's id; None where nobody says.
OwnerOf: TypeAlias = Callable[[str], str | None]
#: Where a file's metadata say what it was made of.
SOURCE: Final = "moved_from"
_COLUMNS: Final = ("id", "storage_key", "file_size", "checksum", "metadata", "status")


class Uploads(Protocol):
    """What stores a file with its content: `dal.files`."""

    async def upload(
        self,
        user_id: str,
        filename: str,
        data: bytes | AsyncIterator[bytes],
        *,
        metadata: dict[str, JsonValue] | None = None,
        id: str | None = None,
    ) -> FileRecord: ...


class MovedFile(NamedTuple):
    """What is known of the file that a path has become."""

    id: str
    storage_key: str
    size: int
    checksum: str | None
    metadata: JsonValue
    status: str

    def is_of(self, leaf: Leaf) -> bool:
        """It was made of the path as it is now: the content need not be read again."""
        return isinstance(self.metadata, dict) and self.metadata.get(SOURCE) == _source(leaf)


class PathToMove(NamedTuple):
    """A path to be moved, whose it is, and what it has become already."""

    leaf: Leaf
    owner: str
    moved: MovedFile | None


async def move_directory(
    root: Path,
    files: Uploads,
    target: BlobStore,
    rows: ReadCommit,
    owner_of: OwnerOf,
    *,
    options: MoveOptions = DEFAULTS,
) -> ContentsReport:
    """Makes a file of every path that has not become one yet. Run it again to go on, and to take along what is new.

    files     `dal.files` over `target` and `rows`: quotas, allowed types and size limits hold as for uploads, and what
              they refuse is a problem of its path.
    Problems  differs: the path holds something else than when it was moved; the file is left as it is.
              changing: it was written to again and again meanwhile.  name: links, names that are no UTF-8, and paths
              of which `owner_of` knows nobody.
    Raises    InvalidInputError: no such directory.  ConflictError: another mover is at work on the target.
              UnavailableError: a store did not answer, again and again.
    Cost      a read for each thousand paths, an upload each; a path whose size or time changed is read to be compared.
    """
    work = Work(ContentsReport(action="move", began=options.clock()), options)
    await expect(root, work)
    mover = _Mover(root, files, work)
    async with (
        turn(target, options),
        aclosing(paths_of(root, rows, owner_of, work.found)) as paths,
        side_by_side(work.jobs) as begin,
    ):
        async for path in paths:
            await begin(partial(mover.one, path))
    return work.end()


async def paths_of(
    root: Path, rows: ReadCommit, owner_of: OwnerOf, on_problem: OnProblem
) -> AsyncGenerator[PathToMove, None]:
    """Every path of the directory with what it has become, a read for each CONTENTS_PAGE_ROWS of them."""
    batch: list[tuple[Leaf, str]] = []
    async with aclosing(leaves(root)) as every:
        async for found in every:
            if isinstance(found, Problem):
                on_problem(found)
                continue
            owner = owner_of(found.path)
            if owner is None:
                on_problem(Problem("name", found.path, "nobody says whose it is: name a user for all, or map the path"))
                continue
            batch.append((found, owner))
            if len(batch) == CONTENTS_PAGE_ROWS:
                for path in await _with_files(rows, batch):
                    yield path
                batch = []
    for path in await _with_files(rows, batch):
        yield path


async def expect(root: Path, work: Work) -> None:
    """Counts what there is, for the progress: a walk through the names."""
    async with aclosing(leaves(root)) as every:
        async for found in every:
            if isinstance(found, Leaf):
                work.total_files += 1
                work.total_bytes += found.size


class _Mover:
    def __init__(self, root: Path, files: Uploads, work: Work) -> None:
        self._root = root
        self._files = files
        self._work = work

    async def one(self, path: PathToMove) -> None:
        """Makes a file of the path, or sees that there is one."""
        leaf, owner, moved = path
        passing = Passing(self._work)
        for _ in range(CONTENTS_LOOKS):
            try:
                await passing.patiently(
                    partial(self._upload, leaf, owner) if moved is None else partial(self._compare, leaf, moved)
                )
                break
            except ChangedError:
                seen = await look_again(self._root, leaf)
                if seen is None:
                    return passing.end()  # deleted meanwhile
                leaf = seen
            except DalError as error:
                if error.retryable:
                    raise
                kind: ProblemKind = "corrupt" if isinstance(error, CorruptDataError) else "failed"
                self._work.problem(kind, leaf.path, f"{type(error).__name__}: {error.message}")
                break
        else:
            self._work.problem("changing", leaf.path, f"it was written to {CONTENTS_LOOKS} times while it was read")
        passing.end()
        return self._work.done(leaf.size, is_there=moved is not None)

    async def _upload(self, leaf: Leaf, owner: str, on_bytes: OnBytes) -> None:
        """Stores the file, whose bytes are hashed here as well."""
        found = hashlib.sha256()

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in read_leaf(self._root, leaf, self._work.throttle, on_bytes):
                found.update(piece)
                yield piece

        whole = leaf.size <= CONTENTS_WHOLE_BYTES
        data = b"".join([piece async for piece in pieces()]) if whole else pieces()
        metadata: dict[str, JsonValue] = {SOURCE: _source(leaf)}
        record = await self._files.upload(owner, leaf.name, data, metadata=metadata, id=leaf.id_for(owner))
        if record.checksum != f"sha256:{found.hexdigest()}":
            raise CorruptDataError(f"{leaf.path}: other bytes were read than file {record.id} holds")
        self._work.report.copied += 1
        self._work.report.copied_bytes += leaf.size

    async def _compare(self, leaf: Leaf, moved: MovedFile, on_bytes: OnBytes) -> None:
        """Of a path that has become a file: whether it holds the same still."""
        if moved.is_of(leaf) or moved.checksum == await checksum_of_leaf(
            self._root, leaf, self._work.throttle, on_bytes
        ):
            self._work.report.there += 1
            return
        self._work.report.kept += 1
        told = f"it changed since it was moved; file {moved.id} was left as it is"
        self._work.problem("differs", leaf.path, told)


async def _with_files(rows: ReadCommit, batch: list[tuple[Leaf, str]]) -> list[PathToMove]:
    """The paths with the files they have become."""
    ids = tuple(leaf.id_for(owner) for leaf, owner in batch)
    found = await rows.read(Select("files", (Compare("id", "in", ids),), columns=_COLUMNS)) if ids else []
    known = {str(row[0]): MovedFile(*row) for row in found}  # type: ignore[arg-type]  # the columns' kinds
    return [PathToMove(leaf, owner, known.get(row_id)) for (leaf, owner), row_id in zip(batch, ids, strict=True)]


def _source(leaf: Leaf) -> dict[str, JsonValue]:
    return {"path": leaf.path, "size": leaf.size, "modified_ns": leaf.modified_ns}
