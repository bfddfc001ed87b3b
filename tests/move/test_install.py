"""Installing and taking away: for one move at a time, again without harm, and without a trace."""

from __future__ import annotations

import asyncio

import pytest

from dal.errors import ConflictError, FencedError
from dal.ops import Insert
from dal.replica import UNITS, Gate, Key, Movable
from dal.testing import rows
from tests.move.replicas import MakeSite, Site, apply, entry, on_sql

ID = rows.row_id
#: What a database holds, by kind and name.
OBJECTS = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY 1, 2",
    "d1": "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY 1, 2",
    "postgresql": """
        SELECT 'class', relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'function', proname, '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger', tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal
        ORDER BY 1, 2, 3
    """,
}


async def test_a_store_without_a_move_has_no_gates(site: Site) -> None:
    assert isinstance(site.store, Movable)
    assert await site.replica.gates() == {}
    await site.replica.uninstall(keep_fence=False)
    await site.replica.uninstall(keep_fence=True)
    assert await site.replica.gates() == {}


async def test_gates_are_as_they_were_given(site: Site) -> None:
    gate = Gate("users", "m1", "target", "replica", 0, 2, "CAPTURE", "users:x", 12, "me", 2**42, 5, '{"a":1}')
    await site.replica.install([gate])
    assert await site.replica.gates() == {"users": gate}


async def test_installing_again_leaves_everything_as_it_is(primary: Site) -> None:
    await primary.insert("users", rows.user(1))
    await primary.replica.change_gate("users", expect={}, change={"phase": "SYNC", "notes": '{"n": 1}'})
    before, gates = await primary.dirty(), await primary.replica.gates()
    await primary.install("primary")
    assert await primary.dirty() == before
    assert await primary.replica.gates() == gates
    await primary.insert("users", rows.user(2))
    assert (await primary.entry("users", ID(2))).version > before[Key("users", ID(1))].version


async def test_units_may_be_added_to_a_move(site: Site) -> None:
    await site.replica.install([Gate("users", "m1", "source", "primary", 1, 2, "CAPTURE")])
    await site.insert("users", rows.user(1))
    await site.insert("system_logs", rows.log(2))
    assert set(await site.dirty()) == {Key("users", ID(1))}
    await site.replica.install([Gate("audit", "m1", "source", "primary", 1, 2, "CAPTURE")])
    await site.insert("system_logs", rows.log(3))
    assert set(await site.dirty()) == {Key("users", ID(1)), Key("system_logs", ID(3))}
    assert set(await site.replica.gates()) == {"users", "audit"}


async def test_a_store_takes_part_in_one_move_at_a_time(primary: Site) -> None:
    with pytest.raises(ConflictError, match="move"):
        await primary.install("replica", move="m2")
    assert {gate.move for gate in (await primary.replica.gates()).values()} == {"m1"}
    await primary.replica.uninstall(keep_fence=False)
    await primary.install("replica", move="m2")
    assert {gate.move for gate in (await primary.replica.gates()).values()} == {"m2"}


async def test_two_who_install_at_once_install_one_move(site: Site) -> None:
    results = await asyncio.gather(
        *(site.install("primary", move=f"m{n % 2}") for n in range(4)), return_exceptions=True
    )
    moves = {gate.move for gate in (await site.replica.gates()).values()}
    assert len(moves) == 1
    assert len(await site.replica.gates()) == len(UNITS)
    assert [type(one) for one in results if one is not None] == [ConflictError] * 2


@on_sql
async def test_an_ended_move_leaves_no_trace(site: Site) -> None:
    before = await site.raw(OBJECTS[site.backend])
    await site.install("primary")
    await site.insert("users", rows.user(1))
    assert await site.raw(OBJECTS[site.backend]) != before
    await site.replica.uninstall(keep_fence=False)
    assert await site.raw(OBJECTS[site.backend]) == before
    await site.insert("users", rows.user(2))


async def test_a_retired_store_goes_on_refusing_what_it_refused(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1)))
    change = {"role": "primary", "epoch": 2}
    assert await replica.replica.change_gate("audit", expect={}, change=change)  # type: ignore[arg-type]
    await replica.replica.uninstall(keep_fence=True)
    gates = await replica.replica.gates()
    assert {gate.phase for gate in gates.values()} == {"RETIRED"}
    assert (gates["users"].role, gates["audit"].role) == ("replica", "primary")
    with pytest.raises(FencedError):
        await replica.insert("users", rows.user(2))
    await replica.insert("system_logs", rows.log(3))
    assert len(await replica.rows("users")) == 1, "it can be read"
    await replica.replica.uninstall(keep_fence=True)
    await replica.replica.uninstall(keep_fence=False)
    await replica.insert("users", rows.user(2))
    assert await replica.replica.gates() == {}


async def test_every_write_that_ends_behind_the_installation_is_registered(make_site: MakeSite, backend: str) -> None:
    """Writers are at work while it is installed: what was read before it is seen by the seed, the rest by triggers."""
    site = await make_site(backend)
    stop = asyncio.Event()
    written: set[str] = set()

    async def write(first: int) -> None:
        number = first
        while not stop.is_set():
            await site.store.commit([Insert("users", rows.user(number))])
            written.add(ID(number))
            number += 1

    writers = [asyncio.create_task(write(n * 100_000 + 1)) for n in range(3)]
    await site.install("primary")
    there = set(written)
    stop.set()
    await asyncio.gather(*writers)
    registered = {one.id for one in await site.replica.dirty("users", 100_000)}
    assert written - there <= registered
    after = "-"
    while after:
        after = await site.replica.seed("users", "" if after == "-" else after, 500)
    assert {one.id for one in await site.replica.dirty("users", 100_000)} == written
