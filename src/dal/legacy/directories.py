"""The directories of the legacy layout, and the fence that takes them out of others' reach.

A fenced directory changes places with a regular file: it is put away beside itself, under a name with a dot, on the
same file system. A program that looks for `chat_history/…` then finds that `chat_history` is no directory; even root
cannot write through it. A process that dies on the way leaves each directory in one place or the other, and the gates
say where it belongs. What a program has open it can still write to: `writers` tells who has.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from dal.exchange import exchange

_NOTICE: Final = b"""This directory was put away by a live move of dal. Programs must not write to it any more: another
store takes its writes now.
"""
_LEASES: Final = all(hasattr(fcntl, name) for name in ("F_SETLEASE", "F_SETSIG"))
_log = logging.getLogger("dal.legacy")
_ENDINGS: Final = frozenset({".json", ".jsonl"})


class FileState(NamedTuple):
    """What tells whether a file was written to: a rename changes its inode, a write its times or its size."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Directory(NamedTuple):
    """One directory of the layout, and the unit of a move that its files belong to."""

    name: str
    unit: str

    def place(self, root: Path) -> Path:
        return root / self.name

    def away(self, root: Path) -> Path:
        place = self.place(root)
        return place.with_name(f".{place.name}.fenced")

    def found(self, root: Path) -> Path:
        """Where its files are now."""
        away = self.away(root)
        return away if away.is_dir() else self.place(root)


SESSIONS: Final = Directory("data/chat_sessions", "chats")
MEMORY: Final = Directory("data/memory", "memory")
TRANSCRIPTS: Final = Directory("chat_history", "chats")
CONVERSATIONS: Final = Directory("conversations", "chats")
DIRECTORIES: Final = (MEMORY, SESSIONS, TRANSCRIPTS, CONVERSATIONS)


def put_away(root: Path, directory: Directory) -> None:
    """Takes the directory out of others' reach, also where it is not there yet. Nothing happens where it is away."""
    place, away = directory.place(root), directory.away(root)
    if away.is_dir():
        if not place.exists():  # died between two renames
            place.write_bytes(_NOTICE)
        return
    place.mkdir(parents=True, exist_ok=True)
    away.write_bytes(_NOTICE)
    exchange(place, away, _NOTICE)
    _sync(place.parent)


def put_back(root: Path, directory: Directory) -> None:
    """Brings the directory back to where it belongs. Nothing happens where it is there."""
    place, away = directory.place(root), directory.away(root)
    if away.is_dir():
        exchange(place, away, _NOTICE)
        _sync(place.parent)
    away.unlink(missing_ok=True)


def names(root: Path, directory: Directory) -> Iterator[str]:
    """The names, below the directory, of its files that hold data, wherever it is now."""
    base = directory.found(root)
    cut = len(str(base)) + 1
    for folder, folders, here in os.walk(base):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in here:
            if os.path.splitext(name)[1] in _ENDINGS and not name.startswith("."):
                yield os.path.join(folder, name)[cut:]


def files(root: Path, directory: Directory) -> Iterator[tuple[str, FileState]]:
    """The files with how they look."""
    base = str(directory.found(root))
    for name in names(root, directory):
        with suppress(FileNotFoundError):
            yield name, state_of(os.stat(f"{base}/{name}"))


def obstacles(root: Path, directory: Directory) -> list[str]:
    """What is not taken, and what a fence could not do, a sentence each."""
    found: list[str] = []
    base = directory.found(root)
    count = sum(
        os.path.splitext(name)[1] not in _ENDINGS and not name.startswith(".")
        for _, _, here in os.walk(base)
        for name in here
    )
    if count:
        found.append(f"{directory.name}: {count:,} files are neither .json nor .jsonl, and are not taken")
    if base.is_mount():
        found.append(f"{directory.name}: is a mount point and cannot be put away; mount the directory above it")
    if base.is_symlink():
        found.append(f"{directory.name}: is a link; programs that write by another path cannot be kept out")
    return found


def state_of(status: os.stat_result) -> FileState:
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def writers(paths: Iterable[str], give_up: float = math.inf, states: dict[str, FileState] | None = None) -> str | None:
    """One of these files that a program has open for writing; None where there is none, or nobody can tell.

    give_up  the moment (monotonic) from which on no more files are asked but the first: 10 to 30 µs each.
    states   gets how each file looks that nobody has open, or that was not asked.

    The kernel grants a read lease only on a file that nobody has open for writing. Should anybody open it in the moment
    in which it is held, the signal that tells of it is one that is ignored.
    """
    if not _LEASES:
        return None
    is_late = False
    for number, path in enumerate(paths):
        if not is_late and number and monotonic() > give_up:
            _log.warning("many files: not all of them were asked whether a program has them open")
            is_late = True
        with suppress(FileNotFoundError):
            if is_late:
                if states is None:
                    return None
                states[path] = state_of(os.stat(path))
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                if states is not None:
                    states[path] = state_of(os.fstat(descriptor))
            except BlockingIOError:
                return path
            except OSError:
                pass  # another user's file, or a file system without leases
            finally:
                os.close(descriptor)
    return None


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
