"""What the shared suites run on: every backend, bare, in each layer, and in the stack that applications get.

A subject names a backend and the layers around it, innermost first. The fixture `store_url` gives the subject's backend
an empty store of its own; modules that use these fixtures import them into their conftest.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast

import pytest
import pytest_asyncio
from opentelemetry.sdk.metrics import MeterProvider

from dal.config import Settings
from dal.factory import create_store
from dal.layers.group import GroupCommit
from dal.layers.metrics import Metrics
from dal.layers.retry import Retry
from dal.move.mover import begin
from dal.move.routing import Router
from dal.move.sides import Sides
from dal.ops import Value
from dal.replica import UNITS, Movable
from dal.store import Store
from tests.engines import postgres
from tests.engines.d1 import D1Database, D1Engine
from tests.engines.d1_worker import D1WorkerEngine

BACKENDS: Final = ("memory", "file", "sqlite", "postgresql", "d1")
LAYERS: Final = ("group", "retry", "metrics")
#: Layers of an application in the middle of a move to another SQLite database: everything on the source still, or all
#: of it switched.
MOVING: Final = ("moving",)
SWITCHED: Final = ("switched",)


class Subject(NamedTuple):
    """A backend and the layers around it, innermost first.

    is_worker  D1 behind its companion Worker, on D1's own binding.
    """

    backend: str
    layers: tuple[str, ...]
    is_worker: bool = False

    def __str__(self) -> str:
        if self.is_worker:
            return f"{self.backend}-worker"
        if not self.layers:
            return f"{self.backend}-bare"
        return self.backend if self.layers == LAYERS else f"{self.backend}-{'-'.join(self.layers)}"


#: Every backend as `create_data_access` builds it with a meter; the fast ones also bare and in each single layer.
SUBJECTS: Final = [
    *(Subject(backend, LAYERS) for backend in BACKENDS),
    *(Subject(backend, layers) for backend in ("memory", "sqlite") for layers in ((), *((name,) for name in LAYERS))),
    Subject("d1", LAYERS, is_worker=True),
    *(Subject("sqlite", layers) for layers in (MOVING, SWITCHED)),
]


#: For tests that are too slow to be run in every layer: each backend in the stack that applications get.
on_every_backend = pytest.mark.parametrize(
    "subject", [Subject(backend, LAYERS) for backend in BACKENDS], indirect=True, ids=str
)


def wrap(store: Store, layers: tuple[str, ...]) -> Store:
    """The store inside those layers."""
    for layer in layers:
        if layer == "group":
            store = GroupCommit(store)
        elif layer == "retry":
            store = Retry(store)
        else:
            store = Metrics(store, MeterProvider().get_meter("tests"))
    return store


@pytest.fixture(scope="session")
def postgres_with_schema(postgres_url: str) -> str:
    """The run's database with the schema in it."""

    async def migrate() -> None:
        store = create_store(postgres_url, auto_migrate=True)
        await store.open()
        await store.close()

    asyncio.run(migrate())
    return postgres_url


@pytest.fixture(scope="session")
def sqlite_with_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database with the schema in it, to be copied."""
    place = tmp_path_factory.mktemp("sqlite") / "empty.db"

    async def migrate() -> None:
        store = create_store(f"sqlite://{place}")
        await store.open()
        await store.close()

    asyncio.run(migrate())
    return place


@pytest.fixture(scope="session")
def d1_schema(d1_engine: D1Engine) -> list[str]:
    """Statements that give an empty D1 database the schema: one request, where migrating it would take ten."""
    database = d1_engine.create_database()
    settings = Settings(d1_api_base=database.base, d1_api_token=database.token)

    async def migrate() -> None:
        store = create_store(database.url, settings=settings, auto_migrate=True)
        await store.open()
        await store.close()

    asyncio.run(migrate())
    return d1_engine.copy_of(database)


def url_of(backend: str, request: pytest.FixtureRequest, directory: Path) -> str:
    """The address of an empty store of that backend."""
    if backend == "memory":
        return "memory://"
    if backend == "postgresql":
        url: str = request.getfixturevalue("postgres_with_schema")
        postgres.clean(url)
        return url
    if backend == "file":
        return f"file://{directory / 'data'}"
    if backend == "d1":
        return d1_url(request)
    # A copy of one empty database: making its schema anew for every test would cost a dozen syncs each time.
    shutil.copy(request.getfixturevalue("sqlite_with_schema"), directory / "dal.db")
    return f"sqlite://{directory / 'dal.db'}"


def d1_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty D1 database; the token and where the API is are in the environment."""
    engine: D1Engine = request.getfixturevalue("d1_engine")
    database = engine.create_database()
    engine.query(database, *request.getfixturevalue("d1_schema"))
    return _in_environment(database, request)


