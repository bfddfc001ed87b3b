"""A live move on PostgreSQL whose application, or whose mover, connects as a role that does not own the tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias, cast

import psycopg
import pytest
import pytest_asyncio

from dal import DataAccess, create_data_access
from dal.backends.sql import SqlStore
from dal.config import Settings
from dal.factory import create_store
from dal.move.ending import retire
from dal.replica import UNITS, Movable
from dal.store import Store
from tests.move.moving import Move, quick, start
from tests.move.replicas import Site
from tests.postgresql.conftest import MakeRole, OpenStore
from tests.postgresql.moves import MOVER, connect, gates, rows

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")
APPLICATION: Final = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
Instance: TypeAlias = Callable[[str, str], Awaitable[DataAccess]]


@pytest_asyncio.fixture
async def instance(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Instance]:
    """Opens an instance of the application that takes part in a move between these addresses."""
    monkeypatch.setattr("dal.move.routes.GATE_IDLE_AGE_S", 0.0)
    monkeypatch.setattr("dal.move.routes.GATE_MAX_AGE_S", 0.01)
    opened: list[DataAccess] = []

    async def open_one(source: str, target: str) -> DataAccess:
        settings = Settings(migration_enable_dual_write=True, migration_target_url=target)
        access = create_data_access(source, settings=settings, auto_migrate=False)
        opened.append(await access.open())
        return access

    yield open_one
    for access in opened:
        await access.close()


@pytest_asyncio.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[tuple[str, Store]]:
    url = f"sqlite:{tmp_path / 'other.db'}"
    store = create_store(url)
    await store.open()
    yield url, store
    await store.close()


def site(backend: str, store: Store) -> Site:
    def nobody(*_statements: str) -> list[tuple[object, ...]]:
        raise NotImplementedError

    return Site(backend, store, cast(Movable, store).replica(), nobody)


@pytest.mark.parametrize("is_owner", [True, False], ids=["owner", "foreign"])
@pytest.mark.parametrize("is_source", [True, False], ids=["from PostgreSQL", "to PostgreSQL"])
async def test_an_application_of_another_role_takes_part_in_a_move(
    url: str,
    role: MakeRole,
    open_store: OpenStore,
    sqlite: tuple[str, Store],
    instance: Instance,
    is_source: bool,
    is_owner: bool,
) -> None:
    application = await role(APPLICATION)
    ours, theirs = (
        site("postgresql", await open_store(url if is_owner else await role(MOVER))),
        site("sqlite", sqlite[1]),
    )
    move = await start(*((ours, theirs) if is_source else (theirs, ours)))
    try:
        await _live_through(
            move, await instance(*((application, sqlite[0]) if is_source else (sqlite[0], application)))
        )
        await retire(move.sides)
        if is_source:  # the gates that are left say that the store is another one
            left = await instance(application, sqlite[0])
            assert [found.name for found in (await left.users.list()).items] == ["Ada"]
    finally:
        for one in (ours, theirs):
            await one.replica.uninstall(keep_fence=False)


async def test_a_role_with_some_rights_sees_the_gates_and_nothing_of_the_registry(
    url: str, role: MakeRole, store: SqlStore
) -> None:
    replica = store.replica()
    reader = await role("GRANT SELECT ON users, messages TO {role}")
    await replica.install(gates())
    try:
        async with await connect(reader) as connection:
            assert len(await rows(connection, "SELECT unit FROM dal_gate")) == len(UNITS)
            for refused in ("SELECT * FROM dal_sync", "UPDATE dal_gate SET notes = '{}'"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(refused.encode())
    finally:
        await replica.uninstall(keep_fence=False)


async def _live_through(move: Move, dal: DataAccess) -> None:
    """The application writes at every step of the move, there and back and there."""
    user = await dal.users.create(name="Ada")
    await dal.memory.set(user.id, "t", "k", 0)
    await move.settle()
    for number, to in enumerate(("target", "source", "target"), 1):
        await move.switch(to, "memory", "chats", "files", "users", "audit")  # type: ignore[arg-type]
        await dal.memory.set(user.id, "t", "k", number)
        chat = await dal.chats.create(f"chat-{number}", user_id=user.id)
        await dal.messages.add(chat.chat_id, "user", "How much of it is done?")
        await dal.audit.record("looked", user_id=user.id)
        assert await dal.memory.get(user.id, "t", "k") == number
        await move.settle()
        assert await move.differences() == 0
    assert len(await move.target.rows("messages")) == 3
