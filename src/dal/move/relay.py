"""Copying rows from the primary to the replica: read, apply, read back, acknowledge.

Everything goes this one way: the backfill, what writers change meanwhile, what an application pushes itself, repair.
An entry is acknowledged only when its row was read back from the replica with the same content, so an empty backlog
means that everything was compared. Copies carry versions; two relays at work at once cost time and do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from dal.limits import MOVE_BATCH_BYTES, MOVE_BATCH_ROWS
from dal.move.canonical import row_hash
from dal.replica import TABLE_ORDER, UNIT_OF, Copied, Entry, Key, Replica
from dal.tables import TABLES

#: How often a copy that meets other rows in its way is read again before it is taken apart, or left for later.
_TRIES: Final = 6
#: What a row takes beside its text: ids, times, numbers.
_ROW_BYTES: Final = 200


@dataclass(slots=True)
class CopyResult:
    """What became of entries.

    read        entries that were dirty; fewer than asked for means that no more were.
    copied      rows acknowledged: equal on both sides at that version.
    overtaken   keys that changed again meanwhile; they are dirty still, or somebody else copied them.
    stuck       keys that could not be applied: what they refer to is missing, or another row holds their unique key.
    different   keys that were applied and read back with other content: the replica does not keep what it is given.
    """

    read: int = 0
    copied: int = 0
    overtaken: int = 0
    stuck: list[Key] = field(default_factory=list)
    different: list[Key] = field(default_factory=list)

    def add(self, more: CopyResult) -> None:
        self.read += more.read
        self.copied += more.copied
        self.overtaken += more.overtaken
        self.stuck += more.stuck
        self.different += more.different


async def copy_dirty(primary: Replica, replica: Replica, table: str, limit: int, units: frozenset[str]) -> CopyResult:
    """Copies up to `limit` of the table's dirty rows.

    units  the units whose primary is this side: rows of others are not this direction's to copy.
    """
    entries = await primary.dirty(table, limit)
    result = await copy(primary, replica, entries, units)
    result.read = len(entries)
    return result


async def mend_cascades(primary: Replica, replica: Replica, table: str) -> int:
    """Copies anew what a delete in the replica took along; how many rows that concerns.

    A late copy of a parent's delete can take children that live on at the primary, under versions that were copied
    already. The replica marks them dirty; new versions at the primary bring back what should be there.
    """
    marked = await replica.dirty(table, MOVE_BATCH_ROWS)
    if marked:
        await primary.raise_versions(table, [entry.id for entry in marked])
    return len(marked)


async def copy_keys(primary: Replica, replica: Replica, keys: Iterable[Key], units: frozenset[str]) -> CopyResult:
    """Copies these rows as they are now, where they are dirty."""
    entries = await read_entries(primary, keys)
    return await copy(primary, replica, [entry for entry in entries if entry.version and entry.state == "dirty"], units)


async def copy(primary: Replica, replica: Replica, entries: Sequence[Entry], units: frozenset[str]) -> CopyResult:
    """Copies entries that were read from the primary, in parts of MOVE_BATCH_BYTES."""
    result = CopyResult()
    for part in _parts(entries):
        result.add(await _copy_part(primary, replica, part, units))
    return result


async def read_entries(store: Replica, keys: Iterable[Key]) -> list[Entry]:
    """These keys as they are now; those of one table are of one moment."""
    found: list[Entry] = []
    ordered = sorted(set(keys), key=lambda key: (TABLE_ORDER[key.table], key.id))
    for table, group in groupby(ordered, key=lambda key: key.table):
        found += await store.entries(table, [key.id for key in group])
    return found


async def _copy_part(primary: Replica, replica: Replica, entries: Sequence[Entry], units: frozenset[str]) -> CopyResult:
    """Copies one part; where rows stand in its way for good, it is halved until they stand alone."""
    wanted = {entry.key for entry in entries}
    batch = _hashed(entries)
    for _ in range(_TRIES):
        applied = await replica.apply(batch)
        if not applied.blockers:
            return await _acknowledge(primary, replica, batch)
        in_way = {key for key in applied.blockers if UNIT_OF[key.table] in units}
        # What was read may be stale, and that be the reason: all of it is read again, together with what is in the way.
        batch = _hashed(await _present(primary, wanted | in_way))
        if not batch:
            return CopyResult()
    if len(wanted) == 1:
        return CopyResult(stuck=list(wanted))
    result = CopyResult()
    ordered = list(entries)
    for half in (ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]):
        result.add(await _copy_part(primary, replica, half, units))
    return result


async def _present(primary: Replica, keys: Iterable[Key]) -> list[Entry]:
    """These keys as they are now; rows that the backfill has not come to yet are registered first."""
    keys = list(keys)
    found = await read_entries(primary, keys)
    unknown = [entry for entry in found if entry.version == 0 and entry.row is not None]
    if unknown:
        for table, group in groupby(unknown, key=lambda entry: entry.table):
            await primary.raise_versions(table, [entry.id for entry in group])
        found = await read_entries(primary, keys)
    return [entry for entry in found if entry.version]


async def _acknowledge(primary: Replica, replica: Replica, batch: Sequence[Entry]) -> CopyResult:
    result = CopyResult()
    equal: list[Copied] = []
    found = {entry.key: entry for entry in await read_entries(replica, (entry.key for entry in batch))}
    for entry in batch:
        there = found[entry.key]
        if there.version > entry.version:
            result.overtaken += 1
        elif there.version == entry.version and _hash(there) == entry.hash:
            equal.append(Copied(entry.table, entry.id, entry.version, entry.hash))
        elif (there.row is None) != (entry.row is None):
            result.overtaken += 1  # a cascade took it: the replica has marked it (mend_cascades)
        else:
            result.different.append(entry.key)
    if equal:
        await primary.acknowledge(equal)
    result.copied = len(equal)
    return result


def _hashed(entries: Iterable[Entry]) -> list[Entry]:
    return [entry._replace(hash=_hash(entry)) for entry in entries]


def _hash(entry: Entry) -> int | None:
    return None if entry.row is None else row_hash(TABLES[entry.table], entry.row)


def _parts(entries: Sequence[Entry]) -> list[list[Entry]]:
    parts: list[list[Entry]] = []
    size = MOVE_BATCH_BYTES
    for entry in entries:
        weight = _weight(entry)
        if size + weight > MOVE_BATCH_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += weight
    return parts


def _weight(entry: Entry) -> int:
    """About how many bytes the row takes on its way."""
    if entry.row is None:
        return _ROW_BYTES
    return _ROW_BYTES + sum(
        len(v) if type(v) is str else len(str(v)) if type(v) in (dict, list) else 0 for v in entry.row
    )
