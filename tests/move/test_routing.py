"""The application's side of a move: calls go where their unit lives, and a switch is a slow call at worst."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from dal import DataAccess, Settings, create_data_access
from dal.errors import ConfigurationError, DalTimeoutError, FencedError, UnavailableError, UnsupportedError
from dal.factory import create_store
from dal.move.patience import Patience
from dal.move.push import keys_of
from dal.move.recovery import recover
from dal.move.routing import Router
from dal.move.sides import Sides, UnitGates, read_gates
from dal.ops import Compare, Delete, Insert, Op, Select, Update, Upsert
from dal.replica import Key
from dal.store import Store
from dal.testing import rows
from tests.move.moving import ALL, Move, quick, start
from tests.move.replicas import MakeSite

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")
OpenInstance = Callable[[], Awaitable[DataAccess]]


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in map(str.upper, Settings.model_fields):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def _instances_look_often(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_an_instance_pushes_what_it_wrote_without_a_mover(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await dal.memory.set(user.id, "t", "k", {"日本": [1, 2.5, None]})
    await pushed(dal)
    assert len(await move.target.rows("users")) == 1
    assert await move.differences("users", "memory") == 0
    assert await move.source.dirty() == {}


async def test_calls_go_to_the_new_primary_once_their_unit_was_switched(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.switch("target", "memory")
    await dal.memory.set(user.id, "t", "k", 1)
    assert await dal.memory.get(user.id, "t", "k") == 1
    assert len(await move.target.rows("user_memory")) == 1
    await dal.users.update(user.id, name="Ada L.")
    assert (await move.source.rows("users"))[0][3] == "Ada L."


async def test_an_instance_that_was_idle_since_before_the_switch_reads_nothing_stale(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.move.routes.GATE_MAX_AGE_S", 0.05)
    monkeypatch.setattr("dal.move.cutover.GATE_MAX_AGE_S", 0.05)
    idle, busy = await instance(), await instance()
    user = await busy.users.create(name="Ada")
    await busy.memory.set(user.id, "t", "k", 0)
    await move.settle()
    value, stop = 0, asyncio.Event()

    async def write() -> None:
        nonlocal value
        while not stop.is_set():
            await busy.memory.set(user.id, "t", "k", value + 1)
            value += 1

    async def read() -> None:
        while not stop.is_set():
            before = value
            found = await idle.memory.get(user.id, "t", "k")
            assert isinstance(found, int)
            assert found >= before, "a read that began after a write returned has not seen it"

    tasks = [asyncio.create_task(write()), asyncio.create_task(read()), asyncio.create_task(read())]
    for to in ("target", "source", "target"):
        await move.switch(to, "memory")
    stop.set()
    await asyncio.gather(*tasks)
    assert value > 3


async def test_no_write_fails_at_a_switch(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    chat = await dal.chats.create("c")
    await move.settle()
    stop = asyncio.Event()

    async def write(number: int) -> int:
        count = 0
        while not stop.is_set():
            await dal.messages.add("c", "user", f"{number}: {count}")
            count += 1
        return count

    writing = [asyncio.create_task(write(number)) for number in range(4)]
    for to in ("target", "source", "target"):
        await move.switch(to, "chats")
    stop.set()
    total = sum(await asyncio.gather(*writing))
    found = [message.sequence_number async for message in dal.messages.iterate("c")]
    assert found == list(range(1, total + 1))
    await move.settle()
    assert await move.differences("chats") == 0
    assert chat.chat_id == "c"


async def test_a_transaction_goes_to_the_side_of_its_unit(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.switch("target", "memory")
    async with dal.transaction() as tx:
        await tx.memory.set(user.id, "t", "k", 1)
        assert await tx.memory.get(user.id, "t", "k") == 1
        await tx.memory.set(user.id, "t", "l", 2)
    assert len(await move.target.rows("user_memory")) == 2
    with pytest.raises(ZeroDivisionError):
        async with dal.transaction() as tx:
            await tx.memory.set(user.id, "t", "m", 3)
            raise ZeroDivisionError
    assert len(await move.target.rows("user_memory")) == 2


async def test_a_transaction_over_units_of_different_primaries_is_refused(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.switch("target", "memory")
    with pytest.raises(UnsupportedError, match="memory on the target"):
        async with dal.transaction() as tx:
            await tx.users.update(user.id, name="B")
            await tx.memory.set(user.id, "t", "k", 1)
    assert (await dal.users.get(user.id)) == user
    await move.switch("target", "users")
    async with dal.transaction() as tx:
        await tx.users.update(user.id, name="B")
        await tx.memory.set(user.id, "t", "k", 1)


async def test_a_write_brings_its_parent_along_from_the_other_side(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    dal = await instance()
    await move.settle()
    await move.switch("target", "memory")
    monkeypatch.setattr(router_of(dal)._pusher, "note", lambda _: None)  # a push that does not come in time
    user = await dal.users.create(name="Ada")
    await dal.memory.set(user.id, "t", "k", 1)
    assert len(await move.target.rows("users")) == 1
    assert await dal.memory.get(user.id, "t", "k") == 1


async def test_a_deleted_user_is_forgotten_on_both_sides_when_the_call_returns(
    move: Move, instance: OpenInstance
) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.switch("target", "memory")
    await dal.memory.set(user.id, "t", "k", 1)
    assert await dal.users.delete(user.id)
    assert await dal.memory.get(user.id, "t", "k") is None
    assert await move.target.rows("user_memory") == []
    await move.settle()
    assert await move.differences() == 0


async def test_an_overdue_fence_is_taken_back_by_the_application(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.move.recovery.MOVE_FENCE_S", 0.1)
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.sides.source.change_gate(
        "memory", expect={"role": "primary"}, change={"role": "fenced", "phase": "FENCED"}
    )
    await dal.memory.set(user.id, "t", "k", 1)
    assert (await read_gates(move.sides))["memory"].primary == "source"
    assert len(await move.source.rows("user_memory")) == 1


async def test_a_writer_in_the_way_of_taking_a_fence_back_is_no_error_of_the_call(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    monkeypatch.setattr("dal.move.recovery.MOVE_FENCE_S", 0.1)

    async def busy(sides: Sides, gates: UnitGates, patience: Patience) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DalTimeoutError("a writer under way held the database", operation="change_gate")
        return await recover(sides, gates, patience)

    monkeypatch.setattr("dal.move.routes.recover", busy)
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.sides.source.change_gate(
        "memory", expect={"role": "primary"}, change={"role": "fenced", "phase": "FENCED"}
    )
    await dal.memory.set(user.id, "t", "k", 1)
    assert tries > 1


async def test_a_fence_that_never_ends_is_an_error_in_the_end(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.move.routes.FENCED_WAIT_S", 0.1)
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.sides.source.change_gate(
        "memory",
        expect={"role": "primary"},
        change={"role": "fenced", "phase": "FENCED"},
    )
    with pytest.raises(FencedError) as caught:
        await dal.memory.set(user.id, "t", "k", 1)
    assert (caught.value.retryable, caught.value.outcome) == (True, "not_applied")
    assert await dal.memory.get(user.id, "t", "k") is None, "reads go on"


async def test_a_target_that_is_down_neither_fails_nor_slows_a_write(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    dal = await instance()
    await dal.users.create(name="Ada")
    await pushed(dal)

    async def refuse(*_: object, **__: object) -> None:
        raise UnavailableError("down", operation="commit")

    for name in ("gates", "apply", "entries"):
        monkeypatch.setattr(router_of(dal)._replica("target"), name, refuse)
    await dal.users.create(name="Eve")
    await pushed(dal)
    assert len((await dal.users.list()).items) == 2
    assert len(await move.source.dirty()) == 1


async def test_without_a_move_the_target_is_not_touched(tmp_path: Path, sqlite_with_schema: Path) -> None:
    settings = Settings(migration_enable_dual_write=True, migration_target_url=f"sqlite://{tmp_path / 'none.db'}")
    async with create_data_access(f"sqlite://{tmp_path / 'dal.db'}", settings=settings) as dal:
        await dal.users.create(name="Ada")
        assert (await dal.health()).status == "ok"
    assert not (tmp_path / "none.db").exists()


async def test_a_move_that_ends_well_leaves_its_instances_at_the_target(move: Move, instance: OpenInstance) -> None:
    from dal.move.ending import retire

    dal = await instance()
    user = await dal.users.create(name="Ada")
    await move.settle()
    await move.switch("target")
    await dal.users.update(user.id, name="B")
    await move.settle()
    await retire(move.sides)
    await dal.users.update(user.id, name="C")
    assert (await move.target.rows("users"))[0][3] == "C"
    assert (await move.source.rows("users"))[0][3] == "B"
    late = await instance()
    found = await late.users.get(user.id)
    assert found is not None
    assert found.name == "C"


async def test_health_tells_of_the_move(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    await move.settle()
    await move.switch("target", "audit")
    await dal.audit.record("a")
    health = await dal.health()
    assert health.status == "ok"
    units = health.parts["move"]
    assert isinstance(units, dict)
    assert units["audit"] == {"primary": "target", "phase": "SWITCHED"}
    assert units["users"] == {"primary": "source", "phase": "VERIFIED"}


async def test_a_shadow_read_that_differs_is_counted(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await dal.memory.set(user.id, "t", "k", 1)
    await move.settle()
    for unit in ALL:
        await move.sides.source.change_gate(unit, expect={"role": "primary"}, change={"shadow_percent": 100})
    await router_of(dal)._routes.read_again()
    for _ in range(3):
        await dal.memory.get(user.id, "t", "k")
        await asyncio.gather(*router_of(dal)._shadow._tasks)
    await move.target.raw("UPDATE dal_applying SET is_on = 1", "UPDATE user_memory SET value = '2'")
    await dal.memory.list(user.id)
    await asyncio.gather(*router_of(dal)._shadow._tasks)
    await router_of(dal)._shadow.report()
    notes = (await move.sides.source.gates())["memory"].notes
    assert '"compared": 4' in notes
    assert '"different": 1' in notes


async def test_a_shadow_read_from_before_a_write_that_was_copied_since_is_no_difference(
    move: Move, instance: OpenInstance
) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await dal.memory.set(user.id, "t", "k", 1)
    await move.settle()
    query = Select("user_memory", order=("id",))
    router = router_of(dal)
    before = await (await router._at("source")).read(query)
    await dal.memory.set(user.id, "t", "k", 2)
    await move.settle()
    await router._shadow._compare(query, before, "source")
    assert router._shadow._counts["memory"] == [1, 0, 0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "MIGRATION_TARGET_URL"),
        ({"migration_target_url": "oracle://x"}, "MIGRATION_TARGET_URL"),
        ({"migration_target_url": "memory://"}, "target"),
        ({"migration_target_type": "sqlite", "data_storage_type": "sqlite"}, "names the store that is to be moved"),
    ],
)
def test_a_wrong_target_is_told_by_name(values: dict[str, str], said: str, tmp_path: Path) -> None:
    settings = Settings(migration_enable_dual_write=True, data_dir=tmp_path, **values)
    with pytest.raises(ConfigurationError, match=said):
        create_data_access(settings=settings)


def test_a_target_may_be_named_by_its_type(tmp_path: Path) -> None:
    settings = Settings(migration_enable_dual_write=True, data_dir=tmp_path, migration_target_type="sqlite")
    access = create_data_access(settings=settings)
    assert isinstance(router_of(access), Router)
    assert create_store(settings=settings).capabilities.backend == "file"


def test_keys_are_those_that_operations_name() -> None:
    one = rows.row_id(1)
    ops: list[Op] = [
        Insert("users", rows.user(1)),
        Upsert("user_memory", rows.memory(2, 1), ("user_id", "memory_type", "key"), ("value",)),
        Update("users", {"id": one}, {"name": "x"}),
        Update("chat_sessions", {"chat_id": "c"}, {"title": "x"}),
        Delete("files", (Compare("id", "=", rows.row_id(3)),)),
        Delete("files", (Compare("user_id", "=", one),)),
    ]
    expected = [("users", 1), ("user_memory", 2), ("users", 1), ("files", 3)]
    assert keys_of(ops) == [Key(table, rows.row_id(number)) for table, number in expected]
