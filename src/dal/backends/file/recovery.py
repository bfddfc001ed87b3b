"""Opening: from what lies on disk to an image that can be used, whatever happened before.

Under the checkpoint lock, so that no other process moves files meanwhile: an unfinished checkpoint is taken back, the
documents are read, the index is brought up to the files, and the journal's changes since the last checkpoint are
applied. Nothing is written but what can be written again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast

import orjson

from dal.backends.file import index as ids
from dal.backends.file import registry_files
from dal.backends.file.checkpoint import undo
from dal.backends.file.codec import decode_changes
from dal.backends.file.documents import load_documents
from dal.backends.file.image import Image
from dal.backends.file.index import UNSURE, FileState, Index, IndexWriter, Place
from dal.backends.file.journal import Boundary, Journal
from dal.backends.file.layout import TEMPORARY, Layout, entries, flat_entries
from dal.backends.file.linerows import LOGS
from dal.backends.file.lines import LineFile

_BATCH_ROWS: Final = 10_000


def load(layout: Layout, index: Index, journal: Journal, end: int) -> Image:
    """The store as of this position of the journal. FileNotFoundError: the journal does not reach back far enough."""
    layout.look()
    undo(layout)
    index.refresh()  # others have added to it since this process looked
    settled = journal.settled()
    registry, since_whole = registry_files.load(layout, settled)
    image = Image(layout, index, registry)
    image.since_whole = since_whole
    found = {_name(layout, entry): (ids.MESSAGES, _state(entry)) for entry in load_documents(layout, image.documents)}
    found.update(_logs(layout))
    journal.state.settled = settled
    try:
        _bring_up_index(layout, image, found, settled)
    except sqlite3.DatabaseError as error:
        if not ids.is_damage(error):
            raise
        index.begin_anew()
        _bring_up_index(layout, image, found, settled)
    if registry.is_capturing:
        image.suspects = _suspects(layout, image, found)
    journal.seek(settled)
    follow(image, journal, end)
    return image


def follow(image: Image, journal: Journal, end: int | None = None) -> None:
    """Applies what was published since: by this process's last look, or since the last checkpoint."""
    for found in journal.read(end):
        if isinstance(found, Boundary):
            image.seal(found.position)
            continue
        try:
            changes = decode_changes(found.payload)
        except ValueError:
            journal.report_foreign(found)
        else:
            image.apply(changes)


def _bring_up_index(layout: Layout, image: Image, found: dict[str, tuple[int, FileState]], settled: int) -> None:
    """Reads those of the line files that the index does not know as they are now."""
    index = image.index
    known = {name: state for name, state in index.files().items() if name.endswith(".jsonl")}
    is_complete = index.settled() >= settled
    if not is_complete:
        known = {}
    changed = [name for name, (_, state) in found.items() if known.get(name) != state]
    gone = [name for name in known if name not in found]
    if is_complete and not changed and not gone:
        return
    with index.writer() as writer:
        if not is_complete:
            writer.clear()
        # In a live move others' changes are yet to be registered: they stay known as such.
        is_watched = image.registry.is_capturing
        for name in gone:
            writer.put_file(name, UNSURE if is_watched else None)
        for name in changed:
            kind, state = found[name]
            _read_file(layout.absolute(name), kind, writer, image.report, layout)
            writer.put_file(name, UNSURE if is_watched else state)
        writer.commit(max(settled, index.settled()))
    index.refresh()


def _suspects(layout: Layout, image: Image, lines: dict[str, tuple[int, FileState]]) -> set[str]:
    """Files that are not as they were known: what others wrote while this process was not there."""
    known = {name: FileState(size, abs(mtime_ns)) for name, (size, mtime_ns) in image.index.files().items()}
    there = {name: state for name, (_, state) in lines.items()}
    for rows in image.documents.values():
        for entry in entries(rows.directory):
            if entry.name.endswith(".json"):
                there[_name(layout, entry)] = _state(entry)
    return {name for name in known.keys() | there.keys() if known.get(name) != there.get(name)}


def _logs(layout: Layout) -> Iterator[tuple[str, tuple[int, FileState]]]:
    """The days of every log. Removes what an unfinished write left."""
    for log in LOGS.values():
        for entry in flat_entries(layout.directory(log.directory)):
            if entry.name.endswith(TEMPORARY):
                Path(entry.path).unlink(missing_ok=True)
            elif entry.name.endswith(".jsonl"):
                yield _name(layout, entry), (log.kind, _state(entry))


def _name(layout: Layout, entry: os.DirEntry[str]) -> str:
    return layout.relative(Path(entry.path))


def _state(entry: os.DirEntry[str]) -> FileState:
    status = entry.stat(follow_symlinks=False)
    return FileState(status.st_size, status.st_mtime_ns)


def _read_file(path: Path, kind: int, writer: IndexWriter, report: Callable[[str], None], layout: Layout) -> None:
    """Indexes every whole line of a file and names those that are damaged."""
    places: list[Place] = []
    name = layout.relative(path)
    with LineFile(path) as file:
        end = file.end()
        if end != file.size:
            report(f"{name}: byte {end}: a torn last line")
        for offset, line in file.forward():
            try:
                value = orjson.loads(line)
                place = cast(str, value["chat_session_id"]) if kind == ids.MESSAGES else path.stem
                number = cast(int, value["sequence_number"]) if kind == ids.MESSAGES else 0
                places.append(Place(cast(str, value["id"]), place, number))
            except (ValueError, KeyError, TypeError):
                report(f"{name}: byte {offset}: not a whole line of JSON")
            if len(places) >= _BATCH_ROWS:
                writer.put(kind, places)
                places = []
    writer.put(kind, places)
