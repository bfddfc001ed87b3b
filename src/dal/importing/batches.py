"""A file as batches of records, parsed and checked, bounded in rows and bytes.

A batch holds records of one kind, none of them twice: what a later line says of a chat already in the batch has to be
compared with what is stored by then. Lines that hold no record come along as refusals.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from dal.errors import InvalidInputError
from dal.importing.conversations import Conversation, read_conversation
from dal.importing.document import BadText, parse
from dal.importing.lines import Line
from dal.importing.personas import Persona, read_persona
from dal.importing.report import Refusal
from dal.ops import JsonValue

Format = Literal[
    "auto", "conversations", "memory", "chatgpt", "claude", "openwebui", "langchain", "langchain-sqlite", "dialogue"
]
Record = Conversation | Persona

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
_MAX_SHOWN_KEY_CHARS: Final = 255


class Batch(NamedTuple):
    """Records to be written together, and what was refused on the way.

    replaced    texts in which characters were replaced.
    read_bytes  how much of the file had been read when the batch was complete.
    """

    records: list[Record]
    refusals: list[Refusal]
    replaced: int
    read_bytes: int


class Reader(Protocol):
    """An open source of records: JSON lines, or an export as the lines it would be."""

    size_bytes: int

    @property
    def position_bytes(self) -> int: ...

    def __iter__(self) -> Iterator[Line]: ...


class BatchReader:
    """The batches of one open file, in its order; each under `batch_rows` unless one record alone is larger."""

    def __init__(self, reader: Reader, path: Path, *, kind: Format, on_bad_text: BadText, batch_rows: int) -> None:
        self._reader = reader
        self._file = str(path)
        #: The last resort for records that name no time: the same for every run over the same file.
        self.file_time = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        self._kind = kind
        self._on_bad_text = on_bad_text
        self._batch_rows = batch_rows
        self._begin()

    def __iter__(self) -> Iterator[Batch]:
        for line in self._reader:
            if line.problem is None and not line.data.strip():
                continue
            record = self._read(line)
            if record is not None:
                if self._is_full_for(record):
                    yield self._end()
                self._add(record)
            elif len(self._refusals) >= self._batch_rows:
                yield self._end()
        yield self._end()

    def _begin(self) -> None:
        self._records: list[Record] = []
        self._refusals: list[Refusal] = []
        self._keys: set[str] = set()
        self._rows = self._size_bytes = self._replaced = 0

    def _end(self) -> Batch:
        batch = Batch(self._records, self._refusals, self._replaced, self._reader.position_bytes)
        self._begin()
        return batch

    def _is_full_for(self, record: Record) -> bool:
        return bool(self._records) and (
            self._rows + record.rows > self._batch_rows
            or self._size_bytes + record.size_bytes > MAX_BATCH_BYTES
            or record.key in self._keys
            or type(record) is not type(self._records[0])
        )

    def _add(self, record: Record) -> None:
        self._records.append(record)
        self._keys.add(record.key)
        self._rows += record.rows
        self._size_bytes += record.size_bytes
        self._replaced += record.replaced

    def _read(self, line: Line) -> Record | None:
        """The record on this line; None, and a refusal more, where there is none."""
        fields: dict[str, JsonValue] = {}
        try:
            if line.problem is not None:
                raise InvalidInputError(line.problem)
            fields, vouched, replaced = parse(line.data, self._on_bad_text)
            size_bytes = len(line.data)
            if self._is_persona(fields):
                return read_persona(fields, line=line.number, size_bytes=size_bytes, replaced=replaced)
            return read_conversation(
                fields,
                line=line.number,
                size_bytes=size_bytes,
                vouched=vouched,
                replaced=replaced,
                file_time=self.file_time,
            )
        except InvalidInputError as error:
            chat_id, user = _shown(fields.get("chat_id")), _shown(fields.get("user"))
            self._refusals.append(Refusal(self._file, line.number, chat_id, user, error.message))
            return None

    def _is_persona(self, fields: dict[str, JsonValue]) -> bool:
        if self._kind in ("conversations", "memory"):
            return self._kind == "memory"
        if "messages" in fields or "chat_id" in fields:
            return False
        if "user" in fields:
            return True
        raise InvalidInputError("neither a conversation (chat_id, messages) nor user memory (user): fields missing")


def _shown(key: JsonValue) -> str | None:
    """A key that may itself be what was wrong, fit for a report."""
    if type(key) is not str:
        return None
    return key[:_MAX_SHOWN_KEY_CHARS].encode("utf-8", "backslashreplace").decode()
