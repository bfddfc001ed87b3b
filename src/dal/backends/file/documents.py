"""The tables that are held in memory and kept as JSON documents: users, chats, user memory, files and what is theirs.

A document is one user, one chat, one file …, or everything in one user's memory, all parts of one upload, everybody
who was given rights to one file. Loading checks every document; one that
cannot be read, or does not lie where it belongs, is left alone, named as a problem, and guarded: whoever asks for what
it should hold gets CorruptDataError instead of nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from dal.backends.file.codec import from_object, to_document, to_documents
from dal.backends.file.layout import TEMPORARY, Layout, entries, sharded
from dal.backends.rows import ID, MemoryRows, Scan, Stored
from dal.errors import CorruptDataError
from dal.ops import Value
from dal.tables import CHAT_SESSIONS, TABLES, Table

CHAT_ID: Final = CHAT_SESSIONS.names.index("chat_id")
_ITEMS: Final = "items"
#: Each table's directory, and the column that names a document. What is not unique names a list.
_DOCUMENTS: Final = {
    "users": ("users", "id"),
    "chat_sessions": ("chats", "chat_id"),
    "user_memory": ("memory", "user_id"),
    "files": ("files", "id"),
    "file_contents": ("files/contents", "id"),
    "multipart_uploads": ("files/uploads", "id"),
    "multipart_parts": ("files/parts", "upload_id"),
    "file_permissions": ("files/permissions", "file_id"),
    "user_quotas": ("files/quotas", "user_id"),
    "file_processing_queue": ("files/queue", "id"),
    "storage_metrics": ("files/metrics", "id"),
    "pricing_tiers": ("files/prices", "id"),
    "cost_tracking": ("files/costs", "id"),
}
_READ_BYTES: Final = 64 * 1024


class Unit(NamedTuple):
    """One document: its table and the key that names it."""

    table: str
    key: str


class DocumentRows(MemoryRows):
    """A table in memory whose rows come from documents.

    named_by   the column whose value names a row's document.
    kind       the directory of the store in whose shards the documents lie: one of DATA, or within it.
    corrupt    documents that could not be read, by their name in the store, with what is wrong.
    changed    called with each document that a change of a row makes stale.
    """

    def __init__(self, table: Table, named_by: str, layout: Layout, kind: str) -> None:
        super().__init__(table)
        self.named_by = named_by
        self.kind = kind
        self.corrupt: dict[str, str] = {}
        self.changed: Callable[[Unit], None] = lambda _: None
        self._layout = layout
        self._place = table.names.index(named_by)
        self._depth = kind.count("/") + 2
        self._is_list = (named_by,) not in table.unique_keys
        self._keys: dict[str, str] | None = None  # by names; made when first asked for, and kept from then on
        self._refused: dict[str, list[str]] = {}  # keys of documents by the row's id, for another one holds the same

    @property
    def directory(self) -> Path:
        return self._layout.directory(self.kind)

    def path(self, key: str) -> Path:
        """The document that this key names."""
        return self.directory / sharded(key, ".json")

    def holds(self, name: str) -> bool:
        """Whether a file of this name in the store would be one of the documents, and not one of a kind within."""
        return name.startswith(f"{self.kind}/") and name.count("/") == self._depth and name.endswith(".json")

    def name(self, key: str) -> str:
        """The document's name in the store."""
        return f"{self.kind}/{sharded(key, '.json')}"

    # -- reading: what a damaged document should hold is not simply absent

    def get(self, row_id: Value) -> Stored | None:
        row = super().get(row_id)
        if row is None and self.corrupt and self.named_by == "id":
            self._refuse(row_id)
        return row

    def find(self, key: tuple[str, ...], values: tuple[Value, ...]) -> Stored | None:
        row = super().find(key, values)
        if row is None and self.corrupt and self.named_by in key:
            self._refuse(values[key.index(self.named_by)])
        return row

    def scan(self, plan: Scan) -> tuple[Any, bool]:
        if self.corrupt:
            wanted = plan.equal().get(self.named_by)
            if wanted is not None:
                self._refuse(wanted)
        return super().scan(plan)

    def _refuse(self, key: Value) -> None:
        problem = self.corrupt.get(self.name(key)) if isinstance(key, str) else None
        if problem is not None:
            raise CorruptDataError(f"{problem}; restore the file from a backup or remove it", backend="file")

    # -- writing

    def put(self, row: Stored) -> None:
        before = MemoryRows.get(self, row[ID])
        if before is not None and before[self._place] != row[self._place]:
            self._mark(before[self._place])
        super().put(row)
        self._mark(row[self._place])
        if self._refused:
            self._overtake(row[ID])
        if self.corrupt and not self._is_list:
            self.corrupt.pop(self.name(row[self._place]), None)  # the journal knows better

    def remove(self, row_id: str) -> None:
        row = super().get(row_id)
        if row is not None:
            self._mark(row[self._place])
            super().remove(row_id)
        if self._refused:
            self._overtake(row_id)

    def _overtake(self, row_id: str) -> None:
        """The row's refused documents are as it was once: a checkpoint had written the other ones of a later moment."""
        for key in self._refused.pop(row_id, ()):
            self.corrupt.pop(self.name(key), None)
            self._mark(key)

    def _mark(self, key: str) -> None:
        if self._keys is not None:
            self._keys[self.name(key)] = key
        self.changed(Unit(self.table.name, key))

    # -- documents

    def of_document(self, key: str) -> list[Stored]:
        if self.named_by in (parent.column for parent in self.table.parents):
            return self.children(self.named_by, key)
        row = MemoryRows.find(self, (self.named_by,), (key,))
        return [] if row is None else [row]

    def document(self, key: str) -> Document:
        """The document of this key as it should be now."""
        return Document(self.table, self.path(key), tuple(self.of_document(key)), is_list=self._is_list)

    def parse(self, path: Path, data: bytes) -> list[Stored]:
        """The rows of the document that lies here; ValueError where it is damaged or holds others."""
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise ValueError("not whole JSON") from error  # the parser's message may quote the document
        if self._is_list:
            if not isinstance(value, dict) or list(value) != [_ITEMS] or not isinstance(value[_ITEMS], list):
                raise ValueError(f"no list of {_ITEMS}")
            rows = [from_object(self.table, item) for item in value[_ITEMS]]
        else:
            rows = [from_object(self.table, value)]
        for key in {row[self._place] for row in rows}:
            if sharded(key, ".json") != "/".join(path.parts[-2:]):
                raise ValueError(f"holds {self.named_by} {key!r}, which does not belong under this name")
        return rows

    def keys_by_name(self) -> Mapping[str, str]:
        """The key of each document that should be there, by its name in the store; and keys of some that were."""
        if self._keys is None:
            self._keys = {self.name(key): key for key in {row[self._place] for row in self}}
        return self._keys

    def load(self, path: Path, data: bytes) -> None:
        """Takes in the rows of a document; ValueError where it is damaged, or another one holds the same."""
        rows = self.parse(path, data)
        for row in rows:
            problem = self._clash(row)
            if problem is not None:
                if not self._is_list:
                    self._refused.setdefault(row[ID], []).append(row[self._place])
                raise ValueError(problem)
        for row in rows:
            MemoryRows.put(self, row)

    def _clash(self, row: Stored) -> str | None:
        """What the row of a document has in common with one that is there."""
        if super().get(row[ID]) is not None:
            return f"holds the id {row[ID]}, which another document holds too"
        for key in self.table.unique_keys[1:]:
            values = tuple(row[self.table.names.index(column)] for column in key)
            if None not in values and MemoryRows.find(self, key, values) is not None:
                return f"holds a {', '.join(key)} that another document holds too"
        return None


