"""The database's file: there, reachable, and closed to everybody but its owner."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from dal.backends.sqlite.errors import BACKEND
from dal.errors import ConfigurationError, SchemaError
from dal.urls import schema_up


def provide(path: Path, *, create: bool) -> None:
    """Sees to the file before it is opened.

    create  the file and the directories above it are made where they are missing (0600 and 0700).
    Raises  SchemaError: it is not there.  ConfigurationError: it cannot be written.
    """
    if not create and not path.exists():
        raise SchemaError(f"{path} is not there; {schema_up(BACKEND, path)}", operation="open", backend=BACKEND)
    try:
        _make_directories(path.parent)
        # SQLite gives the files beside it (-wal, -shm) the mode of this one. A file that is there is not opened:
        # closing it would take away the locks that another store of this process holds on it through SQLite.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be opened for writing ({type(error).__name__}); "
            "check that the file and its directory are writable",
            operation="open",
            backend=BACKEND,
        ) from error


def _make_directories(directory: Path) -> None:
    """The directory and what is missing above it, each open to its owner only (`Path.mkdir` minds only the last)."""
    missing = [directory, *directory.parents]
    missing = missing[: next((i for i, d in enumerate(missing) if d.exists()), len(missing))]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
