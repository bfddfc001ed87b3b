"""The registry as movers and checks read it: seeds, backlogs, digests, marks, repair."""

from __future__ import annotations

from operator import itemgetter

from dal.move.columns import differing_rows
from dal.ops import Compare, Delete, Insert, JsonValue, Update
from dal.replica import EPOCH, Backlog, Key
from dal.store import Stored
from dal.tables import TABLES
from dal.testing import rows
from tests.move.replicas import MakeSite, Site, apply, copied, entry, hashed, tombstone

ID = rows.row_id


# Seeds ---------------------------------------------------------------------------------------------------------------


async def seed_all(site: Site, table: str, limit: int) -> list[str]:
    """Where each page ended."""
    ends = [await site.replica.seed(table, "", limit)]
    while ends[-1]:
        ends.append(await site.replica.seed(table, ends[-1], limit))
    return ends


async def test_a_seed_registers_rows_page_by_page_at_the_lowest_version(site: Site) -> None:
    await site.insert("users", *(rows.user(n) for n in range(1, 8)))
    await site.install("primary")
    assert await seed_all(site, "users", 3) == [ID(3), ID(6), ""]
    found = await site.dirty()
    assert set(found) == {Key("users", ID(n)) for n in range(1, 8)}
    assert {one.version for one in found.values()} == {EPOCH}
    assert await seed_all(site, "system_logs", 3) == [""]


async def test_tables_with_entries_in_a_state_are_named(primary: Site) -> None:
    assert await primary.replica.tables_with("dirty") == await primary.replica.tables_with("copied") == frozenset()
    await primary.insert("users", rows.user(1), rows.user(2))
    await primary.insert("user_quotas", rows.whole("user_quotas", 3, user_id=ID(1)))
    assert await primary.replica.tables_with("dirty") == {"users", "user_quotas"}
    quota = hashed(await primary.entry("user_quotas", ID(3)))
    await primary.replica.acknowledge([copied(quota)])
    assert await primary.replica.tables_with("dirty") == {"users"}
    assert await primary.replica.tables_with("copied") == {"user_quotas"}
    await primary.replica.mark_checked("user_quotas", {ID(3): quota.version})
    assert await primary.replica.tables_with("copied") == frozenset()


async def test_a_seed_leaves_what_is_registered_as_it_is(site: Site) -> None:
    await site.insert("users", *(rows.user(n) for n in range(1, 5)))
    await site.install("primary")
    await site.store.commit([Update("users", {"id": ID(2)}, {"name": "Ada"})])
    await site.store.commit([Delete("users", (Compare("id", "=", ID(3)),))])
    before = await site.dirty()
    await seed_all(site, "users", 10)
    await site.drain()
    await seed_all(site, "users", 2)
    assert await site.dirty() == {}
    after = {key: await site.entry(*key) for key in before}
    assert [one.version for one in after.values()] == [one.version for one in before.values()]
    assert (await site.entry("users", ID(1))).version == EPOCH


# Rows without an entry ------------------------------------------------------------------------------------------------


async def test_rows_without_an_entry_come_page_by_page_and_stay_so(site: Site) -> None:
    await site.insert("users", *(rows.user(n) for n in range(1, 6)))
    await site.install("primary")
    await site.store.commit([Update("users", {"id": ID(2)}, {"name": "Ada"})])
    await site.store.commit([Delete("users", (Compare("id", "=", ID(4)),))])
    first = await site.replica.unregistered("users", "", 2)
    second = await site.replica.unregistered("users", first.last, 2)
    assert (first.last, second.last) == (ID(2), ID(5))
    assert await site.replica.unregistered("users", second.last, 2) == ([], "")
    found = [*first.entries, *second.entries]
    assert {one.id for one in found} == {ID(1), ID(3), ID(5)}
    by_id = {row[0]: row for row in await site.rows("users")}
    assert all((one.version, one.state, one.row) == (EPOCH, "dirty", by_id[one.id]) for one in found)
    assert (await site.replica.backlog())["users"].entries == 2


async def test_an_acknowledged_row_without_an_entry_is_registered_as_checked(site: Site) -> None:
    await site.insert("users", *(rows.user(n) for n in range(1, 4)))
    await site.install("primary")
    found = [hashed(one) for one in (await site.replica.unregistered("users", "", 10)).entries]
    await site.replica.acknowledge([copied(one) for one in found])
    there = await site.replica.registered("users", [ID(n) for n in (1, 2, 3)])
    assert {(one.id, one.version, one.deleted, one.state, one.hash) for one in there} == {
        (one.id, EPOCH, False, "checked", one.hash) for one in found
    }
    assert await site.replica.unregistered("users", "", 10) == ([], "")


