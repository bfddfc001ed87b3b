"""kill -9 at every point of a commit, a checkpoint and a recovery: what was acknowledged is there, nothing else is."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dal.backends.file
from dal.backends.file import FileStore
from dal.backends.memory import MemoryStore
from dal.testing import rows
from tests.fault import history
from tests.fault.killer import Killer

#: How often each point is reached in a run before the process dies there.
COUNTS = (1, 2, 3, 5, 8, 13, 21)
STEPS = 60


def points() -> list[str]:
    """Every fault point in the file store's source but those of live moves, and half a record."""
    sources = Path(dal.backends.file.__file__).parent.glob("*.py")
    found = {point for source in sources for point in re.findall(r'faults\.reach\("([a-z.]+)"\)', source.read_text())}
    found = {point for point in found if not point.startswith(("registry.", "fence.", "beside."))}
    assert len(found) > 15
    return [*sorted(found), "torn"]


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer()
    yield killer
    killer.close()


class Ledger:
    """The interpreter, brought step by step to where the store says it is."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = -1
        self._store = MemoryStore()

    async def check(self, directory: Path, acknowledged: int) -> None:
        """Opens the store and compares everything in it with the history up to the step it holds."""
        store = FileStore(directory, segment_bytes=10_000)
        await store.open()
        try:
            number = await history.progress(store)
            assert acknowledged <= number <= acknowledged + 1, (
                "acknowledged is kept, and at most one step was under way"
            )
            await self._advance(number)
            assert await rows.everything(store) == await rows.everything(self._store)
            health = await store.health()
            assert health.status == "ok", health
        finally:
            await store.close()

    async def _advance(self, number: int) -> None:
        await self._store.open()
        if number >= 0 > self._number:
            await history.begin(self._store)
            self._number = 0
        while self._number < number:
            self._number += 1
            await history.take(self._store, self._seed, self._number)


@pytest.mark.parametrize("point", points())
async def test_a_process_killed_here_loses_nothing_and_leaves_nothing_half_done(
    point: str, tmp_path: Path, killer: Killer
) -> None:
    """One store, killed again and again at the same point; in between it is opened, read whole and compared."""
    seed = random.randrange(2**32)
    print(f"{point}: seed {seed}")
    ledger, acknowledged, kills = Ledger(seed), -1, 0
    # Rarely reached: a chat with messages in a file gets another chat_id; a checkpoint was interrupted in appending.
    is_rare = point.startswith(("checkpoint.mov", "undo."))
    for count in (1, 1, 1, 1, 1) if is_rare else COUNTS:
        if point.startswith("undo."):
            answer, _ = killer.run(tmp_path / "store", seed, "checkpoint.appending", 1, 400)
            acknowledged = max(acknowledged, answer)
        answer, was_killed = killer.run(tmp_path / "store", seed, point, count, 400 if is_rare else STEPS)
        acknowledged, kills = max(acknowledged, answer), kills + was_killed
        if was_killed and count % 2 == 0:
            # The next process recovers what this one has left, and is killed too.
            answer, was_killed = killer.run(tmp_path / "store", seed, point, 1, STEPS)
            acknowledged, kills = max(acknowledged, answer), kills + was_killed
        await ledger.check(tmp_path / "store", acknowledged)
        acknowledged = await _progress(tmp_path / "store")
    print(f"{point}: {kills} kills")
    assert kills, "the test must reach its point"


async def test_processes_killed_anywhere_one_after_another_lose_nothing(tmp_path: Path, killer: Killer) -> None:
    """A hundred lives of one store, each ended at a random point, without a peaceful opening in between."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    ledger, acknowledged, all_points = Ledger(seed), -1, points()
    for life in range(100):
        point, count = dice.choice(all_points), dice.choice((1, 1, 2, 3, 5, 9))
        answer, _ = killer.run(tmp_path / "store", seed, point, count, 15)
        acknowledged = max(acknowledged, answer)
        if life % 20 == 19:
            await ledger.check(tmp_path / "store", acknowledged)
            acknowledged = await _progress(tmp_path / "store")


async def _progress(directory: Path) -> int:
    store = FileStore(directory)
    await store.open()
    try:
        return await history.progress(store)
    finally:
        await store.close()
