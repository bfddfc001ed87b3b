"""The registry of a live move on PostgreSQL: every writer's rows are in it, in the order in which they were written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final, cast

import psycopg
import pytest
import pytest_asyncio

from dal.backends.postgresql import switching
from dal.backends.postgresql.replica import PostgresReplica
from dal.backends.sql import SqlStore, Statement
from dal.errors import ConflictError, UnsupportedError
from dal.ops import Compare, Delete, Update, Upsert
from dal.replica import EPOCH, Copied, Entry, Key
from dal.tables import TABLES
from dal.values import new_id
from tests.engines.pgbouncer import PgBouncer
from tests.postgresql.conftest import MakeRole, OpenStore
from tests.postgresql.moves import MOVER, Connection, add_user, connect, gates, registry, rows
from tests.postgresql.rows import append, chat, message, user
from tests.postgresql.waiting import until

LIVE, DEAD = 0, 1
LEFT: Final = """
    SELECT relname::text FROM pg_class WHERE relname ~ '^dal_(sync|gate|version)'
    UNION ALL SELECT tgname::text FROM pg_trigger WHERE tgname LIKE 'dal\\_%'
    UNION ALL SELECT proname::text FROM pg_proc WHERE proname LIKE 'dal\\_%'"""
WAITS: Final = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = %s"
#: Somebody waits for a table's lock, here an installer.
INSTALLER_WAITS: Final = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'"
NO_INSTALLER_WAITS: Final = INSTALLER_WAITS.replace(">", "=")


@pytest_asyncio.fixture
async def replica(store: SqlStore) -> AsyncIterator[PostgresReplica]:
    """The moves' side of the store; nothing is installed, and nothing stays."""
    made = cast(PostgresReplica, store.replica())
    yield made
    await made.uninstall(keep_fence=False)


# What is registered --------------------------------------------------------------------------------------------------


async def test_every_kind_of_write_registers_its_rows(
    store: SqlStore, replica: PostgresReplica, foreign: Connection
) -> None:
    await replica.install(gates())
    owner, session = user(), chat("c")
    texts = [message(str(session.row["id"]), number) for number in range(500, 650)]  # a COPY
    await store.commit([owner, session, *texts])
    assert {key: entry[1:] for key, entry in (await registry(foreign, "messages")).items()} == {
        str(text.row["id"]): (LIVE, 2, None) for text in texts
    }
    seen = await registry(foreign, "users") | await registry(foreign, "chat_sessions")
    writes = [
        Update("users", {"id": str(owner.row["id"])}, {"name": "another"}),
        Upsert("chat_sessions", session.row, ("chat_id",), ("title",)),  # type: ignore[arg-type]  # no Ref in it
        *append("c"),
    ]
    for write in (writes[:1], writes[1:2], writes[2:]):
        await store.commit(write)
        now = await registry(foreign, "users") | await registry(foreign, "chat_sessions")
        raised = {key for key in now if now[key][0] > seen[key][0]}
        assert raised == {str((owner if write[0].table == "users" else session).row["id"])}
        seen = now
    await store.commit([Delete("users", (Compare("id", "=", str(owner.row["id"])),))])
    assert (await registry(foreign, "users"))[str(owner.row["id"])][1] == DEAD


async def test_what_a_delete_takes_along_is_registered(
    store: SqlStore, replica: PostgresReplica, foreign: Connection
) -> None:
    owner = user()
    owner_id = str(owner.row["id"])
    session = chat("c")
    session = session._replace(row={**session.row, "user_id": owner_id})
    texts = [message(str(session.row["id"]), number) for number in range(3)]
    await store.commit([owner, session, *texts])
    await replica.install(gates())
    await foreign.execute("DELETE FROM users")
    assert [entry[1] for entry in (await registry(foreign, "users")).values()] == [DEAD]
    assert [entry[1] for entry in (await registry(foreign, "chat_sessions")).values()] == [LIVE]  # set free
    await foreign.execute("DELETE FROM chat_sessions")
    assert [entry[1] for entry in (await registry(foreign, "chat_sessions")).values()] == [DEAD]
    assert [entry[1] for entry in (await registry(foreign, "messages")).values()] == [DEAD] * 3


