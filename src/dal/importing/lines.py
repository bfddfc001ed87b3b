"""The lines of a file, plain or gzip, one after another in constant memory.

Lines end at "\\n" only: U+2028, U+0085 and lone carriage returns are text. Whatever is wrong with the file itself - a
stream cut short, damaged blocks, a line beyond the limit - comes out as a line with a problem, after every whole line
before it. It does not look into the lines.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, cast

from dal.errors import InvalidInputError

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
_CHUNK_BYTES: Final = 256 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line without its "\\n", or what is wrong with it. Numbers count from 1."""

    number: int
    data: bytes
    problem: str | None = None


class LineReader:
    """An open file as lines. `position_bytes` of `size_bytes` (of a pipe, both 0) says how much of it has been read."""

    def __init__(self, path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise InvalidInputError(f"{path}: cannot be read: {error.strerror}", operation="import") from error
        self._is_pipe = not self._file.seekable()
        self.size_bytes = 0 if self._is_pipe else os.fstat(self._file.fileno()).st_size
        compressed = self._file.peek(2)[:2] == _GZIP_MAGIC
        self._stream = cast(BufferedReader, gzip.GzipFile(fileobj=self._file)) if compressed else self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._file.close()

    @property
    def position_bytes(self) -> int:
        return 0 if self._is_pipe else self._file.tell()

    def __iter__(self) -> Iterator[Line]:
        number = 1
        begun: list[bytes] = []  # the pieces of a line whose end has not been read
        begun_bytes = 0
        for chunk in self.chunks():
            if isinstance(chunk, str):
                yield Line(number, b"", chunk)
                return
            first, *rest = chunk.split(b"\n")
            begun_bytes += len(first)
            if begun_bytes <= self._max_line_bytes:
                begun.append(first)
            else:
                begun.clear()
            if not rest:
                continue
            yield self._line(number, b"".join(begun), begun_bytes)
            number += 1
            *whole, last = rest
            for data in whole:
                yield self._line(number, data, len(data))
                number += 1
            begun, begun_bytes = [last], len(last)
        if begun_bytes:
            yield self._line(number, b"".join(begun), begun_bytes)

    def chunks(self) -> Iterator[bytes | str]:
        """Pieces of the file; a text at the end says why there are no more."""
        begin = True
        while True:
            try:
                # One read of the layer below, so that what came before a damaged block is not lost with it.
                chunk = self._stream.read1(_CHUNK_BYTES)
            except EOFError:
                yield "the gzip stream ends early; everything before this line has been read"
                return
            except (gzip.BadGzipFile, zlib.error):
                yield "the gzip stream is damaged here; everything before this line has been read"
                return
            except OSError as error:
                yield f"the file cannot be read any further: {error.strerror}"
                return
            if not chunk:
                return
            if begin:
                chunk, begin = chunk.removeprefix(_BYTE_ORDER_MARK), False
            yield chunk

    def _line(self, number: int, data: bytes, size_bytes: int) -> Line:
        if size_bytes > self._max_line_bytes:
            return Line(number, b"", f"the line has {size_bytes} bytes, at most {self._max_line_bytes} allowed")
        return Line(number, data)
