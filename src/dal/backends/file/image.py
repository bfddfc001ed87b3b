"""What one process knows of a store: documents in memory, line files on disk, and the journal's changes over both.

Changes to messages and logs since the last checkpoint lie in layers, one for each journal segment: sealed
when the segment ends, taken away when a checkpoint (of any process) has written it to the files. That bounds the memory
a store takes by its users and chats and the journal, whatever the number of messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dal.backends.file.codec import AnyChange
from dal.backends.file.documents import CHAT_ID, DocumentRows, Unit, document_tables
from dal.backends.file.index import Index
from dal.backends.file.layout import Layout
from dal.backends.file.linerows import MessageRows
from dal.backends.file.logrows import LOGS, LogRows
from dal.backends.file.registry import Capturing, FilesChanged, Marked, MoveChange, Registry
from dal.backends.overlay import Overlay, carry_out
from dal.backends.rows import Change, Drop, MemoryRows, Rows, Stored
from dal.tables import MESSAGES

_CHAT_OF_MESSAGE: Final = MESSAGES.names.index("chat_session_id")
_MAX_PROBLEMS: Final = 100


class Layer:
    """The changes of one journal segment: rows for line files, the documents that are stale, and registry entries.

    lines    the rows for line files, by table.
    written  rows in documents that the library's callers wrote while a live move is on, by table.
    """

    def __init__(self, below: Mapping[str, Rows]) -> None:
        self.lines = {name: Overlay(rows) for name, rows in below.items()}
        self.stale: dict[Unit, None] = {}
        self.written: dict[str, dict[str, None]] = {}
        self.marked: dict[str, dict[str, None]] = {}
        self.is_gated = False
        self.end: int | None = None


class Image:
    """The rows of a store as they are after every change that was applied."""

    def __init__(self, layout: Layout, index: Index, registry: Registry) -> None:
        self.index = index
        self.registry = registry
        self.suspects: set[str] = set()  # files that others had changed, in a live move, before they were read here
        self._damaged_lines: dict[str, None] = {}
        self.names: dict[str, list[str]] = {}  # chats that changed their chat_id, with the earlier ones
        self.documents = document_tables(layout)
        chats = self.documents["chat_sessions"]
        self.messages = MessageRows(layout, index, self.report, chats, self.names)
        self.lines: dict[str, MessageRows | LogRows] = {
            MESSAGES.name: self.messages,
            **{name: LogRows(log, layout, index, self.report) for name, log in LOGS.items()},
        }
        self.layers: list[Layer] = []
        self.tables: dict[str, Rows] = dict(self.documents)
        self._push()
        for rows in self.documents.values():
            rows.changed = self._mark

    def report(self, problem: str) -> None:
        """Remembers a damaged line, once."""
        if len(self._damaged_lines) < _MAX_PROBLEMS:
            self._damaged_lines[problem] = None

    def problems(self) -> list[str]:
        """A sentence about each damaged document and line."""
        return [p for rows in self.documents.values() for p in list(rows.corrupt.values())] + list(self._damaged_lines)

    def apply(self, changes: Iterable[AnyChange]) -> None:
        """Makes changes that are durable visible."""
        chats = self.documents["chat_sessions"]
        rows: list[Change | Drop] = []
        taken_in: FilesChanged | None = None
        for change in changes:
            if not isinstance(change, Change | Drop):
                self._apply_move(change)
                taken_in = change if isinstance(change, FilesChanged) else taken_in
                continue
            rows.append(change)
            if isinstance(change, Change) and change.table == "chat_sessions":
                self._note_name(chats, change)
        if taken_in is not None:
            self._take_in(rows, taken_in)
            return
        if self.registry.is_capturing:
            written = self.layers[-1].written
            for change in rows:
                if isinstance(change, Change) and change.table in self.documents:
                    written.setdefault(change.table, {})[change.id] = None
        carry_out(self.tables, rows)

    def _take_in(self, rows: list[Change | Drop], taken_in: FilesChanged) -> None:
        """Changes that come from documents: those documents are not stale for it."""
        stale = self.layers[-1].stale
        current = [unit for table, key in taken_in.documents if (unit := Unit(table, key)) not in stale]
        carry_out(self.tables, rows)
        for unit in current:
            stale.pop(unit, None)

    def _apply_move(self, change: MoveChange) -> None:
        self.registry.apply(change)
        if isinstance(change, FilesChanged):
            self.index.refresh()
            self.messages.forget_all()
            return
        layer = self.layers[-1]
        if isinstance(change, Marked):
            layer.marked.setdefault(change.table, {}).update(dict.fromkeys(row_id for row_id, _ in change.entries))
            return
        layer.is_gated = True
        if isinstance(change, Capturing):
            for each in self.layers:
                each.marked = {}

    def _note_name(self, chats: DocumentRows, change: Change) -> None:
        before = MemoryRows.get(chats, change.id)
        if change.row is None:
            self.names.pop(change.id, None)
        elif before is not None and before[CHAT_ID] != change.row[CHAT_ID]:
            self.names.setdefault(change.id, []).insert(0, before[CHAT_ID])

    def _mark(self, unit: Unit) -> None:
        self.layers[-1].stale[unit] = None

    # -- layers

    def _push(self) -> None:
        below: Mapping[str, Rows] = self.layers[-1].lines if self.layers else self.lines
        layer = Layer(below)
        self.layers.append(layer)
        self.tables.update(layer.lines)

    def seal(self, position: int) -> None:
        """The journal segment ends here: what comes now belongs to the next checkpoint."""
        self.layers[-1].end = position
        self._push()

    def sealed(self) -> list[Layer]:
        """The layers that wait for a checkpoint, the oldest first."""
        return [layer for layer in self.layers if layer.end is not None]

    def is_settled(self, position: int) -> bool:
        """Whether there are layers that are in the files, with everything before this position."""
        end = self.layers[0].end
        return end is not None and end <= position

    def retire(self, settled: int) -> None:
        """Takes away the layers that are in the files, everything before this position."""
        if not self.is_settled(settled):
            return
        done = [layer for layer in self.layers if layer.end is not None and layer.end <= settled]
        self.layers = self.layers[len(done) :]
        self._forget_marks(done)
        for name, rows in self.layers[0].lines.items():
            rows.rest_on(self.lines[name])
        self.index.refresh()
        self.messages.forget_all()

    def _forget_marks(self, done: list[Layer]) -> None:
        """What these layers say of the registry is in its file; what later ones say of the same rows is not."""
        for layer in done:
            for table, marked in layer.marked.items():
                later = [each.marked[table] for each in self.layers if table in each.marked]
                self.registry.forget(table, [i for i in marked if not any(i in ids for ids in later)])


def merged(image: Image, layers: list[Layer]) -> Layer:
    """Sealed layers as one."""
    if len(layers) == 1:
        return layers[0]
    whole = Layer(image.lines)
    for layer in layers:
        for rows in layer.lines.values():
            carry_out(whole.lines, rows.changes())
        whole.stale.update(layer.stale)
    return whole


def chat_of(message: Stored) -> str:
    """The chat session a message belongs to."""
    return str(message[_CHAT_OF_MESSAGE])
