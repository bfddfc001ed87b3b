"""An instance's own changes come to the other side at once, with their parents; a side that is down slows no write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from dal import NewMessage
from dal.errors import MissingReferenceError, UnavailableError
from dal.move.push import keys_of
from dal.ops import Compare, Delete, Insert, Op, Update, Upsert
from dal.replica import Key
from dal.testing import rows
from tests.move.instances import (
    OpenInstance,
    instance,
    instances_look_often,
    move,
    no_settings_from_outside,
    pushed,
    router_of,
)
from tests.move.moving import Move, backend, quick

__all__ = ["backend", "instance", "instances_look_often", "move", "no_settings_from_outside", "quick"]

pytestmark = pytest.mark.usefixtures("quick")


async def test_an_instance_pushes_what_it_wrote_without_a_mover(move: Move, instance: OpenInstance) -> None:
    dal = await instance()
    user = await dal.users.create(name="Ada")
    await dal.memory.set(user.id, "t", "k", {"日本": [1, 2.5, None]})
    await pushed(dal)
    assert len(await move.target.rows("users")) == 1
    assert await move.differences("users", "memory") == 0
    assert await move.source.dirty() == {}


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


async def test_a_push_brings_along_what_the_mover_has_not_come_to(move: Move, instance: OpenInstance) -> None:
    """A message's chat, and that one's user."""
    await move.source.insert("users", rows.user(1))
    await move.source.insert("chat_sessions", rows.chat(2, user_id=rows.row_id(1)))
    dal = await instance()
    await dal.messages.add_many("chat-2", [NewMessage("user", f"text {n}") for n in range(10)])
    await pushed(dal)
    assert [len(await move.target.rows(name)) for name in ("users", "chat_sessions", "messages")] == [1, 1, 10]


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.001, 0.02), (0.05, 0.2), (3.0, 0.5)])
async def test_pushing_gets_a_fifth_of_an_instances_time(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch, took_s: float, rests_s: float
) -> None:
    dal = await instance()
    await move.settle()
    clock, rests, sleep = [0.0], list[float](), asyncio.sleep

    async def push(_: Iterable[Key]) -> None:
        clock[0] += took_s

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)

    monkeypatch.setattr("dal.move.push.monotonic", lambda: clock[0])
    monkeypatch.setattr(router_of(dal)._pusher, "push", push)
    monkeypatch.setattr(asyncio, "sleep", rest)
    router_of(dal)._pusher.note([Insert("users", rows.user(1))])
    await pushed(dal)
    assert rests == [pytest.approx(rests_s)]


@pytest.mark.parametrize("lost", [2, 1_000])
async def test_a_write_whose_parent_is_not_brought_along_can_be_tried_again(
    move: Move, instance: OpenInstance, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """As while the parent changes again and again, or the other side's disk is full."""
    dal = await instance()
    await move.settle()
    await move.switch("target", "memory")
    pusher = router_of(dal)._pusher
    monkeypatch.setattr(pusher, "note", lambda _: None)
    user = await dal.users.create(name="Ada")
    push, pushes = pusher.push, 0

    async def lose(keys: Iterable[Key]) -> None:
        nonlocal pushes
        pushes += 1
        if pushes > lost:
            await push(keys)

    monkeypatch.setattr(pusher, "push", lose)
    if lost < 10:
        await dal.memory.set(user.id, "t", "k", 1)
        assert await dal.memory.get(user.id, "t", "k") == 1
        return
    store = router_of(dal)
    item = rows.memory(1, 1) | {"user_id": user.id}
    with pytest.raises(UnavailableError, match="given its copy") as caught:
        await store.commit([Insert("user_memory", item)])
    assert caught.value.retryable
    assert caught.value.outcome == "not_applied"
    with pytest.raises(MissingReferenceError):
        await store.commit([Insert("user_memory", item | {"user_id": rows.row_id(9)})])


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
