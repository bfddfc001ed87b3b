"""Locks between processes: flock on a file of its own, which the kernel lets go when its holder dies.

Waiting is bounded and leaves the event loop free: the lock is tried again every millisecond or two, so a wait that is
cancelled or too long leaves nothing behind. A blocking flock in a thread would be fairer, but could be neither.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from dal.backends.file.layout import open_file

_FIRST_WAIT_S: Final = 0.001


class FileLock:
    """Held by one of all open FileLocks on this path, in any process; or shared by some."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        self._is_closed = False

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Takes the lock if it is free. A shared one lets in others who share it, and waits for nobody else's turn."""
        if self._is_closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path))  # the number may be another file's
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def acquire(self, timeout_s: float, *, shared: bool = False) -> None:
        """Takes the lock, waiting for it. TimeoutError: others held it all the time."""
        deadline = monotonic() + timeout_s
        while not self.try_acquire(shared=shared):  # noqa: ASYNC110  # another process lets go
            await asyncio.sleep(self._pause_s(deadline, timeout_s))

    def wait(self, timeout_s: float) -> None:
        """As `acquire`, in a thread."""
        deadline = monotonic() + timeout_s
        while not self.try_acquire():
            sleep(self._pause_s(deadline, timeout_s))

    def _pause_s(self, deadline: float, timeout_s: float) -> float:
        if monotonic() >= deadline:
            raise TimeoutError(f"{self._path.name} was held by others for {timeout_s} s")
        return _FIRST_WAIT_S * random.uniform(0.5, 1.5)  # noqa: S311  # only spreads the tries

    def release(self) -> None:
        if not self._is_closed:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of the lock too."""
        self._is_closed = True
        os.close(self._descriptor)
