"""Two stores for the commands of `dal move`: a source with rows of every table, and where it is to go."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from dal import DataAccess, create_data_access
from dal.cli.app import app
from dal.factory import create_store
from dal.ops import Count
from dal.replica import Gate, Movable
from dal.tables import TABLES
from tests.move.pairs import COUNTS, seed

ROWS = sum(COUNTS.values())


class Stores(NamedTuple):
    """Addresses of both stores."""

    source: str
    target: str

    @property
    def options(self) -> tuple[str, ...]:
        return ("--from", self.source, "--to", self.target)


def make_source(template: Path, path: Path) -> str:
    """A SQLite store with rows of every table."""
    shutil.copy(template, path)
    url = f"sqlite:{path}"

    async def fill() -> None:
        store = create_store(url)
        await store.open()
        await seed(store)
        await store.close()

    asyncio.run(fill())
    return url


@pytest.fixture
def stores(tmp_path: Path, sqlite_with_schema: Path) -> Stores:
    """SQLite to SQLite; the target is not there yet."""
    return Stores(make_source(sqlite_with_schema, tmp_path / "source.db"), f"sqlite:{tmp_path / 'target.db'}")


@pytest.fixture(scope="session")
def _verified_once(tmp_path_factory: pytest.TempPathFactory, sqlite_with_schema: Path) -> Path:
    """A directory with both stores of a verified move."""
    place = tmp_path_factory.mktemp("verified")
    source = make_source(sqlite_with_schema, place / "source.db")
    options = ("--from", source, "--to", f"sqlite:{place / 'target.db'}")
    done = CliRunner().invoke(app, ["move", "start", *options, "--exit-when-verified"])
    assert done.exit_code == 0, done.output
    return place


@pytest.fixture
def verified(tmp_path: Path, _verified_once: Path) -> Stores:
    """A move that can be switched; no mover is running."""
    for name in ("source.db", "target.db"):
        shutil.copy(_verified_once / name, tmp_path / name)
    return Stores(f"sqlite:{tmp_path / 'source.db'}", f"sqlite:{tmp_path / 'target.db'}")


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutovers that wait for no other instance of an application: there is none."""
    monkeypatch.setattr("dal.move.cutover.GATE_IDLE_AGE_S", 0)
    monkeypatch.setattr("dal.move.cutover.GATE_MAX_AGE_S", 0)


def gates(url: str) -> dict[str, Gate]:
    async def read() -> dict[str, Gate]:
        store = create_store(url, auto_migrate=False)
        assert isinstance(store, Movable)
        await store.open()
        try:
            return dict(await store.replica().gates())
        finally:
            await store.close()

    return asyncio.run(read())


def counts(url: str) -> dict[str, int]:
    async def read() -> dict[str, int]:
        store = create_store(url, auto_migrate=False)
        await store.open()
        try:
            found = {name: (await store.read(Count(name)))[0][0] for name in TABLES}
        finally:
            await store.close()
        return {name: int(str(count)) for name, count in found.items()}

    return asyncio.run(read())


def new_user(url: str, name: str) -> str:
    """One more write, as an application's that knows of no move; its id."""

    async def write() -> str:
        data_access: DataAccess = create_data_access(url)
        async with data_access:
            return (await data_access.users.create(name=name)).id

    return asyncio.run(write())
