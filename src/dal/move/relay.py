"""Copying rows from the primary to the replica: read, apply, read back, acknowledge.

Everything goes this one way: the backfill, what writers change meanwhile, what an application pushes itself, repair.
An entry is acknowledged only when its row was read back from the replica with the same content, so an empty backlog
means that everything was compared. Copies carry versions; two relays at work at once cost time and do no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Final, TypeVar, cast

from dal.errors import InvalidInputError
from dal.limits import MOVE_BATCH_BYTES, MOVE_BATCH_ROWS, MOVE_COPIES, MOVE_NAMED_ROWS
from dal.move.canonical import canonical_rows, hash_of, same_row
from dal.move.columns import differing_rows
from dal.replica import TABLE_ORDER, UNIT_OF, Copied, Entry, Key, Replica
from dal.store import Stored
from dal.tables import TABLES, Table

_T = TypeVar("_T")
#: How often a copy that meets other rows in its way is read again before it is taken apart, or left for later.
_TRIES: Final = 6
#: What an entry takes beside its row.
_ENTRY_BYTES: Final = 100
#: Copies under way at a time: one is written, the other is on its way there or compared.
_AT_ONCE: Final = 2


@dataclass(slots=True)
class CopyResult:
    """What became of entries.

    read        entries that were dirty.
    size_bytes  of their rows.
    is_all      they were all there were, as of that moment.
    copied      rows acknowledged: equal on both sides at that version.
    overtaken   keys that changed again meanwhile; they are dirty still, or somebody else copied them.
    stuck       keys that could not be applied, each with the rows in its way: what it refers to and is missing, or who
                holds its unique key.
    different   keys that were applied and read back with other content: the replica does not keep what it is given.
    """

    read: int = 0
    size_bytes: int = 0
    is_all: bool = True
    copied: int = 0
    overtaken: int = 0
    stuck: dict[Key, tuple[Key, ...]] = field(default_factory=dict)
    refused: dict[Key, str] = field(default_factory=dict)
    different: list[Key] = field(default_factory=list)

    def add(self, more: CopyResult) -> None:
        self.read += more.read
        self.size_bytes += more.size_bytes
        self.is_all &= more.is_all
        self.copied += more.copied
        self.overtaken += more.overtaken
        self.stuck |= more.stuck
        self.refused |= more.refused
        self.different += more.different

    def held_up(self, unit: str) -> str:
        """Which rows of the unit could not be copied, and why, in words; empty where all could."""
        stuck = [
            f"{_named(key)} behind {', '.join(map(_named, in_way))}"
            for key, in_way in self.stuck.items()
            if UNIT_OF[key.table] == unit
        ]
        refused = [f"{_named(key)}: {text}" for key, text in self.refused.items() if UNIT_OF[key.table] == unit]
        different = [_named(key) for key in self.different if UNIT_OF[key.table] == unit]
        parts = []
        if stuck:
            what = "another row holds their unique key, or what they refer to is missing"
            parts.append(f"{len(stuck)} rows cannot be copied, {what}: {_first(stuck)}")
        if refused:
            parts.append(f"{len(refused)} rows hold what the other store cannot: {_first(refused)}")
        if different:
            parts.append(f"{len(different)} rows read back with other content: {_first(different)}")
        return "; ".join(parts)


async def copy_dirty(primary: Replica, replica: Replica, table: str, rows: int, units: frozenset[str]) -> CopyResult:
    """Copies rows of the table that are dirty: as many as MOVE_COPIES copies of up to so many rows take.

    units  the units whose primary is this side: rows of others are not this direction's to copy.
    """
    limit = MOVE_COPIES * rows
    entries = await primary.dirty(table, limit)
    result = await copy(primary, replica, entries, units, rows=rows)
    result.read, result.is_all = len(entries), len(entries) < limit
    return result


async def drain(primary: Replica, replica: Replica, table: str, rows: int, units: frozenset[str], until: float) -> None:
    """Copies what is dirty in the table until nothing is, or nothing of it can be copied.

    until  when it ends in any case, by the monotonic clock: writers may be faster.
    """
    while True:
        result = await copy_dirty(primary, replica, table, rows, units)
        if result.is_all or not result.copied or monotonic() > until:
            return


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


async def copy(
    primary: Replica, replica: Replica, entries: Sequence[Entry], units: frozenset[str], *, rows: int = MOVE_BATCH_ROWS
) -> CopyResult:
    """Copies entries that were read from the primary, in parts of so many rows and of MOVE_BATCH_BYTES.

    The parts are applied one after the other, and while one is, the one before is read back and acknowledged.
    """
    result = CopyResult()
    parts = _parts(entries, rows)
    applying = asyncio.Lock()

    async def work() -> None:
        for part, size_bytes in parts:
            result.size_bytes += size_bytes
            result.add(await _copy_part(primary, replica, part, units, applying))

    if len(entries) <= rows:
        await work()
        return result
    await together(*[work() for _ in range(_AT_ONCE)])
    return result


async def tables_to_copy(primary: Replica, replica: Replica, tables: Sequence[str]) -> list[str]:
    """Those of the tables that have something to copy, in their order, once it is known what cascades took."""
    marked = await replica.tables_with("dirty")
    for table in tables:
        if table in marked:
            await mend_cascades(primary, replica, table)
    waiting = await primary.tables_with("dirty")
    return [table for table in tables if table in waiting]


async def together(*work: Awaitable[_T]) -> list[_T]:
    """The results of what is done at the same time. All of it has ended, also where one part fails."""
    found = await asyncio.gather(*work, return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return cast("list[_T]", found)


async def read_entries(store: Replica, keys: Iterable[Key]) -> list[Entry]:
    """These keys as they are now; those of one table are of one moment."""
    found: list[Entry] = []
    ordered = sorted(set(keys), key=lambda key: (TABLE_ORDER[key.table], key.id))
    for table, group in groupby(ordered, key=lambda key: key.table):
        found += await store.entries(table, [key.id for key in group])
    return found


async def _copy_part(
    primary: Replica, replica: Replica, batch: list[Entry], units: frozenset[str], applying: asyncio.Lock
) -> CopyResult:
    """Copies one part; where rows stand in its way for good, or are refused, it is halved until they stand alone."""
    entries, wanted, in_way = batch, set[Key](), tuple[Key, ...]()
    for _ in range(_TRIES):
        try:
            async with applying:
                in_way = (await replica.apply(batch)).blockers
        except InvalidInputError as error:
            if len(batch) == 1:
                return CopyResult(refused={batch[0].key: error.message})
            break
        if not in_way:
            return await _acknowledge(primary, replica, batch)
        # What was read may be stale, and that be the reason: all of it is read again, together with what is in the way,
        # and with what was before: a message waits for its chat, and that for its user.
        wanted |= {entry.key for entry in batch} | {key for key in in_way if UNIT_OF[key.table] in units}
        batch, _ = _hashed(await _present(primary, wanted))
        if not batch:
            return CopyResult()
    if len(entries) == 1:
        return CopyResult(stuck={entries[0].key: in_way})
    result = CopyResult()
    for half in (entries[: len(entries) // 2], entries[len(entries) // 2 :]):
        result.add(await _copy_part(primary, replica, half, units, applying))
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
    for name, group in groupby(batch, key=itemgetter(0)):
        sent, table = list(group), TABLES[name]
        if await _is_as_sent(replica, table, sent):
            equal += [tuple.__new__(Copied, (name, id_, version, hash_)) for _, id_, version, _, _, hash_ in sent]
            continue
        found = {entry.id: entry for entry in await replica.entries(name, [entry.id for entry in sent])}
        for entry in sent:
            there = found[entry.id]
            ours, theirs = entry.row, there.row
            if there.version > entry.version:
                result.overtaken += 1
            elif ours is None or theirs is None:
                if ours is theirs and there.version == entry.version:
                    equal.append(Copied(name, entry.id, entry.version, None))
                else:
                    result.overtaken += 1  # a cascade took it: the replica has marked it (mend_cascades)
            elif there.version == entry.version and same_row(table, ours, theirs):
                equal.append(Copied(name, entry.id, entry.version, entry.hash))
            elif there.state == "dirty":
                result.overtaken += 1  # a cascade took its reference: the replica has marked it too
            else:
                result.different.append(entry.key)
    if equal:
        await primary.acknowledge(equal)
    result.copied = len(equal)
    return result


def _named(key: Key) -> str:
    return f"{key.table}['{key.id}']"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:MOVE_NAMED_ROWS]) + (", …" if len(names) > MOVE_NAMED_ROWS else "")


async def _is_as_sent(replica: Replica, table: Table, sent: Sequence[Entry]) -> bool:
    """Whether all of these rows are there as they were sent, as they nearly always are: one look at them together.

    Whose versions they are there is left aside: where the replica has had a newer one, the primary has it too, and
    acknowledges no other.
    """
    ids, rows = [entry.id for entry in sent], [entry.row for entry in sent if entry.row is not None]
    if len(rows) < len(sent):
        return False  # a row that is to be gone
    found, decoders = await replica.stored(table.name, ids)
    there = {row[0]: row for row in found}
    if len(there) < len(sent):
        return False
    return not differing_rows(table, Stored(rows, {}), Stored([there[id_] for id_ in ids], decoders))


def _hashed(entries: Iterable[Entry]) -> tuple[list[Entry], list[int]]:
    """The entries with the hashes of their rows, and their sizes."""
    found: list[Entry] = []
    sizes: list[int] = []
    for name, group in groupby(entries, key=itemgetter(0)):
        some = list(group)
        forms = iter(canonical_rows(TABLES[name], [row for _, _, _, row, _, _ in some if row is not None]))
        for table, id_, version, row, state, hash_ in some:
            size = _ENTRY_BYTES
            if row is not None:
                form = next(forms)
                hash_ = hash_of(form)
                size += len(form)
            found.append(tuple.__new__(Entry, (table, id_, version, row, state, hash_)))
            sizes.append(size)
    return found, sizes


def _parts(entries: Sequence[Entry], rows: int) -> Iterator[tuple[list[Entry], int]]:
    """Parts of up to so many rows and MOVE_BATCH_BYTES, with the rows' hashes, and their sizes; each made when it is
    asked for."""
    for start in range(0, len(entries), rows):
        some, sizes = _hashed(entries[start : start + rows])
        begin = size = 0
        for place, weight in enumerate(sizes):
            if place > begin and size + weight > MOVE_BATCH_BYTES:
                yield some[begin:place], size
                begin, size = place, 0
            size += weight
        yield some[begin:], size
