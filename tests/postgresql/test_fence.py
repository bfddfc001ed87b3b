"""The fence of a live move on PostgreSQL: what it stops, what it waits for, and what passes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, cast

import psycopg
import pytest
import pytest_asyncio

from dal.backends.postgresql import switching
from dal.backends.postgresql.errors import FENCED
from dal.backends.postgresql.replica import PostgresReplica
from dal.backends.sql import SqlStore
from dal.errors import DalTimeoutError, FencedError
from dal.ops import Compare, Select
from dal.replica import EPOCH, Copied, Entry
from dal.testing.reaching import reached
from dal.values import new_id
from tests.postgresql.conftest import MakeRole, OpenStore
from tests.postgresql.moves import MOVER, Connection, add_user, connect, gates, registry, rows
from tests.postgresql.rows import append, chat, message, user
from tests.postgresql.waiting import until

ISOLATION: Final = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
SWITCHER_WAITS: Final = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = ANY (%s)"
#: A table's lock; the unit's, where the tables are somebody else's.
NO_WRITER, GENTLE = ["ShareRowExclusiveLock", "ExclusiveLock"], ["ShareUpdateExclusiveLock"]
owners = pytest.mark.parametrize("replica", ["owner"], indirect=True)
USERS: Final = "SELECT id::text FROM users"


@pytest_asyncio.fixture(params=["owner", "foreign"])
async def replica(
    request: pytest.FixtureRequest, store: SqlStore, open_store: OpenStore, role: MakeRole
) -> AsyncIterator[PostgresReplica]:
    """The moves' side of the store, a primary, for a role that owns the tables and one that does not; nothing stays."""
    if request.param == "foreign":
        store = await open_store(await role(MOVER))
    made = cast(PostgresReplica, store.replica())
    await made.install(gates())
    yield made
    await made.uninstall(keep_fence=False)


async def fence(replica: PostgresReplica, unit: str = "users") -> bool:
    return await replica.change_gate(unit, expect={"role": "primary"}, change={"role": "fenced"})


async def unfence(replica: PostgresReplica, unit: str = "users") -> bool:
    return await replica.change_gate(unit, expect={"role": "fenced"}, change={"role": "primary"})


# What it stops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ISOLATION)
async def test_a_snapshot_from_before_the_fence_does_not_pass_it(
    replica: PostgresReplica, url: str, isolation: str
) -> None:
    # A trigger that only read the gate would see it as it was.
    async with await connect(url, autocommit=False) as old:
        await old.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
        await rows(old, "SELECT role FROM dal_gate")
        await rows(old, USERS)
        assert await fence(replica)
        with pytest.raises(psycopg.errors.DatabaseError) as caught:
            await add_user(old)
        assert caught.value.sqlstate in (FENCED, "40001")
        await old.rollback()
        with pytest.raises(psycopg.errors.DatabaseError) as caught:
            await add_user(old)
        assert caught.value.sqlstate == FENCED


@pytest.mark.parametrize("isolation", ISOLATION)
async def test_a_fence_waits_for_a_writer_under_way(replica: PostgresReplica, url: str, isolation: str) -> None:
    async with await connect(url, autocommit=False) as writing:
        await writing.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
        first = await add_user(writing)
        fencing = asyncio.create_task(fence(replica))
        await until(url, SWITCHER_WAITS, NO_WRITER)
        second = await add_user(writing)  # the table is this transaction's to write until it ends
        assert not fencing.done()
        await writing.commit()
        assert await fencing
        assert {entry.id for entry in await replica.dirty("users", 10)} == {first, second}


async def test_a_writer_that_goes_on_keeps_the_fence_away_for_its_time_only(
    replica: PostgresReplica, foreign: Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "FENCE_LOCK_TIMEOUT_S", 0.05)
    was = await replica.gates()
    async with await connect(url, autocommit=False) as writing:
        key = await add_user(writing)
        with pytest.raises(DalTimeoutError) as caught:
            await fence(replica)
        assert caught.value.retryable
        assert await replica.gates() == was
        await add_user(foreign)
        await writing.commit()
    assert key in await registry(foreign, "users")


