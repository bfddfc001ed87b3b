"""A small disk of a run's own, which can be full: a file system in memory that nobody outside of these processes sees.

Linux lets a process have mounts of its own, root or anybody with a user namespace. Where it does not, stores lie in the
run's directory, and no disk is ever full.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_SIZE_BYTES: Final = 64 * 2**20
_NEW_MOUNTS: Final = 0x00020000
_NEW_USER: Final = 0x10000000
_WHEN_UNUSED: Final = 2
_RECURSIVE_PRIVATE: Final = (1 << 14) | (1 << 18)


class SmallDisk:
    """Mounted in this directory, which is made. is_there: it is; else the directory is one like any other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.is_there = _has_own_mounts() and _mount(b"tmpfs", directory, b"tmpfs", 0, b"size=%d" % _SIZE_BYTES)

    def fill(self, for_s: float) -> None:
        """Nothing more goes onto the disk for so long."""
        filler = self.directory / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**20))
        deadline = time.monotonic() + for_s
        while time.monotonic() < deadline:  # what others give back meanwhile is taken, too
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                file.write(bytes(4096))
            time.sleep(0.005)
        filler.unlink(missing_ok=True)

    def close(self, *, keeping: bool) -> None:
        """Takes it away; what is on it stays in its directory where that is asked for."""
        if not self.is_there:
            return
        kept = self.directory.with_name("kept")
        if keeping:
            shutil.copytree(self.directory, kept)
        ctypes.CDLL(None).umount2(os.fsencode(self.directory), _WHEN_UNUSED)
        if keeping:
            kept.replace(self.directory)


_own_mounts: list[bool] = []


def _has_own_mounts() -> bool:
    """Gives this process, and those that it forks, mounts of their own; once."""
    if not _own_mounts:
        _own_mounts.append(sys.platform == "linux" and _unshare())
    return _own_mounts[0]


def _unshare() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS) != 0:
        if ctypes.get_errno() != errno.EPERM or libc.unshare(_NEW_MOUNTS | _NEW_USER) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return _mount(b"none", Path("/"), b"none", _RECURSIVE_PRIVATE, b"")


def _mount(what: bytes, where: Path, kind: bytes, flags: int, options: bytes) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.mount(what, os.fsencode(where), kind, ctypes.c_ulong(flags), options) == 0)
