"""Runners that are killed at any moment, and several at once: each file is applied exactly once, whatever happens.

Every file adds a row to a table without a key, so that one that ran twice shows. The end is compared with a database
that nothing has disturbed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import NamedTuple

import pytest

from dal import schema
from dal.factory import schema_connection
from dal.schema import Connection
from dal.schema.connection import EngineName
from dal.schema.inspection.objects import Snapshot, snapshot
from tests.schema.written import write_set

FILES = 30
ROOT = Path(__file__).parents[2]


class State(NamedTuple):
    objects: Snapshot
    log: list[object]
    applied: list[str]
    begun: int


@pytest.fixture
def directory(tmp_path: Path, url: str) -> Path:
    engine: EngineName = "sqlite" if url.startswith("sqlite") else "postgresql"
    write_files(tmp_path / "shop", engine)
    return tmp_path / "shop"


def write_files(directory: Path, engine: EngineName) -> None:
    files = {"0001_log.sql": "CREATE TABLE log (n INTEGER);\nINSERT INTO log VALUES (1);\n"}
    files["rollback/0001_log.sql"] = "DROP TABLE log;\n"
    concurrently = "CONCURRENTLY " if engine == "postgresql" else ""
    alone = "VACUUM" if engine == "sqlite" else "VACUUM log"
    for n in range(2, FILES + 1):
        name = f"{n:04}_step.sql"
        written = f"INSERT INTO log VALUES ({n});\n"
        undo = f"DELETE FROM log WHERE n = {n};\n"
        if n % 3:
            files[name] = f'CREATE TABLE "T; {n}" (id INTEGER PRIMARY KEY);\n{written}'
            files[f"rollback/{name}"] = f'DROP TABLE "T; {n}";\n{undo}'
        else:
            # No IF NOT EXISTS: a statement that ran twice would fail.
            build = f'CREATE INDEX {concurrently}"I; {n}" ON log (n);\n'
            files[name] = f"-- dal:no-transaction\n{build}{written}{alone};\nINSERT INTO log VALUES (-{n});\n"
            files[f"rollback/{name}"] = (
                f'-- dal:no-transaction\nDROP INDEX {concurrently}"I; {n}";\n{undo}DELETE FROM log WHERE n = -{n};\n'
            )
    write_set(directory, engine, files)


async def start(url: str, directory: Path, way: str, calls: int = 0) -> Process:
    command = ("-m", "tests.schema.runner", url, str(directory), way, str(calls))
    return await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=PIPE, stderr=PIPE)


async def ended(process: Process) -> list[str]:
    """The lines that the process wrote; it must have ended well, or been killed."""
    out, err = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return out.decode().splitlines()


async def state(url: str) -> State:
    async with schema_connection(url) as connection:
        objects = await snapshot(connection)
        log = [row[0] for row in await connection.fetch("SELECT n FROM log ORDER BY n")] if objects.tables else []
        applied = [row.name for row in (await schema.status(connection)).applied]
        ((begun,),) = await connection.fetch("SELECT count(*) FROM dal_migration_details WHERE duration_ms IS NULL")
        return State(objects, log, applied, int(str(begun)) if not applied else 0)


async def undisturbed(url: str, directory: Path) -> State:
    async with schema_connection(url) as connection, connection.scratch() as scratch:
        await schema.up(scratch, schema.read_set(directory, connection.engine))
        objects = await snapshot(scratch)
        log = [row[0] for row in await scratch.fetch("SELECT n FROM log ORDER BY n")]
        return State(objects, log, [row.name for row in (await schema.status(scratch)).applied], 0)


def seeded() -> random.Random:
    seed = int(os.environ.get("DAL_TEST_SEED", random.randrange(1 << 32)))
    print(f"DAL_TEST_SEED={seed}")
    return random.Random(seed)


async def run_until_done(url: str, directory: Path, way: str, chance: random.Random) -> int:
    """How many runners were killed before one came through."""
    killed = 0
    while True:
        lines = await ended(await start(url, directory, way, calls=chance.randint(1, 90)))
        if lines and lines[-1].startswith("ended"):
            return killed
        killed += 1


async def test_killed_at_any_call_the_next_run_goes_on(url: str, directory: Path, connection: Connection) -> None:
    chance = seeded()
    expected = await undisturbed(url, directory)
    assert await run_until_done(url, directory, "up", chance) > 0
    assert await state(url) == expected
    assert await run_until_done(url, directory, "down", chance) > 0
    empty = await state(url)
    assert (empty.objects.tables, empty.applied, empty.begun) == ({}, [], 0)


async def test_killed_from_outside_in_the_middle_of_a_statement(
    url: str, directory: Path, connection: Connection
) -> None:
    chance = seeded()
    expected = await undisturbed(url, directory)
    while True:
        process = await start(url, directory, "up")
        assert process.stdout is not None
        for _ in range(chance.randint(1, 25)):
            if (await process.stdout.readline()).startswith(b"ended"):
                break
        else:
            process.kill()
        await ended(process)
        if process.returncode == 0:
            break
    assert await state(url) == expected


async def test_three_runners_at_once_of_whom_one_is_killed(url: str, directory: Path, connection: Connection) -> None:
    chance = seeded()
    expected = await undisturbed(url, directory)
    calls = [0, 0, chance.randint(10, 60)]
    processes = [await start(url, directory, "up", each) for each in calls]
    found = await asyncio.gather(*(ended(process) for process in processes))
    applied = [name for lines in found for line in lines if line.startswith("ended") for name in line.split()[1:]]
    assert len(applied) == len(set(applied))
    assert await state(url) == expected
