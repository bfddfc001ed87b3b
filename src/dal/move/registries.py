"""Two registries against each other: which rows may differ, without reading one of them.

`quick` adds up hashes, where those sums differ once more by the last characters of the ids, and looks only into what
differs then; `tail` takes the rows that were copied since they were last found equal. Both name suspects: what is true
of them, their rows tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from dal.limits import MOVE_TAIL_ROWS
from dal.move.reading import ReplicaReader
from dal.replica import Bucket, Registered
from dal.tables import Table

#: Buckets asked for at a time: a four-thousandth of the table each.
_BUCKETS_AT_ONCE = 64


class Compared(NamedTuple):
    """A part of two registries.

    primary, replica  entries of rows that it covers on either side.
    equal             how many entries of rows say the same; versions, where they were looked at one by one, also of
                      rows that are gone.
    suspects          ids that may differ.
    """

    primary: int
    replica: int
    equal: int
    versions: dict[str, int]
    suspects: list[str]


async def quick(primary: ReplicaReader, replica: ReplicaReader, table: Table) -> AsyncGenerator[Compared, None]:
    """The whole table; in buckets where its sums differ, and in pages of those whose sums differ too."""
    left, right = await asyncio.gather(primary.total(table), replica.total(table))
    if _sums(left) == _sums(right) and not left.unhashed and not right.unhashed:
        yield Compared(left.live, right.live, left.live, {}, [])
        return
    sums = await asyncio.gather(primary.digest(table), replica.digest(table))
    ours, theirs = ({bucket.bucket: bucket for bucket in buckets} for buckets in sums)
    differing: list[str] = []
    counts = [0, 0]
    for name in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(name, _empty(name)), theirs.get(name, _empty(name))
        if _sums(left) != _sums(right) or left.unhashed or right.unhashed:
            differing.append(name)
        else:
            counts[0] += left.live
            counts[1] += right.live
    yield Compared(counts[0], counts[1], counts[0], {}, [])
    for start in range(0, len(differing), _BUCKETS_AT_ONCE):
        names = differing[start : start + _BUCKETS_AT_ONCE]
        yield _compare(*await asyncio.gather(primary.bucket(table, names), replica.bucket(table, names)))


async def tail(
    primary: ReplicaReader, replica: ReplicaReader, table: Table, after: str = "", last: str | None = None
) -> AsyncGenerator[Compared, None]:
    """The entries that the primary has as copied and not as checked.

    after, last  ids: only those behind the one and up to the other. None: to the end.
    """
    while found := await primary.copied(table, after, MOVE_TAIL_ROWS):
        after = found[-1].id
        ours = [entry for entry in found if last is None or entry.id <= last]
        if ours:
            yield _compare(ours, await replica.registered(table, [entry.id for entry in ours]))
        if len(ours) < len(found):
            return


def _compare(ours: Sequence[Registered], theirs: Sequence[Registered]) -> Compared:
    """Entries that speak of the same content are equal at their version."""
    there = {entry.id: entry for entry in theirs}
    suspects: list[str] = []
    equal: dict[str, int] = {}
    for entry in ours:
        other = there.pop(entry.id, None)
        if other is not None and other.deleted == entry.deleted and other.version == entry.version:
            if entry.deleted or (entry.hash is not None and entry.hash == other.hash):
                equal[entry.id] = entry.version
                continue
        elif other is None and entry.deleted:
            continue  # neither holds the row
        suspects.append(entry.id)
    suspects += [row_id for row_id, entry in there.items() if not entry.deleted]
    live = sum(not entry.deleted for entry in ours), sum(not entry.deleted for entry in theirs)
    return Compared(*live, sum(not entry.deleted and entry.id in equal for entry in ours), equal, suspects)


def _sums(bucket: Bucket) -> tuple[int, int, int]:
    return bucket.live, bucket.low, bucket.high


def _empty(name: str) -> Bucket:
    return Bucket(name, 0, 0, 0, 0, 0, 0)
