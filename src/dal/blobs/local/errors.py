"""System calls' errors as the library's own: by number, never by message text; what was tried, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dal.errors import (
    AlreadyExistsError,
    ConfigurationError,
    CorruptDataError,
    DalError,
    NotFoundError,
    UnavailableError,
)

BACKEND: Final = "file"
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What opening says that follows no symbolic link and found one, or found no directory where one belongs.
_FOREIGN: Final = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)
#: What is said of a directory that cannot be made where it is named.
_NO_PLACE: Final = (errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@contextmanager
def translated(operation: str, subject: str) -> Iterator[None]:
    """Raises what a system call says within as an error of the library. Nothing is known to be written then."""
    try:
        yield
    except OSError as error:
        raise translate(operation, subject, error) from error


def opening_error(root: Path, error: OSError) -> DalError:
    """Why the directory cannot be opened."""
    if error.errno in _NO_PLACE and not os.path.isdir(root):
        why = "is no directory" if error.errno == errno.EEXIST else f"cannot be made: {error.strerror}"
        return ConfigurationError(
            f"open: {root}: {why}; name one that is there, or can be made",
            operation="blobs.open",
            backend=BACKEND,
        )
    return translate("open", str(root), error)


def translate(operation: str, subject: str, error: OSError) -> DalError:
    """The library's error for a system call's."""
    said = f"{operation}: {subject}: {error.strerror or type(error).__name__}"
    named = f"blobs.{operation}"
    if error.errno in _FOREIGN:
        return CorruptDataError(
            f"{said}; a symbolic link or a foreign file stands where the store keeps its own; remove it",
            operation=named,
            backend=BACKEND,
        )
    if error.errno == errno.ENOENT:
        return NotFoundError(f"{operation}: no blob {subject}", operation=named, backend=BACKEND)
    if error.errno == errno.EEXIST:
        return AlreadyExistsError(f"{operation}: {subject} is there already", operation=named, backend=BACKEND)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConfigurationError(
            f"{said}; the store needs a directory that it alone writes to", operation=named, backend=BACKEND
        )
    advice = "free some space and retry" if error.errno in _NO_SPACE else "look after the disk and retry"
    return UnavailableError(f"{said}; {advice}", operation=named, backend=BACKEND)