@owners
async def test_waiting_for_maintenance_stops_no_writer(
    replica: PostgresReplica, foreign: Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # VACUUM and autovacuum hold this lock, and may hold it for long.
    monkeypatch.setattr(switching, "FENCE_LOCK_TIMEOUT_S", 0.05)
    async with await connect(url, autocommit=False) as maintenance:
        await maintenance.execute("LOCK TABLE users IN SHARE UPDATE EXCLUSIVE MODE")
        fencing = asyncio.create_task(fence(replica))
        await until(url, SWITCHER_WAITS, GENTLE)
        await foreign.execute("SET lock_timeout = '1ms'")
        await add_user(foreign)
        assert not fencing.done()
        await maintenance.commit()
    assert await fencing


async def test_every_table_of_a_unit_is_fenced_and_no_other(replica: PostgresReplica, foreign: Connection) -> None:
    assert await fence(replica, "chats")
    for table in ("chat_sessions", "messages"):
        for statement in (f"INSERT INTO {table} SELECT * FROM {table}", f"UPDATE {table} SET id = id"):
            with pytest.raises(psycopg.errors.DatabaseError, match="chats"):
                await foreign.execute(statement.encode())
    await add_user(foreign)


async def test_the_library_says_what_a_fence_is(replica: PostgresReplica, store: SqlStore) -> None:
    await store.commit([chat("c")])
    assert await fence(replica, "chats")
    for ops in (append("c"), [chat("d"), chat("e"), *append("c")]):
        with pytest.raises(FencedError, match="live move") as caught:
            await store.commit(ops)
        assert caught.value.retryable
        assert caught.value.outcome == "not_applied"
    async with store.transaction() as transaction:
        with pytest.raises(FencedError):
            await transaction.commit(append("c"))
        await transaction.commit([user()])
    assert await store.read(Select("users", columns=("name",))) != []


@owners
async def test_no_setting_of_a_session_passes_the_fence(replica: PostgresReplica, foreign: Connection) -> None:
    assert await fence(replica)
    await foreign.execute("SET session_replication_role = replica")
    with pytest.raises(psycopg.errors.DatabaseError, match="live move"):
        await add_user(foreign)


async def test_eight_writers_get_nothing_acknowledged_behind_a_fence(
    replica: PostgresReplica, foreign: Connection, url: str
) -> None:
    acknowledged: set[str] = set()
    refused = [asyncio.Event() for _ in range(8)]
    fenced, ended = asyncio.Event(), asyncio.Event()

    async def write(number: int) -> None:
        async with await connect(url, autocommit=False) as connection:
            isolation = ISOLATION[number % 3]
            while not ended.is_set():
                key = new_id()
                try:
                    async with connection.transaction():
                        await connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
                        await rows(connection, "SELECT role FROM dal_gate")
                        await add_user(connection, key)
                        await add_user(connection)
                    acknowledged.add(key)
                except psycopg.errors.SerializationFailure:
                    continue
                except psycopg.DatabaseError as error:
                    assert error.sqlstate == FENCED
                    if fenced.is_set():
                        refused[number].set()

    async def refused_by_each() -> None:
        for event in refused:
            event.clear()
        for event in refused:
            await reached(event, *writers)

    writers = [asyncio.create_task(write(number)) for number in range(8)]
    try:
        for _ in range(15):
            behind = len(acknowledged)
            while len(acknowledged) < behind + 8:
                await until(url, "SELECT TRUE")
                assert not any(writer.done() for writer in writers)
            assert await fence(replica)
            there = {key for (key,) in await rows(foreign, USERS)}
            fenced.set()
            await refused_by_each()
            assert {key for (key,) in await rows(foreign, USERS)} == there
            assert acknowledged <= there
            fenced.clear()
            assert await unfence(replica)
    finally:
        ended.set()
        await asyncio.gather(*writers)
    assert acknowledged <= {key for (key,) in await rows(foreign, USERS)}


# Compare-and-set -----------------------------------------------------------------------------------------------------


async def test_a_gate_that_is_not_as_expected_stays_with_its_triggers(
    replica: PostgresReplica, foreign: Connection
) -> None:
    was = await replica.gates()
    expectations: list[dict[str, int | str]] = [{"epoch": 9}, {"role": "replica", "epoch": 1}, {"next_epoch": 0}]
    for expect in expectations:
        assert not await replica.change_gate("users", expect=expect, change={"role": "fenced"})
    assert not await replica.change_gate("nothing", expect={}, change={"role": "fenced"})
    assert await replica.gates() == was
    assert await add_user(foreign) in await registry(foreign, "users")


async def test_one_of_many_activates_and_burning_an_epoch_keeps_all_away(
    replica: PostgresReplica, foreign: Connection
) -> None:
    assert await replica.change_gate("users", expect={}, change={"role": "replica", "next_epoch": 2})
    activate: dict[str, int | str] = {"role": "primary", "epoch": 2, "next_epoch": 3}
    took = await asyncio.gather(
        *[replica.change_gate("users", expect={"role": "replica", "next_epoch": 2}, change=activate) for _ in range(6)],
        replica.change_gate("users", expect={"role": "replica", "next_epoch": 2}, change={"next_epoch": 3}),
    )
    assert took.count(True) == 1
    is_primary = (await replica.gates())["users"].role == "primary"
    assert is_primary is not took[-1]
    if is_primary:
        await add_user(foreign)
    else:
        with pytest.raises(psycopg.errors.DatabaseError, match="live move"):
            await add_user(foreign)


async def test_a_change_between_replica_and_fenced_waits_for_nobody(replica: PostgresReplica, url: str) -> None:
    assert await fence(replica)
    async with await connect(url, autocommit=False) as holding:
        await holding.execute("LOCK TABLE users IN SHARE MODE")
        assert await replica.change_gate("users", expect={"role": "fenced"}, change={"role": "replica"})


async def test_a_role_is_given_back_as_it_was_taken(replica: PostgresReplica, foreign: Connection) -> None:
    for _ in range(3):
        assert await fence(replica)
        with pytest.raises(psycopg.errors.DatabaseError, match="live move"):
            await add_user(foreign)
        assert await unfence(replica)
        assert await add_user(foreign) in await registry(foreign, "users")


# What passes it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ISOLATION)
async def test_what_hangs_on_a_deleted_row_is_kept_by_a_fence_and_goes_with_it_in_a_replica(
    replica: PostgresReplica, foreign: Connection, store: SqlStore, url: str, isolation: str
) -> None:
    owner, session = user(), chat("c")
    owner_id, session_id = str(owner.row["id"]), str(session.row["id"])
    await store.commit([owner, session._replace(row={**session.row, "user_id": owner_id})])
    assert await replica.change_gate("chats", expect={}, change={"role": "replica"})
    async with await connect(url, autocommit=False) as old:
        await old.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
        assert ("replica",) in await rows(old, "SELECT role FROM dal_gate")
        assert await replica.change_gate("chats", expect={}, change={"role": "primary"})
        assert await fence(replica, "chats")
        with pytest.raises(psycopg.errors.DatabaseError) as caught:
            await old.execute("DELETE FROM users")  # whose primary is still here
        assert caught.value.sqlstate in (FENCED, "40001")
    assert await replica.change_gate("chats", expect={"role": "fenced"}, change={"role": "replica"})
    before = (await registry(foreign, "chat_sessions"))[session_id]
    await replica.acknowledge([Copied("chat_sessions", session_id, before[0], 7)])
    await foreign.execute("DELETE FROM users")
    assert (await store.read(Select("chat_sessions", columns=("user_id",)))) == [(None,)]
    assert (await registry(foreign, "chat_sessions"))[session_id] == before


async def test_a_retired_store_lets_a_replica_s_rows_go_with_their_parents(
    replica: PostgresReplica, foreign: Connection, store: SqlStore
) -> None:
    owner, session = user(), chat("c")
    await store.commit([owner, session._replace(row={**session.row, "user_id": str(owner.row["id"])})])
    assert await replica.change_gate("chats", expect={}, change={"role": "replica"})
    await replica.uninstall(keep_fence=True)
    await foreign.execute("DELETE FROM users")
    assert (await store.read(Select("chat_sessions", columns=("user_id",)))) == [(None,)]
    with pytest.raises(psycopg.errors.DatabaseError, match="live move"):
        await foreign.execute("DELETE FROM chat_sessions")


async def test_what_a_copy_takes_along_in_a_replica_is_marked(
    replica: PostgresReplica, foreign: Connection, store: SqlStore
) -> None:
    # The copy may be late, and the child live on at the primary.
    session = chat("c")
    session_id = str(session.row["id"])
    text, other = message(session_id, 1), chat("d")
    await store.commit([session, text, other])
    assert await replica.change_gate("chats", expect={}, change={"role": "replica"})
    await replica.acknowledge([Copied(e.table, e.id, e.version, 7) for e in await replica.dirty("messages", 10)])
    await replica.acknowledge([Copied(e.table, e.id, e.version, 7) for e in await replica.dirty("chat_sessions", 10)])
    (before,) = await replica.entries("messages", [str(text.row["id"])])
    await replica.apply([Entry("chat_sessions", session_id, 2 * EPOCH, None)])
    (marked,) = await replica.dirty("messages", 10)
    assert marked == before._replace(row=None, state="dirty", hash=None)
    assert await replica.dirty("chat_sessions", 10) == []


async def test_what_a_copy_takes_along_is_registered_where_this_store_is_primary(
    replica: PostgresReplica, foreign: Connection, store: SqlStore
) -> None:
    owner, session = user(), chat("c")
    owner_id, session_id = str(owner.row["id"]), str(session.row["id"])
    await store.commit([owner, session._replace(row={**session.row, "user_id": owner_id})])
    assert await fence(replica, "users")
    before = (await registry(foreign, "chat_sessions"))[session_id][0]
    await replica.apply([Entry("users", owner_id, 2 * EPOCH, None)])
    assert await store.read(Select("users")) == []
    assert (await registry(foreign, "users"))[owner_id][:3] == (2 * EPOCH, 1, 0)
    assert (await registry(foreign, "chat_sessions"))[session_id][0] > before


async def test_another_table_s_trigger_does_not_write_past_the_fence(
    replica: PostgresReplica, foreign: Connection, store: SqlStore
) -> None:
    # It comes from inside a trigger as a cascade does, but nothing took the row's parent away.
    session = chat("c")
    await store.commit([session, message(str(session.row["id"]), 1)])
    for unit in ("chats", "audit"):
        assert await fence(replica, unit)
    await foreign.execute("CREATE TABLE house ()")
    writes = (
        "UPDATE messages SET content = 'x'",
        "DELETE FROM messages",
        "INSERT INTO messages SELECT * FROM messages WHERE FALSE",
        "UPDATE chat_sessions SET title = 'x'",
        "DELETE FROM system_logs",
    )
    try:
        for write in writes:
            await foreign.execute(
                "CREATE OR REPLACE FUNCTION house() RETURNS trigger LANGUAGE plpgsql AS "
                f"'BEGIN {write.replace(chr(39), chr(39) * 2)}; RETURN NULL; END'".encode()
            )
            await foreign.execute("DROP TRIGGER IF EXISTS house ON house")
            await foreign.execute(
                "CREATE TRIGGER house AFTER INSERT ON house FOR EACH STATEMENT EXECUTE FUNCTION house()"
            )
            with pytest.raises(psycopg.errors.DatabaseError) as caught:
                await foreign.execute("INSERT INTO house DEFAULT VALUES")
            assert caught.value.sqlstate == FENCED, write
    finally:
        await foreign.execute("DROP TABLE house; DROP FUNCTION IF EXISTS house()")


async def test_a_trigger_ahead_of_the_cascade_does_not_change_what_hangs_on_the_row(
    replica: PostgresReplica, foreign: Connection, store: SqlStore
) -> None:
    owner, session = user(), chat("c")
    await store.commit([owner, session._replace(row={**session.row, "user_id": str(owner.row["id"])})])
    assert await fence(replica, "chats")
    await foreign.execute(
        "CREATE FUNCTION house() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN UPDATE chat_sessions SET title = $$x$$ WHERE user_id = OLD.id; RETURN NULL; END'"
    )
    try:  # the cascade's own trigger is called RI_…, and triggers go by their names
        await foreign.execute('CREATE TRIGGER "A" AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION house()')
        with pytest.raises(psycopg.errors.DatabaseError, match="live move"):
            await foreign.execute("DELETE FROM users")
    finally:
        await foreign.execute("DROP FUNCTION house CASCADE")
    assert await store.read(Select("chat_sessions", columns=("title",))) == [(session.row["title"],)]


async def test_copies_pass_the_fence_and_leave_their_mark_to_nobody(
    replica: PostgresReplica, foreign: Connection, store: SqlStore
) -> None:
    owner = user()
    key = str(owner.row["id"])
    await store.commit([owner])
    assert await fence(replica)
    (entry,) = await replica.entries("users", [key])
    for version in range(1, 4):
        applied = await replica.apply([entry._replace(version=entry.version + version, hash=version)])
        assert {won.id for won in applied.won} == {key}
        assert (await registry(foreign, "users"))[key] == (entry.version + version, 0, 0, version)
        # On the connection that the copy has just used.
        with pytest.raises(FencedError):
            await store.commit([user()])
    assert len(await store.read(Select("users", (Compare("id", "=", key),)))) == 1