async def test_a_changed_id_is_a_tombstone_and_a_row(replica: PostgresReplica, foreign: Connection) -> None:
    await replica.install(gates())
    before, after = await add_user(foreign), new_id()
    await foreign.execute("UPDATE users SET id = %s WHERE id = %s", (after, before))
    found = await registry(foreign, "users")
    assert {key: entry[1] for key, entry in found.items()} == {before: DEAD, after: LIVE}


async def test_an_insert_that_waited_for_a_delete_has_the_later_version(
    replica: PostgresReplica, foreign: Connection, url: str
) -> None:
    # The delete comes after the insert has begun to wait: a version taken before the row, as by a BEFORE trigger, would
    # lie below the tombstone's.
    await replica.install(gates())
    key = new_id()
    async with await connect(url, autocommit=False) as deleting:
        await add_user(deleting, key)
        inserting = asyncio.create_task(add_user(foreign, key))
        await until(url, WAITS, foreign.info.backend_pid)
        await deleting.execute("DELETE FROM users WHERE id = %s", (key,))
        tombstone = (await registry(deleting, "users"))[key]
        await deleting.commit()
        await inserting
    entry = (await registry(foreign, "users"))[key]
    assert (tombstone[1], entry[1]) == (DEAD, LIVE)
    assert entry[0] > tombstone[0]


