"""PostgreSQL as the schema engine sees it: batches, statements alone, settings, refusals, lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from dal.backends.postgresql import schema_connection
from dal.backends.postgresql.schema_connection import PostgresSchemaConnection, open_schema
from dal.errors import ConfigurationError, SchemaError, UnavailableError
from dal.schema.connection import Run, StatementError
from tests.engines import postgres
from tests.engines.pgbouncer import PgBouncer
from tests.postgresql.waiting import CUT_IT, ONE_WAITS, TIMEOUT_S, until

TABLE: list[Run] = [("CREATE TABLE t (id int PRIMARY KEY, x text)", ()), ("INSERT INTO t VALUES (1, 'one')", ())]
#: Its COMMIT waits for the advisory lock 7.
SLOW_COMMIT: list[Run] = [
    ("CREATE TABLE c (id int)", ()),
    (
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(7); "
        "RETURN NULL; END $$",
        (),
    ),
    (
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON c DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION slow()",
        (),
    ),
]


@pytest.fixture
def url(postgres_server: postgres.PostgresServer) -> str:
    return postgres_server.create_database()


@pytest_asyncio.fixture
async def connection(url: str) -> AsyncIterator[PostgresSchemaConnection]:
    async with open_schema(url) as opened:
        yield opened


@pytest.fixture
def short_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for locks end after 50 ms."""
    options = schema_connection._OPTIONS
    assert "lock_timeout=2000" in options
    monkeypatch.setattr(schema_connection, "_OPTIONS", options.replace("lock_timeout=2000", "lock_timeout=50"))


async def scalar(connection: PostgresSchemaConnection, sql: str) -> object:
    return (await connection.fetch(sql))[0][0]


# Batches --------------------------------------------------------------------------------------------------------------


async def test_a_batch_is_there_whole_for_others(connection: PostgresSchemaConnection, url: str) -> None:
    await connection.run([*TABLE, ("INSERT INTO t VALUES (%s, %s)", (2, "zwei % 😀"))])
    with psycopg.connect(url) as other:
        assert other.execute("SELECT id, x FROM t ORDER BY id").fetchall() == [(1, "one"), (2, "zwei % 😀")]


async def test_text_without_parameters_is_run_as_it_is(connection: PostgresSchemaConnection) -> None:
    await connection.run([("CREATE TABLE p AS SELECT '100%s %(a)s %%' AS x", ())])
    assert await connection.fetch("SELECT x FROM p WHERE x LIKE '100%'") == [("100%s %(a)s %%",)]


@pytest.mark.parametrize("before", [0, 1, 300])
async def test_a_refused_batch_leaves_nothing_and_names_the_statement(
    connection: PostgresSchemaConnection, before: int
) -> None:
    batch = [("SELECT 1", ())] * before + [("CREATE TABLE later (id int)", ()), ("SELECT 1, nowhere FROM later", ())]
    with pytest.raises(StatementError) as caught:
        await connection.run([*batch, ("SELECT 2", ())])
    error = caught.value
    assert (error.index, error.kind, error.code, error.position) == (before + 1, "other", "42703", 10)
    assert error.reason == 'column "nowhere" does not exist'
    assert await connection.fetch("SELECT to_regclass('later')::text") == [(None,)]


async def test_the_reason_holds_detail_and_hint_on_one_line(connection: PostgresSchemaConnection) -> None:
    await connection.run(TABLE)
    with pytest.raises(StatementError) as caught:
        await connection.run([("INSERT INTO t VALUES (%s)", (1,))])
    assert caught.value.kind == "unique"
    assert caught.value.reason.endswith('constraint "t_pkey" DETAIL: Key (id)=(1) already exists.')
    with pytest.raises(StatementError) as caught:
        await connection.run([("SELECT lower(id) FROM t", ())])
    assert " HINT: " in caught.value.reason
    assert "\n" not in caught.value.reason


async def test_what_only_the_commit_refuses_names_no_statement(connection: PostgresSchemaConnection) -> None:
    await connection.run([("CREATE TABLE u (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)", ())])
    with pytest.raises(StatementError) as caught:
        await connection.run([("INSERT INTO u VALUES (1)", ()), ("INSERT INTO u VALUES (1)", ())])
    assert (caught.value.index, caught.value.kind) == (None, "unique")
    assert await connection.fetch("SELECT * FROM u") == []


