"""A file that is written once and for keeps: made new, closed to others, on the disk when it is done."""

from __future__ import annotations

import os
from pathlib import Path

from dal.errors import UnavailableError


def make(path: Path, *, backend: str = "") -> None:
    """An empty file of mode 0600 that was not there before. Raises UnavailableError."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise unwritable(path, error, backend=backend) from error


def settle(path: Path, *, backend: str = "") -> None:
    """Content and name are on the disk on return. Raises UnavailableError."""
    try:
        for place, flags in ((path, os.O_RDWR), (path.parent, os.O_RDONLY)):
            descriptor = os.open(place, flags)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise unwritable(path, error, backend=backend) from error


def unwritable(path: Path, error: Exception, *, backend: str = "") -> UnavailableError:
    """The error to raise `from` this one."""
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    return UnavailableError(
        f"{path} cannot be written: {reason}; no backup was made", operation="backup", backend=backend, retryable=False
    )
