"""An append-only file of records, each on the disk before `append` returns: the file part of custom_backend.py."""

import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from dal.errors import UnavailableError


class Log:
    """The records of one file, which is made where it is not there, and readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self) -> Iterator[list[bytes]]:
        """Every whole record, oldest first. What a crash left half written was never acknowledged: it is cut off."""
        file, end = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b"), 0
        try:
            while True:
                yield pickle.load(file)  # noqa: S301  # a file of our own
                end = file.tell()
        except (EOFError, pickle.UnpicklingError):
            file.truncate(file.seek(end))
        self._file = file

    def append(self, record: Sequence[bytes]) -> None:
        """Raises UnavailableError, with the file as it was."""
        if self._file is None:
            raise UnavailableError(f"commit: {self._path} is closed; open it first", operation="commit", backend="log")
        if not record:
            return
        end = self._file.tell()
        try:
            self._file.write(pickle.dumps(record))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._file.seek(end))
            raise UnavailableError(f"commit: {self._path}: {error}", operation="commit", backend="log") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