async def test_a_late_acknowledgement_leaves_what_changed_meanwhile(site: Site) -> None:
    await site.insert("users", *(rows.user(n) for n in range(1, 4)))
    await site.install("primary")
    found = [hashed(one) for one in (await site.replica.unregistered("users", "", 10)).entries]
    await site.store.commit([Update("users", {"id": ID(1)}, {"name": "Ada"})])
    await site.store.commit([Delete("users", (Compare("id", "=", ID(2)),))])
    before = await site.dirty()
    await site.replica.acknowledge([copied(one) for one in found])
    assert await site.dirty() == before
    assert (await site.entry("users", ID(3))).state == "checked"


async def test_the_backlog_counts_by_state(primary: Site) -> None:
    await primary.insert("users", *(rows.user(n) for n in range(1, 5)))
    await primary.insert("system_logs", rows.log(9))
    assert await primary.replica.backlog() == {
        table: Backlog({"users": 4, "system_logs": 1}.get(table, 0), 0, {"users": 4, "system_logs": 1}.get(table, 0))
        for table in TABLES
    }
    first, second, *_ = await primary.replica.dirty("users", 10)
    await primary.replica.acknowledge([copied(hashed(first)), copied(hashed(second))])
    await primary.replica.mark_checked("users", {first.id: first.version})
    assert (await primary.replica.backlog())["users"] == Backlog(2, 1, 4)


async def test_no_more_dirty_entries_come_than_are_asked_for(primary: Site) -> None:
    await primary.insert("users", *(rows.user(n) for n in range(1, 8)))
    assert len(await primary.replica.dirty("users", 3)) == 3
    assert len(await primary.replica.dirty("users", 30)) == 7


# Entries -------------------------------------------------------------------------------------------------------------


async def test_every_key_that_is_asked_for_has_an_entry(site: Site) -> None:
    await site.insert("users", rows.user(1))
    await site.install("primary")
    await site.insert("users", rows.user(2), rows.user(3))
    await site.store.commit([Delete("users", (Compare("id", "=", ID(3)),))])
    found = {one.id: one for one in await site.replica.entries("users", [ID(n) for n in (1, 2, 3, 4)])}
    assert set(found) == {ID(1), ID(2), ID(3), ID(4)}
    by_id = {row[0]: row for row in await site.rows("users")}
    assert (found[ID(1)].version, found[ID(1)].row) == (0, by_id[ID(1)])
    assert found[ID(2)].version > EPOCH
    assert found[ID(2)].row == by_id[ID(2)]
    assert found[ID(3)].version > found[ID(2)].version
    assert found[ID(3)].row is None
    assert (found[ID(4)].version, found[ID(4)].row) == (0, None)
    assert await site.replica.entries("users", []) == []


async def test_rows_come_as_they_are_stored_whatever_the_registry_says(site: Site) -> None:
    profile: dict[str, JsonValue] = {"b": [1, 2.5, None], "a": "é"}
    await site.insert("users", rows.user(1, profile=profile))
    await site.install("primary")
    await site.insert("users", rows.user(2, name="Ada"), rows.user(3))
    await site.store.commit([Delete("users", (Compare("id", "=", ID(3)),))])
    found = await site.replica.stored("users", [ID(n) for n in (4, 3, 2, 1)])
    users = sorted(found.rows, key=itemgetter(0))
    assert [row[0] for row in users] == [ID(1), ID(2)]
    assert differing_rows(TABLES["users"], Stored(await site.rows("users"), {}), Stored(users, found.decoders)) == set()
    assert (await site.replica.stored("users", [])).rows == []


# Checks --------------------------------------------------------------------------------------------------------------


async def test_a_digest_adds_up_what_ends_alike(replica: Site) -> None:
    numbers = (0x1ABC, 0x2ABC, 0x3ABC, 0x0DEF)
    given = [entry("users", rows.user(n), EPOCH + n) for n in numbers]
    await apply(replica, *given, tombstone("users", ID(0x4ABC), EPOCH + 0x4ABC))
    hashes = [one.hash or 0 for one in given[:3]]
    found = {one.bucket: one for one in await replica.replica.digest("users")}
    assert set(found) == {"abc", "def"}
    assert found["abc"] == (
        "abc",
        3,
        1,
        sum(h & 0xFFFFFFFF for h in hashes),
        sum(h >> 32 for h in hashes),
        EPOCH + 0x4ABC,
        0,
    )
    assert {one.id for one in await replica.replica.bucket("users", ["abc", "000"])} == {
        ID(0x1ABC),
        ID(0x2ABC),
        ID(0x3ABC),
        ID(0x4ABC),
    }
    assert await replica.replica.digest("files") == []
    assert await replica.replica.total("files") == ("", 0, 0, 0, 0, 0, 0)
    one, other = found["abc"], found["def"]
    sums = [left + right for left, right in zip(one[1:5], other[1:5], strict=True)]
    assert await replica.replica.total("users") == ("", *sums, EPOCH + 0x4ABC, 0)


