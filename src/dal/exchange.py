"""Two names in a file system that change places: files, or a directory and the notice that stands for it while away.

In one step where the system can (renameat2 of Linux), so that nobody ever finds neither.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2


def exchange(place: Path, away: Path, notice: bytes) -> None:
    """Gives each of the two the other's name. Where the system cannot do it at once, it takes two steps, of which the
    second one follows at once, and the data is never without a name.

    notice  what the file holds that stands in the place of the directory, where it has to be written anew.
    """
    if exchanged(place, away):
        return
    if away.is_dir():
        place.unlink(missing_ok=True)
        away.rename(place)
    else:
        away.unlink()
        place.rename(away)
        place.write_bytes(notice)


def exchanged(one: Path, other: Path) -> bool:
    """Gives each of the two the other's name in one step; False where the system cannot, and then nothing was done."""
    rename = _renameat2()
    if rename is None:
        return False
    number = rename(os.fsencode(one), os.fsencode(other))
    if number not in (0, errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number), str(one))
    return number == 0


@cache
def _renameat2() -> Callable[[bytes, bytes], int] | None:
    """Exchanges two names; the error's number, 0 for none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None

    def rename(one: bytes, other: bytes) -> int:
        return ctypes.get_errno() if function(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE) != 0 else 0

    return rename
