"""What others changed in a store's files past the library, taken in as ordinary writes while a live move is on.

A file that differs from what the library last wrote or saw of it (size and time, kept in the index) is read. A document
is compared with the rows in memory; what differs is carried out like an application's batch, so keys and parents are
checked and cascades happen. Lines are read where they lie: new ones are indexed, and as nobody knows what they were
before, all rows of a changed file are registered. What the library wrote since its last checkpoint stands against what
a file says. A damaged document or line, and what the store must refuse, is named and left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dal.backends import replication
from dal.backends.file import foreign_lines
from dal.backends.file.capture import registered
from dal.backends.file.codec import AnyChange
from dal.backends.file.documents import DocumentRows, read_document
from dal.backends.file.image import Image
from dal.backends.file.index import MESSAGES, FileState, file_state, settled_state
from dal.backends.file.layout import Layout, entries
from dal.backends.file.registry import FilesChanged, Registry
from dal.backends.rows import ID, MemoryRows, Stored, decode
from dal.errors import AlreadyExistsError, CorruptDataError, MissingReferenceError
from dal.limits import MAX_BATCH_OPS
from dal.replica import Entry
from dal.tables import TABLES

if TYPE_CHECKING:
    from dal.backends.file.opened import Opened

_REFUSALS: Final = (AlreadyExistsError, MissingReferenceError, CorruptDataError)


@dataclass
class Found:
    """What a look at documents has found.

    asked    rows as documents have them, each with the document's name; without a row where it is gone.
    marked   rows that are in memory as in their document, but came there past the library: table, id, whether it is
             gone.
    states   what is to be remembered of each file.
    damaged  a sentence about each document that cannot be read.
    """

    asked: list[tuple[str, Entry]] = field(default_factory=list)
    marked: list[tuple[str, str, bool]] = field(default_factory=list)
    states: dict[str, FileState | None] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)


class Foreign:
    """Looks at the files of one open store. `problems` names, by file, what could not be taken in."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.problems: dict[str, str] = {}

    async def look(self, only: Collection[str] | None = None) -> int:
        """Takes in what changed since the last look; how many rows. The caller holds the store and the checkpoint lock.

        only  looks at these files alone, by their names in the store.
        """
        image = self._opened.image
        tables = [name for name in TABLES if _is_watched(image.registry, name)]
        if not tables:
            return 0
        known = image.index.files()
        found = await asyncio.to_thread(_look_at_documents, self._opened.layout, image, tables, known, only)
        if only is None:
            self.problems = {}
        self.problems.update(found.damaged)
        count = await self._take_in(found)
        lines = await asyncio.to_thread(foreign_lines.look, self._opened.layout, image, tables, known, only)
        self.problems.update(lines.problems)
        changed = [*found.marked, *await asyncio.to_thread(_messages_of_lost_chats, image, found), *lines.changed]
        if lines.places:
            await asyncio.to_thread(lines.put_places, image.index)  # first: who is told of them finds them
        if changed:
            news: list[AnyChange] = [FilesChanged()] if lines.changed else []
            await self._opened.write([*news, *registered(image.registry, changed)], "rescan")
        states = {**found.states, **lines.states}
        if states:
            await asyncio.to_thread(_remember, image, states, lines.gone)
            image.suspects.difference_update(states)
        return count + len(changed)

    async def _take_in(self, found: Found) -> int:
        """Carries out what documents ask for, together, or else each document's part alone."""
        count = 0
        for first in range(0, len(found.asked), MAX_BATCH_OPS // 2):
            some = found.asked[first : first + MAX_BATCH_OPS // 2]
            if await self._carry_out([entry for _, entry in some]) is None:
                count += len(some)
                continue
            for name in dict.fromkeys(name for name, _ in some):
                part = [entry for other, entry in some if other == name]
                problem = await self._carry_out(part)
                if problem is None:
                    count += len(part)
                else:
                    found.states.pop(name, None)  # it is looked at again
                    self.problems[name] = f"{name}: was changed past the library and is not taken in: {problem}"
        return count

    async def _carry_out(self, asked: Sequence[Entry]) -> str | None:
        """Writes the rows, and exchanges unique keys among them where they must; what refused them."""
        won = replication.winners(asked, {})
        keys = frozenset(entry.key for entry in won)
        problem: str | None = None
        for parked in (frozenset(), keys):
            ops = replication.operations(won, known=keys, replacing=True, parked=parked)
            try:
                await self._opened.carry_out(ops, "rescan", [FilesChanged()], with_fenced=True)
            except _REFUSALS as error:
                problem = error.message
            else:
                return None
        return problem


def _is_watched(registry: Registry, table: str) -> bool:
    return registry.is_captured(table, with_fenced=True)


def _look_at_documents(
    layout: Layout, image: Image, tables: Iterable[str], known: dict[str, FileState], only: Collection[str] | None
) -> Found:
    found = Found()
    for table in tables:
        if table in image.documents:
            _Documents(layout, image, image.documents[table], known, found).look(only)
    return found


class _Documents:
    """The documents of one table, on disk and in memory."""

    def __init__(
        self, layout: Layout, image: Image, rows: DocumentRows, known: dict[str, FileState], found: Found
    ) -> None:
        name = rows.table.name
        self._layout = layout
        self._suspects = image.suspects
        self._known_rows = image.registry.tables[name]
        self._rows = rows
        self._directory = f"{rows.kind}/"
        self._known = known
        self._found = found
        self._written = {row_id for layer in image.layers for row_id in layer.written.get(name, ())}

    @cached_property
    def _here(self) -> dict[str, str]:
        """The key of each document that should be there, by its name."""
        return {self._rows.name(key): key for key in self._rows.document_keys()}

    def look(self, only: Collection[str] | None) -> None:
        there = self._there(only)
        for name, state in there.items():
            if state != self._known.get(name) or name in self._suspects:
                self._compare(name, self._here.get(name))
        if only is not None:
            return
        for name, key in self._here.items():
            if name not in there:
                self._ask(name, {}, key)
                self._found.states[name] = None
        if self._suspects:
            self._find_lost()
            gone = (name for name in self._suspects if name.startswith(self._directory) and name not in there)
            self._found.states.update(dict.fromkeys(name for name in gone if name.endswith(".json")))

    def _there(self, only: Collection[str] | None) -> dict[str, FileState]:
        """The documents that are there, as they are."""
        if only is not None:
            names = (name for name in only if name.startswith(self._directory) and name.endswith(".json"))
            return {name: s for name in names if (s := file_state(self._layout.absolute(name))) is not None}
        found = {}
        for entry in entries(self._rows.directory):
            if entry.name.endswith(".json"):
                status = entry.stat(follow_symlinks=False)
                name = self._layout.relative(Path(entry.path))
                found[name] = FileState(status.st_size, status.st_mtime_ns)
        return found

    def _compare(self, name: str, key: str | None) -> None:
        """Asks for what a document has otherwise than memory."""
        path = self._layout.absolute(name)
        state = settled_state(path)
        try:
            there = {row[ID]: row for row in self._rows.parse(path, read_document(path))}
        except ValueError as error:
            self._found.damaged[name] = f"{name}: {error}; it is left alone"
            return
        self._ask(name, there, key)
        self._found.states[name] = state

    def _ask(self, name: str, there: dict[str, Stored], key: str | None) -> None:
        table = self._rows.table
        for row_id, row in there.items():
            if row_id in self._written:
                continue  # the library's own is newer
            if MemoryRows.get(self._rows, row_id) != row:
                self._found.asked.append((name, Entry(table.name, row_id, 1, decode(table, row))))
            elif name in self._suspects:
                self._found.marked.append((table.name, row_id, False))
        for row in [] if key is None else self._rows.of_document(key):
            if row[ID] not in there and row[ID] not in self._written:
                self._found.asked.append((name, Entry(table.name, row[ID], 1, None)))

    def _find_lost(self) -> None:
        """Rows that the registry has, and that were gone already when this process read the documents."""
        if self._rows.corrupt:
            return  # nobody knows what a damaged document holds
        for row_id, known in self._known_rows.items():
            if not known.deleted and MemoryRows.get(self._rows, row_id) is None and row_id not in self._written:
                self._found.marked.append((self._rows.table.name, row_id, True))


def _messages_of_lost_chats(image: Image, found: Found) -> list[tuple[str, str, bool]]:
    """The messages that went with a chat whose document was gone when this process read the documents."""
    chats = {row_id for table, row_id, is_gone in found.marked if is_gone and table == "chat_sessions"}
    places = image.index.ids_in(MESSAGES, chats) if chats else {}
    known = image.registry.tables["messages"]
    return [("messages", row_id, True) for row_ids in places.values() for row_id in row_ids if row_id in known]


def _remember(image: Image, states: dict[str, FileState | None], gone: dict[int, list[str]]) -> None:
    with image.index.writer() as writer:
        for kind, row_ids in gone.items():
            writer.remove(kind, row_ids)
        for name, state in states.items():
            writer.put_file(name, state)
        writer.commit(image.index.settled())
    image.index.refresh()
