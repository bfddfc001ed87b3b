"""What a writer meant to do and what it was told, in a file of its own: a line before each call and a line after it.

Lines are written with one system call each and never synced: a killed process leaves what it wrote to the kernel. Rows
go by natural keys, as `["memory", user, type, key]`, so that a row whose id the store chose is found again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from dal.errors import DalError

#: A row by what its writer knows of it, the entity first: `("chat", "c1")`.
RowKey: TypeAlias = tuple[str, ...]
#: What the writer knows of a row's columns; None where the row is gone.
Content: TypeAlias = Mapping[str, Any] | None

SUFFIX: Final = ".ledger"


class Change(NamedTuple):
    """What one call makes of one row. `content` may leave out columns that the writer cannot know."""

    key: RowKey
    content: Content


class Ledger:
    """The ledger of one lane: a writer that makes one call after the other."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = os.open(directory / f"{name}{SUFFIX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._started = 0.0

    def intend(self, what: str, changes: Sequence[Change]) -> None:
        self._write(["intend", now_s(), what, changes])
        self._started = time.monotonic()

    def acknowledge(self, changes: Sequence[Change] | None = None) -> None:
        """The call returned; changes that say more than the intended ones did take their place."""
        self._write(["ok", now_s(), self._took_s(), changes])

    def fail(self, error: DalError) -> None:
        self._write(["error", now_s(), self._took_s(), type(error).__name__, error.outcome, str(error)])

    def refused(self, kind: str, message: str) -> None:
        """A program of others was refused, or could not write; nothing was written."""
        self._write(["refused", now_s(), self._took_s(), kind, "not_applied", message])

    def lost(self, kind: str, message: str) -> None:
        """A program of others does not know whether it has written."""
        self._write(["refused", now_s(), self._took_s(), kind, "unknown", message])

    def forget(self) -> None:
        """From here on the lane has new rows; those before stay as they are."""
        self._write(["forget", now_s()])

    def broken(self, what: str) -> None:
        """Something that must never be was seen."""
        self._write(["broken", now_s(), what])

    def read_failed(self, error: DalError) -> None:
        self._write(["unread", now_s(), type(error).__name__, str(error)])

    def close(self) -> None:
        os.close(self._file)

    def _took_s(self) -> float:
        return time.monotonic() - self._started

    def _write(self, line: Sequence[object]) -> None:
        data = orjson.dumps(line, tuple, orjson.OPT_APPEND_NEWLINE)  # a named tuple goes as a plain one
        written = os.write(self._file, data)
        assert written == len(data), "a ledger's line was cut short"


def now_s() -> float:
    return time.monotonic()


def lines_of(path: Path) -> Iterator[list[Any]]:
    """The lines of a ledger; one that a kill tore is left out, for the call behind it was never made."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield orjson.loads(line)


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as a ledger reads it back: times as text."""
    found: dict[str, Any] = orjson.loads(orjson.dumps(content))
    return found
