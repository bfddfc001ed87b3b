"""Looking at the files: what changed since the last look becomes writes of the image.

A file that looks as it did is not read; one that was read within moments of its last change is read again the next
time, as its times may not tell of another. A file that cannot be taken in - damaged, not whole yet, or against what
the image must hold - is named, and its rows stay as they are until it can be. A directory that has vanished as a whole
takes nothing with it: that is a mount that is not there more often than it is a wish.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Final

from dal.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    MissingReferenceError,
    UnavailableError,
)
from dal.legacy.book import Book, Claim, Known
from dal.legacy.directories import DIRECTORIES, MEMORY, Directory, FileState, files, names, state_of
from dal.legacy.mapping import Found, read_file
from dal.legacy.planning import Planned, plan_chats, plan_memory
from dal.limits import LEGACY_SURE_S
from dal.ops import Insert, Op
from dal.store import Store

_REFUSALS: Final = (AlreadyExistsError, ConflictError, InvalidInputError, MissingReferenceError)
#: Files of one commit.
_FILES: Final = 64
_NEVER: Final = FileState(-1, 0, 0, 0)
_NOW: Final = 1 << 63


@dataclass(slots=True)
class _File:
    """A file that was looked at. known None: it is gone.

    found     what it holds now.
    released  what it held before and does not hold now.
    """

    directory: Directory
    path: str
    known: Known | None
    found: list[Found]
    seen: datetime
    released: set[str] = field(default_factory=set)


class Scanner:
    """Carries what changed in the files of one root into the image. One look at a time.

    problems  by file, a sentence about each one that could not be taken in.
    """

    def __init__(self, root: Path, image: Store, book: Book) -> None:
        self.problems: dict[str, str] = {}
        self._root = root
        self._image = image
        self._book = book

    async def scan(
        self,
        units: Collection[str],
        states: Mapping[str, FileState] | None = None,
        known: Mapping[str, Known] | None = None,
    ) -> int:
        """Takes in what changed in the files of these units; how many rows.

        states  how all of these files look, where that is known and will not change.
        known   what was known of them, where that was read already.
        """
        directories = [directory for directory in DIRECTORIES if directory.unit in units]
        try:
            known = await asyncio.to_thread(self._book.known) if known is None else known
            differing = await asyncio.to_thread(self._differing, directories, known, states)
        except OSError as error:
            raise UnavailableError(f"{self._root}: cannot be read: {error.strerror}", operation="rescan") from error
        count = 0
        for first in range(0, len(differing), _FILES):
            some = await asyncio.to_thread(self._read, differing[first : first + _FILES], known)
            count += await self._take_in(some)
        return count

    def before_fence(self, directories: Sequence[Directory]) -> Mapping[str, Known]:
        """What is known of files, for what follows while nobody else looks. Blocks.

        Raises ConflictError where a directory is not there that held files: one made in its place would be empty.
        """
        known = self._book.known()
        for directory in directories:
            if not directory.found(self._root).is_dir() and any(p.startswith(f"{directory.name}/") for p in known):
                raise ConflictError(f"{directory.unit}: {_vanished(directory)}", operation="fence")
        return known

    def paths(self, directories: Iterable[Directory], known: Mapping[str, Known]) -> list[str]:
        """The files, those that changed last before the others: they are the likeliest to be open. Blocks."""
        found: list[tuple[int, str]] = []
        for directory in directories:
            base, prefix = str(directory.found(self._root)), directory.name
            for name in names(self._root, directory):
                before = known.get(f"{prefix}/{name}")
                changed_ns = before.state.mtime_ns if before is not None and before.state != _NEVER else _NOW
                found.append((-changed_ns, f"{base}/{name}"))
        return [path for _, path in sorted(found)]

    def _differing(
        self, directories: Sequence[Directory], known: Mapping[str, Known], states: Mapping[str, FileState] | None
    ) -> list[tuple[Directory, str]]:
        """Files that are not as they are known, the vanished first: what they held may be in another one now."""
        changed: list[tuple[Directory, str]] = []
        gone: list[tuple[Directory, str]] = []
        for directory in directories:
            prefix = f"{directory.name}/"
            ours = {path for path in known if path.startswith(prefix)}
            for path in [path for path in self.problems if path.startswith(prefix)]:
                del self.problems[path]
            if ours and not directory.found(self._root).is_dir():
                self.problems[directory.name] = _vanished(directory)
                continue
            self.problems.pop(directory.name, None)
            if states is None:
                there = {prefix + name: state for name, state in files(self._root, directory)}
            else:
                base = str(directory.found(self._root))
                cut = len(base) + 1
                there = {prefix + p[cut:]: state for p, state in states.items() if p.startswith(f"{base}/")}
            changed += [
                (directory, path)
                for path, state in sorted(there.items())
                if path not in known or known[path].state != state
            ]
            gone += [(directory, path) for path in sorted(ours - there.keys())]
        return gone + changed

    def _read(self, differing: Iterable[tuple[Directory, str]], known: Mapping[str, Known]) -> list[_File]:
        """What these files hold now, those of which only the times changed left out."""
        same: dict[str, Known] = {}
        found: list[_File] = []
        for directory, path in differing:
            name = path[len(directory.name) + 1 :]
            try:
                state, data = _content(directory.found(self._root) / name)
            except FileNotFoundError:
                found.append(_File(directory, path, None, [], datetime.now(UTC)))
                continue
            except OSError as error:
                self.problems[path] = f"{path}: cannot be read: {error.strerror}"
                continue
            digest = blake2b(data, digest_size=16).digest()
            before = known.get(path)
            if before is not None and before.digest == digest:
                same[path] = Known(state, digest)
                continue
            try:
                content = read_file(directory, name, data)
            except InvalidInputError as error:
                self.problems[path] = f"{path}: {error.message}; its rows are kept as they were"
                continue
            if content.is_torn:
                state, digest = _NEVER, b""
                self.problems[path] = f"{path}: its last line is not whole"
            seen = datetime.fromtimestamp(os.stat(directory.found(self._root) / name).st_mtime, UTC)
            found.append(_File(directory, path, Known(state, digest), content.found, seen))
        if same:
            self._book.remember(same)
        return found

    async def _take_in(self, some: Sequence[_File]) -> int:
        """Carries the files out together, or else each alone."""
        if not some:
            return 0
        claims = [Claim(file.directory.unit, file.path, {one.key for one in file.found}) for file in some]
        claimed = await asyncio.to_thread(self._book.claim, claims)
        planned: list[tuple[_File, Planned]] = []
        for file, (released, holder) in zip(some, claimed, strict=True):
            if holder is not None:
                self.problems[file.path] = f"{file.path}: is not taken in: {holder} holds the same chat or user"
                continue
            file.released = released
            if (plan := await self._planned(file)) is not None:
                planned.append((file, plan))
        try:
            await self._commit(_together(plan.ops for _, plan in planned))
        except _REFUSALS as error:
            if len(some) == 1:
                self.problems[some[0].path] = f"{some[0].path}: is not taken in: {error.message}"
                return 0
            return sum([await self._take_in([file]) for file, _ in planned])
        await asyncio.to_thread(self._book.settle, [(file.path, file.known, file.released) for file, _ in planned])
        return sum(plan.rows for _, plan in planned)

    async def _planned(self, file: _File) -> Planned | None:
        """The file's writes; None, and a problem, where it holds what no store keeps."""
        plan = plan_memory if file.directory == MEMORY else plan_chats
        try:
            return await plan(self._image, file.found, sorted(file.released), file.seen)
        except InvalidInputError as error:
            self.problems[file.path] = f"{file.path}: {error.message}; its rows are kept as they were"
            return None

    async def _commit(self, ops: list[Op]) -> None:
        most = self._image.capabilities.max_batch_ops
        if len(ops) <= most:
            if ops:
                await self._image.commit(ops)
            return
        async with self._image.transaction() as transaction:
            for start in range(0, len(ops), most):
                await transaction.commit(ops[start : start + most])


def _vanished(directory: Directory) -> str:
    return f"{directory.name}: is not there; its rows are kept as they were"


def _together(parts: Iterable[list[Op]]) -> list[Op]:
    """The writes of several files, in their order; a user whom two of them name is made once."""
    made: set[object] = set()
    ops: list[Op] = []
    for part in parts:
        for op in part:
            if isinstance(op, Insert) and op.table == "users":
                if op.row["id"] in made:
                    continue
                made.add(op.row["id"])
            ops.append(op)
    return ops


def _content(path: Path) -> tuple[FileState, bytes]:
    """A file's content, and how it looked; never to be met again where it may have changed meanwhile."""
    with path.open("rb") as file:
        before = state_of(os.fstat(file.fileno()))
        data = file.read()
        after = state_of(os.fstat(file.fileno()))
    is_young = time.time_ns() - max(after.mtime_ns, after.ctime_ns) < LEGACY_SURE_S * 1_000_000_000
    return (_NEVER if is_young or before != after else after), data
