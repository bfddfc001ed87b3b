"""Roles: who may write where, what passes a fence, and that changing a role leaves nobody half way."""

from __future__ import annotations

import asyncio

import pytest

from dal.errors import FencedError
from dal.ops import Compare, Delete, Insert, Update
from dal.replica import EPOCH, UNITS, Key
from dal.testing import rows
from dal.testing.reaching import reached
from tests.move.replicas import REFUSALS, MakeSite, Site, apply, entry, on_sql, tombstone

ID = rows.row_id
FENCING = ("file.replica", "sqlite.replica", "postgresql.switching")


@pytest.mark.parametrize("role", ["replica", "fenced"])
async def test_a_store_that_is_not_primary_refuses_the_library(primary: Site, role: str) -> None:
    await primary.insert("users", rows.user(1))
    await primary.drain()
    before = await primary.entry("users", ID(1))
    assert await primary.replica.change_gate("users", expect={"role": "primary"}, change={"role": role})
    for ops in (
        [Insert("users", rows.user(2))],
        [Update("users", {"id": ID(1)}, {"name": "Ada"})],
        [Delete("users", (Compare("id", "=", ID(1)),))],
    ):
        with pytest.raises(FencedError) as caught:
            await primary.store.commit(ops)
        assert (caught.value.retryable, caught.value.outcome) == (True, "not_applied")
        assert caught.value.backend == primary.backend
    assert await primary.entry("users", ID(1)) == before
    await primary.insert("chat_sessions", rows.chat(3))  # another unit


@on_sql
async def test_a_store_that_is_not_primary_refuses_other_programs(replica: Site) -> None:
    assert not (await apply(replica, entry("users", rows.user(1)))).blockers
    for write in (
        f"UPDATE users SET name = 'Ada' WHERE id = '{ID(1)}'",
        "DELETE FROM users",
        "DELETE FROM users WHERE name IS NULL",
    ):
        with pytest.raises(REFUSALS):
            await replica.raw(write)
    with pytest.raises(REFUSALS):
        await replica.insert_raw("users", rows.user(2))
    assert len(await replica.rows("users")) == 1


async def test_the_applier_passes_and_leaves_the_fence_closed(replica: Site) -> None:
    assert (await apply(replica, entry("users", rows.user(1)))).won == {Key("users", ID(1))}
    with pytest.raises(FencedError):
        await replica.insert("users", rows.user(2))
    assert (await apply(replica, tombstone("users", ID(1), EPOCH + 2))).won == {Key("users", ID(1))}
    assert await replica.rows("users") == []


async def test_a_refused_copy_leaves_the_fence_closed(replica: Site) -> None:
    assert (await apply(replica, entry("user_memory", rows.memory(2, 1)))).blockers
    with pytest.raises(FencedError):
        await replica.insert("users", rows.user(1))


async def test_what_a_primary_unit_cascades_to_in_a_replica_is_let_through_and_marked(primary: Site) -> None:
    """The primary's own cascade makes the same of it; where it does not, the mark asks for the row once more."""
    await primary.insert("users", rows.user(1))
    await primary.insert("chat_sessions", rows.chat(2, user_id=ID(1)))
    await primary.insert("user_memory", rows.memory(4, 1))
    await primary.drain()
    for unit in ("chats", "memory"):
        assert await primary.replica.change_gate(unit, expect={}, change={"role": "replica"})
    before = [await primary.entry("chat_sessions", ID(2)), await primary.entry("user_memory", ID(4))]
    await primary.store.commit([Delete("users", (Compare("id", "=", ID(1)),))])
    marked = {Key("chat_sessions", ID(2)), Key("user_memory", ID(4))}
    assert set(await primary.dirty()) == {Key("users", ID(1)), *marked}
    assert await primary.rows("user_memory") == []
    after = [await primary.entry("chat_sessions", ID(2)), await primary.entry("user_memory", ID(4))]
    assert [one.version for one in after] == [one.version for one in before]
    assert after[0].row is not None
    assert after[0].row[2] is None
    assert {(one.state, one.hash) for one in after} == {("dirty", None)}
    # The primary's own state, under a newer version, settles it.
    await apply(primary, tombstone("user_memory", ID(4), 2 * EPOCH))
    assert Key("user_memory", ID(4)) not in await primary.dirty()