class Document(NamedTuple):
    """A document's rows at one moment; without any the document is to be removed."""

    table: Table
    path: Path
    rows: tuple[Stored, ...]
    is_list: bool

    def encode(self) -> bytes:
        if self.is_list:
            return to_documents(_ITEMS, self.table, self.rows)
        return to_document(self.table, self.rows[0])


def document_tables(layout: Layout) -> dict[str, DocumentRows]:
    """The tables kept as documents, empty."""
    return {name: DocumentRows(TABLES[name], named_by, layout, kind) for name, (kind, named_by) in _DOCUMENTS.items()}


def load_documents(
    layout: Layout, tables: Mapping[str, DocumentRows], leftovers: list[Path]
) -> Iterator[os.DirEntry[str]]:
    """Reads every document; those that are damaged are then in `corrupt`. Yields the files of messages among them.

    leftovers  what an unfinished write left is added here.
    """
    for rows in tables.values():
        for entry in entries(rows.directory):
            if entry.name.endswith(".json"):
                _load(layout, rows, entry)
            elif entry.name.endswith(".jsonl"):
                yield entry
            elif entry.name.endswith(TEMPORARY):
                leftovers.append(Path(entry.path))


def _load(layout: Layout, rows: DocumentRows, entry: os.DirEntry[str]) -> None:
    path = Path(entry.path)
    try:
        rows.load(path, read_document(path))
    except ValueError as error:
        name = layout.relative(path)
        rows.corrupt[name] = f"{name}: {error}"


def read_document(path: Path) -> bytes:
    """The content of a document; ValueError where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            chunks = [os.read(descriptor, _READ_BYTES)]
            while len(chunks[-1]) == _READ_BYTES:
                chunks.append(os.read(descriptor, _READ_BYTES))
            return b"".join(chunks)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(error.strerror) from error