async def test_a_digest_tells_of_rows_that_changed_since(primary: Site) -> None:
    await primary.insert("users", rows.user(0xABC), rows.user(0x1ABC))
    await primary.drain()
    assert [one.unhashed for one in await primary.replica.digest("users")] == [0]
    assert (await primary.replica.total("users")).unhashed == 0
    await primary.store.commit([Update("users", {"id": ID(0xABC)}, {"name": "Ada"})])
    (found,) = await primary.replica.digest("users")
    assert (await primary.replica.total("users")).unhashed == found.unhashed
    (other,) = await primary.replica.registered("users", [ID(0x1ABC)])
    assert (found.live, found.dead, found.unhashed) == (2, 0, 1)
    assert found.newest == (await primary.entry("users", ID(0xABC))).version
    assert found.low + (found.high << 32) == other.hash


async def test_registered_gives_what_is_known_and_no_more(replica: Site) -> None:
    given = entry("users", rows.user(1))
    await apply(replica, given, tombstone("users", ID(2), EPOCH + 2))
    found = {one.id: one for one in await replica.replica.registered("users", [ID(1), ID(2), ID(3)])}
    assert set(found) == {ID(1), ID(2)}
    assert found[ID(1)][2:4] == (given.version, False)
    assert found[ID(1)].hash == given.hash
    assert found[ID(2)][2:4] == (EPOCH + 2, True)
    assert found[ID(2)].hash is None


async def test_what_was_copied_is_listed_until_it_is_checked(primary: Site) -> None:
    await primary.insert("users", *(rows.user(n) for n in (0xA, 0x9, 0xB, 0x8)))
    assert await primary.replica.copied("users", "", 10) == []
    await primary.drain()
    found = await primary.replica.copied("users", "", 3)
    assert [one.id for one in found] == [ID(8), ID(9), ID(0xA)]
    assert all(one.state == "copied" and one.hash is not None for one in found)
    assert [one.id for one in await primary.replica.copied("users", ID(9), 10)] == [ID(0xA), ID(0xB)]
    await primary.store.commit([Update("users", {"id": ID(8)}, {"name": "later"})])
    await primary.replica.mark_checked("users", {one.id: one.version for one in found})
    assert [one.id for one in await primary.replica.copied("users", "", 10)] == [ID(0xB)]
    states = {one.id: one.state for one in await primary.replica.registered("users", [ID(8), ID(9)])}
    assert states == {ID(8): "dirty", ID(9): "checked"}
    await primary.replica.mark_checked("users", {ID(0xB): 1})
    await primary.replica.mark_checked("users", {ID(8): (await primary.entry("users", ID(8))).version})
    assert set(await primary.dirty()) == {Key("users", ID(8))}
    await primary.replica.mark_checked("users", {})
    assert [one.id for one in await primary.replica.copied("users", "", 10)] == [ID(0xB)]


async def test_a_raised_version_makes_a_row_go_over_again(site: Site) -> None:
    """Known or not, there or not; each above everything before it."""
    await site.insert("users", rows.user(1))
    await site.install("primary")
    await site.insert("users", rows.user(2))
    await site.drain()
    before = (await site.entry("users", ID(2))).version
    assert await site.replica.raise_versions("users", [ID(1), ID(2), ID(3), ID(2)]) == 3
    found = await site.dirty()
    assert set(found) == {Key("users", ID(n)) for n in (1, 2, 3)}
    assert all(one.version > before and one.hash is None for one in found.values())
    assert found[Key("users", ID(1))].row is not None
    assert found[Key("users", ID(3))].row is None
    assert [one.deleted for one in await site.replica.registered("users", [ID(3)])] == [True]
    await site.store.commit([Insert("users", rows.user(4))])
    assert (await site.entry("users", ID(4))).version > max(one.version for one in found.values())
    assert await site.replica.raise_versions("users", []) == 0


async def test_a_repair_carries_the_primary_over_what_the_replica_holds(make_site: MakeSite, backend: str) -> None:
    source, target = await make_site("sqlite"), await make_site(backend)
    await source.install("primary")
    await target.install("replica")
    await source.insert("users", rows.user(1, name="right"))
    await apply(target, entry("users", rows.user(1, name="wrong"), EPOCH + 1), entry("users", rows.user(2), EPOCH + 1))
    await source.replica.raise_versions("users", [ID(1), ID(2)])
    await target.replica.apply([hashed(one) for one in await source.replica.entries("users", [ID(1), ID(2)])])
    assert await target.rows("users") == await source.rows("users")


async def test_a_database_has_nothing_to_be_rescanned(primary: Site) -> None:
    assert await primary.replica.rescan() == 0


async def test_an_idle_store_has_no_old_writer_and_no_obstacle(site: Site) -> None:
    assert await site.replica.oldest_writer_s() == 0
    assert await site.replica.obstacles() == []
