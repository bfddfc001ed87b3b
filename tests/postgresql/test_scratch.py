"""Scratch databases: like the real one, empty, gone afterwards; and what stands in where none may be made."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from dal.backends.postgresql.guard import Guard
from dal.backends.postgresql.schema_connection import PostgresSchemaConnection, open_schema
from dal.errors import SchemaError
from dal.schema.connection import StatementError
from dal.testing.reaching import reached
from tests.engines import honesty, postgres

SCRATCHES = """
    SELECT datname::text FROM pg_database WHERE datname LIKE 'dal\\_scratch\\_%'
    UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'dal\\_scratch\\_%'
"""
IDENTITY = "SELECT current_database()::text"


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.OwnServer]:
    """A server of this module's own: nobody else makes scratch databases there."""
    try:
        own = postgres.OwnServer(postgres.find_binaries())
    except (postgres.EngineMissingError, RuntimeError, OSError) as error:
        honesty.not_tested("postgresql", str(error))
    yield own
    own.close()


@pytest.fixture
def url(server: postgres.OwnServer) -> str:
    return server.create_database()


@pytest.fixture
def role(admin: psycopg.Connection[Any]) -> str:
    """A role of this test's own, without any privilege but to log in."""
    name = f"role_{uuid.uuid4().hex[:8]}"
    make(admin, "CREATE ROLE {} LOGIN", name)
    return name


@pytest_asyncio.fixture
async def connection(url: str) -> AsyncIterator[PostgresSchemaConnection]:
    async with open_schema(url) as opened:
        yield opened


