"""The application's side of a move: calls go where their unit lives, and a switch is a slow call at worst."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dal import Settings, create_data_access
from dal.errors import ConfigurationError, DalTimeoutError, FencedError, UnsupportedError
from dal.factory import create_store
from dal.move.patience import Patience
from dal.move.recovery import recover
from dal.move.routing import Router
from dal.move.sides import Sides, UnitGates, read_gates
from dal.ops import Select
from tests.move.instances import (
    OpenInstance,
    instance,
    instances_look_often,
    move,
    no_settings_from_outside,
    router_of,
)
from tests.move.moving import ALL, Move, backend, quick

__all__ = ["backend", "instance", "instances_look_often", "move", "no_settings_from_outside", "quick"]

pytestmark = pytest.mark.usefixtures("quick")


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


async def test_a_delete_that_reaches_behind_the_fence_of_a_unit_that_was_switched_ends_that_switch(
    move: Move, instance: OpenInstance
) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await dal.memory.set(user.id, "t", "k", 1)
    await move.settle()
    await move.sides.source.change_gate(
        "memory", expect={"role": "primary"}, change={"role": "fenced", "phase": "FENCED"}
    )
    await move.sides.target.change_gate(
        "memory", expect={"role": "replica"}, change={"role": "primary", "epoch": 2, "phase": "SWITCHED"}
    )  # and whoever did that is no more
    assert await dal.users.delete(user.id)
    assert (await read_gates(move.sides))["memory"].source.role == "replica"
    assert await dal.memory.get(user.id, "t", "k") is None


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
        ({"migration_target_url": "memory://"}, "MIGRATION_TARGET_URL: 'memory://' .*; allowed are file, sqlite"),
        ({"migration_target_url": "legacy:x"}, "MIGRATION_TARGET_URL: 'legacy:x' .*; allowed are file, sqlite"),
        ({"migration_target_type": "memory"}, "MIGRATION_TARGET_TYPE: 'memory' .*; allowed are file, sqlite"),
        (
            {"migration_target_type": "sqlite", "data_storage_type": "memory"},
            "DATA_STORAGE_TYPE: 'memory' .*; allowed are file, sqlite",
        ),
        (
            {"migration_target_type": "sqlite", "data_storage_type": "sqlite"},
            "MIGRATION_TARGET_TYPE: 'sqlite' names the store that is to be moved",
        ),
        ({"migration_target_type": "postgresql"}, "DATABASE_URL: not set; MIGRATION_TARGET_TYPE=postgresql needs it"),
        ({"migration_target_type": "d1"}, "D1_ACCOUNT_ID: not set; MIGRATION_TARGET_TYPE=d1 needs it"),
        (
            {"migration_target_type": "postgresql", "database_url": "mysql://h/d"},
            "DATABASE_URL: .*MIGRATION_TARGET_TYPE=postgresql",
        ),
    ],
)
def test_a_wrong_target_is_told_by_name(values: dict[str, str], said: str, tmp_path: Path) -> None:
    settings = Settings(migration_enable_dual_write=True, data_dir=tmp_path, **values)
    with pytest.raises(ConfigurationError, match=f"^{said}"):
        create_data_access(settings=settings)


def test_a_source_that_is_named_by_a_url_is_told_as_that(tmp_path: Path) -> None:
    settings = Settings(migration_enable_dual_write=True, data_dir=tmp_path, migration_target_type="sqlite")
    with pytest.raises(ConfigurationError, match=r"^url: 'memory://' cannot be the source"):
        create_data_access("memory://", settings=settings)


@pytest.mark.parametrize("backend", ["file", "sqlite"])
@pytest.mark.parametrize("spelling", ["{0}:store", "{0}:./store/", "{0}:other/../store", "{0}://{1}/store", "{0}:link"])
def test_the_store_itself_is_no_target_however_it_is_spelled(
    backend: str, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("store")
    settings = Settings(migration_enable_dual_write=True, migration_target_url=spelling.format(backend, tmp_path))
    with pytest.raises(ConfigurationError, match=r"^MIGRATION_TARGET_URL: .* names the store that is to be moved"):
        create_data_access(f"{backend}:store", settings=settings)


def test_a_d1_database_is_no_target_of_itself_however_it_is_spelled() -> None:
    settings = Settings(migration_enable_dual_write=True, migration_target_url="D1://a/b/", d1_api_token="t")
    with pytest.raises(ConfigurationError, match="names the store that is to be moved"):
        create_data_access("d1://a/b", settings=settings)


def test_a_target_may_be_named_by_its_type(tmp_path: Path) -> None:
    settings = Settings(migration_enable_dual_write=True, data_dir=tmp_path, migration_target_type="sqlite")
    access = create_data_access(settings=settings)
    assert isinstance(router_of(access), Router)
    assert create_store(settings=settings).capabilities.backend == "file"
