"""Files of lines that others changed past the library: which rows are new in them, which are gone, which are damaged.

Only what a whole line says is believed, and only where it can be: a message must belong to the chat whose file it is
in, and its number be free. Rows that the library wrote since its last checkpoint stand against what a file says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from dal.backends.file import index as ids
from dal.backends.file.codec import from_line
from dal.backends.file.image import Image
from dal.backends.file.index import FileState, Index, Place, file_state
from dal.backends.file.layout import Layout
from dal.backends.file.lines import LineFile
from dal.backends.file.logrows import KINDS, LOGS, directory_of
from dal.backends.overlay import Overlay
from dal.backends.rows import ID, Change, Stored
from dal.tables import MESSAGES, TABLES

_CHAT: Final = MESSAGES.names.index("chat_session_id")
_NUMBER: Final = MESSAGES.names.index("sequence_number")


@dataclass
class FoundLines:
    """What a look at files of lines has found.

    changed  rows that may have changed: table, id, whether it is gone.
    places   where new rows lie, and gone the ids of rows that are no longer there, by the index's kind.
    """

    changed: list[tuple[str, str, bool]] = field(default_factory=list)
    places: dict[int, list[Place]] = field(default_factory=dict)
    gone: dict[int, list[str]] = field(default_factory=dict)
    states: dict[str, FileState | None] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def put_places(self, index: Index) -> None:
        """Tells the index of the new rows."""
        with index.writer() as writer:
            for kind, places in self.places.items():
                writer.put(kind, places)
            writer.commit(index.settled())
        index.refresh()


def look(
    layout: Layout, image: Image, tables: Collection[str], known: dict[str, FileState], names: Collection[str]
) -> FoundLines:
    """Reads those of these files that differ from what is known of them."""
    found = FoundLines()
    lines = [name for name in names if name.endswith(".jsonl")]
    lines = [name for name in lines if file_state(layout.absolute(name)) != known.get(name)]
    for table in KINDS:
        own = [name for name in lines if name.startswith(f"{directory_of(table)}/")]
        if own and table in tables:
            _Lines(layout, image, table, found).look(_places(image, table, own))
    return found


def _places(image: Image, table: str, names: Collection[str]) -> dict[str, str]:
    """The chat or the day whose file has this name; a file of no chat is left out."""
    if table in LOGS:
        return {name: name.rpartition("/")[2].removesuffix(".jsonl") for name in names}
    found: dict[str, str] = {}
    rows = image.documents["chat_sessions"]
    for name in names:
        key = rows.keys_by_name().get(name.removesuffix("l"))  # its document's name, but for the ending
        for chat in [] if key is None else rows.of_document(key):
            if chat[ID] not in image.names:  # a file on its way to another name is left to the checkpoint that moves it
                found[name] = chat[ID]
    return found


class _Lines:
    """The changed files of one table."""

    def __init__(self, layout: Layout, image: Image, table: str, found: FoundLines) -> None:
        self._layout = layout
        self._table = table
        self._found = found
        self._kind = KINDS[table]
        self._written: set[str] = set()
        self._taken: set[tuple[str, int]] = set()
        for layer in image.layers:
            rows: Overlay = layer.lines[table]
            for change in rows.changes():
                if isinstance(change, Change):
                    self._written.add(change.id)
                    if change.row is not None and table == MESSAGES.name:
                        self._taken.add((change.row[_CHAT], change.row[_NUMBER]))
        self._index = image.index

    def look(self, changed: dict[str, str]) -> None:
        """Compares these files with the index."""
        before = self._index.ids_in(self._kind, set(changed.values()))
        there: set[str] = set()
        places = self._found.places.setdefault(self._kind, [])
        for name, place in changed.items():
            self._found.states[name] = file_state(self._layout.absolute(name))
            for row, number in self._rows(name, place):
                there.add(row[ID])
                places.append(Place(row[ID], place, number))
        known = (row_id for ids_of_place in before.values() for row_id in ids_of_place)
        gone = [row_id for row_id in known if row_id not in there and row_id not in self._written]
        self._found.changed += [(self._table, row_id, False) for row_id in there]
        self._found.changed += [(self._table, row_id, True) for row_id in gone]
        self._found.gone[self._kind] = gone

    def _rows(self, name: str, place: str) -> Iterator[tuple[Stored, int]]:
        """Rows of the file that are to be taken in, with their number."""
        try:
            file = LineFile(self._layout.absolute(name))
        except FileNotFoundError:
            return
        table, numbers, seen = TABLES[self._table], dict[int, str](), set[str]()
        with file:
            for offset, line in file.forward():
                try:
                    row = from_line(table, line)
                except ValueError:
                    self._name(name, offset, f"not a row of {self._table}")
                    continue
                number = int(row[_NUMBER]) if self._kind == ids.MESSAGES else 0
                if row[ID] in self._written or row[ID] in seen:
                    continue
                seen.add(row[ID])
                if self._kind == ids.MESSAGES and row[_CHAT] != place:
                    self._name(name, offset, "a message of another chat")
                elif self._table in LOGS and LOGS[self._table].day_of(row) != place:
                    self._name(name, offset, "an entry of another day")
                elif self._kind == ids.MESSAGES and (number in numbers or (place, number) in self._taken):
                    self._name(name, offset, f"the sequence number {number} is taken")
                else:
                    numbers[number] = row[ID]
                    yield row, number

    def _name(self, name: str, offset: int, problem: str) -> None:
        self._found.problems[name] = f"{name}: byte {offset}: {problem}; it is left alone"
