"""The files below a directory, as a move of contents takes them: in one order, and each read as it was at one moment.

Links are not followed and nothing but plain files is taken, so nothing outside the directory is reached. A file that
changes while it is read is read again.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
import stat
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final, NamedTuple, ParamSpec, TypeVar

from dal.blobs.base import BlobInfo, Reading
from dal.blobs.data import SlicedBytes
from dal.errors import InvalidInputError, NotFoundError
from dal.files_move.report import Problem
from dal.files_move.throttle import OnBytes, Throttle, untold
from dal.limits import BLOB_PIECE_BYTES
from dal.values import now

#: Ids of files from directories are UUIDs of version 5 in this namespace, of their owner's id and their path.
NAMESPACE: Final = uuid.UUID("6f1d3c52-0a67-5c1b-9f8e-2f2b6c1a7d10")


P = ParamSpec("P")
T = TypeVar("T")


class ChangedError(InvalidInputError):
    """A file is not what it was when it was found: look again."""


class Leaf(NamedTuple):
    """A file: its path below the directory with `/` between parts, its bytes, and when it was written last."""

    path: str
    size: int
    modified_ns: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def mime_type(self) -> str | None:
        """What its name says it is; a guess."""
        return mimetypes.guess_type(self.name)[0]

    def id_for(self, user_id: str) -> str:
        """The id of the file it becomes, which is the same every time."""
        return str(uuid.uuid5(NAMESPACE, f"{user_id}/{self.path}"))


async def leaves(root: Path) -> AsyncGenerator[Leaf | Problem, None]:
    """Every file below the directory, in the order of names; what is no plain file as a problem.

    Memory is the names of one directory at each level. Raises InvalidInputError: no such directory.
    """
    if not await asyncio.to_thread(root.is_dir):
        raise InvalidInputError(f"{root}: no such directory")
    async for found in _below(root, ""):
        yield found


async def read_leaf(root: Path, leaf: Leaf, throttle: Throttle, on_bytes: OnBytes) -> AsyncGenerator[bytes, None]:
    """The bytes of the file that was found. Raises ChangedError, before their end, where it is not that any more."""
    file = await _try(leaf, _open, root / leaf.path)
    try:
        while piece := await _try(leaf, os.read, file, BLOB_PIECE_BYTES):
            on_bytes(len(piece))
            await throttle.passed(len(piece))
            yield piece
        seen = os.fstat(file)
        if (seen.st_size, seen.st_mtime_ns) != (leaf.size, leaf.modified_ns):
            raise ChangedError(f"{leaf.path}: it changed while it was read")
    finally:
        os.close(file)


async def look_again(root: Path, leaf: Leaf) -> Leaf | None:
    """The file as it is now; None where there is none any more."""
    try:
        found = await asyncio.to_thread(os.lstat, root / leaf.path)
    except OSError:
        return None
    return Leaf(leaf.path, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


async def checksum_of_leaf(root: Path, leaf: Leaf, throttle: Throttle, on_bytes: OnBytes) -> str:
    """`sha256:…` of the file. Raises as `read_leaf`."""
    found = hashlib.sha256()
    async for piece in read_leaf(root, leaf, throttle, on_bytes):
        found.update(piece)
    return f"sha256:{found.hexdigest()}"


async def opened(root: Path, leaf: Leaf, end: int | None) -> Reading:
    """The file up to an end as a blob store would give it, in memory: for trials. Raises NotFoundError."""
    pieces, size = [], 0
    try:
        async with aclosing(read_leaf(root, leaf, Throttle(None), untold)) as every:
            async for piece in every:
                pieces.append(piece)
                size += len(piece)
                if end is not None and size >= end:
                    break
    except ChangedError as error:
        raise NotFoundError(error.message) from error
    content = b"".join(pieces)[:end]
    return Reading(BlobInfo(leaf.path, leaf.size, now()), SlicedBytes(content, BLOB_PIECE_BYTES))


async def _try(leaf: Leaf, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call gives, in a thread. Raises ChangedError: the file is gone; NotFoundError: it cannot be read."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except FileNotFoundError as error:
        raise ChangedError(f"{leaf.path}: it is not there any more") from error
    except OSError as error:
        raise NotFoundError(f"{leaf.path}: it cannot be read: {error.strerror}") from error


async def _below(root: Path, path: str) -> AsyncGenerator[Leaf | Problem, None]:
    try:
        entries = await asyncio.to_thread(_entries, root / path)
    except OSError as error:
        yield Problem("failed", path or ".", f"the directory cannot be read: {error.strerror}")
        return
    for name, kind, size, modified_ns in entries:
        below = f"{path}/{name}" if path else name
        if not _is_text(name):
            yield Problem("name", below.encode("utf-8", "backslashreplace").decode(), "its name is no UTF-8")
        elif kind == "directory":
            async for found in _below(root, below):
                yield found
        elif kind == "file":
            yield Leaf(below, size, modified_ns)
        else:
            yield Problem("name", below, f"it is a {kind}, which is not followed")


def _entries(directory: Path) -> list[tuple[str, str, int, int]]:
    """Name, kind, size and time of everything in a directory, by name; what goes meanwhile is left out."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            kind = _kind(seen.st_mode)
            found.append((entry.name, kind, seen.st_size, seen.st_mtime_ns))
    return sorted(found)


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "device, pipe or socket"


def _open(path: Path) -> int:
    """A descriptor that no link and no pipe put in the file's place can lead astray."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(2, "it is no plain file any more")
    return file


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
