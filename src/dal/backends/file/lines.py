"""JSON-lines files: one record per line, split at "\\n" only, read from either end and from the middle.

Only whole lines count: what stands behind the last line end is being appended, or was torn. Files are read with a few
`pread`s in chunks, so that the newest lines of a file of any size cost the same, and a place in a file that is sorted
by a number is found by bisection, 10 to 15 reads in 100,000 lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dal.backends.file.layout import Layout, open_file

_CHUNK_BYTES: Final = 16 * 1024
_MAX_CHUNK_BYTES: Final = 1024 * 1024


def open_lines(layout: Layout, path_of: Callable[[], Path]) -> LineFile:
    """The file at a path within the store, wherever a live move's fence has put it meanwhile. FileNotFoundError."""
    while True:
        path = path_of()
        try:
            return LineFile(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            layout.look()
            if path_of() == path:
                raise FileNotFoundError(path) from error


class LineFile:
    """An open file of lines, for reading. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = open_file(path, os.O_RDONLY)
        self.size = os.fstat(self.descriptor).st_size

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def end(self) -> int:
        """Where the last whole line ends."""
        place = self.size
        while place > 0:
            begin = max(0, place - _CHUNK_BYTES)
            found = os.pread(self.descriptor, place - begin, begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            place = begin
        return 0

    def line(self, offset: int, size_bytes: int) -> bytes:
        """The line that begins here and is so long."""
        return os.pread(self.descriptor, size_bytes, offset)

    def forward(self, start: int = 0, chunk_bytes: int = _MAX_CHUNK_BYTES) -> Iterator[tuple[int, bytes]]:
        """The whole lines from this line's beginning on, each with its offset and without its line end."""
        rest, offset, place = b"", start, start
        while place < self.size:
            chunk = os.pread(self.descriptor, min(chunk_bytes, self.size - place), place)
            if not chunk:
                return
            place += len(chunk)
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield offset, line
                offset += len(line) + 1
            chunk_bytes = min(2 * chunk_bytes, _MAX_CHUNK_BYTES)

    def backward(self, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """The whole lines before this line's beginning, the last first, each with its offset."""
        place = self.size if end is None else end
        rest, chunk_bytes, is_tail = b"", _CHUNK_BYTES, True
        while place > 0:
            begin = max(0, place - chunk_bytes)
            lines = (os.pread(self.descriptor, place - begin, begin) + rest).split(b"\n")
            if is_tail:
                if len(lines) == 1:  # no line end yet: go back further
                    rest, place = (lines[0], begin)
                    continue
                at = begin + sum(map(len, lines)) + len(lines) - 1 - len(lines.pop())
                is_tail = False
            else:
                at = begin + sum(map(len, lines)) + len(lines)
            rest = lines[0]
            for line in reversed(lines[1:]):
                at -= len(line) + 1
                yield at, line
            place, chunk_bytes = begin, min(2 * chunk_bytes, _MAX_CHUNK_BYTES)
        if not is_tail:
            yield 0, rest

    def bisect(self, number: Callable[[bytes], int | None], wanted: int) -> int:
        """Offset of the first line whose number is not less than `wanted`; the end of the file where none is.

        The file is sorted by `number`; a line without one is passed over.
        """
        low, high = 0, self.end()
        while high - low > _CHUNK_BYTES:
            for offset, line in self._lines_behind((low + high) // 2, high):
                found = number(line)
                if found is not None:
                    if found < wanted:
                        low = offset + len(line) + 1
                    else:
                        high = offset
                    break
            else:
                break  # one line fills the upper half
        for offset, line in self.forward(low, _CHUNK_BYTES):
            if offset >= high:
                return high
            found = number(line)
            if found is not None and found >= wanted:
                return offset
        return high

    def _lines_behind(self, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The whole lines that begin behind this byte, before `end`."""
        lines = self.forward(offset, _CHUNK_BYTES // 4)
        next(lines, None)  # the rest of the line that this byte is in
        for at, line in lines:
            if at >= end:
                return
            yield at, line
