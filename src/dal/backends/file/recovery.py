"""Opening: from what lies on disk to an image that can be used, whatever happened before.

Under the checkpoint lock, so that no other process moves files meanwhile: the documents are read, and the journal's
changes since the last checkpoint are applied. Any number of processes do that at the same time. One that finds what has
to be put in order first does it alone: an unfinished checkpoint or fence, leftovers, an index that is behind the files.
Nothing is written but what can be written again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias, cast

import orjson

from dal.backends.file import fencing, registry_files
from dal.backends.file import index as ids
from dal.backends.file.codec import decode_changes
from dal.backends.file.documents import load_documents
from dal.backends.file.image import Image
from dal.backends.file.index import UNSURE, FileState, Index, IndexWriter, Place
from dal.backends.file.journal import Boundary, Journal, settled_position
from dal.backends.file.layout import TEMPORARY, Layout, entries, flat_entries
from dal.backends.file.lines import LineFile
from dal.backends.file.logrows import LOGS
from dal.backends.file.plan import is_unfinished, undo
from dal.backends.file.registry_files import RegistryFiles

_BATCH_ROWS: Final = 10_000
#: Files of lines by their name in the store: what they hold, and their state.
_Lines: TypeAlias = dict[str, tuple[int, FileState]]


class DisorderError(Exception):
    """Something has to be put in order, and others read at the same time."""


def load(layout: Layout, index: Index, files: RegistryFiles, journal: Journal, *, alone: bool) -> Image:
    """The store as of what is published. FileNotFoundError: the journal does not reach back far enough.

    alone  nobody else reads or writes the files; DisorderError where that is necessary, and not so.
    """
    layout.look()
    if not alone and is_unfinished(layout):
        raise DisorderError
    undo(layout)
    index.refresh()  # others have added to it since this process looked
    settled = settled_position(layout)
    image = Image(layout, index, registry_files.load(layout, files))
    leftovers: list[Path] = []
    lines = load_documents(layout, image.documents, leftovers)
    found = {_name(layout, entry): (ids.MESSAGES, _state(entry)) for entry in lines}
    found.update(_logs(layout, leftovers))
    if not alone and (leftovers or not _is_indexed(image, found, settled)):
        raise DisorderError
    for path in leftovers:
        path.unlink(missing_ok=True)
    journal.state.settled = settled
    try:
        _bring_up_index(layout, image, found, settled)
    except sqlite3.DatabaseError as error:
        if not ids.is_damage(error):
            raise
        index.begin_anew()
        _bring_up_index(layout, image, found, settled)
    if image.registry.is_capturing:
        image.suspects = _suspects(layout, image, found)
    journal.seek(settled)
    follow(image, journal, journal.state.published)
    if alone:
        fencing.complete(layout, image.registry)
    elif not fencing.is_complete(layout, image.registry):
        raise DisorderError
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


def _is_indexed(image: Image, found: _Lines, settled: int) -> bool:
    """Whether the index knows the files of lines as they are now."""
    try:
        return not any(_behind(image.index, found, settled))
    except sqlite3.DatabaseError as error:
        if not ids.is_damage(error):
            raise
        return False


def _behind(index: Index, found: _Lines, settled: int) -> tuple[bool, list[str], list[str]]:
    """Whether the index has to be made anew, and the files that it does not know so, or that are gone."""
    is_complete = index.settled() >= settled
    known = {name: state for name, state in index.files().items() if name.endswith(".jsonl")} if is_complete else {}
    changed = [name for name, (_, state) in found.items() if known.get(name) != state]
    return not is_complete, changed, [name for name in known if name not in found]


def _bring_up_index(layout: Layout, image: Image, found: _Lines, settled: int) -> None:
    """Reads those of the line files that the index does not know as they are now."""
    index = image.index
    is_behind, changed, gone = _behind(index, found, settled)
    if not (is_behind or changed or gone):
        return
    with index.writer() as writer:
        if is_behind:
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


def _suspects(layout: Layout, image: Image, lines: _Lines) -> set[str]:
    """Files that are not as they were known: what others wrote while this process was not there."""
    known = {name: FileState(size, abs(mtime_ns)) for name, (size, mtime_ns) in image.index.files().items()}
    there = {name: state for name, (_, state) in lines.items()}
    for rows in image.documents.values():
        for entry in entries(rows.directory):
            if entry.name.endswith(".json"):
                there[_name(layout, entry)] = _state(entry)
    return {name for name in known.keys() | there.keys() if known.get(name) != there.get(name)}


def _logs(layout: Layout, leftovers: list[Path]) -> Iterator[tuple[str, tuple[int, FileState]]]:
    """The days of every log. What an unfinished write left is added to `leftovers`."""
    for log in LOGS.values():
        for entry in flat_entries(layout.directory(log.directory)):
            if entry.name.endswith(TEMPORARY):
                leftovers.append(Path(entry.path))
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
