"""Where a test run keeps its files: in memory where there is room, else where temporary files always are.

A commit to SQLite or to files waits for its disk, and tests commit a hundred thousand times: on one machine 2.5 ms and
0.1 ms of processor each, against 0.01 ms in memory. No test needs the disk for its claim: a killed process leaves
behind what the kernel has, wherever that is. Benchmarks and the programs of `make` stay on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: pytest's own variable for the place of temporary directories. Whoever sets it has chosen.
VARIABLE: Final = "PYTEST_DEBUG_TEMPROOT"
MEMORY: Final = Path("/dev/shm")  # noqa: S108  # pytest makes private directories in it
#: A worker needs some hundreds of MiB at once, most of them for PostgreSQL's log. Containers often have 64 MiB there.
ROOM_BYTES: Final = 4 * 1024**3
#: ST_NOEXEC, which `os` names on Linux only.
NO_PROGRAMS: Final = 8


def prefer_memory() -> None:
    """Has pytest, and the engines of this process and its children, keep their files in memory if that can be."""
    if VARIABLE not in os.environ and _has_room(MEMORY):
        os.environ[VARIABLE] = str(MEMORY)


def is_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this run, or the one that started this process, keeps its files in memory."""
    return environ.get(VARIABLE) == str(MEMORY)


def _has_room(directory: Path) -> bool:
    try:
        status = os.statvfs(directory)
    except OSError:
        return False
    # Some tests run programs that they have written.
    is_usable = os.access(directory, os.W_OK | os.X_OK) and not status.f_flag & NO_PROGRAMS
    return is_usable and status.f_bavail * status.f_frsize >= ROOM_BYTES