@pytest.fixture
def admin(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as opened:
        yield opened


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def make(admin: psycopg.Connection[Any], statement: LiteralString, *names: str) -> None:
    admin.execute(sql.SQL(statement).format(*[sql.Identifier(name) for name in names]))


async def scratches(connection: PostgresSchemaConnection) -> list[object]:
    return [row[0] for row in await connection.fetch(SCRATCHES)]


async def test_a_scratch_is_empty_and_another_database_and_goes_away(connection: PostgresSchemaConnection) -> None:
    await connection.run([("CREATE TABLE real (id int)", ())])
    async with connection.scratch() as scratch:
        assert not scratch.confined
        assert (scratch.engine, scratch.place) == ("postgresql", "postgresql")
        assert await scratch.fetch("SELECT to_regclass('real')::text") == [(None,)]
        await scratch.run([("CREATE TABLE real (id int)", ()), ("DROP TABLE public.real", ())])
        await scratch.run_alone("CREATE TABLE other AS SELECT 1")
        assert await scratches(connection) == [(await scratch.fetch(IDENTITY))[0][0]]
        assert str((await scratches(connection))[0]) in scratch.address
    assert await scratches(connection) == []
    assert await connection.fetch("SELECT count(*) FROM real") == [(0,)]


async def test_it_goes_away_after_an_error_and_although_somebody_is_connected(
    connection: PostgresSchemaConnection, server: postgres.OwnServer
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with connection.scratch() as scratch:
            stranger = psycopg.connect(server.url(str((await scratch.fetch(IDENTITY))[0][0])))
            raise ZeroDivisionError
    assert await scratches(connection) == []
    with pytest.raises(psycopg.OperationalError):
        stranger.execute("SELECT 1")
    stranger.close()


async def test_it_goes_away_when_its_user_is_cancelled(connection: PostgresSchemaConnection) -> None:
    inside = asyncio.Event()

    async def use() -> None:
        async with connection.scratch() as scratch:
            inside.set()
            await scratch.run([("SELECT pg_sleep(3600)", ())])

    task = asyncio.create_task(use())
    await reached(inside, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await scratches(connection) == []


async def test_scratches_within_scratches_and_several_at_once(connection: PostgresSchemaConnection) -> None:
    async with connection.scratch() as first, connection.scratch() as second, first.scratch() as third:
        names = {str((await scratch.fetch(IDENTITY))[0][0]) for scratch in (first, second, third)}
        assert set(await scratches(connection)) == names
        assert len(names) == 3
    assert await scratches(connection) == []


LOCALES = [
    "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
    "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk' LOCALE 'C'",
    "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'und' ICU_RULES '&V << w <<< W' LOCALE 'C'",
    "ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
]


@pytest.mark.parametrize("locale", LOCALES)
async def test_it_has_the_encoding_and_collation_of_the_real_one(
    server: postgres.OwnServer, url: str, admin: psycopg.Connection[Any], locale: str
) -> None:
    there = f"{name_of(url)}_there"
    try:
        admin.execute(f"CREATE DATABASE {there} TEMPLATE template0 {locale}".encode())
    except (psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidParameterValue) as e:
        pytest.skip(f"not on this server: {e}")
    query = (
        "SELECT encoding::text, datcollate::text, datctype::text, to_jsonb(d) ->> 'datlocprovider', "
        "to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticurules' "
        "FROM pg_database d WHERE datname = current_database()"
    )
    async with open_schema(server.url(there)) as connection, connection.scratch() as scratch:
        assert await scratch.fetch(query) == await connection.fetch(query)


# What killed runs left ------------------------------------------------------------------------------------------------


async def test_old_ones_that_nobody_uses_are_removed_and_others_stay(
    connection: PostgresSchemaConnection, admin: psycopg.Connection[Any], server: postgres.OwnServer
) -> None:
    row = admin.execute("SELECT extract(epoch FROM now())::bigint").fetchone()
    assert row is not None
    old, young = row[0] - 3700, row[0] - 3500
    used = f"dal_scratch_{old}_00000001"
    staying = [used, f"dal_scratch_{young}_00000002", f"dal_scratch_{young}_00000003", "dal_scratch_mine"]
    staying.append(f"dal_scratch_{old}_00000005")
    for name in (f"dal_scratch_{old}_00000000", staying[0], staying[1], staying[3]):
        make(admin, "CREATE DATABASE {}", name)
    for name in (f"dal_scratch_{old}_00000004", staying[2], staying[4]):
        make(admin, "CREATE SCHEMA {}", name)
        make(admin, "CREATE TABLE {}.t (id int)", name)
    # Who uses a schema that stands in calls its session by its name.
    with psycopg.connect(server.url(used)), psycopg.connect(server.url(), application_name=staying[4]):
        async with connection.scratch():
            pass
        assert sorted(map(str, await scratches(connection))) == sorted(staying)
    for name in (staying[0], staying[1], staying[3]):
        make(admin, "DROP DATABASE {}", name)


async def test_those_of_another_role_do_not_stand_in_the_way(
    server: postgres.OwnServer, admin: psycopg.Connection[Any], role: str
) -> None:
    make(admin, "CREATE DATABASE {}", "dal_scratch_1_00000000")
    make(admin, "ALTER ROLE {} CREATEDB", role)
    async with open_schema(server.url("postgres", user=role)) as connection:
        async with connection.scratch() as scratch:
            assert not scratch.confined
        assert await scratches(connection) == ["dal_scratch_1_00000000"]
    make(admin, "DROP DATABASE {}", "dal_scratch_1_00000000")


# Where unqualified names lead -----------------------------------------------------------------------------------------


async def test_a_schema_that_was_there_before_the_migrations_is_there_too(
    server: postgres.OwnServer, url: str, admin: psycopg.Connection[Any]
) -> None:
    name = name_of(url)
    make(admin, "CREATE SCHEMA {}", "My App")
    admin.execute(
        sql.SQL("ALTER DATABASE {} SET search_path = {}, public").format(*map(sql.Identifier, (name, "My App")))
    )
    query = "SELECT current_schema()::text, current_setting('search_path')"
    async with open_schema(server.url(name)) as opened, opened.scratch() as scratch:
        assert await scratch.fetch(query) == [("My App", '"My App", public')]


async def test_a_schema_that_migrations_made_is_left_to_them(
    server: postgres.OwnServer, url: str, admin: psycopg.Connection[Any]
) -> None:
    name = name_of(url)
    admin.execute(sql.SQL("ALTER DATABASE {} SET search_path = app, public").format(sql.Identifier(name)))
    admin.execute("CREATE TABLE public.dal_migrations (name text); CREATE SCHEMA app")
    async with open_schema(server.url(name)) as opened, opened.scratch() as scratch:
        assert await scratch.fetch("SELECT current_schema()::text") == [("public",)]
        await scratch.run([("CREATE SCHEMA app", ())])


# Without the privilege ------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def modest(
    server: postgres.OwnServer, url: str, admin: psycopg.Connection[Any], role: str
) -> AsyncIterator[PostgresSchemaConnection]:
    """The connection of a role that owns its tables and may make schemas, but no databases."""
    make(admin, "GRANT CREATE ON DATABASE {} TO {}", name_of(url), role)
    make(admin, "GRANT CREATE ON SCHEMA public TO {}", role)
    async with open_schema(f"{server.url(name_of(url), user=role)}?options=-csearch_path%3Dpublic") as opened:
        await opened.run([("CREATE TABLE users (id int)", ()), ("INSERT INTO users VALUES (1)", ())])
        yield opened


async def test_a_schema_stands_in_where_no_database_may_be_made(
    modest: PostgresSchemaConnection, caplog: pytest.LogCaptureFixture
) -> None:
    async with modest.scratch() as scratch:
        assert scratch.confined
        assert "no scratch database" in caplog.text
        assert await scratches(modest) == [(await scratch.fetch("SELECT current_schema()::text"))[0][0]]
        assert await scratch.fetch("SELECT to_regclass('users')::text") == [(None,)]
        await scratch.run(
            [
                ("CREATE TABLE users (id int, role text, schema text)", ()),
                ("INSERT INTO users VALUES (2, 'public', 'The public. All of it')", ()),
                ("CREATE UNIQUE INDEX i ON users (id)", ()),
                ("DROP TABLE IF EXISTS files CASCADE", ()),
                ("COMMENT ON TABLE users IS 'it''s -- public'", ()),
                ("SET LOCAL lock_timeout = '1s'", ()),
            ]
        )
        await scratch.run_alone("CREATE INDEX CONCURRENTLY j ON users (role)")
        await scratch.run([("DROP TABLE users", ())])
    assert await scratches(modest) == []
    assert await modest.fetch("SELECT id FROM users") == [(1,)]


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE public.users",
        'DROP TABLE "public" . "users"',
        "DROP TABLE Public.users",
        "DELETE FROM public /* . */ . users",
        "DO $$ BEGIN EXECUTE 'DROP TABLE public.users'; END $$",
        "SET search_path = public",
        "SELECT set_config('search_path', 'public', false)",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql SET search_path = public AS 'DELETE FROM users'",
        "DROP SCHEMA public CASCADE",
        "CREATE TABLE t (id int); DROP TABLE public.users",
        "ALTER TABLE t SET SCHEMA public",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
        "DROP OWNED BY modest",
        "REASSIGN OWNED BY modest TO dal",
        "DROP ROLE modest",
        "CREATE EXTENSION plpgsql",
        "ALTER DATABASE type SET work_mem = 1",
        "GRANT dal TO modest",
        "SET ROLE dal",
        "SET SESSION AUTHORIZATION dal",
        "DROP EVENT TRIGGER x",
        'INSERT INTO "My App".t VALUES (1)',
    ],
)
def test_nothing_reaches_beyond_a_schema_that_stands_in(statement: str) -> None:
    with pytest.raises(StatementError, match="CREATEDB"):
        Guard(["public", "My App"]).require_inside(0, statement)


