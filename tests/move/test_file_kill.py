"""kill -9 of a process that writes to a file store in a live move: registry, rows and directories stay one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dal.backends.file import FileStore
from dal.move.canonical import row_hash
from dal.replica import EPOCH, Entry
from dal.tables import TABLES
from dal.testing import rows
from tests.fault import history
from tests.fault.killer import Killer
from tests.fault.test_file_kill import points as points_of_writing
from tests.move.replicas import everything

STEPS = 40
#: Where the move's own files change, and some of the points of writing.
POINTS = (
    "registry.written",
    "beside.looked",
    "beside.exchanged",
    "fence.prepared",
    "fence.exchanged",
    "fence.returned",
    "torn",
    "journal.written",
    "journal.synced",
    "journal.rotated",
    "replace.written",
    "checkpoint.aside",
    "checkpoint.synced",
    "checkpoint.renamed",
    "checkpoint.indexed",
)


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer("tests.move.file_life")
    yield killer
    killer.close()


async def _check(directory: Path, acknowledged: int) -> None:
    """Every row was written while the move was on: each is registered, and what counts as copied is what is there."""
    store = FileStore(directory)
    await store.open()
    try:
        number = await history.progress(store)
        assert acknowledged <= number <= acknowledged + 1
        replica = store.replica()
        gates = await replica.gates()
        assert len(gates) == 5
        assert (directory / "files").is_file() == (gates["files"].role == "fenced"), "where its gate wants it"
        present = await rows.everything(store)
        versions: set[int] = set()
        for name, table in TABLES.items():
            entries = await everything(store, name)
            assert [e.row for e in entries if e.row is not None] == sorted(present[name], key=lambda row: str(row[0]))
            for entry in entries:
                _check_entry(entry)
                if entry.state == "copied":
                    there = None if entry.row is None else row_hash(table, entry.row)
                    assert entry.hash == there, f"{entry}: acknowledged with another content"
            unit_versions = [entry.version for entry in entries]
            assert len(set(unit_versions)) == len(unit_versions)
            versions.update(unit_versions)
        assert not (await store.health()).parts["problems"]
    finally:
        await store.close()


def _check_entry(entry: Entry) -> None:
    assert EPOCH < entry.version < 2 * EPOCH, f"{entry}: not registered"


@pytest.mark.parametrize("point", POINTS)
async def test_whoever_opens_a_store_after_a_kill_finds_every_change_registered(
    point: str, tmp_path: Path, killer: Killer
) -> None:
    seed, kills, acknowledged = random.randrange(2**32), 0, -1
    print(f"{point}: seed {seed}")
    for count in (1, 2, 5):
        answer, was_killed = killer.run(tmp_path / "store", seed, point, count, STEPS)
        acknowledged, kills = max(acknowledged, answer), kills + was_killed
        if (tmp_path / "store" / "dal.json").exists() and acknowledged >= 0:
            await _check(tmp_path / "store", acknowledged)
    assert kills, "the test must reach its point"


async def test_lives_ended_anywhere_one_after_another_lose_no_registration(tmp_path: Path, killer: Killer) -> None:
    seed, acknowledged = random.randrange(2**32), -1
    print(f"seed {seed}")
    dice = random.Random(seed)
    for life in range(30):
        point = dice.choice([*points_of_writing(), *POINTS])
        answer, _ = killer.run(tmp_path / "store", seed, point, dice.choice((1, 1, 2, 3, 8)), 15)
        acknowledged = max(acknowledged, answer)
        if life % 6 == 5 and acknowledged >= 0:
            await _check(tmp_path / "store", acknowledged)
