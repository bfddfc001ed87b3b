"""Open stores with the moves' side of them, on every backend that has one, and a small mover for the tests.

A site is a store with its replica and a way past the library: `raw` runs SQL as somebody else's program would. Gates
that a test leaves installed are taken away at its end.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, cast

import psycopg
import pytest
import pytest_asyncio

from dal.backends.file import FileStore
from dal.errors import UnsupportedError
from dal.factory import create_store
from dal.move.canonical import row_hash
from dal.ops import Insert, Ref, Select, Value
from dal.replica import EPOCH, UNITS, Applied, Copied, Entry, Gate, Key, Movable, Replica, Role
from dal.store import Store
from dal.tables import TABLES
from tests.engines.d1 import D1Database, D1Engine
from tests.rows import sql_literal
from tests.subjects import url_of

#: What a backend raises where somebody else's write is refused.
REFUSALS: Final = (sqlite3.Error, psycopg.Error, RuntimeError)
Fields: TypeAlias = "Mapping[str, Value | Ref]"


def _is_movable(backend: str) -> bool:
    if backend == "file":
        return isinstance(FileStore(Path("nowhere")), Movable)
    try:
        cast(Movable, create_store(f"{backend}://127.0.0.1/none")).replica()
    except UnsupportedError:
        return False
    return True


SQL_BACKENDS: Final = ("sqlite", "d1", *(name for name in ("postgresql",) if _is_movable(name)))
BACKENDS: Final = (*SQL_BACKENDS, *(name for name in ("file",) if _is_movable(name)))


async def everything(store: Store, table: str) -> list[Entry]:
    """What the store and its registry have of the table: rows and tombstones, by id."""
    assert isinstance(store, Movable)
    replica = store.replica()
    buckets = [found.bucket for found in await replica.digest(table)]
    known = {entry.id for entry in await replica.bucket(table, buckets)} if buckets else set()
    present = {str(row[0]) for row in await store.read(Select(table, columns=("id",)))}
    return await replica.entries(table, sorted(known | present))


on_sql = pytest.mark.parametrize("backend", SQL_BACKENDS, indirect=True)


@dataclass
class Site:
    """A store, open and empty. raw runs statements past the library, as one transaction; the last one's rows."""

    backend: str
    store: Store
    replica: Replica
    run: Callable[..., list[tuple[object, ...]]]

    async def raw(self, *statements: str) -> list[tuple[object, ...]]:
        return await asyncio.to_thread(self.run, *statements)

    async def insert_raw(self, table: str, row: Fields) -> None:
        """The row as another program's INSERT."""
        await self.raw(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(map(self._literal, row.values()))})")

    def _literal(self, value: object) -> str:
        return sql_literal(value, has_booleans=self.backend == "postgresql")

    async def install(self, role: Role, *, epoch: int | None = None, move: str = "m1") -> None:
        """Gates of all units in this role: a primary in epoch 1, a replica that may become it in epoch 2."""
        side, number = ("source", 1) if role == "primary" else ("target", 0)
        number = number if epoch is None else epoch
        gates = [Gate(unit, move, side, role, number, number + 1 if number else 2, "CAPTURE") for unit in UNITS]  # type: ignore[arg-type]
        await self.replica.install(gates)

    async def insert(self, table: str, *rows: Fields) -> None:
        await self.store.commit([Insert(table, row) for row in rows])

    async def rows(self, table: str) -> list[tuple[Value, ...]]:
        return await self.store.read(Select(table, order=("id",)))

    async def entry(self, table: str, id_: str) -> Entry:
        (found,) = await self.replica.entries(table, [id_])
        return found

    async def dirty(self) -> dict[Key, Entry]:
        """Every dirty entry of every table."""
        found = [entry for table in TABLES for entry in await self.replica.dirty(table, 10_000)]
        return {entry.key: entry for entry in found}

    async def drain(self) -> None:
        """Takes all entries for copied."""
        for entry in (await self.dirty()).values():
            await self.replica.acknowledge([copied(hashed(entry))])


