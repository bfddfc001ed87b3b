"""One runner at a time: a lease by the server's clock, a guard in every batch, and the engine's own lock before it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from dal import schema
from dal.errors import DalTimeoutError, SchemaError
from dal.factory import schema_connection
from dal.limits import SCHEMA_LEASE_S
from dal.schema import Connection, MigrationSet, Progress, lock
from dal.schema.connection import StatementError
from dal.schema.ledger import creation
from dal.testing.reaching import reached
from tests.schema.faulty import Faulty
from tests.schema.written import write_set

FILES = {
    "0001_a.sql": "CREATE TABLE a (id INTEGER);\n",
    "0002_b.sql": "CREATE TABLE b (id INTEGER);\n",
    "0003_c.sql": "-- dal:no-transaction\nCREATE TABLE c (id INTEGER);\nINSERT INTO c VALUES (1);\n",
}
ALL = ["0001_a.sql", "0002_b.sql", "0003_c.sql"]


class LeaseOnly(Faulty):
    """Without the engine's own lock, as on D1: what remains is the row."""

    async def try_exclusive(self) -> bool:
        return True


@pytest_asyncio.fixture
async def other(url: str, connection: Connection) -> AsyncIterator[Connection]:
    """A second runner's connection to the same database, with the ledger's tables made."""
    await connection.run(creation(connection.engine))
    async with schema_connection(url) as opened:
        yield opened


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that has run out as soon as it is taken."""
    monkeypatch.setattr(lock, "SCHEMA_LEASE_S", 0)


def write(tmp_path: Path, connection: Connection) -> MigrationSet:
    return write_set(tmp_path / "shop", connection.engine, FILES)


def names(found: list[schema.Migrated]) -> list[str]:
    return [migrated.name for migrated in found]


def ignore(_: str) -> None:
    pass


async def test_who_waits_is_told_for_whom_and_gives_up(
    connection: Connection, other: Connection, tmp_path: Path
) -> None:
    migrations = write(tmp_path, connection)
    told: list[Progress] = []
    async with lock.held(connection, wait_s=1, on_wait=ignore):
        with pytest.raises(DalTimeoutError, match=f"process {os.getpid()} on .*has held the migration lock"):
            await schema.up(other, migrations, on_progress=told.append, wait_s=0)
    assert {(progress.phase, progress.name) for progress in told} <= {("waiting", "")}
    assert names(await schema.up(other, migrations)) == ALL


async def test_waiting_ends_when_the_other_runner_does(
    connection: Connection, other: Connection, tmp_path: Path
) -> None:
    let_go = asyncio.Event()

    async def hold() -> None:
        async with lock.held(connection, wait_s=1, on_wait=ignore):
            held.set()
            await let_go.wait()

    held = asyncio.Event()
    told: list[Progress] = []

    def release(progress: Progress) -> None:
        told.append(progress)
        let_go.set()

    holder = asyncio.create_task(hold())
    await reached(held, holder)
    assert names(await schema.up(other, write(tmp_path, connection), on_progress=release)) == ALL
    assert (told[0].phase, str(os.getpid()) in told[0].detail) == ("waiting", True)
    await holder


async def test_a_lease_that_ran_out_is_taken_over(connection: Connection, other: Connection, short_lease: None) -> None:
    async with lock.held(connection, wait_s=1, on_wait=ignore) as first:
        second = cast(Connection, LeaseOnly(other))
        async with lock.held(second, wait_s=10, on_wait=ignore) as lease:
            assert await lock.is_lost(connection, first)
            assert not await lock.is_lost(other, lease)
            with pytest.raises(StatementError):
                await connection.run([first.guard(), ("CREATE TABLE late (id INTEGER)", ())])
            await other.run([lease.guard()])
    with pytest.raises(SchemaError):
        await connection.fetch("SELECT 1 FROM late")


async def test_a_batch_that_comes_after_the_end_is_refused(connection: Connection, other: Connection) -> None:
    async with lock.held(connection, wait_s=1, on_wait=ignore) as lease:
        await connection.run([lease.guard()])
    with pytest.raises(StatementError):
        await other.run([lease.guard()])


async def test_a_former_owners_batch_is_refused_after_the_same_runner_came_back(
    connection: Connection, other: Connection
) -> None:
    first = lock.Lease(connection.engine, 60)
    await connection.run([first.take("")])
    async with lock.held(connection, wait_s=1, on_wait=ignore, former=first.owner) as lease:
        with pytest.raises(StatementError):
            await other.run([first.guard()])
        await connection.run([lease.guard()])


@pytest.mark.parametrize("at", ["CREATE TABLE a", "CREATE TABLE b", "INSERT INTO c"])
async def test_a_runner_that_slept_finds_its_work_done_and_ends_well(
    connection: Connection, other: Connection, tmp_path: Path, short_lease: None, at: str
) -> None:
    migrations = write(tmp_path, connection)
    overtaken = asyncio.Event()
    by_other: list[str] = []

    async def sleep(text: str) -> None:
        if at in text and not overtaken.is_set():
            overtaken.set()
            by_other.extend(names(await schema.up(cast(Connection, LeaseOnly(other)), migrations)))

    sleeper = LeaseOnly(connection, before=sleep)
    by_sleeper = names(await schema.up(cast(Connection, sleeper), migrations))
    assert sorted(by_sleeper + by_other) == ALL
    assert len(await connection.fetch("SELECT id FROM c")) == 1


async def test_a_failure_and_a_cancellation_give_the_lock_back(
    connection: Connection, other: Connection, tmp_path: Path
) -> None:
    broken = write_set(tmp_path / "shop", connection.engine, {"0001_a.sql": "SELECT nothing;\n"})
    with pytest.raises(SchemaError):
        await schema.up(connection, broken)
    migrations = write(tmp_path, connection)
    is_there = asyncio.Event()

    async def stop(text: str) -> None:
        if "CREATE TABLE b" in text:
            is_there.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(schema.up(cast(Connection, Faulty(connection, before=stop)), migrations))
    await reached(is_there, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(await schema.up(other, migrations, wait_s=0)) == ALL[1:]


async def test_the_lease_is_renewed_by_the_clock_of_the_server(connection: Connection, other: Connection) -> None:
    left = (
        "(julianday(expires_at) - julianday('now')) * 86400"
        if connection.engine == "sqlite"
        else "extract(epoch FROM expires_at - clock_timestamp())::float8"
    )
    async with lock.held(connection, wait_s=1, on_wait=ignore) as lease:
        await connection.run([("UPDATE dal_migration_lock SET expires_at = acquired_at", ())])
        await connection.run([lease.guard()])
        ((remaining_s,),) = await connection.fetch(f"SELECT {left} FROM dal_migration_lock")
    assert 0 < float(str(remaining_s)) <= SCHEMA_LEASE_S


async def test_a_lock_table_that_cannot_be_used_is_told(connection: Connection, other: Connection) -> None:
    trigger = {
        "sqlite": [
            "CREATE TRIGGER no BEFORE INSERT ON dal_migration_lock BEGIN SELECT raise(ABORT, 'not here'); END",
        ],
        "postgresql": [
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$",
            "CREATE TRIGGER no BEFORE INSERT ON dal_migration_lock EXECUTE FUNCTION no()",
        ],
    }[connection.engine]
    await connection.run([(sql, ()) for sql in trigger])
    with pytest.raises(SchemaError, match=r"migration lock cannot be taken: .*not here"):
        await schema.up(connection)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_the_engines_lock_keeps_others_away_when_the_lease_has_run_out(
    connection: Connection, other: Connection, short_lease: None
) -> None:
    async with lock.held(connection, wait_s=1, on_wait=ignore) as lease:
        with pytest.raises(DalTimeoutError):
            async with lock.held(other, wait_s=0, on_wait=ignore):
                pass
        assert not await lock.is_lost(connection, lease)
    async with lock.held(other, wait_s=0, on_wait=ignore):
        pass


async def test_many_runners_take_turns(url: str, connection: Connection, other: Connection) -> None:
    inside = 0
    most = 0

    async def turn() -> None:
        nonlocal inside, most
        async with schema_connection(url) as own, lock.held(own, wait_s=60, on_wait=ignore) as lease:
            inside += 1
            most = max(most, inside)
            await own.run([lease.guard()])
            inside -= 1

    await asyncio.gather(*(turn() for _ in range(5)))
    assert most == 1
