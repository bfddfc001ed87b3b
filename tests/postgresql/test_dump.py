"""Backups by pg_dump: what comes back is what was there, whole or not at all, and nobody sees the password."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from dal.backends.postgresql import dump as dump_module
from dal.backends.postgresql.schema_connection import PostgresSchemaConnection, open_schema
from dal.backends.postgresql.tools import Tools, find_tools
from dal.errors import ConfigurationError, CorruptDataError, DalTimeoutError, SchemaError, UnavailableError
from dal.schema.connection import Reader
from tests.engines import honesty, postgres
from tests.engines.pgbouncer import PgBouncer
from tests.postgresql.dumped import CHANGED, CHANGED_BY_SUPERUSER, MADE, MADE_BY_SUPERUSER, do, spoil, whole
from tests.postgresql.waiting import CUT_IT, ONE_WAITS, TIMEOUT_S, WAITING, until


@pytest.fixture(scope="module", autouse=True)
def programs(postgres_server: postgres.PostgresServer) -> None:
    with psycopg.connect(postgres_server.url()) as connection:
        version = connection.info.server_version
    try:
        find_tools(version)
    except ConfigurationError as error:
        honesty.not_tested("pg_dump", str(error))


@pytest.fixture
def url(postgres_server: postgres.PostgresServer) -> str:
    return postgres_server.create_database()


@pytest.fixture
def admin(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as opened:
        yield opened


@pytest_asyncio.fixture
async def connection(url: str) -> AsyncIterator[PostgresSchemaConnection]:
    async with open_schema(url) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.dump"


def read(file: Path) -> tuple[int, bytes]:
    return stat.S_IMODE(file.stat().st_mode), file.read_bytes()


def left(file: Path) -> bool:
    return file.exists()


async def test_what_is_brought_back_is_what_was_there(
    connection: PostgresSchemaConnection, admin: psycopg.Connection[Any], file: Path
) -> None:
    do(admin, MADE + MADE_BY_SUPERUSER)
    before = whole(connection)
    await connection.dump(file)
    assert connection.backup_suffix == file.suffix
    do(admin, CHANGED + CHANGED_BY_SUPERUSER)
    assert whole(connection) != before
    await connection.load(file)
    assert whole(connection) == before
    # Also sessions that were open all the time see it, and the file can be brought back again.
    assert admin.execute("SELECT count(*) FROM users").fetchone() == (2000,)
    await connection.load(file)
    assert whole(connection) == before


async def test_a_database_that_was_empty_is_empty_again(
    connection: PostgresSchemaConnection, admin: psycopg.Connection[Any], file: Path
) -> None:
    before = whole(connection)
    await connection.dump(file)
    do(admin, MADE + MADE_BY_SUPERUSER + CHANGED + CHANGED_BY_SUPERUSER)
    await connection.load(file)
    assert whole(connection) == before


@pytest.mark.parametrize("superuser", [True, False])
async def test_extensions_stay_go_and_come_back(
    postgres_server: postgres.PostgresServer, url: str, admin: psycopg.Connection[Any], file: Path, superuser: bool
) -> None:
    there = {name for (name,) in admin.execute("SELECT name FROM pg_available_extensions")}
    if not {"pg_trgm", "hstore", "citext"} <= there:
        pytest.skip("the server has no contrib extensions")
    name = url.rpartition("/")[2]
    role = f"owner_{name}"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(role)))
    # Made by the superuser: the owner of the database may not drop them, nor comment on them.
    do(admin, "CREATE EXTENSION pg_trgm; CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext;")
    admin.execute(sql.SQL("ALTER SCHEMA ext OWNER TO {}").format(sql.Identifier(role)))
    async with open_schema(url if superuser else postgres_server.url(name, user=role)) as connection:
        await connection.run_alone("CREATE TABLE t (x text, y ext.hstore)")
        await connection.run_alone("CREATE INDEX i ON t USING gin (x gin_trgm_ops)")
        await connection.run_alone("CREATE EXTENSION citext")
        before = whole(connection)
        await connection.dump(file)
        for statement in (
            "DROP EXTENSION citext",
            "CREATE EXTENSION pgcrypto",
            "ALTER TABLE t DROP y",
            "CREATE TABLE ext.late (x int)",
            "GRANT ALL ON SCHEMA ext TO PUBLIC",
        ):
            await connection.run_alone(statement)
        await connection.load(file)
        assert whole(connection) == before


async def test_the_owner_of_a_database_needs_no_superuser(
    postgres_server: postgres.PostgresServer, url: str, admin: psycopg.Connection[Any], file: Path
) -> None:
    name = url.rpartition("/")[2]
    role = f"owner_{name}"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(role)))
    admin.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(role)))
    login = postgres_server.url(name, user=role)
    async with open_schema(login) as connection:
        with psycopg.connect(login, autocommit=True) as owner:
            do(owner, MADE)
            before = whole(connection)
            await connection.dump(file)
            do(owner, CHANGED)
        await connection.load(file)
        assert whole(connection) == before


async def test_odd_names_and_the_callers_own_environment_lead_nobody_astray(
    postgres_server: postgres.PostgresServer,
    admin: psycopg.Connection[Any],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "dal odd 'name'=x 😀"
    admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    for variable, value in {"PGDATABASE": "template1", "PGUSER": "nobody", "PGPORT": "1", "PGHOST": "nowhere"}.items():
        monkeypatch.setenv(variable, value)
    async with open_schema(postgres_server.url(quote(name, safe=""))) as connection:
        await connection.run([("CREATE TABLE t AS SELECT 1 AS x", ())])
        await connection.dump(file)
        await connection.run([("DROP TABLE t", ())])
        await connection.load(file)
        assert await connection.fetch("SELECT x FROM t") == [(1,)]
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


# One moment -----------------------------------------------------------------------------------------------------------


async def test_looking_shows_just_what_the_file_holds(
    connection: PostgresSchemaConnection, admin: psycopg.Connection[Any], file: Path
) -> None:
    do(admin, "CREATE TABLE t AS SELECT 1 AS x")
    seen: list[object] = []

    async def look(reader: Reader) -> None:
        do(admin, "INSERT INTO t VALUES (2)")
        await connection.run([("INSERT INTO t VALUES (3)", ())])
        seen.extend(await reader.fetch("SELECT x FROM t WHERE x > %s", (0,)))

    await connection.dump(file, look=look)
    assert seen == [(1,)]
    await connection.load(file)
    assert await connection.fetch("SELECT x FROM t") == seen


async def test_what_looking_raises_ends_the_dump(connection: PostgresSchemaConnection, file: Path) -> None:
    async def look(reader: Reader) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await connection.dump(file, look=look)
    assert not left(file)


# The file -------------------------------------------------------------------------------------------------------------


async def test_the_file_is_new_and_ones_own(connection: PostgresSchemaConnection, file: Path) -> None:
    before = os.umask(0)
    try:
        await connection.dump(file)
    finally:
        os.umask(before)
    mode, content = read(file)
    assert mode == 0o600
    with pytest.raises(UnavailableError, match="File exists"):
        await connection.dump(file)
    assert read(file) == (mode, content)
    with pytest.raises(UnavailableError, match="No such file"):
        await connection.dump(file.parent / "nowhere" / "x.dump")


async def test_a_dump_that_fails_leaves_no_file(
    postgres_server: postgres.PostgresServer, url: str, admin: psycopg.Connection[Any], file: Path
) -> None:
    name = url.rpartition("/")[2]
    role = f"poor_{name}"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    do(admin, "CREATE TABLE secret (x int)")
    async with open_schema(postgres_server.url(name, user=role)) as connection:
        with pytest.raises(UnavailableError, match=r"no backup was made: .*secret"):
            await connection.dump(file)
    assert not left(file)


@pytest.mark.parametrize("damage", ["cut short", "cut in the middle", "changed", "empty", "another", "missing"])
async def test_a_damaged_file_is_refused_and_nothing_changes(
    connection: PostgresSchemaConnection, admin: psycopg.Connection[Any], url: str, file: Path, damage: str
) -> None:
    do(admin, MADE)
    await connection.dump(file)
    spoil(file, damage)
    do(admin, CHANGED)
    before = whole(connection)
    with psycopg.connect(url) as reader:
        # Found before anything is touched: nobody has to let go of a table for it.
        reader.execute("SELECT * FROM users")
        with pytest.raises(CorruptDataError, match="nothing was restored"):
            await connection.load(file)
    assert whole(connection) == before


async def test_a_file_that_is_damaged_after_it_was_checked_changes_nothing(
    connection: PostgresSchemaConnection,
    admin: psycopg.Connection[Any],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    do(admin, MADE)
    await connection.dump(file)
    do(admin, CHANGED)
    before = whole(connection)
    check = dump_module._whole

    async def check_and_spoil(tools: Tools, path: Path, arguments: Sequence[str], *, keep: bool = True) -> str:
        found = await check(tools, path, arguments, keep=keep)
        if not keep:
            spoil(path, "cut short")
        return found

    monkeypatch.setattr(dump_module, "_whole", check_and_spoil)
    with pytest.raises(CorruptDataError, match="nothing was restored"):
        await connection.load(file)
    assert whole(connection) == before


async def test_what_the_server_refuses_changes_nothing(
    connection: PostgresSchemaConnection, admin: psycopg.Connection[Any], file: Path, url: str
) -> None:
    role = sql.Identifier(f"gone_{url.rpartition('/')[2]}")
    do(admin, MADE)
    admin.execute(sql.SQL("CREATE ROLE {}; ALTER TABLE part OWNER TO {}").format(role, role))
    await connection.dump(file)
    admin.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(role, role))
    before = whole(connection)
    with pytest.raises(SchemaError, match=r"nothing was restored: role \"gone_.*\" does not exist"):
        await connection.load(file)
    assert whole(connection) == before


# Others at work -------------------------------------------------------------------------------------------------------


async def test_a_table_in_use_is_waited_for_and_then_given_up(
    connection: PostgresSchemaConnection, url: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump_module, "_PREAMBLE", dump_module._PREAMBLE.replace("= 10000", "= 50"))
    await connection.run([("CREATE TABLE t AS SELECT 1 AS x", ())])
    await connection.dump(file)
    with psycopg.connect(url) as holder:
        holder.execute("INSERT INTO t VALUES (2)")
        with pytest.raises(DalTimeoutError, match="a table is in use") as caught:
            await connection.load(file)
    assert caught.value.retryable
    assert await connection.fetch("SELECT x FROM t") == [(1,), (2,)]


NOBODY = f"SELECT count(*) = 0 {WAITING}"


async def test_who_cancels_a_dump_ends_the_program(connection: PostgresSchemaConnection, url: str, file: Path) -> None:
    await connection.run([("CREATE TABLE t AS SELECT 1 AS x", ())])
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE t")
        task = asyncio.create_task(connection.dump(file))
        await until(url, ONE_WAITS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The server notices when it has the lock at the latest.
    await until(url, NOBODY)
    assert not left(file)


async def test_who_cancels_a_load_changes_nothing(connection: PostgresSchemaConnection, url: str, file: Path) -> None:
    await connection.run([("CREATE TABLE t AS SELECT 1 AS x", ())])
    await connection.dump(file)
    with psycopg.connect(url) as holder:
        holder.execute("INSERT INTO t VALUES (2)")
        task = asyncio.create_task(connection.load(file))
        await until(url, ONE_WAITS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(url, NOBODY)
    assert await connection.fetch("SELECT x FROM t") == [(1,), (2,)]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_load_of_more_than_the_pipes_hold_ends_when_it_fails(
    connection: PostgresSchemaConnection, url: str, file: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    if not is_cancelled:
        monkeypatch.setattr(dump_module, "_PREAMBLE", dump_module._PREAMBLE.replace("= 10000", "= 50"))
    await connection.run([("CREATE TABLE t AS SELECT repeat('x', 1000000) AS x FROM generate_series(1, 3)", ())])
    await connection.dump(file)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT FROM t")
        async with asyncio.timeout(TIMEOUT_S):
            task = asyncio.create_task(connection.load(file))
            if is_cancelled:
                await until(url, ONE_WAITS)
                task.cancel()
            with pytest.raises(asyncio.CancelledError if is_cancelled else DalTimeoutError):
                await task
    assert await connection.fetch("SELECT length(x) FROM t") == [(1_000_000,)] * 3


async def test_a_load_that_is_cut_changes_nothing(connection: PostgresSchemaConnection, url: str, file: Path) -> None:
    await connection.run([("CREATE TABLE t AS SELECT 1 AS x", ())])
    await connection.dump(file)
    with psycopg.connect(url) as holder:
        holder.execute("INSERT INTO t VALUES (2)")
        task = asyncio.create_task(connection.load(file))
        await until(url, CUT_IT)
        with pytest.raises(UnavailableError) as caught:
            await task
        assert caught.value.outcome == "not_applied"
    assert await connection.fetch("SELECT x FROM t") == [(1,), (2,)]


async def test_a_pooler_is_no_place_for_pg_dump(pgbouncer: PgBouncer, file: Path) -> None:
    async with open_schema(pgbouncer.url) as connection:
        for verb in (connection.dump(file), connection.load(file)):
            with pytest.raises(ConfigurationError, match="the address of the server itself"):
                await verb
    assert not left(file)


# The programs ---------------------------------------------------------------------------------------------------------


async def test_the_password_reaches_the_program_and_no_command_line(
    postgres_server: postgres.PostgresServer, url: str, file: Path
) -> None:
    if not postgres_server.owned or not any(command_lines()):
        pytest.skip("needs a role with a password, and /proc")
    name = url.rpartition("/")[2]
    login = postgres_server.url(name, user=postgres.PASSWORD_ROLE, password=postgres.PASSWORD)
    async with open_schema(login) as connection:
        await connection.run([("CREATE TABLE t AS SELECT 1 AS x", ())])
        with psycopg.connect(url) as holder:
            holder.execute("LOCK TABLE t")
            task = asyncio.create_task(connection.dump(file))
            await until(url, ONE_WAITS)
            lines = [line for line in command_lines() if str(file) in line]
        await task
        assert len(lines) == 1
        assert "pg_dump" in lines[0]
        assert postgres.PASSWORD not in lines[0]
        await connection.load(file)


def command_lines() -> Iterator[str]:
    """Of all processes, where the system shows them."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield (process / "cmdline").read_bytes().decode(errors="replace")
