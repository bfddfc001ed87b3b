"""Moves journalled changes into the documents and line files, in a thread, so that the journal can be retired.

Each step can be repeated after a crash at any point. Documents, new files and rewritten ones are written aside, synced
and renamed into place. Appending is undone before it is repeated (plan.py). The index follows, then the position up to
which everything is settled. One process at a time does this, under a lock of its own; commits go on meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, cast

import orjson

from dal.backends.file import faults, plan, registry_files
from dal.backends.file import index as ids
from dal.backends.file.beside import Beside
from dal.backends.file.codec import to_line
from dal.backends.file.documents import CHAT_ID, Document, DocumentRows
from dal.backends.file.image import Image, Layer, chat_of, merged
from dal.backends.file.index import IndexWriter, Place
from dal.backends.file.layout import (
    DIRECTORY_MODE,
    TEMPORARY,
    Layout,
    make_directory,
    open_file,
    replace,
    sync_tree,
    write_all,
    write_new,
)
from dal.backends.file.linerows import owner
from dal.backends.file.lines import LineFile
from dal.backends.file.logrows import KINDS, LOGS, Log
from dal.backends.file.plan import Planned
from dal.backends.file.registry_files import Part
from dal.backends.file.waiting import politely
from dal.backends.overlay import Overlay
from dal.backends.rows import ID, Change, MemoryRows, Stored
from dal.tables import MESSAGES, Table

_NUMBER: Final = MESSAGES.names.index("sequence_number")


class Work(NamedTuple):
    """What a checkpoint has to write: everything before `target`, as it was when the work was taken up."""

    target: int
    layers: list[Layer]
    documents: list[Document]
    chats: dict[str, str | None]  # stale chat documents by chat_id, with the id of the chat that has it now
    registry: Part | None  # what changed of a live move's state
    written: dict[str, set[str]]  # rows in documents that were written, in a live move, by table


def take_up(image: Image) -> Work | None:
    """The work that waits in sealed layers; None where there is none. To be called where the image does not change."""
    layers = image.sealed()
    if not layers:
        return None
    stale = {unit: None for layer in layers for unit in layer.stale}
    documents = [image.documents[unit.table].document(unit.key) for unit in stale]
    chats = {
        unit.key: document.rows[0][ID] if document.rows else None
        for unit, document in zip(stale, documents, strict=True)
        if unit.table == "chat_sessions"
    }
    written: dict[str, set[str]] = {}
    for layer in image.layers:
        for table, row_ids in layer.written.items():
            written.setdefault(table, set()).update(row_ids)
    return Work(cast(int, layers[-1].end), layers, documents, chats, _registry_part(image, layers), written)


def _registry_part(image: Image, layers: list[Layer]) -> Part | None:
    marked: dict[str, dict[str, None]] = {}
    for layer in layers:
        for table, ids_of_table in layer.marked.items():
            marked.setdefault(table, {}).update(ids_of_table)
    if not marked and not any(layer.is_gated for layer in layers):
        return None
    return registry_files.part_of(image.registry, marked)


def run(layout: Layout, image: Image, work: Work) -> None:
    """Writes the work, in a thread, under the checkpoint lock."""
    layout.look()
    plan.undo(layout)
    with image.index.writer() as writer:
        _Checkpoint(layout, image, work, writer).run()


class _Checkpoint:
    """One run over a work, under the checkpoint lock, with a change of the index that it ends with."""

    def __init__(self, layout: Layout, image: Image, work: Work, writer: IndexWriter) -> None:
        self._layout = layout
        self._image = image
        self._work = work
        self._writer = writer
        self._beside = Beside(layout, image, writer, work.written)
        self._appends: dict[Path, tuple[Planned, bytes]] = {}
        self._renames: dict[Path, Path] = {}
        self._removals: list[Path] = []
        self._emptied: set[str] = set()  # chats whose messages so far are gone, deleted and perhaps made anew
        self._touched: dict[Path, None] = {}
        self._places: dict[int, list[Place]] = {kind: [] for kind in KINDS.values()}
        self._gone: dict[int, list[str]] = {kind: [] for kind in KINDS.values()}

    def run(self) -> None:
        """Writes everything; when it returns the work is on disk and in the index."""
        layer = merged(self._image, self._work.layers)
        self._move_renamed_chats()
        self._prepare_messages(layer)
        for log in LOGS.values():
            self._prepare_log(log, layer.lines[log.table.name])
        self._prepare_documents()
        self._prepare_registry()
        plan.write(self._layout, self._work.target, [planned for planned, _ in self._appends.values()])
        for path, (planned, data) in self._appends.items():
            self._append(path, planned.size, data)
        faults.reach("checkpoint.written")
        sync_tree(self._layout.root, [*self._appends, *self._renames])
        faults.reach("checkpoint.synced")
        # Removals first: no two documents ever hold the same row.
        for path in self._removals:
            path.unlink(missing_ok=True)
            faults.reach("checkpoint.removed")
        for temporary, final in self._renames.items():
            self._beside.put(temporary, final)
            faults.reach("checkpoint.renamed")
        sync_tree(self._layout.root, [*self._renames.values(), *self._removals])
        if self._work.registry is not None:
            self._work.registry.put()
            faults.reach("registry.written")
        self._write_index()
        faults.reach("checkpoint.indexing")
        self._writer.commit(self._work.target)
        faults.reach("checkpoint.indexed")

    def _append(self, path: Path, size: int, data: bytes) -> None:
        self._beside.expects(path, size + len(data))
        if self._beside.is_watching:
            self._beside.appends(path, data)
            return
        descriptor = open_file(path, os.O_WRONLY)
        try:
            write_all(descriptor, data[: len(data) // 2], size)
            faults.reach("checkpoint.appending")
            write_all(descriptor, data[len(data) // 2 :], size + len(data) // 2)
        finally:
            os.close(descriptor)

    # -- messages

    def _move_renamed_chats(self) -> None:
        """Brings message files to the names of chats whose `chat_id` has changed, by way of names nobody else has."""
        moved: list[tuple[str, Path]] = []
        for chat_session_id in list(self._image.names):
            chat = self._chat(chat_session_id)
            file = None if chat is None else self._image.messages.open(chat_session_id)
            if chat is None or file is None:
                continue
            with file:
                path = self._layout.messages(chat[CHAT_ID])
                if file.path == path:
                    continue
                make_directory(self._layout.moving)
                file.path.rename(self._layout.moving_messages(chat_session_id))
            self._touched[file.path] = None
            moved.append((chat_session_id, path))
        if not moved:
            return
        sync_tree(self._layout.root, [])
        faults.reach("checkpoint.moving")
        for chat_session_id, path in moved:
            make_directory(path.parent)
            with suppress(FileNotFoundError):
                self._layout.moving_messages(chat_session_id).rename(path)
                self._touched[path] = None
            faults.reach("checkpoint.moved")
        sync_tree(self._layout.root, [])

    def _prepare_messages(self, layer: Layer) -> None:
        added: dict[str, list[Stored]] = {}
        rewritten: dict[str, set[str]] = {}  # chats whose file holds lines that change, with their ids
        for change in politely(layer.lines[MESSAGES.name].changes()):
            if not isinstance(change, Change):
                self._emptied.add(change.parent_id)
                continue
            before = self._writer.find(ids.MESSAGES, change.id)
            if before is not None:
                rewritten.setdefault(before.place, set()).add(change.id)
            if change.row is None:
                self._gone[ids.MESSAGES].append(change.id)
            else:
                added.setdefault(chat_of(change.row), []).append(change.row)
        renewed = {chat_session_id for chat_session_id in self._work.chats.values() if chat_session_id is not None}
        for chat_session_id in dict.fromkeys((*added, *rewritten, *self._emptied, *renewed)):
            self._prepare_chat(
                chat_session_id,
                sorted(added.get(chat_session_id, ()), key=lambda row: int(row[_NUMBER])),
                rewritten.get(chat_session_id, set()),
            )
        for chat_id, held_by in self._work.chats.items():
            if held_by is None:
                self._remove_messages(self._layout.messages(chat_id))
        for chat_session_id in self._emptied:  # a crash may have left it on its way
            self._remove_messages(self._layout.moving_messages(chat_session_id))

    def _prepare_chat(self, chat_session_id: str, added: list[Stored], gone: set[str]) -> None:
        chat = self._chat(chat_session_id)
        if chat is None:
            return  # deleted meanwhile: the next checkpoint removes what there is
        self._places[ids.MESSAGES] += [Place(row[ID], chat_session_id, row[_NUMBER]) for row in added]
        file = None if chat_session_id in self._emptied else self._image.messages.open(chat_session_id)
        if file is None:
            path = self._layout.messages(chat[CHAT_ID])
            if added:
                self._write_aside(path, MESSAGES, added)
            else:
                self._remove_messages(path)
            return
        with file:
            if not added and not gone:
                return
            path = file.path
            self._beside.reads(file)
            last = self._image.messages.last_in(file)
            if not gone and (not added or added[0][_NUMBER] > last):
                self._plan_append(file, chat_session_id, MESSAGES, added)
                return
            kept = list(_without(file, {*gone, *(str(row[ID]) for row in added)}))
        lines = [(row[_NUMBER], to_line(MESSAGES, row)) for row in added]
        self._replace_file(path, [line for _, line in sorted([*kept, *lines], key=lambda item: item[0])])

    def _remove_messages(self, path: Path) -> None:
        """Removes a file of messages, unless it is that of a chat that is there."""
        try:
            with LineFile(path) as file:
                owned_by = owner(file)
        except FileNotFoundError:
            return
        chat = None if owned_by is None or owned_by in self._emptied else self._chat(owned_by)
        if chat is not None and owned_by is not None:
            names = (chat[CHAT_ID], *self._image.names.get(owned_by, ()))
            if path in map(self._layout.messages, names):
                return
        self._removals.append(path)
        self._touched[path] = None

    def _chat(self, chat_session_id: str) -> Stored | None:
        return MemoryRows.get(self._image.documents["chat_sessions"], chat_session_id)

    # -- logs

    def _prepare_log(self, log: Log, entries: Overlay) -> None:
        added: dict[str, list[Stored]] = {}
        rewritten: dict[str, set[str]] = {}
        for change in politely(entries.changes()):
            if not isinstance(change, Change):
                continue
            before = self._writer.find(log.kind, change.id)
            if before is not None:
                rewritten.setdefault(before.place, set()).add(change.id)
            if change.row is None:
                self._gone[log.kind].append(change.id)
            else:
                added.setdefault(log.day_of(change.row), []).append(change.row)
        for day in dict.fromkeys((*added, *rewritten)):
            rows, gone, path = added.get(day, []), rewritten.get(day, set()), self._layout.log(log.directory, day)
            self._places[log.kind] += [Place(row[ID], day, 0) for row in rows]
            try:
                file = LineFile(path)
            except FileNotFoundError:
                if rows:
                    self._write_aside(path, log.table, rows)
                continue
            with file:
                if not gone:
                    self._plan_append(file, None, log.table, rows)
                    continue
                self._beside.reads(file)
                kept = [line for _, line in _without(file, {*gone, *(str(row[ID]) for row in rows)})]
            lines = [*kept, *(to_line(log.table, row) for row in rows)]
            if lines:
                self._replace_file(path, lines)
            else:
                self._removals.append(path)
                self._touched[path] = None

    # -- files

    def _plan_append(self, file: LineFile, owned_by: str | None, table: Table, rows: Iterable[Stored]) -> None:
        self._beside.reads(file)
        end = file.end()
        if end != file.size:
            self._set_aside_torn_end(file, end)
        planned = Planned(self._layout.relative(file.path), end, owned_by)
        self._appends[file.path] = (planned, b"".join([to_line(table, row) for row in politely(rows)]))
        self._touched[file.path] = None

    def _set_aside_torn_end(self, file: LineFile, end: int) -> None:
        """Keeps what stands behind the last whole line of a file, elsewhere: the next line must begin on its own."""
        name = self._layout.relative(file.path)
        torn = os.pread(file.descriptor, file.size - end, end)
        self._layout.quarantine.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        replace(self._layout.quarantine / f"{name.replace('/', '_')}.{end}", torn)
        os.truncate(file.path, end)
        self._image.report(f"{name}: byte {end}: a torn last line, moved to {self._layout.quarantine.name}/")

    def _write_aside(self, path: Path, table: Table, rows: Iterable[Stored]) -> None:
        self._replace_file(path, [to_line(table, row) for row in politely(rows)])

    def _replace_file(self, path: Path, lines: list[bytes]) -> None:
        data = b"".join(lines)
        self._replace(path, data)
        self._beside.expects(path, len(data))
        self._touched[path] = None

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + TEMPORARY)
        make_directory(path.parent)
        write_new(temporary, data)
        self._renames[temporary] = path
        faults.reach("checkpoint.aside")

    def _prepare_documents(self) -> None:
        for document in politely(self._work.documents, 10):
            rows = self._image.documents[document.table.name]
            if self._layout.relative(document.path) in rows.corrupt and document.path.exists():
                self._keep_damaged(rows, document.path)
            if document.rows:
                self._replace(document.path, document.encode())
                self._beside.replaces(document)
            else:
                self._removals.append(document.path)

    def _prepare_registry(self) -> None:
        part = self._work.registry
        if part is not None:
            self._replace(registry_files.state_path(self._layout), part.encode())

    def _keep_damaged(self, rows: DocumentRows, path: Path) -> None:
        self._layout.quarantine.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        name = self._layout.relative(path)
        path.rename(self._layout.quarantine / name.replace("/", "_"))
        rows.corrupt.pop(name, None)

    def _write_index(self) -> None:
        writer = self._writer
        for kind in KINDS.values():
            writer.remove(kind, self._gone[kind])
            writer.put(kind, self._places[kind])
        for path in self._touched:
            writer.put_file(self._layout.relative(path), self._beside.state(path))
        if self._beside.is_watching:
            for document in self._work.documents:
                name = self._layout.relative(document.path)
                writer.put_file(name, self._beside.document_state(document.path))


def _without(file: LineFile, gone: set[str]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that do not hold these ids, with their sequence number; a damaged line stays in its place."""
    number = 0
    for _, line in politely(file.forward()):
        with suppress(ValueError, KeyError, TypeError):
            value = orjson.loads(line)
            number = value.get("sequence_number", number)
            if value["id"] in gone:
                continue
        yield number, line + b"\n"