@pytest.mark.parametrize(
    "statement",
    ["COMMIT", "rollback", "END", "BEGIN", "START TRANSACTION", "PREPARE TRANSACTION 'x'", "COPY t (x) FROM STDIN"],
)
async def test_what_would_end_the_batch_is_refused_before_anything_is_sent(
    connection: PostgresSchemaConnection, statement: str
) -> None:
    with pytest.raises(StatementError) as caught:
        await connection.run([*TABLE, (statement, ())])
    assert caught.value.index == 2
    assert await connection.fetch("SELECT to_regclass('t')::text") == [(None,)]


async def test_savepoints_and_bodies_with_begin_are_no_such_thing(connection: PostgresSchemaConnection) -> None:
    steps = ["SAVEPOINT a", "INSERT INTO t VALUES (2)", "ROLLBACK TO a", "DO $$ BEGIN NULL; END $$"]
    await connection.run([*TABLE, *[(step, ()) for step in steps]])
    assert await scalar(connection, "SELECT count(*)::text FROM t") == "1"


async def test_a_lock_that_is_not_to_be_had_is_busy_and_soon_given_up(
    url: str, connection: PostgresSchemaConnection
) -> None:
    await connection.run(TABLE)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM t")
        for attempt in (connection.run([("ALTER TABLE t ADD y int", ())]), connection.run_alone("TRUNCATE t")):
            async with asyncio.timeout(TIMEOUT_S):
                with pytest.raises(StatementError) as caught:
                    await attempt
            assert (caught.value.index, caught.value.kind, caught.value.code) == (0, "busy", "55P03")
    await connection.run([("ALTER TABLE t ADD y int", ())])


async def test_reads_are_refused_in_the_words_of_the_server(connection: PostgresSchemaConnection) -> None:
    with pytest.raises(SchemaError, match=r'42P01.*relation "nowhere" does not exist'):
        await connection.fetch("SELECT 1 FROM nowhere")


async def test_verbs_of_several_tasks_wait_for_one_another(connection: PostgresSchemaConnection) -> None:
    await connection.run([("CREATE TABLE beats (txid bigint)", ())])
    beat: Run = ("INSERT INTO beats VALUES (txid_current())", ())
    await asyncio.gather(*[connection.run([beat, ("SELECT pg_sleep(0.01)", ()), beat]) for _ in range(4)])
    assert await connection.fetch("SELECT count(*)::text FROM beats GROUP BY txid") == [("2",)] * 4


# The session ----------------------------------------------------------------------------------------------------------


async def test_what_the_database_sets_is_not_in_the_way_of_migrations(
    postgres_server: postgres.PostgresServer,
) -> None:
    url = postgres_server.create_database()
    theirs = {
        "statement_timeout": "1000",
        "lock_timeout": "3600000",
        "idle_in_transaction_session_timeout": "1000",
        "idle_session_timeout": "1000",
        "transaction_timeout": "1000",
        "synchronous_commit": "off",
        "standard_conforming_strings": "off",
    }
    ours = dict.fromkeys(theirs, "0") | {"lock_timeout": "2000", "application_name": "dal schema"}
    ours |= {"synchronous_commit": "on", "standard_conforming_strings": "on"}
    with psycopg.connect(url, autocommit=True) as admin:
        known = {name for (name,) in admin.execute("SELECT name FROM pg_settings")}
        for name in known & set(theirs):
            admin.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET {name} = '{theirs[name]}'".encode())
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)"
    async with open_schema(url) as connection:
        for _ in range(2):
            found = {str(name): value for name, value in await connection.fetch(query, (list(ours),))}
            assert found == {name: value for name, value in ours.items() if name in known}
            await connection.run([("SET statement_timeout = 7", ()), ("SET synchronous_commit = off", ())])
    async with open_schema(f"{url}?application_name=release") as connection:
        assert await connection.fetch("SHOW application_name") == [("release",)]


