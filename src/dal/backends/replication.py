"""From a move's entries to what a store does with them: which of them win, their operations, and what blocks them.

Nothing here does I/O. A store reads the versions it has, carries the operations out as one batch together with the
registry's new entries, and where a unique key or a parent refuses them looks up what the functions at the end ask for.
Operations are those of the waist, so whatever a store keeps beside its rows (a search index) is kept here too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from dal.limits import MAX_KEY_CHARS
from dal.ops import Compare, Delete, Insert, Op, Update, Upsert, Value
from dal.replica import TABLE_ORDER, Entry, Key
from dal.tables import TABLES, Column, Kind, Table

#: Stands for a unique text while its rows are exchanged; the row's id follows.
PARKED: Final = "dal:parked:"
#: A unique key by its table and columns.
UniqueKey: TypeAlias = tuple[str, tuple[str, ...]]


class Claim(NamedTuple):
    """What a row will hold of a unique key, in the order of the key's columns; none of them is null."""

    key: Key
    values: tuple[Value, ...]


# Winners and their operations ----------------------------------------------------------------------------------------


def winners(entries: Iterable[Entry], versions: Mapping[Key, int]) -> list[Entry]:
    """The entries that are newer than what the registry has, in the order of tables and ids.

    versions  by key, as the registry has them; a key that it does not know is not in it.
    One order for everybody: two appliers with the same rows then wait for each other, and do not deadlock.
    """
    if versions:
        won = [entry for entry in entries if entry.version > versions.get(entry.key, 0)]
    else:
        won = [entry for entry in entries if entry.version > 0]
    won.sort(key=itemgetter(1))
    won.sort(key=lambda entry: TABLE_ORDER[entry.table])
    return won


def operations(
    won: Sequence[Entry], *, known: Collection[Key], replacing: bool = False, parked: Collection[Key] = ()
) -> list[Op]:
    """What makes the rows of the winners those of the store: deletes children first, then writes parents first.

    known      keys that the registry knows: their rows may be there, all others are new.
    replacing  no row is taken for new: a store may hold rows that its registry does not know.
    parked     winners whose rows hold unique keys of other winners: they let go of them first.
    """
    gone: dict[str, list[Value]] = {}
    for entry in won:
        if entry.row is None:
            gone.setdefault(entry.table, []).append(entry.id)
    ops: list[Op] = [Delete(table, (Compare("id", "in", tuple(ids)),)) for table, ids in reversed(gone.items())]
    for place, entry in enumerate(won if parked else ()):
        if entry.key not in parked or entry.row is None:
            continue
        values = _placeholders(TABLES[entry.table], entry.id, place)
        if values is None:
            ops.append(Delete(entry.table, (Compare("id", "=", entry.id),)))
        else:
            ops.append(Update(entry.table, {"id": entry.id}, values))
    for entry in won:
        if entry.row is None:
            continue
        table = TABLES[entry.table]
        row = dict(zip(table.names, entry.row, strict=True))
        if replacing or (known and entry.key in known):
            ops.append(Upsert(table.name, row, (table.key,), table.names[1:]))
        else:
            ops.append(Insert(table.name, row))
    return ops


def _placeholders(table: Table, id_: str, place: int) -> dict[str, Value] | None:
    """Values that no other row holds, one in each unique key besides the id; None where a key is made of parents alone:
    then the row itself goes, which nothing hangs on, and comes again.

    place  of the row in its batch.
    """
    values: dict[str, Value] = {}
    for columns in table.unique_keys[1:]:
        free = [table.by_name[name] for name in columns if name not in table.parent_of]
        if not free:
            return None
        column = next((column for column in free if column.nullable), None) or max(free, key=_room)
        if column.nullable:
            values[column.name] = None
        else:
            values[column.name] = -1 - place if column.kind in (Kind.INT, Kind.BIGINT) else f"{PARKED}{id_}"
    return values


def _room(column: Column) -> int:
    """How much a column can hold, in characters."""
    return MAX_KEY_CHARS if column.kind in (Kind.INT, Kind.BIGINT) or not column.max_chars else column.max_chars


# Unique keys ---------------------------------------------------------------------------------------------------------


def claims(won: Iterable[Entry]) -> dict[UniqueKey, list[Claim]]:
    """What the winners will hold of each unique key besides the id."""
    found: dict[UniqueKey, list[Claim]] = {}
    for entry in won:
        if entry.row is None:
            continue
        table = TABLES[entry.table]
        for columns in table.unique_keys[1:]:
            values = tuple([entry.row[table.names.index(name)] for name in columns])
            if None not in values:
                found.setdefault((table.name, columns), []).append(Claim(entry.key, values))
    return found


def rivals(won: Iterable[Entry]) -> set[Key]:
    """Winners that claim the same value: they were read at different moments, and some of them are out of date."""
    found: set[Key] = set()
    for group in claims(won).values():
        first: dict[tuple[Value, ...], Key] = {}
        for key, values in group:
            other = first.setdefault(values, key)
            if other != key:
                found |= {key, other}
    return found


# Parents -------------------------------------------------------------------------------------------------------------


def parents(won: Sequence[Entry]) -> dict[Key, list[Key]]:
    """Rows that the winners refer to and do not bring along, each with those that refer to it."""
    brought = {entry.key for entry in won if entry.row is not None}
    found: dict[Key, list[Key]] = {}
    for entry in won:
        if entry.row is None:
            continue
        table = TABLES[entry.table]
        for parent in table.parents:
            value = entry.row[table.names.index(parent.column)]
            if value is not None and (key := Key(parent.table, str(value))) not in brought:
                found.setdefault(key, []).append(entry.key)
    return found


def missing(wanted: Mapping[Key, Sequence[Key]], present: Collection[Key], won: Iterable[Entry]) -> list[Key]:
    """Which rows' present state is needed before the winners can be written.

    wanted   as `parents` gave it.
    present  those of them that the store holds.
    A row that is deleted together with its parent's delete was read before it: it is asked for again.
    """
    deleted = {entry.key for entry in won if entry.row is None}
    found: dict[Key, None] = {}
    for key, children in wanted.items():
        if key in deleted:
            found.update(dict.fromkeys((key, *children)))
        elif key not in present:
            found[key] = None
    return list(found)
