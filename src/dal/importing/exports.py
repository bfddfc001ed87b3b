"""Any source of an import as an open reader: lines, an export as the lines it would be, or a directory of such files.

An export's objects are parsed, converted and written down again as lines, so that whatever holds for lines - what text
is refused, what is kept where, who wins - holds for them. What kind of file it is is only guessed where it is certain:
by the names of fields that no other format has.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from dal.errors import InvalidInputError
from dal.importing.batches import Format, Reader
from dal.importing.elements import elements
from dal.importing.formats import FORMATS, Export
from dal.importing.formats.langchain import holds_table, sessions
from dal.importing.lines import Line, LineReader
from dal.ops import JsonValue

_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_SQLITE: Final = "langchain-sqlite"
_ENDINGS: Final = frozenset({".json", ".gz"})
_FIRST_BYTES: Final = 4 * 1024 * 1024


class Source(Reader, Protocol):
    """An open source. Used in `with`."""

    def file_of(self, _number: int, /) -> str:
        """The file in which the record with this number stands."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(path: Path, format: Format, user: str | None = None) -> Source:
    """The source in this format; `auto` looks into the file first, unless it is a pipe.

    Raises InvalidInputError where it cannot be opened, or cannot be of the format.
    """
    if path.is_dir():
        return _Directory(path, format, user)
    found = _recognised(path) if format == "auto" else format
    if found in FORMATS:
        return _Exported(path, FORMATS[found], user)
    if found == _SQLITE:
        return _Table(path, user)
    return _Lines(path)


def _recognised(path: Path) -> str | None:
    """The format of an export, None where the file is not certainly one."""
    if not path.is_file():
        return None
    with LineReader(path) as reader:
        chunks = _beginning(reader)
        first = next(chunks, b"")
        if first.startswith(_SQLITE_MAGIC):
            if not holds_table(path):
                raise InvalidInputError(f"{path}: an SQLite file without LangChain's message_store", operation="import")
            return _SQLITE
        element = next(elements(_again(first, chunks)), None)
    if element is None or element.problem is not None:
        return None
    with suppress(ValueError, RecursionError):
        value: JsonValue = json.loads(element.data)
        return next((name for name, export in FORMATS.items() if export.recognises(value)), None)
    return None


def _beginning(reader: LineReader) -> Iterator[bytes]:
    """Enough of a file to see its first object; one that is larger is not recognised."""
    read_bytes = 0
    for chunk in reader.chunks():
        if isinstance(chunk, str) or read_bytes > _FIRST_BYTES:
            return
        read_bytes += len(chunk)
        yield chunk


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


class _Lines(LineReader):
    """A file of lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._name = str(path)

    def file_of(self, _number: int) -> str:
        return self._name


class _Exported(_Lines):
    """A file of an export. Records are numbered in the order in which the file has them, branches included."""

    def __init__(self, path: Path, export: Export, user: str | None) -> None:
        super().__init__(path)
        self._export = export
        self._user = user
        self._stem = path.name.removesuffix(".gz").removesuffix(".json")

    def __iter__(self) -> Iterator[Line]:
        number = 0
        for element in elements(self.chunks(), is_whole=self._export.is_whole):
            try:
                if element.problem is not None:
                    raise InvalidInputError(element.problem)
                for record in self._export.convert(_parsed(element.data), self._stem):
                    number += 1
                    yield _line(number, record, self._user)
            except InvalidInputError as error:
                number += 1
                yield Line(number, b"", error.message)


class _Table:
    """LangChain's table in an SQLite file."""

    def __init__(self, path: Path, user: str | None) -> None:
        if not path.is_file() or not holds_table(path):
            raise InvalidInputError(f"{path}: not an SQLite file with LangChain's message_store", operation="import")
        self._path = path
        self._user = user
        self.size_bytes = path.stat().st_size
        self.position_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def file_of(self, _number: int) -> str:
        return str(self._path)

    def __iter__(self) -> Iterator[Line]:
        for number, (record, problem) in enumerate(sessions(self._path), 1):
            yield Line(number, b"", problem) if record is None else _line(number, record, self._user)
        self.position_bytes = self.size_bytes


class _Directory:
    """The files of a directory, in the order of their names, one after another."""

    def __init__(self, path: Path, format: Format, user: str | None) -> None:
        self._files = sorted(file for file in path.iterdir() if file.suffix in _ENDINGS and file.is_file())
        if not self._files:
            raise InvalidInputError(f"{path}: a directory without .json files", operation="import")
        self._path = path
        self._format = format
        self._user = user
        self._firsts: list[int] = []  # the number of the first record of each file that was begun
        self.size_bytes = sum(file.stat().st_size for file in self._files)
        self.position_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def file_of(self, number: int) -> str:
        begun = bisect_right(self._firsts, number)
        return str(self._files[begun - 1]) if begun else str(self._path)

    def __iter__(self) -> Iterator[Line]:
        number = 0
        for file in self._files:
            self._firsts.append(number + 1)
            with open_source(file, self._format, self._user) as source:
                for line in source:
                    number += 1
                    yield line._replace(number=number)
            self.position_bytes += file.stat().st_size


def _parsed(data: bytes) -> JsonValue:
    try:
        value: JsonValue = json.loads(data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"not UTF-8: wrong byte at {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("not JSON that can be read") from error
    return value


def _line(number: int, record: dict[str, JsonValue], user: str | None) -> Line:
    if user is not None and record.get("user") is None and "messages" in record:
        record["user"] = user
    return Line(number, json.dumps(record).encode())