async def test_what_an_applied_delete_takes_along_in_a_replica_is_marked(replica: Site) -> None:
    user, memory = entry("users", rows.user(1)), entry("user_memory", rows.memory(4, 1), EPOCH + 9)
    await apply(replica, user, memory)
    assert await replica.dirty() == {}, "what is applied owes nobody a copy"
    await apply(replica, tombstone("users", ID(1), EPOCH + 2))
    assert set(await replica.dirty()) == {Key("user_memory", ID(4))}
    assert (await replica.entry("user_memory", ID(4))).version == EPOCH + 9


async def test_what_an_applied_delete_takes_along_behind_a_fence_is_marked(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1)), entry("user_memory", rows.memory(4, 1), EPOCH + 9))
    assert await replica.replica.change_gate("memory", expect={}, change={"role": "fenced"})
    await apply(replica, tombstone("users", ID(1), EPOCH + 2))
    assert await replica.rows("user_memory") == []
    assert set(await replica.dirty()) == {Key("user_memory", ID(4))}


async def test_a_copy_that_comes_behind_a_fence_keeps_its_version(primary: Site) -> None:
    """The other store takes writes before this one, whose fence it came from, is a replica."""
    await primary.insert("users", rows.user(1), rows.user(2))
    await primary.drain()
    assert await primary.replica.change_gate("users", expect={}, change={"role": "fenced"})
    copies = [entry("users", rows.user(n, name="there"), 2 * EPOCH + n) for n in (1, 3)]
    gone = tombstone("users", ID(2), 2 * EPOCH + 2)
    assert (await apply(primary, *copies, gone)).won == {one.key for one in (*copies, gone)}
    found = [await primary.entry("users", ID(n)) for n in (1, 2, 3)]
    assert [(one.version, one.state) for one in found] == [(2 * EPOCH + n, "checked") for n in (1, 2, 3)]
    assert await primary.dirty() == {}


async def test_a_delete_that_would_reach_behind_a_fence_is_refused_whole(primary: Site) -> None:
    await primary.insert("users", rows.user(1), rows.user(2))
    await primary.insert("chat_sessions", rows.chat(3, user_id=ID(2)))
    await primary.insert("user_memory", rows.memory(4, 1))
    for unit in ("chats", "memory"):
        assert await primary.replica.change_gate(unit, expect={}, change={"role": "fenced"})
    for user in (1, 2):
        with pytest.raises(FencedError):
            await primary.store.commit([Delete("users", (Compare("id", "=", ID(user)),))])
    assert len(await primary.rows("users")) == 2
    assert await primary.replica.change_gate("memory", expect={}, change={"role": "primary"})
    await primary.store.commit([Delete("users", (Compare("id", "=", ID(1)),))])
    assert await primary.rows("user_memory") == []


async def test_versions_are_raised_by_the_primary_alone(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1)))
    await replica.replica.raise_versions("users", [ID(1), ID(2)])
    assert (await replica.entry("users", ID(1))).version == EPOCH + 1
    assert await replica.dirty() == {}


async def test_the_primary_registers_what_an_applied_delete_takes_along(primary: Site) -> None:
    """The unit of the children is primary here: its own change, whoever made the parent go."""
    await primary.insert("users", rows.user(1))
    await primary.insert("chat_sessions", rows.chat(2, user_id=ID(1)))
    await primary.insert("user_memory", rows.memory(4, 1))
    await primary.drain()
    assert await primary.replica.change_gate("users", expect={}, change={"role": "replica"})
    await apply(primary, tombstone("users", ID(1), 2 * EPOCH + 1))
    assert set(await primary.dirty()) == {Key("chat_sessions", ID(2)), Key("user_memory", ID(4))}


