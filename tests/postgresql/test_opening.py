"""What goes wrong at opening: each a clear error, in time, and without the password."""

from __future__ import annotations

import socket
import traceback
from time import monotonic

import psycopg
import pytest

from dal.backends.postgresql import postgresql_store
from dal.errors import ConfigurationError, DalError, SchemaError, UnavailableError
from dal.limits import CONNECT_TIMEOUT_S
from tests.engines import postgres
from tests.engines.child import free_port

WRONG = "wr0ng-p4ss"


async def _refused(url: str) -> DalError:
    """The error of opening that store; it came in time, and says the password nowhere, causes included."""
    store = postgresql_store(url)
    started = monotonic()
    with pytest.raises(DalError) as caught:
        await store.open()
    assert monotonic() - started < 2 * CONNECT_TIMEOUT_S + 1
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert WRONG not in told
    assert postgres.PASSWORD not in told
    assert (await store.health()).status == "down"
    await store.close()
    return caught.value


async def test_a_wrong_password_is_a_wrong_setting(own_postgres: postgres.OwnServer) -> None:
    error = await _refused(own_postgres.url(user=postgres.PASSWORD_ROLE, password=WRONG))
    assert isinstance(error, ConfigurationError)
    assert "28P01" in error.message


async def test_a_missing_password_is_a_wrong_setting(own_postgres: postgres.OwnServer) -> None:
    error = await _refused(own_postgres.url(user=postgres.PASSWORD_ROLE))
    assert isinstance(error, ConfigurationError)
    assert "DB_PASSWORD" in error.message


async def test_a_missing_database_is_a_wrong_setting(own_postgres: postgres.OwnServer) -> None:
    error = await _refused(own_postgres.url("nowhere", user=postgres.PASSWORD_ROLE, password=postgres.PASSWORD))
    assert isinstance(error, ConfigurationError)
    assert "3D000" in error.message


async def test_nobody_listening_is_unavailable() -> None:
    error = await _refused(f"postgresql://ada:{WRONG}@127.0.0.1:{free_port()}/app")
    assert isinstance(error, UnavailableError)
    assert error.retryable


async def test_a_server_that_says_nothing_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = await _refused(f"postgresql://ada:{WRONG}@127.0.0.1:{port}/app?connect_timeout=2")
    assert isinstance(error, UnavailableError)


async def test_the_second_of_two_hosts_answers(postgres_server: postgres.PostgresServer, url: str) -> None:
    if not postgres_server.owned:
        pytest.skip("the address of somebody else's server is not ours to change")
    parts = psycopg.conninfo.conninfo_to_dict(url)
    both = f"postgresql://{parts['user']}@127.0.0.1:{free_port()},127.0.0.1:{parts['port']}/{parts['dbname']}"
    store = postgresql_store(both)
    await store.open()
    assert (await store.health()).status == "ok"
    await store.close()


async def test_a_database_without_the_schema_says_so_and_stays_as_it_is(
    postgres_server: postgres.PostgresServer,
) -> None:
    url = postgres_server.create_database()
    error = await _refused(url)
    assert isinstance(error, SchemaError)
    assert "dal schema up" in error.message
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    postgres_server.drop_database(url)


async def test_a_newer_schema_is_refused(postgres_server: postgres.PostgresServer) -> None:
    url = postgres_server.create_database()
    made = postgresql_store(url, auto_migrate=True)
    await made.open()
    await made.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO dal_migrations (name) VALUES ('9999_of_the_future.sql')")
    error = await _refused(url)
    assert isinstance(error, SchemaError)
    assert "9999_of_the_future.sql" in error.message
    postgres_server.drop_database(url)