async def test_inserts_racing_deletes_of_one_key_end_as_the_table_does(
    replica: PostgresReplica, foreign: Connection, url: str
) -> None:
    await replica.install(gates())
    keys = [new_id() for _ in range(3)]

    async def work(number: int) -> None:
        async with await connect(url) as connection:
            for turn in range(60):
                key = keys[(number + turn) % len(keys)]
                if (number + turn // 3) % 2:
                    await connection.execute("DELETE FROM users WHERE id = %s", (key,))
                else:
                    await add_user(connection, key)

    await asyncio.gather(*[work(number) for number in range(8)])
    there = {key for (key,) in await rows(foreign, "SELECT id::text FROM users")}
    assert {key for key, entry in (await registry(foreign, "users")).items() if entry[1] == LIVE} == there


async def test_no_setting_of_a_session_skips_the_registry(replica: PostgresReplica, foreign: Connection) -> None:
    await replica.install(gates())
    await foreign.execute("SET session_replication_role = replica")
    await foreign.execute("SET search_path = pg_catalog")
    key = new_id()
    await foreign.execute("INSERT INTO public.users (id, created_at, updated_at) VALUES (%s, now(), now())", (key,))
    assert key in {str(k) for (k,) in await rows(foreign, "SELECT pk FROM public.dal_sync")}


async def test_a_writer_needs_no_right_on_the_registry(
    replica: PostgresReplica, foreign: Connection, role: MakeRole
) -> None:
    await replica.install(gates())
    async with await connect(await role("GRANT INSERT ON users TO {role}")) as writer:
        key = await _insert(writer)
    assert key in await registry(foreign, "users")


async def test_truncate_is_refused(replica: PostgresReplica, foreign: Connection) -> None:
    # It names no row, so no trigger of rows would see it.
    await replica.install(gates())
    await add_user(foreign)
    for session_role in ("origin", "replica"):
        await foreign.execute(f"SET session_replication_role = {session_role}".encode())
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            await foreign.execute("TRUNCATE users CASCADE")
    assert len(await rows(foreign, "SELECT 1 FROM users")) == 1


# Installing and taking away ------------------------------------------------------------------------------------------


async def test_install_waits_for_writers_under_way(
    replica: PostgresReplica, foreign: Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "FENCE_LOCK_TIMEOUT_S", 0.02)  # several tries
    async with await connect(url, autocommit=False) as writing:
        before = await add_user(writing)
        installing = asyncio.create_task(replica.install(gates()))
        await until(url, INSTALLER_WAITS)
        await until(url, NO_INSTALLER_WAITS)
        await until(url, INSTALLER_WAITS)
        assert not installing.done()
        await writing.commit()
        await installing
        after = await add_user(writing)
        await writing.commit()
    assert set(await registry(foreign, "users")) == {after}
    assert await replica.seed("users", "", 10) == ""
    assert set(await registry(foreign, "users")) == {before, after}


async def test_installing_again_leaves_the_move_as_it_is(replica: PostgresReplica, foreign: Connection) -> None:
    await replica.install(gates())
    key = await add_user(foreign)
    assert await replica.change_gate("chats", expect={"role": "primary"}, change={"role": "fenced", "phase": "FENCED"})
    was = await replica.gates()
    entry = await registry(foreign, "users")
    await asyncio.gather(*[replica.install(gates()) for _ in range(4)])
    assert await replica.gates() == was
    assert await registry(foreign, "users") == entry
    with pytest.raises(psycopg.errors.DatabaseError):
        await foreign.execute("DELETE FROM messages")
    await foreign.execute("DELETE FROM users WHERE id = %s", (key,))


async def test_what_an_installer_that_died_left_undone_is_done(replica: PostgresReplica, foreign: Connection) -> None:
    await replica.install(gates())
    await foreign.execute("DROP TRIGGER dal_capture ON users")
    await foreign.execute("DROP TRIGGER dal_fence ON user_memory")
    await replica.install(gates())
    assert await add_user(foreign) in await registry(foreign, "users")
    assert await replica.change_gate("memory", expect={}, change={"role": "fenced"})


async def test_another_move_is_refused_until_the_first_is_retired(
    replica: PostgresReplica, foreign: Connection
) -> None:
    await replica.install(gates())
    with pytest.raises(ConflictError, match="another move"):
        await replica.install(gates(move="move-2"))
    assert {gate.move for gate in (await replica.gates()).values()} == {"move-1"}
    await replica.change_gate("users", expect={}, change={"role": "fenced"})
    await replica.uninstall(keep_fence=True)
    await replica.install(gates(move="move-2"))
    assert {gate.move for gate in (await replica.gates()).values()} == {"move-2"}
    assert await add_user(foreign) in await registry(foreign, "users")


async def test_units_that_are_not_moved_are_left_alone(replica: PostgresReplica, foreign: Connection) -> None:
    await replica.install(gates("replica", units=["memory"]))
    key = await add_user(foreign)
    assert await registry(foreign, "users") == {}
    with pytest.raises(psycopg.errors.DatabaseError, match="memory"):
        await foreign.execute("DELETE FROM user_memory")
    await foreign.execute("DELETE FROM users WHERE id = %s", (key,))


async def test_uninstall_leaves_nothing_behind(replica: PostgresReplica, foreign: Connection) -> None:
    await replica.uninstall(keep_fence=True)
    await replica.install(gates())
    await add_user(foreign)
    await replica.uninstall(keep_fence=False)
    assert await rows(foreign, LEFT) == []
    assert await replica.gates() == {}
    await add_user(foreign)
    await replica.uninstall(keep_fence=False)


async def test_a_retired_source_goes_on_refusing(replica: PostgresReplica, foreign: Connection) -> None:
    await replica.install(gates())
    for unit in ("chats", "users"):
        assert await replica.change_gate(unit, expect={}, change={"role": "fenced"})
    await replica.uninstall(keep_fence=True)
    for write in ("INSERT INTO messages SELECT", "DELETE FROM users", "TRUNCATE chat_sessions CASCADE"):
        with pytest.raises(psycopg.errors.DatabaseError, match="live move"):
            await foreign.execute(write.replace("SELECT", "SELECT * FROM messages").encode())
    await foreign.execute("DELETE FROM files")
    assert {gate.phase for gate in (await replica.gates()).values()} == {"RETIRED"}
    assert ("dal_sync",) not in await rows(foreign, LEFT)
    await replica.uninstall(keep_fence=False)
    assert await rows(foreign, LEFT) == []


async def test_a_move_works_through_a_pooler(pgbouncer: PgBouncer, own_url: str, open_store: OpenStore) -> None:
    store = await open_store(f"{pgbouncer.url}?prepare_threshold=none")
    replica = store.replica()
    await replica.install(gates())
    await store.commit([user() for _ in range(20)])
    copies = await replica.dirty("users", 100)
    await replica.acknowledge([Copied(copy.table, copy.id, copy.version, 7) for copy in copies])
    assert (await replica.backlog())["users"].copied == 20
    assert await replica.change_gate("users", expect={}, change={"role": "fenced"})
    won = await replica.apply([Entry("users", copies[0].id, copies[0].version + EPOCH, None)])
    assert won.won == {Key("users", copies[0].id)}
    async with await connect(own_url) as direct:
        assert await rows(direct, "SELECT count(*) FROM users") == [(19,)]
    await replica.uninstall(keep_fence=False)


# The mover's own writes ----------------------------------------------------------------------------------------------


async def test_an_acknowledgement_waits_for_no_writer(replica: PostgresReplica, foreign: Connection, url: str) -> None:
    await replica.install(gates())
    held, free = await add_user(foreign), await add_user(foreign)
    copies = [Copied("users", e.id, e.version, 7) for e in await replica.entries("users", [held, free])]
    async with await connect(url, autocommit=False) as writing:
        await writing.execute("UPDATE users SET name = 'x' WHERE id = %s", (held,))
        await replica.acknowledge(copies)
        assert [copy.id for copy in await replica.copied("users", "", 10)] == [free]
        await replica.mark_checked("users", {copy.id: copy.version for copy in copies})
        await writing.commit()
    assert (await registry(foreign, "users"))[held][2:] == (2, None)
    assert (await registry(foreign, "users"))[free][2:] == (0, 7)
    await foreign.execute("UPDATE users SET name = 'y' WHERE id = %s", (free,))
    assert (await registry(foreign, "users"))[free][2:] == (2, None)


async def test_seeding_is_never_why_a_writer_meets_a_deadlock(
    replica: PostgresReplica, foreign: Connection, url: str
) -> None:
    first, second = sorted([await add_user(foreign), await add_user(foreign)])
    await replica.install(gates())
    async with await connect(url, autocommit=False) as writing:
        await writing.execute("SET deadlock_timeout = '10s'")  # else it is the writer who looks for a deadlock
        await writing.execute("UPDATE users SET name = 'x' WHERE id = %s", (second,))
        seeding = asyncio.create_task(replica.seed("users", "", 10))
        await until(url, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid <> %s", writing.info.backend_pid)
        await writing.execute("UPDATE users SET name = 'x' WHERE id = %s", (first,))
        await writing.commit()
    after = await seeding
    while after:
        after = await replica.seed("users", after, 10)
    assert set(await registry(foreign, "users")) == {first, second}


async def test_a_raised_version_is_above_one_that_was_still_uncommitted(
    replica: PostgresReplica, foreign: Connection, url: str
) -> None:
    await replica.install(gates())
    key = await add_user(foreign)
    async with await connect(url, autocommit=False) as writing:
        await writing.execute("UPDATE users SET name = 'x' WHERE id = %s", (key,))
        raising = asyncio.create_task(replica.raise_versions("users", [key]))
        await until(url, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid <> %s", writing.info.backend_pid)
        await writing.execute("DELETE FROM users WHERE id = %s", (key,))
        last = (await registry(writing, "users"))[key][0]
        await writing.commit()
    assert await raising == 1
    assert (await registry(foreign, "users"))[key][0] > last


async def test_versions_of_a_later_epoch_lie_above_all_before(replica: PostgresReplica, foreign: Connection) -> None:
    async def written() -> int:
        key = await add_user(foreign)
        return (await registry(foreign, "users"))[key][0]

    await replica.install(gates())
    first = await written()
    assert first > EPOCH
    await replica.change_gate("users", expect={}, change={"role": "fenced"})
    assert await replica.change_gate("users", expect={}, change={"role": "primary", "epoch": 1})
    assert first < await written() < 2 * EPOCH
    await replica.change_gate("users", expect={}, change={"role": "fenced"})
    assert await replica.change_gate("users", expect={}, change={"role": "primary", "epoch": 7})
    assert 7 * EPOCH < await written() < 8 * EPOCH


async def test_pages_of_the_registry_go_by_the_index_before_anything_is_known_of_its_size(
    replica: PostgresReplica, foreign: Connection, url: str
) -> None:
    await replica.install(gates(units=["users"]))
    keys = [new_id() for _ in range(3)]
    statements = _page_statements(replica, keys)
    for _ in range(6):  # as often as it takes for a plan to be kept
        for statement in statements:
            await replica._executor.batch([statement])
    await foreign.execute(
        "INSERT INTO users (id, created_at, updated_at) SELECT gen_random_uuid(), now(), now() "
        "FROM generate_series(1, 3000)"
    )
    for statement in statements:
        explained = statement._replace(sql=f"EXPLAIN {statement.sql}", returns=True)
        plan = "\n".join(str(line) for (line,) in (await replica._executor.batch([explained]))[0].rows)
        assert "Index" in plan
        assert "Seq Scan" not in plan, plan
        assert "Index Cond: (entity = 'users'::text)\n" not in plan, plan


def _page_statements(replica: PostgresReplica, keys: list[str]) -> list[Statement]:
    table, of = TABLES["users"], replica._registry
    copies = [Entry("users", key, 1, None) for key in keys]
    return [
        of.entries(table, keys),
        of.registered(table, keys),
        of.copied(table, keys[0], 100),
        of.versions(copies),
        of.applied(copies)[1],
        of.dirty(table, 100),
    ]


# What is asked before ------------------------------------------------------------------------------------------------


async def test_the_oldest_writer_is_the_one_a_fence_waits_for(
    replica: PostgresReplica, url: str, foreign: Connection
) -> None:
    assert await replica.oldest_writer_s() == 0
    async with await connect(url, autocommit=False) as reading, await connect(url, autocommit=False) as writing:
        await rows(reading, "SELECT count(*) FROM users")
        assert await replica.oldest_writer_s() == 0
        await writing.execute("DELETE FROM users WHERE FALSE")  # no row and no id, but the lock
        assert await replica.oldest_writer_s() > 0
        (begun,) = (await rows(writing, "SELECT extract(epoch FROM clock_timestamp() - now())::float8"))[0]
        assert await replica.oldest_writer_s() > begun


async def test_nothing_stands_in_the_way_of_a_move_from_here(replica: PostgresReplica) -> None:
    assert await replica.obstacles() == []
    await replica.install(gates())
    assert await replica.obstacles() == []


async def test_missing_rights_are_named(
    replica: PostgresReplica, foreign: Connection, open_store: OpenStore, role: MakeRole
) -> None:
    nearly = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    poor = (await open_store(await role(nearly))).replica()
    create, own = await poor.obstacles()
    assert "GRANT CREATE ON SCHEMA" in create
    assert "does not own chat_sessions, cost_tracking, file_access_logs" in own
    assert re.search(r'GRANT SELECT, .*, TRIGGER ON chat_sessions, .* TO "role_', own)
    with pytest.raises(UnsupportedError, match="does not own"):
        await poor.install(gates())
    assert await rows(foreign, LEFT) == []


async def test_what_a_move_of_foreign_tables_costs_is_said_and_nothing_of_it_stays(
    foreign: Connection, open_store: OpenStore, role: MakeRole
) -> None:
    mover = (await open_store(await role(MOVER))).replica()
    (cost,) = await mover.obstacles()
    assert "each write asks the gate" in cost
    await mover.install(gates())
    await mover.install(gates())  # a mover that died in between does it again
    assert await add_user(foreign) in await registry(foreign, "users")
    await mover.uninstall(keep_fence=False)
    assert await rows(foreign, LEFT) == []
    await mover.install(gates("replica"))
    await mover.uninstall(keep_fence=True)
    with pytest.raises(psycopg.errors.DatabaseError, match="live move"):
        await add_user(foreign)
    await mover.uninstall(keep_fence=False)
    assert await rows(foreign, LEFT) == []


async def test_triggers_of_others_and_tables_in_parts_are_named(replica: PostgresReplica, foreign: Connection) -> None:
    await foreign.execute(
        "CREATE FUNCTION pg_temp.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    await foreign.execute("CREATE TRIGGER house AFTER INSERT ON files FOR EACH ROW EXECUTE FUNCTION pg_temp.nothing()")
    await foreign.execute("CREATE TABLE old_logs () INHERITS (system_logs)")
    try:
        triggers, parts = await replica.obstacles()
    finally:
        await foreign.execute("DROP TABLE old_logs")
        await foreign.execute("DROP TRIGGER house ON files")
    assert triggers == "files has triggers of its own, which would run for copies too: house."
    assert parts.startswith("system_logs is not a plain table")


async def _insert(connection: Connection) -> str:
    key = new_id()
    await connection.execute("INSERT INTO users (id, created_at, updated_at) VALUES (%s, now(), now())", (key,))
    return key