def shared_d1_url(request: pytest.FixtureRequest) -> str:
    """The same of the run's own D1 database, for tests that leave its schema alone; empty as well."""
    engine: D1Engine = request.getfixturevalue("d1_engine")
    return _in_environment(engine.emptied_database(request.getfixturevalue("d1_schema")), request)


def _in_environment(database: D1Database, request: pytest.FixtureRequest) -> str:
    environment: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in database.environment.items():
        environment.setenv(name, value)
    return database.url


def d1_worker_url(request: pytest.FixtureRequest) -> str:
    """The address of the database behind the companion Worker, empty; the Worker's own is in the environment."""
    engine: D1WorkerEngine = request.getfixturevalue("d1_worker_engine")
    engine.clean(request.getfixturevalue("d1_schema"))
    environment: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in engine.environment.items():
        environment.setenv(name, value)
    return engine.store_url


@pytest.fixture(params=SUBJECTS, ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    """One backend in its layers; a test that asks for it, or for `store`, runs once for each."""
    chosen: Subject = request.param
    return chosen


@pytest.fixture
def store_url(subject: Subject, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of the subject's store, empty."""
    if subject.backend == "d1":
        yield d1_worker_url(request) if subject.is_worker else shared_d1_url(request)
    else:
        yield url_of(subject.backend, request, tmp_path)
    if subject.backend == "postgresql":
        left = connections_left(request.getfixturevalue("postgres_with_schema"))
        assert not left, f"connections were left behind: {left}"


@pytest_asyncio.fixture
async def store(
    subject: Subject, store_url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    """The subject's store, open and empty."""
    if subject.layers in (MOVING, SWITCHED):
        begun = tmp_path_factory.getbasetemp() / f"sqlite-{subject.layers[0]}"
        made: Store = await _moving(store_url, tmp_path / "target.db", begun, is_switched=subject.layers == SWITCHED)
    else:
        made = wrap(create_store(store_url), subject.layers)
    await made.open()
    yield made
    await made.close()


async def _moving(source_url: str, target: Path, begun: Path, *, is_switched: bool) -> Store:
    """What an application has in a move between these stores, which has begun.

    begun  where this run keeps two databases in that state, made for its first test, to be copied.
    """
    here = Path(source_url.removeprefix("sqlite://"))
    source, target_store = create_store(source_url), create_store(f"sqlite://{target}")
    assert isinstance(source, Movable)
    assert isinstance(target_store, Movable)
    shutil.copy(here, target)
    if not _copied(begun, (here, target)):
        await source.open()
        await target_store.open()
        await _begin(Sides(source.replica(), target_store.replica()), is_switched=is_switched)
        await source.close()
        await target_store.close()
        _keep(begun, (here, target))
    made = Router(GroupCommit(source), GroupCommit(target_store), source_backend=source, target_backend=target_store)
    return Retry(cast(Store, made))


def _copied(begun: Path, to: tuple[Path, Path]) -> bool:
    """Whether there were databases to copy."""
    if not begun.exists():
        return False
    for number, database in enumerate(to):
        shutil.copy(begun / f"{number}.db", database)
    return True


def _keep(begun: Path, databases: tuple[Path, Path]) -> None:
    begun.mkdir()
    for number, database in enumerate(databases):
        shutil.copy(database, begun / f"{number}.db")


async def _begin(sides: Sides, *, is_switched: bool) -> None:
    """A move of everything, which lives on the source still, or on the target already."""
    await begin(sides, tuple(UNITS))
    for unit in UNITS if is_switched else ():
        fence: dict[str, Value] = {"role": "fenced"}
        assert await sides.source.change_gate(unit, expect={"role": "primary"}, change=fence)
        activated: dict[str, Value] = {"role": "primary", "epoch": 2, "phase": "SWITCHED"}
        assert await sides.target.change_gate(unit, expect={"role": "replica", "next_epoch": 2}, change=activated)
        settled: dict[str, Value] = {"role": "replica", "next_epoch": 3, "phase": "SWITCHED"}
        assert await sides.source.change_gate(unit, expect=fence, change=settled)


def connections_left(url: str) -> list[str]:
    """The connections to this database that PostgreSQL still knows, besides the one that asks; each in one line.

    A backend process ends a moment after its client has closed the connection, so it is given that moment: on a busy
    machine it may be many seconds. What is left then is ended, so that it fails one test and not all that follow.
    """
    ask = """SELECT concat_ws(' ', backend_type, pid, application_name, state, now() - backend_start, left(query, 200))
             FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    left: list[str] = []
    connection = postgres.kept_connection(url)
    for _ in range(3000):
        left = [line for (line,) in connection.execute(ask)]
        if not left:
            return []
        connection.execute("SELECT pg_sleep(0.02), pg_stat_clear_snapshot()")
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return left
