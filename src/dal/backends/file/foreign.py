"""What others changed in a store's files past the library, taken in as ordinary writes while a live move is on.

A file that differs from what the library last wrote or saw of it (size and time, kept in the index) is read. A document
is compared with the rows in memory; what differs is carried out like an application's batch, so keys and parents are
checked and cascades happen. Lines are read where they lie: new ones are indexed, and as nobody knows what they were
before, all rows of a changed file are registered. What the library wrote since its last checkpoint stands against what
a file says. A damaged document or line, and what the store must refuse, is named and left alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from dal.backends import replication
from dal.backends.file import foreign_lines
from dal.backends.file.capture import registered
from dal.backends.file.codec import AnyChange
from dal.backends.file.documents import DocumentRows, read_document
from dal.backends.file.errors import reading_error
from dal.backends.file.image import Image
from dal.backends.file.index import MESSAGES, UNSEEN, FileState, Index, file_state, settled_state
from dal.backends.file.layout import Layout, entries, flat_entries
from dal.backends.file.logrows import LOGS, directory_of
from dal.backends.file.registry import FilesChanged, Registry
from dal.backends.rows import ID, MemoryRows, Stored, decode
from dal.errors import AlreadyExistsError, CorruptDataError, MissingReferenceError
from dal.limits import FOREIGN_HOLD_S, MAX_BATCH_OPS
from dal.replica import UNIT_OF, Entry
from dal.tables import TABLES

if TYPE_CHECKING:
    from dal.backends.file.opened import Opened

_FIRST_FILES: Final = 64
_FEWEST_FILES: Final = 16
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


class _Seen(NamedTuple):
    """What a look has taken in: how many rows; what is to be remembered of the files, and which ids are gone."""

    image: Image
    rows: int
    states: dict[str, FileState | None]
    gone: dict[int, list[str]]

    def remember(self) -> None:
        """Tells the index, under the checkpoint lock. Where that does not come about the files are looked at again."""
        if not self.states:
            return
        with self.image.index.writer() as writer:
            for kind, row_ids in self.gone.items():
                writer.remove(kind, row_ids)
            for name, state in self.states.items():
                writer.put_file(name, state)
            writer.commit(self.image.index.settled())
        self.image.index.refresh()


class Foreign:
    """Looks at the files of one open store. `problems` names, by file, what could not be taken in."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.problems: dict[str, str] = {}

    async def begin(self) -> None:
        """Nothing is known of documents yet: a live move begins. The caller holds the checkpoint lock."""
        image = self._opened.image
        names = [name for rows in image.documents.values() for name in rows.keys_by_name()]
        await asyncio.to_thread(_watch, image.index, names)

    async def end(self) -> None:
        """The live move has ended. The caller holds the checkpoint lock."""
        await asyncio.to_thread(_watch, self._opened.image.index, None)

    async def rescan(self) -> int:
        """Takes in what changed since the last look; how many rows.

        Writers wait for some files at a time, about FOREIGN_HOLD_S, and go on in between. What has not been looked at
        when the process dies is looked at by the next one.
        """
        opened = self._opened
        waiting = await self._differing()
        self.problems = {}
        count, size = 0, _FIRST_FILES
        try:
            while waiting:
                some, waiting = waiting[:size], waiting[size:]
                await opened.follow()  # before: who has to read the documents again needs the checkpoint lock too
                async with opened.locks.still_files("rescan"):
                    async with opened.locks.exclusive("rescan"):
                        started = monotonic()
                        seen = await self._look(some)
                        held_s = monotonic() - started
                    count += seen.rows
                    await asyncio.to_thread(seen.remember)
                size = max(_FEWEST_FILES, min(2 * size, int(size * FOREIGN_HOLD_S / max(held_s, 1e-6))))
                if waiting:
                    await asyncio.sleep(held_s)
        except (OSError, sqlite3.Error) as error:
            raise reading_error(opened.layout, "rescan", error) from error
        return count

    async def _differing(self) -> list[str]:
        """Names of files that are not as they are known. Takes no lock: what is under way is among them."""
        image, layout = self._opened.image, self._opened.layout
        tables = _watched(image.registry)
        try:
            return await asyncio.to_thread(_differing, layout, image, tables) if tables else []
        except (OSError, sqlite3.Error) as error:
            raise reading_error(layout, "rescan", error) from error

    async def _look(self, names: Sequence[str]) -> _Seen:
        """Takes in what changed in these files. The caller holds the store and the checkpoint lock."""
        image = self._opened.image
        tables = _watched(image.registry)
        if not tables:
            return _Seen(image, 0, {}, {})
        known = await asyncio.to_thread(image.index.states_of, names)
        found = await asyncio.to_thread(_look_at_documents, self._opened.layout, image, tables, known, names)
        self.problems.update(found.damaged)
        count = await self._take_in(found)
        lines = await asyncio.to_thread(foreign_lines.look, self._opened.layout, image, tables, known, names)
        self.problems.update(lines.problems)
        lost = await asyncio.to_thread(_messages_of_lost_chats, image, found)
        gone = [("messages", row_id, True) for row_id in image.registry.many("messages", lost)]
        changed = [*found.marked, *gone, *lines.changed]
        if any(lines.places.values()):
            await asyncio.to_thread(lines.put_places, image.index)  # first: who is told of them finds them
        if changed:
            news: list[AnyChange] = [FilesChanged()] if lines.changed else []
            await self._opened.write([*news, *registered(image.registry, changed)], "rescan")
        states = {**found.states, **lines.states}
        image.suspects.difference_update(states)
        return _Seen(image, count + len(changed), states, lines.gone)

    async def _take_in(self, found: Found) -> int:
        """Carries out what documents ask for, together, or else each document's part alone."""
        count = 0
        for first in range(0, len(found.asked), MAX_BATCH_OPS // 2):
            some = found.asked[first : first + MAX_BATCH_OPS // 2]
            if await self._carry_out(some) is None:
                count += len(some)
                continue
            for name in dict.fromkeys(name for name, _ in some):
                part = [(other, entry) for other, entry in some if other == name]
                problem = await self._carry_out(part)
                if problem is None:
                    count += len(part)
                else:
                    found.states.pop(name, None)  # it is looked at again
                    self.problems[name] = f"{name}: was changed past the library and is not taken in: {problem}"
        return count

    async def _carry_out(self, asked: Sequence[tuple[str, Entry]]) -> str | None:
        """Writes the rows, and exchanges unique keys among them where they must; what refused them."""
        news = FilesChanged(self._documents_of(asked))
        won = replication.winners([entry for _, entry in asked], {})
        keys = frozenset(entry.key for entry in won)
        problem: str | None = None
        for parked in (frozenset(), keys):
            ops = replication.operations(won, known=keys, replacing=True, parked=parked)
            try:
                await self._opened.carry_out(ops, "rescan", [news], with_fenced=True)
            except _REFUSALS as error:
                problem = error.message
            else:
                return None
        return problem

    def _documents_of(self, asked: Sequence[tuple[str, Entry]]) -> list[tuple[str, str]]:
        """The documents, by table and key, that hold these rows; what goes with one that is gone has to be written."""
        found: dict[tuple[str, str], None] = {}
        for _, entry in asked:
            rows = self._opened.image.documents[entry.table]
            place = rows.table.names.index(rows.named_by)
            if entry.row is not None:
                found[entry.table, str(entry.row[place])] = None
        return list(found)


def _watched(registry: Registry) -> list[str]:
    """The tables whose files others may have changed with an effect; where a fence waits for them, those behind it."""
    watched = [name for name in TABLES if registry.is_captured(name, with_fenced=True)]
    return [name for name in watched if not registry.is_captured(name)] or watched


def _differing(layout: Layout, image: Image, tables: Collection[str]) -> list[str]:
    """Files of these tables, in an order in which they can be taken in one after another.

    Those that are there come first, parents before children; then those that are gone, children before parents. So a
    document under a new name is met before its old name is missed.
    """
    there: dict[str, FileState] = {}
    units = {UNIT_OF[table] for table in tables}
    logs = {log.directory for log in LOGS.values()}
    documents = image.documents
    kinds = list(
        dict.fromkeys(documents[t].kind if t in documents else directory_of(t) for t in TABLES if UNIT_OF[t] in units)
    )
    for kind in kinds:
        directory = layout.directory(kind)
        cut = len(str(directory)) + 1
        for entry in flat_entries(directory) if kind in logs else entries(directory):
            if entry.name.endswith((".json", ".jsonl")):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    there[f"{kind}/{entry.path[cut:]}"] = FileState(status.st_size, status.st_mtime_ns)
    known = image.index.file_states()
    differing = [name for name, state in there.items() if known.get(name) != state or name in image.suspects]
    gone = [name for name in known.keys() | image.suspects if name not in there and name.split("/")[0] in units]

    def place(name: str) -> tuple[int, bool, str]:
        directory = name.rpartition("/")[0]
        kind = directory if directory in logs else directory.rpartition("/")[0]
        return kinds.index(kind), name.endswith(".jsonl"), name

    return [*sorted(differing, key=place), *sorted(gone, key=place, reverse=True)]


def _look_at_documents(
    layout: Layout, image: Image, tables: Collection[str], known: dict[str, FileState], names: Collection[str]
) -> Found:
    found = Found()
    for table, rows in image.documents.items():
        if table in tables:
            _Documents(layout, image, rows, known, found).look(names)
    return found


class _Documents:
    """The documents of one table, on disk and in memory."""

    def __init__(
        self, layout: Layout, image: Image, rows: DocumentRows, known: dict[str, FileState], found: Found
    ) -> None:
        name = rows.table.name
        self._layout = layout
        self._suspects = image.suspects
        self._registry = image.registry
        self._rows = rows
        self._known = known
        self._found = found
        self._pending = {rows.name(unit.key) for layer in image.layers for unit in layer.stale if unit.table == name}
        self._written = {row_id for layer in image.layers for row_id in layer.written.get(name, ())}

    def look(self, names: Collection[str]) -> None:
        own = [name for name in names if self._rows.holds(name)]
        keys = self._rows.keys_by_name()
        for name in own:
            state, known = file_state(self._layout.absolute(name)), self._known.get(name)
            if known in (None, UNSEEN) and name in self._pending:
                continue  # a document as it was before the move, or none yet: the checkpoint is about to write it
            if state is None:
                self._ask(name, {}, keys.get(name))
                self._found.states[name] = None
            elif state != known or name in self._suspects:
                self._compare(name, keys.get(name))
        if self._suspects and self._suspects.issubset(names):
            self._find_lost()

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
        if not self._is_overtaken(there):
            self._found.states[name] = state

    def _is_overtaken(self, there: dict[str, Stored]) -> bool:
        """Whether the library wrote every row of a document too, and otherwise: the checkpoint is to find it changed,
        and to keep it aside."""
        is_written = all(row_id in self._written for row_id in there)
        return is_written and any(MemoryRows.get(self._rows, row_id) != row for row_id, row in there.items())

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
        for row_id in self._registry.alive(self._rows.table.name):
            if MemoryRows.get(self._rows, row_id) is None and row_id not in self._written:
                self._found.marked.append((self._rows.table.name, row_id, True))


def _messages_of_lost_chats(image: Image, found: Found) -> list[str]:
    """The ids of the messages that went with a chat whose document was gone when this process read the documents."""
    chats = {row_id for table, row_id, is_gone in found.marked if is_gone and table == "chat_sessions"}
    places = image.index.ids_in(MESSAGES, chats) if chats else {}
    return [row_id for row_ids in places.values() for row_id in row_ids]


def _watch(index: Index, documents: list[str] | None) -> None:
    with index.writer() as writer:
        if documents is None:
            writer.unwatch()
        else:
            writer.watch(documents)
        writer.commit(index.settled())