def entry(table: str, row: Fields, version: int = EPOCH + 1) -> Entry:
    """What a mover hands to `apply`."""
    declared = TABLES[table]
    values = tuple(cast(Value, row[name]) for name in declared.names)
    return Entry(table, str(row["id"]), version, values, "dirty", row_hash(declared, values))


def tombstone(table: str, id_: str, version: int = EPOCH + 1) -> Entry:
    return Entry(table, id_, version, None)


def hashed(found: Entry) -> Entry:
    """With the hash of its row, as a mover hands it on."""
    return found._replace(hash=None if found.row is None else row_hash(TABLES[found.table], found.row))


def copied(found: Entry) -> Copied:
    return Copied(found.table, found.id, found.version, found.hash)


async def copy_all(source: Site, target: Site) -> None:
    """Copies everything dirty, one table after the other, and acknowledges it."""
    for table in TABLES:
        found = [hashed(one) for one in await source.replica.dirty(table, 10_000)]
        if found:
            applied = await target.replica.apply(found)
            assert not applied.blockers, applied
            await source.replica.acknowledge([copied(one) for one in found])


async def apply(site: Site, *entries: Entry) -> Applied:
    return await site.replica.apply(list(entries))


def keys(entries: Iterable[Entry]) -> set[Key]:
    return {one.key for one in entries}


# Fixtures ------------------------------------------------------------------------------------------------------------

MakeSite = Callable[[str], Awaitable[Site]]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """A backend that can be moved from and to; a test that asks for it, or for a site, runs once for each."""
    name: str = request.param
    return name


@pytest.fixture
def schemas(backend: str, request: pytest.FixtureRequest) -> None:
    """What empty stores of this backend, and of SQLite, are made from; it takes an event loop of its own to make it."""
    wanted = {"sqlite": "sqlite_with_schema", "d1": "d1_schema", "postgresql": "postgres_with_schema"}
    for name in {"sqlite", backend} & set(wanted):
        request.getfixturevalue(wanted[name])


@pytest_asyncio.fixture
async def make_site(request: pytest.FixtureRequest, tmp_path: Path, schemas: None) -> AsyncIterator[MakeSite]:
    """Opens an empty store of the test's backend, or of SQLite; at most one of PostgreSQL."""
    made: list[Site] = []

    async def make(backend: str) -> Site:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        url = url_of(backend, request, directory)
        store = create_store(url)
        await store.open()
        replica = cast(Movable, store).replica()
        made.append(Site(backend, store, replica, _runner(backend, url, request)))
        return made[-1]

    yield make
    for site in made:
        await site.replica.uninstall(keep_fence=False)
        await site.store.close()


@pytest_asyncio.fixture
async def site(backend: str, make_site: MakeSite) -> Site:
    """One store, without a move."""
    return await make_site(backend)


@pytest_asyncio.fixture
async def primary(site: Site) -> Site:
    """The same, with gates of a source."""
    await site.install("primary")
    return site


@pytest_asyncio.fixture
async def replica(site: Site) -> Site:
    """The same, with gates of a target."""
    await site.install("replica")
    return site


def _runner(backend: str, url: str, request: pytest.FixtureRequest) -> Callable[..., list[tuple[object, ...]]]:
    if backend == "sqlite":
        return lambda *statements: run_sqlite(Path(url.removeprefix("sqlite://")), *statements)
    if backend == "d1":
        engine: D1Engine = request.getfixturevalue("d1_engine")
        database = D1Database(engine.base, engine.account, engine.token, url.rpartition("/")[2])
        return lambda *statements: [tuple(row) for row in engine.query(database, *statements)]
    if backend == "postgresql":
        return lambda *statements: _run_postgres(url, *statements)

    def refuse(*_statements: str) -> list[tuple[object, ...]]:
        raise NotImplementedError("files know no SQL")

    return refuse


def run_sqlite(path: Path, *statements: str, settings: Iterable[str] = ()) -> list[tuple[object, ...]]:
    """As a program that sets nothing but what it wants: foreign keys are off unless it says so."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        for setting in (*settings, "BEGIN IMMEDIATE"):
            connection.execute(setting)
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        connection.execute("COMMIT")
        return rows
    finally:
        connection.close()


def _run_postgres(url: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description is not None else []
        return rows
