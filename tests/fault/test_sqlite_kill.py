"""kill -9 in the middle of commits: what was acknowledged is there, what was not is there whole or not at all."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dal.access import DataAccess
from dal.backends.sqlite import sqlite_store

ROUNDS = 12
TASKS = 4


def run_and_kill(path: Path, lines: int) -> dict[str, int]:
    """Starts the writer, kills it after so many acknowledgements, and gives the last number of each chat."""
    command = [sys.executable, "-m", "tests.fault.sqlite_writer", str(path), str(TASKS)]
    acknowledged: dict[str, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            chat, number = line.split()
            acknowledged[chat] = int(number)
            lines -= 1
            if lines == 0:
                child.kill()
                break
        # What it managed to say before the kill reached it counts as well; a torn last line was never said.
        rest, _ = child.communicate()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                chat, number = line.split()
                acknowledged[chat] = int(number)
    assert child.returncode == -9, "the writer ended by itself"
    return acknowledged


async def test_every_acknowledged_write_survives_kill_9(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    path = tmp_path / "dal.db"
    for _ in range(ROUNDS):
        acknowledged = run_and_kill(path, dice.randrange(1, 40))
        async with DataAccess(sqlite_store(path)) as dal:
            for chat, number in acknowledged.items():
                numbers = [m.sequence_number async for m in dal.messages.iterate(chat)]
                assert numbers == list(range(1, len(numbers) + 1)), "a gap or a repeat"
                assert len(numbers) >= number, "an acknowledged message is lost"
                assert await dal.messages.count(chat) == len(numbers), "half of an append"
                contents = [m.content async for m in dal.messages.iterate(chat)]
                firsts, seconds = contents.count("the first of two"), contents.count("the second of two")
                assert firsts == seconds, "half of a transaction"
                assert len((await dal.messages.search("second", chat_id=chat, limit=1000)).items) == min(seconds, 1000)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
