"""A PostgreSQL store of each test's own, bare, on the run's database or on a server that the test may kill."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import LiteralString, Protocol, TypeAlias
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from psycopg import sql

from dal.backends.postgresql import postgresql_store
from dal.backends.sql import SqlStore
from tests.engines import honesty, postgres
from tests.engines.pgbouncer import PgBouncer
from tests.postgresql.moves import Connection, connect
from tests.subjects import postgres_with_schema

__all__ = ["postgres_with_schema"]


def migrate(url: str) -> None:
    """Brings the schema of that database up."""

    async def run() -> None:
        store = postgresql_store(url, auto_migrate=True)
        await store.open()
        await store.close()

    asyncio.run(run())


@pytest.fixture
def url(postgres_with_schema: str) -> str:
    """The run's database, with the schema and without rows."""
    postgres.clean(postgres_with_schema)
    return postgres_with_schema


@pytest.fixture
def own_url(own_postgres: postgres.OwnServer) -> str:
    """A database with the schema on this test's own server."""
    made = own_postgres.create_database()
    migrate(made)
    return made


@pytest.fixture
def pgbouncer(own_url: str) -> Iterator[PgBouncer]:
    """PgBouncer before this test's own server."""
    try:
        pooler = PgBouncer(own_url)
    except postgres.EngineMissingError as error:
        honesty.not_tested("pgbouncer", str(error))
    yield pooler
    pooler.close()


@pytest_asyncio.fixture
async def foreign(url: str) -> AsyncIterator[Connection]:
    """Another program's connection."""
    async with await connect(url) as connection:
        yield connection


#: Makes a role with the rights that a GRANT gives it.
MakeRole: TypeAlias = Callable[[LiteralString], Awaitable[str]]


class OpenStore(Protocol):
    """Opens a store that is closed when the test ends, also when it fails."""

    async def __call__(self, conninfo: str, *, max_connections: int = 20, auto_migrate: bool = False) -> SqlStore: ...


@pytest_asyncio.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    opened: list[SqlStore] = []

    async def open_one(conninfo: str, *, max_connections: int = 20, auto_migrate: bool = False) -> SqlStore:
        made = postgresql_store(conninfo, max_connections=max_connections, auto_migrate=auto_migrate)
        opened.append(made)
        await made.open()
        return made

    yield open_one
    for store in opened:
        await store.close()


@pytest_asyncio.fixture
async def store(url: str, open_store: OpenStore) -> SqlStore:
    return await open_store(url)


@pytest_asyncio.fixture
async def role(url: str, foreign: Connection) -> AsyncIterator[MakeRole]:
    """Makes a role of this test's own, with the rights that a GRANT gives it; the address with which it connects."""
    made: list[sql.Identifier] = []

    async def make(grant: LiteralString) -> str:
        name = f"role_{uuid.uuid4().hex[:8]}"
        made.append(sql.Identifier(name))
        await foreign.execute(sql.SQL("CREATE ROLE {} LOGIN").format(made[-1]))
        await foreign.execute(sql.SQL(grant).format(role=made[-1]))
        parts = urlsplit(url)
        return parts._replace(netloc=f"{name}@{parts.netloc.rpartition('@')[2]}").geturl()

    yield make
    for name in made:
        await foreign.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))
