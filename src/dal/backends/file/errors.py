"""System calls' errors as the library's own: by number, never by message text; what was tried, and what to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import Final

from dal.backends.file.index import is_damage
from dal.backends.file.layout import BACKEND, Layout
from dal.errors import (
    ConfigurationError,
    CorruptDataError,
    DalError,
    DalTimeoutError,
    Outcome,
    UnavailableError,
)

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What is said of a place that cannot be made or written to, whoever tries, until somebody names another.
_WRONG_PLACE: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


def opening_error(layout: Layout, error: OSError | sqlite3.Error) -> DalError:
    """Why a store cannot be opened."""
    is_missing = isinstance(error, FileNotFoundError)
    if getattr(error, "errno", None) in _WRONG_PLACE or (is_missing and not layout.root.is_dir()):
        return ConfigurationError(
            f"{layout.root}: {reason(error)}; the store needs a directory it may write to",
            operation="open",
            backend=BACKEND,
        )
    if is_missing:
        return CorruptDataError(
            f"{layout.root}: part of the journal is gone: {reason(error)}; restore the directory from a backup",
            operation="open",
            backend=BACKEND,
        )
    return UnavailableError(f"{layout.root}: {reason(error)}", operation="open", backend=BACKEND)


def damaged_file(layout: Layout, path: Path) -> CorruptDataError:
    """A file of the library's own that holds something else than it wrote."""
    return CorruptDataError(
        f"{layout.relative(path)}: is damaged; restore the directory {layout.root} from a backup",
        operation="open",
        backend=BACKEND,
    )


def timed_out(layout: Layout, operation: str, timeout_s: float) -> DalTimeoutError:
    """Others held the store for too long."""
    return DalTimeoutError(
        f"{operation}: others held {layout.root} for {timeout_s} s; retry", operation=operation, backend=BACKEND
    )


def reading_error(layout: Layout, operation: str, error: OSError | sqlite3.Error) -> DalError:
    """A file that could not be read."""
    if getattr(error, "errno", None) == errno.EBADF:  # its descriptor went with the store
        return UnavailableError(
            f"{operation}: the store was closed meanwhile; open it again",
            operation=operation,
            backend=BACKEND,
            retryable=False,
        )
    advice = f"; close the store, remove {layout.index.parent} and open it again" if _is_damaged_index(error) else ""
    return UnavailableError(
        f"{operation}: {layout.root} could not be read: {reason(error)}{advice}", operation=operation, backend=BACKEND
    )


def _is_damaged_index(error: OSError | sqlite3.Error) -> bool:
    return isinstance(error, sqlite3.Error) and is_damage(error)


def writing_error(layout: Layout, operation: str, error: OSError, outcome: Outcome) -> DalError:
    """A record that could not be appended to the journal."""
    advice = "free some space and retry" if error.errno in _NO_SPACE else "look after the disk and retry"
    return UnavailableError(
        f"{operation}: writing to {layout.journal} failed: {reason(error)}; {advice}",
        operation=operation,
        backend=BACKEND,
        retryable=outcome == "not_applied",
        outcome=outcome,
    )


def reason(error: BaseException) -> str:
    """What the system says, with the file it says it of."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return str(error) or type(error).__name__
