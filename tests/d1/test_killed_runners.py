"""Migration runners on D1 that are killed, and several at once: each file is applied exactly once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.engines.d1 import D1Engine
from tests.schema.test_killed import ended, seeded, start, state, undisturbed
from tests.schema.written import write_set

FILES = 9


@pytest.fixture
def url(d1_engine: D1Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    made = d1_engine.create_database()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made.url


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Files that add a row each to a table without a key, every third statement by statement."""
    files = {"0001_log.sql": "CREATE TABLE log (n INTEGER);\nINSERT INTO log VALUES (1);\n"}
    files["rollback/0001_log.sql"] = "DROP TABLE log;\n"
    for n in range(2, FILES + 1):
        name, header = f"{n:04}_step.sql", "" if n % 3 else "-- dal:no-transaction\n"
        make = f"INSERT INTO log VALUES ({n});\nCREATE TABLE t{n} (a);\nINSERT INTO log VALUES (-{n});\n"
        files[name] = header + make
        files[f"rollback/{name}"] = f"{header}DROP TABLE t{n};\nDELETE FROM log WHERE n IN ({n}, -{n});\n"
    write_set(tmp_path / "steps", "sqlite", files)
    return tmp_path / "steps"


async def run_until_done(url: str, directory: Path, way: str, chance: random.Random) -> int:
    """How many runners were killed before one came through."""
    for killed in range(100):
        lines = await ended(await start(url, directory, way, calls=chance.randint(3, 40)))
        if lines and lines[-1].startswith("ended"):
            return killed
    raise AssertionError("no runner ever came through")


async def test_a_killed_runner_costs_nothing_but_its_lease(url: str, directory: Path) -> None:
    chance = seeded()
    expected = await undisturbed(url, directory)
    # One that dies for certain before those that may.
    await ended(await start(url, directory, "up", calls=7))
    await run_until_done(url, directory, "up", chance)
    assert await state(url) == expected
    await run_until_done(url, directory, "down", chance)
    left = await state(url)
    assert (left.objects.tables, left.applied, left.begun) == ({}, [], 0)


async def test_runners_at_once_of_whom_one_is_killed(url: str, directory: Path) -> None:
    expected = await undisturbed(url, directory)
    runners = await asyncio.gather(*(start(url, directory, "up", calls=calls) for calls in (0, 0, 11)))
    told = await asyncio.gather(*(ended(process) for process in runners))
    finished = [name for lines in told for line in lines if line.startswith("ended") for name in line.split()[1:]]
    assert len(finished) == len(set(finished)), "no file was run by two"
    assert await state(url) == expected
