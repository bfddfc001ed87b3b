"""Which rows two registries put under suspicion: each way in which they can disagree, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from dal.move import registries
from dal.move.reading import ReplicaReader
from dal.replica import EPOCH, Bucket, Registered
from dal.tables import USERS, Table
from dal.testing import rows

ID = rows.row_id


def registered(number: int, *, version: int = 1, deleted: bool = False, hash: int | None = 7) -> Registered:
    return Registered("users", ID(number), EPOCH + version, deleted, "copied", None if deleted else hash)


class Registry:
    """A registry in a list."""

    def __init__(self, *entries: Registered) -> None:
        self.entries = {entry.id: entry for entry in entries}

    async def total(self, _table: Table) -> Bucket:
        return self._bucket("", list(self.entries.values()))

    async def digest(self, _table: Table) -> list[Bucket]:
        found: dict[str, list[Registered]] = {}
        for entry in self.entries.values():
            found.setdefault(entry.id[-3:], []).append(entry)
        return [self._bucket(name, entries) for name, entries in found.items()]

    def _bucket(self, name: str, entries: list[Registered]) -> Bucket:
        live = [entry for entry in entries if not entry.deleted]
        hashes = [entry.hash for entry in live if entry.hash is not None]
        low, high = sum(h & (2**32 - 1) for h in hashes), sum(h >> 32 for h in hashes)
        newest = max([entry.version for entry in entries], default=0)
        return Bucket(name, len(live), len(entries) - len(live), low, high, newest, len(live) - len(hashes))

    async def bucket(self, _table: Table, buckets: Sequence[str]) -> list[Registered]:
        return [entry for entry in self.entries.values() if entry.id[-3:] in buckets]

    async def copied(self, _table: Table, after: str, limit: int) -> list[Registered]:
        return sorted(entry for entry in self.entries.values() if entry.id > after)[:limit]

    async def registered(self, _table: Table, ids: Sequence[str]) -> list[Registered]:
        return [self.entries[row_id] for row_id in ids if row_id in self.entries]


async def compared(mode: str, primary: Registry, replica: Registry) -> registries.Compared:
    """All parts together."""
    sides = cast(ReplicaReader, primary), cast(ReplicaReader, replica)
    parts = registries.quick(*sides, USERS) if mode == "quick" else registries.tail(*sides, USERS)
    found = [part async for part in parts]
    return registries.Compared(
        sum(part.primary for part in found),
        sum(part.replica for part in found),
        sum(part.equal for part in found),
        {row_id: version for part in found for row_id, version in part.versions.items()},
        [row_id for part in found for row_id in part.suspects],
    )


@pytest.mark.parametrize(
    "there",
    [
        registered(2, hash=8),
        registered(2, hash=7 + 2**32),
        registered(2, hash=None),
        registered(2, deleted=True),
        None,
    ],
    ids=["low half of the hash", "high half of the hash", "no hash", "tombstone", "no entry"],
)
@pytest.mark.parametrize("mode", ["quick", "tail"])
async def test_registries_that_disagree_on_a_row_put_it_under_suspicion(mode: str, there: Registered | None) -> None:
    # The others lie in the same bucket.
    others = [registered(2 + 4096 * number) for number in (1, 2)]
    primary = Registry(registered(1), registered(2), *others)
    replica = Registry(registered(1), *others, *([] if there is None else [there]))
    found = await compared(mode, primary, replica)
    assert found.suspects == [ID(2)]
    assert found.equal == 3
    assert found.primary == 4
    assert ID(2) not in found.versions


async def test_a_row_that_only_the_replica_knows_is_under_suspicion_in_a_quick_check() -> None:
    found = await compared("quick", Registry(registered(1)), Registry(registered(1), registered(2)))
    assert found.suspects == [ID(2)]
    found = await compared("quick", Registry(registered(1)), Registry(registered(1), registered(2, deleted=True)))
    assert found.suspects == []


async def test_rows_without_a_hash_on_both_sides_are_looked_at() -> None:
    entry = registered(1, hash=None)
    assert (await compared("quick", Registry(entry), Registry(entry))).suspects == [ID(1)]


async def test_another_version_is_not_taken_for_the_one_that_was_copied() -> None:
    """What is marked as checked is checked at that version."""
    found = await compared("tail", Registry(registered(1, version=2)), Registry(registered(1)))
    assert found.suspects == [ID(1)]
    assert found.versions == {}


async def test_a_tombstone_that_the_replica_never_heard_of_is_no_difference() -> None:
    found = await compared("tail", Registry(registered(1, deleted=True)), Registry())
    assert (found.suspects, found.primary) == ([], 0)


async def test_a_tail_is_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "MOVE_TAIL_ROWS", 2)
    entries = [registered(number) for number in range(5)]
    found = await compared("tail", Registry(*entries), Registry(*entries))
    assert found.versions == {entry.id: entry.version for entry in entries}