async def test_what_a_batch_sets_does_not_reach_the_next(connection: PostgresSchemaConnection, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("DO $$ BEGIN CREATE ROLE dal_other; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    await connection.run([("SELECT pg_catalog.set_config('search_path', '', false)", ()), ("SET lock_timeout = 0", ())])
    await connection.run([("SET ROLE dal_other", ())])
    found = await connection.fetch("SELECT current_schema()::text, current_setting('lock_timeout'), current_user::text")
    assert found == [("public", "2s", await scalar(connection, "SELECT session_user::text"))]
    checks = "SELECT current_setting('client_connection_check_interval', true)"
    assert await scalar(connection, checks) in ("5s", "0", None)


async def test_what_is_set_alone_holds_until_it_is_reset(connection: PostgresSchemaConnection) -> None:
    note = "INSERT INTO seen VALUES (current_schemas(false)::text, current_setting('maintenance_work_mem'))"
    await connection.run([("CREATE TABLE seen (path text, memory text)", ()), ("CREATE SCHEMA s", ())])
    await connection.run([(note, ())])
    await connection.run_alone("SET search_path = s")
    await connection.run_alone("set maintenance_work_mem = '77MB'")
    await connection.run_alone("CREATE TABLE made ()")
    # The schema where the ledger is stays within reach.
    await connection.run([(note, ())])
    await connection.run([(note, ()), ("CREATE TABLE made_too ()", ())])
    await connection.run_alone("RESET ALL")
    await connection.run([(note, ())])
    found = await connection.fetch("SELECT path, memory FROM seen")
    assert found[1] == found[2] == ("{s,public}", "77MB")
    assert found[0] == found[3]
    assert found[0][0] == "{public}"
    assert await connection.fetch("SELECT 's.made'::regclass::text, 's.made_too'::regclass::text") == [
        ("s.made", "s.made_too")
    ]


async def test_a_setting_that_is_refused_is_not_remembered(connection: PostgresSchemaConnection) -> None:
    with pytest.raises(StatementError):
        await connection.run_alone("SET lock_timeout = 'soon'")
    await connection.run_alone("SET lock_timeout = '7s'")
    await connection.run([("CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS x", ())])
    assert await connection.fetch("SELECT x, current_setting('lock_timeout') FROM seen") == [("7s", "2s")]


# Alone ----------------------------------------------------------------------------------------------------------------


async def test_alone_is_outside_any_transaction(connection: PostgresSchemaConnection) -> None:
    await connection.run(TABLE)
    for statement in ("VACUUM t", "CREATE INDEX CONCURRENTLY i ON t (x)", "REINDEX TABLE CONCURRENTLY t"):
        await connection.run_alone(statement)
    with pytest.raises(StatementError) as caught:
        await connection.run_alone("SELECT 1 +")
    assert (caught.value.index, caught.value.code, caught.value.position) == (0, "42601", 10)


@pytest.mark.parametrize("quoted", ["", "-- it's\n", "/* CONCURRENTLY */"])
async def test_a_concurrent_build_outwaits_old_transactions(short_locks: None, url: str, quoted: str) -> None:
    async with open_schema(url) as connection:
        assert await scalar(connection, "SELECT current_setting('lock_timeout')") == "50ms"
        await connection.run(TABLE)
        with psycopg.connect(url) as writer:
            writer.execute("UPDATE t SET x = 'two'")
            build = asyncio.create_task(connection.run_alone(f"CREATE INDEX {quoted} CONCURRENTLY i ON t (x)"))
            # Ten times as long as lock_timeout allows, by the server's own clock.
            await until(url, ONE_WAITS.replace("WHERE", "WHERE clock_timestamp() - query_start > '0.5s' AND"))
            assert not build.done()
            writer.commit()
            await build
        assert await connection.fetch("SELECT indisvalid::text FROM pg_index WHERE indexrelid = 'i'::regclass") == [
            ("true",)
        ]
        assert await scalar(connection, "SELECT current_setting('lock_timeout')") == "50ms"


async def test_the_word_concurrently_in_quotes_lifts_no_limit(short_locks: None, url: str) -> None:
    async with open_schema(url) as connection:
        await connection.run(TABLE)
        with psycopg.connect(url) as reader:
            reader.execute("SELECT * FROM t")
            with pytest.raises(StatementError) as caught:
                await connection.run_alone("ALTER TABLE t ADD \"CONCURRENTLY\" text DEFAULT ' CONCURRENTLY '")
            assert caught.value.kind == "busy"


# Cancelled and lost ---------------------------------------------------------------------------------------------------


async def test_a_cancelled_batch_is_rolled_back_and_the_connection_goes_on(
    connection: PostgresSchemaConnection, url: str
) -> None:
    await connection.run(TABLE)
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE t")
        task = asyncio.create_task(connection.run([("CREATE TABLE n (id int)", ()), ("UPDATE t SET x = 'n'", ())]))
        await until(url, ONE_WAITS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await connection.fetch("SELECT to_regclass('n')::text, x FROM t") == [(None, "one")]
    await connection.run([("UPDATE t SET x = 'two'", ())])


async def test_a_batch_cancelled_at_any_step_of_its_way_does_not_wait_for_its_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The driver gives way where the loop has been busy for so long; here at each of its steps, while it sends too.
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", -1.0, raising=False)
    for steps in range(12):
        async with open_schema(url) as connection:
            task = asyncio.create_task(connection.run([("SELECT pg_sleep(3600)", ())]))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            assert (await asyncio.wait([task], timeout=TIMEOUT_S))[0], f"cancelled at step {steps}"
            assert task.cancelled()


async def test_a_cancelled_concurrent_build_leaves_an_invalid_index(
    connection: PostgresSchemaConnection, url: str
) -> None:
    await connection.run(TABLE)
    with psycopg.connect(url) as writer:
        writer.execute("UPDATE t SET x = 'two'")
        task = asyncio.create_task(connection.run_alone("CREATE INDEX CONCURRENTLY i ON t (x)"))
        await until(url, ONE_WAITS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await connection.fetch("SELECT indisvalid::text FROM pg_index WHERE indexrelid = 'i'::regclass") == [
        ("false",)
    ]


async def test_a_commit_whose_answer_is_lost_may_have_happened(connection: PostgresSchemaConnection, url: str) -> None:
    await connection.run(SLOW_COMMIT)
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(7)")
        task = asyncio.create_task(connection.run([("INSERT INTO c VALUES (1)", ())]))
        await until(url, CUT_IT)
        with pytest.raises(UnavailableError) as caught:
            await task
    assert caught.value.outcome == "unknown"
    with pytest.raises(UnavailableError) as caught:
        await connection.run([("INSERT INTO c VALUES (2)", ())])
    assert caught.value.outcome == "not_applied"
    for statement in ("INSERT INTO c VALUES (2)", "CREATE INDEX CONCURRENTLY i ON c (id)", "SET lock_timeout = 1"):
        with pytest.raises(UnavailableError) as caught:
            await connection.run_alone(statement)
        assert caught.value.outcome == "not_applied"


async def test_a_batch_cut_before_its_commit_has_not_happened(connection: PostgresSchemaConnection, url: str) -> None:
    await connection.run(TABLE)
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE t")
        task = asyncio.create_task(connection.run([("UPDATE t SET x = 'n'", ())]))
        await until(url, CUT_IT)
        with pytest.raises(UnavailableError) as caught:
            await task
    assert caught.value.outcome == "not_applied"


async def test_a_statement_alone_whose_answer_is_lost_may_have_happened(
    connection: PostgresSchemaConnection, url: str
) -> None:
    await connection.run(TABLE)
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE t")
        task = asyncio.create_task(connection.run_alone("UPDATE t SET x = 'n'"))
        await until(url, CUT_IT)
        with pytest.raises(UnavailableError) as caught:
            await task
    assert caught.value.outcome == "unknown"


# Where it leads -------------------------------------------------------------------------------------------------------


async def test_no_password_is_shown(postgres_server: postgres.PostgresServer) -> None:
    if not postgres_server.owned:
        pytest.skip("the role with a password is the test's own server's")
    url = postgres_server.url(user=postgres.PASSWORD_ROLE, password=postgres.PASSWORD)
    async with open_schema(url) as connection:
        assert connection.address.startswith("postgresql://127.0.0.1:")
        assert postgres.PASSWORD not in f"{connection.address} {connection.target!r} {vars(connection)}"


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        async with open_schema("postgresql://dal@127.0.0.1:1/nowhere"):
            pass


async def test_through_a_pooler_one_may_look_and_not_touch(pgbouncer: PgBouncer) -> None:
    async with open_schema(pgbouncer.url) as connection:
        assert await connection.fetch("SELECT 1") == [(1,)]
        for verb in (
            connection.run([("SELECT 1", ())]),
            connection.run_alone("SELECT 1"),
            connection.try_exclusive(),
            connection.scratch().__aenter__(),
        ):
            with pytest.raises(ConfigurationError, match="the address of the server itself"):
                await verb
        await connection.end_exclusive()