async def test_what_might_reach_beyond_it_is_not_run(modest: PostgresSchemaConnection) -> None:
    async with modest.scratch() as scratch:
        with pytest.raises(StatementError, match="CREATEDB") as caught:
            await scratch.run([("SELECT 1", ()), ("DROP TABLE public.users", ())])
        assert caught.value.index == 1
        with pytest.raises(StatementError, match="CREATEDB"):
            await scratch.run_alone("DROP TABLE public.users")
    assert await modest.fetch("SELECT id FROM users") == [(1,)]


async def test_a_scratch_that_may_be_made_but_not_entered_is_a_schema_too(
    server: postgres.OwnServer, url: str, admin: psycopg.Connection[Any], modest: PostgresSchemaConnection, role: str
) -> None:
    rules = server.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host {name_of(url)} {role} all trust\nhost all {role} all reject\n{before}")
    make(admin, "ALTER ROLE {} CREATEDB", role)
    admin.execute("SELECT pg_reload_conf()")
    async with modest.scratch() as scratch:
        assert scratch.confined
        assert len(await scratches(modest)) == 1
    assert await scratches(modest) == []


async def test_without_any_privilege_the_refusal_names_it(server: postgres.OwnServer, url: str, role: str) -> None:
    async with open_schema(server.url(name_of(url), user=role)) as opened:
        with pytest.raises(SchemaError, match="neither CREATEDB nor CREATE on this database"):
            await opened.scratch().__aenter__()
