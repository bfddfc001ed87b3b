"""Stored rows as JSON: objects with the columns' names in documents and lines, arrays in the journal.

Times are RFC 3339 text in UTC; JSON documents stand in the row as they are. Reading checks that a row has every column
of the right type, and raises ValueError where it has not: what this library did not write is never guessed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final, TypeAlias

import orjson

from dal.backends.file.registry import Capturing, FilesChanged, Gated, Marked, MoveChange
from dal.backends.file.registry_file import Known
from dal.backends.rows import Change, Drop, Stored, document_of, json_positions
from dal.replica import Gate
from dal.tables import TABLES, Kind, Table

#: What a journal record tells.
AnyChange: TypeAlias = "Change | Drop | MoveChange"

_TYPES: Final[dict[Kind, type]] = {
    Kind.ID: str,
    Kind.TEXT: str,
    Kind.INT: int,
    Kind.BIGINT: int,
    Kind.BOOL: bool,
    Kind.TIME: str,
    Kind.IP: str,
}
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_SUBCLASS


class _Shape:
    """What reading and writing need to know of a table, found once."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.names = table.names
        self.json = json_positions(table)
        self.times = tuple(i for i, c in enumerate(table.columns) if c.kind is Kind.TIME)
        self.types = tuple((i, _TYPES[c.kind], c) for i, c in enumerate(table.columns) if c.kind is not Kind.JSON)
        self.pick = itemgetter(*self.names)
        self._sound: set[tuple[type, ...]] = set()  # types of whole rows that were found to be right

    def values(self, row: Stored) -> list[Any]:
        values = list(row)
        for place in self.json:
            values[place] = orjson.Fragment(values[place])
        return values

    def stored(self, values: list[Any]) -> Stored:
        types = tuple(map(type, values))
        if types not in self._sound:
            self._check(values)
            self._sound.add(types)
        for place in self.times:
            if values[place] is not None:
                time = datetime.fromisoformat(values[place])
                if time.tzinfo is not UTC:
                    raise ValueError(f"{self.names[place]} is not in UTC")
                values[place] = time
        for place in self.json:
            values[place] = document_of(values[place])
        return tuple(values)

    def _check(self, values: list[Any]) -> None:
        for place, expected, column in self.types:
            value = values[place]
            if type(value) is not expected and not (value is None and column.nullable):
                raise ValueError(f"{column.name} is not {expected.__name__}")


_SHAPES: Final = {name: _Shape(table) for name, table in TABLES.items()}


def to_line(table: Table, row: Stored) -> bytes:
    """The row as one line of JSON, with its line end."""
    shape = _SHAPES[table.name]
    data = dict(zip(shape.names, shape.values(row), strict=True))
    return orjson.dumps(data, option=_OPTIONS | orjson.OPT_APPEND_NEWLINE)


def to_document(table: Table, row: Stored) -> bytes:
    """The row as a document for people to read."""
    return _document(to_object(table, row))


def to_documents(name: str, table: Table, rows: Sequence[Stored]) -> bytes:
    """Several rows as one document: an object that holds their list under this name."""
    return _document({name: [to_object(table, row) for row in rows]})


def _document(value: object) -> bytes:
    # Indentation does not reach into embedded fragments: the document is read and written once more.
    plain = orjson.loads(orjson.dumps(value, option=_OPTIONS))
    return orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_object(table: Table, row: Stored) -> dict[str, Any]:
    shape = _SHAPES[table.name]
    return dict(zip(shape.names, shape.values(row), strict=True))


def from_object(table: Table, value: object) -> Stored:
    """The stored row; ValueError where the value is not a row of this table."""
    shape = _SHAPES[table.name]
    if type(value) is not dict or len(value) != len(shape.names):
        raise ValueError(f"not a row of {table.name}")
    try:
        values = list(shape.pick(value))
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from error
    return shape.stored(values)


def from_line(table: Table, line: bytes) -> Stored:
    """The stored row that a line holds; ValueError (JSONDecodeError is one) where it holds none."""
    return from_object(table, orjson.loads(line))


def encode_changes(changes: Sequence[AnyChange]) -> bytes:
    """A batch's changes as the journal keeps them."""
    entries: list[list[Any]] = []
    for change in changes:
        if isinstance(change, Change):
            if change.row is None:
                entries.append(["gone", change.table, change.id])
            else:
                entries.append(["row", change.table, _SHAPES[change.table].values(change.row)])
        elif isinstance(change, Drop):
            entries.append(["drop", change.table, change.column, change.parent_id])
        elif isinstance(change, Marked):
            entries.append(["marked", change.table, [[row_id, *known] for row_id, known in change.entries]])
        elif isinstance(change, Gated):
            entries.append(["gate", change.gate._asdict(), change.counter])
        elif isinstance(change, Capturing):
            entries.append(["capturing", change.file])
        else:
            entries.append(["files changed", change.documents])
    return orjson.dumps(entries, option=_OPTIONS)


def decode_changes(payload: bytes) -> list[AnyChange]:
    """The changes of a journal record; ValueError where it holds something else."""
    changes: list[AnyChange] = []
    for entry in orjson.loads(payload):
        match entry:
            case ["row", name, values] if name in _SHAPES and len(values) == len(_SHAPES[name].names):
                changes.append(Change(name, values[0], _SHAPES[name].stored(values)))
            case ["gone", name, row_id] if name in _SHAPES:
                changes.append(Change(name, row_id, None))
            case ["drop", name, column, parent_id] if name in _SHAPES:
                changes.append(Drop(name, column, parent_id))
            case ["marked", name, marked] if name in _SHAPES:
                changes.append(Marked(name, [(row_id, Known(*known)) for row_id, *known in marked]))
            case ["gate", gate, counter]:
                changes.append(Gated(_gate(gate), counter))
            case ["capturing", str(file)]:
                changes.append(Capturing(file))
            case ["files changed", documents]:
                changes.append(FilesChanged([(table, key) for table, key in documents]))
            case _:
                raise ValueError("not a change that this library writes")
    return changes


def _gate(value: dict[str, Any]) -> Gate:
    """The gate; what another version of this library knows of gates besides is passed over."""
    try:
        return Gate(**{name: value[name] for name in Gate._fields if name in value})
    except TypeError as error:
        raise ValueError("not a gate that this library writes") from error
