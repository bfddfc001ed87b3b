"""Instances of an application that takes part in a move between two empty stores, in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from dal import DataAccess, Settings, create_data_access
from dal.move.routing import Router
from dal.store import Store
from tests.move.moving import Move, start
from tests.move.replicas import MakeSite

OpenInstance = Callable[[], Awaitable[DataAccess]]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in map(str.upper, Settings.model_fields):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def instances_look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.move.routes.GATE_IDLE_AGE_S", 0.0)
    monkeypatch.setattr("dal.move.routes.GATE_MAX_AGE_S", 0.01)


@pytest_asyncio.fixture
async def move(make_site: MakeSite) -> Move:
    """Two empty stores, SQLite and SQLite, on their way."""
    return await start(await make_site("sqlite"), await make_site("sqlite"))


@pytest_asyncio.fixture
async def instance(move: Move, tmp_path: Path) -> AsyncIterator[OpenInstance]:
    """Opens instances of the application that take part in the move."""
    made: list[DataAccess] = []
    settings = Settings(
        migration_enable_dual_write=True,
        migration_target_url=f"sqlite://{tmp_path / '1' / 'dal.db'}",
    )

    async def open_one() -> DataAccess:
        access = create_data_access(f"sqlite://{tmp_path / '0' / 'dal.db'}", settings=settings)
        made.append(await access.open())
        return access

    yield open_one
    for access in made:
        await access.close()


def router_of(access: DataAccess) -> Router:
    store: Store = access.store
    while not isinstance(store, Router):
        store = store.inner  # type: ignore[attr-defined]
    return store


async def pushed(access: DataAccess) -> None:
    """Waits until what this instance wrote was pushed."""
    while (task := router_of(access)._pusher._task) is not None:
        await asyncio.wait([task])