async def test_a_gate_changes_only_as_expected(primary: Site) -> None:
    change = primary.replica.change_gate
    assert not await change("users", expect={"role": "replica"}, change={"role": "fenced"})
    assert not await change("users", expect={"role": "primary", "epoch": 7}, change={"role": "fenced"})
    await primary.insert("users", rows.user(1))
    assert await change("users", expect={"role": "primary", "epoch": 1}, change={"phase": "SYNC", "cursor": "users:x"})
    gates = await primary.replica.gates()
    assert set(gates) == set(UNITS)
    assert gates["users"]._replace(phase="CAPTURE", cursor="") == gates["users"]._replace(phase="CAPTURE", cursor="")
    assert (gates["users"].phase, gates["users"].cursor, gates["chats"].phase) == ("SYNC", "users:x", "CAPTURE")
    with pytest.raises(ValueError, match="no colour"):
        await change("users", expect={}, change={"colour": "red"})


async def test_one_of_many_who_activate_wins(replica: Site) -> None:
    expect, change = {"role": "replica", "next_epoch": 2}, {"role": "primary", "epoch": 2, "next_epoch": 3}
    done = await asyncio.gather(
        *(replica.replica.change_gate("users", expect=expect, change=change) for _ in range(5))  # type: ignore[arg-type]
    )
    assert sorted(done) == [False, False, False, False, True]


async def test_an_activated_replica_takes_writes_above_every_earlier_version(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1), 2 * EPOCH - 1))
    change = {"role": "primary", "epoch": 2}
    assert not await replica.replica.change_gate("users", expect={"next_epoch": 9}, change=change)  # type: ignore[arg-type]
    assert await replica.replica.change_gate("users", expect={"next_epoch": 2}, change=change)  # type: ignore[arg-type]
    await replica.store.commit([Update("users", {"id": ID(1)}, {"name": "Ada"})])
    await replica.insert("users", rows.user(2))
    found = await replica.dirty()
    assert set(found) == {Key("users", ID(1)), Key("users", ID(2))}
    assert all(2 * EPOCH < one.version < 3 * EPOCH for one in found.values())


async def test_a_fence_taken_back_goes_on_where_it_was(primary: Site) -> None:
    await primary.insert("users", rows.user(1))
    before = (await primary.entry("users", ID(1))).version
    change = primary.replica.change_gate
    assert await change("users", expect={"role": "primary"}, change={"role": "fenced", "turn": 5})
    assert await change("users", expect={"role": "fenced"}, change={"role": "primary"})
    await primary.insert("users", rows.user(2))
    assert (await primary.entry("users", ID(2))).version > before


async def test_no_write_is_lost_between_the_fence_and_its_registry(
    make_site: MakeSite, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers run into a fence: whatever was acknowledged is registered, the rest was refused."""
    for module in FENCING:
        monkeypatch.setattr(f"dal.backends.{module}.FENCE_LOCK_TIMEOUT_S", 60.0)  # however slow the disk is
    site = await make_site(backend)
    await site.install("primary")
    taken: set[str] = set()
    at_work, fenced = asyncio.Event(), asyncio.Event()

    async def write(first: int) -> None:
        for number in range(first, first + 1000):
            try:
                await site.insert("users", rows.user(number))
            except FencedError:
                fenced.set()
                return
            taken.add(ID(number))
            if len(taken) == 8:
                at_work.set()

    writers = [asyncio.create_task(write(n * 1000 + 1)) for n in range(4)]
    await reached(at_work, *writers)
    assert await site.replica.change_gate("users", expect={}, change={"role": "fenced"})
    at_fence = {one.id for one in await site.replica.dirty("users", 10_000)}
    await asyncio.gather(*writers)
    assert fenced.is_set()
    assert {one.id for one in await site.replica.dirty("users", 10_000)} == at_fence == taken
