"""Copies: newer ones win, in whatever order they come; what stands in their way is exchanged or named."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from dal import search
from dal.ops import Insert, Search, Update
from dal.replica import EPOCH, Applied, Entry, Key
from dal.tables import TABLES
from dal.testing import rows
from tests.move.replicas import MakeSite, Site, apply, copy_all, entry, on_sql, tombstone

ID = rows.row_id
V = EPOCH + 1


# Versions ------------------------------------------------------------------------------------------------------------


async def test_an_applied_row_is_there_with_its_version_and_hash(replica: Site) -> None:
    given = entry("users", rows.user(1, name="Ada", profile={"b": [1, 2.5, None], "a": "é"}), V)
    assert await apply(replica, given) == Applied([given])
    found = await replica.entry("users", ID(1))
    assert (found.row, found.version, found.hash) == (given.row, V, given.hash)
    assert found.state != "dirty"
    assert await replica.dirty() == {}


async def test_a_copy_that_is_not_newer_changes_nothing(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1, name="second"), V + 1))
    for late in (entry("users", rows.user(1, name="first"), V), entry("users", rows.user(1, name="again"), V + 1)):
        assert await apply(replica, late) == Applied()
    assert await apply(replica, tombstone("users", ID(1), V)) == Applied()
    found = await replica.entry("users", ID(1))
    assert found.row is not None
    assert (found.version, found.row[3]) == (V + 1, "second")


async def test_a_late_copy_does_not_bring_a_deleted_row_back(replica: Site) -> None:
    await apply(replica, tombstone("users", ID(1), V + 1))
    assert await apply(replica, entry("users", rows.user(1), V)) == Applied()
    assert await replica.rows("users") == []
    found = await replica.entry("users", ID(1))
    assert (found.row, found.version) == (None, V + 1)
    assert (await apply(replica, entry("users", rows.user(1), V + 2))).won
    assert len(await replica.rows("users")) == 1


async def test_copies_end_alike_in_any_order(replica: Site) -> None:
    """Each order of one row's history is played with a row of its own, and every copy comes twice."""
    orders = list(enumerate(itertools.permutations(range(4)), start=1))

    def moment(number: int, place: int) -> Entry:
        if place == 2:
            return tombstone("users", ID(number), V + 2)
        clerk_id = None if place == 1 else f"{place}/{number}"
        return entry("users", rows.user(number, name=f"at {place}", clerk_id=clerk_id), V + place)

    for step in range(4):
        for _ in range(2):
            await apply(replica, *(moment(number, order[step]) for number, order in orders))
    for one in await replica.replica.entries("users", [ID(number) for number, _ in orders]):
        assert (one.version, one.row) == (V + 3, moment(rows.number_of(one.id), 3).row)


async def test_of_a_batch_only_the_newer_ones_win(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1, name="kept"), V + 5), entry("users", rows.user(2), V))
    applied = await apply(
        replica,
        entry("users", rows.user(1, name="old"), V),
        entry("users", rows.user(2, name="new"), V + 1),
        tombstone("users", ID(3), V),
    )
    assert applied.won == {Key("users", ID(2)), Key("users", ID(3))}
    assert [row[3] for row in await replica.rows("users")] == ["kept", "new"]


async def test_an_unknown_row_under_the_same_key_is_replaced(site: Site) -> None:
    """The target held rows before the move began."""
    await site.insert("users", rows.user(1, name="before", clerk_id="c"))
    await site.install("replica")
    await apply(site, entry("users", rows.user(1, name="moved", clerk_id="c"), V), entry("users", rows.user(2), V))
    assert [row[3] for row in await site.rows("users")] == ["moved", None]


async def test_concurrent_appliers_end_with_the_newest(replica: Site) -> None:
    """Each row at the version whose content it has, however they interleave."""
    batches = [
        [entry("users", rows.user(n, name=f"{n}/{version}"), EPOCH + version) for n in range(1, 9)]
        for version in range(1, 7)
    ]

    async def at_work(batch: list[int]) -> None:
        for place in batch:
            await replica.replica.apply(batches[place])

    await asyncio.gather(at_work([0, 3, 5]), at_work([4, 1]), at_work([2, 0, 4]), at_work([5]))
    found = await replica.replica.entries("users", [ID(n) for n in range(1, 9)])
    for one in found:
        assert one.row is not None
        assert (one.version, one.row[3]) == (EPOCH + 6, f"{rows.number_of(one.id)}/6")


@on_sql
async def test_an_applier_that_is_overtaken_looks_again(replica: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look at the versions and its batch, somebody applies what is newer."""
    await apply(replica, entry("users", rows.user(1, name="first"), V))
    copies = replica.replica._copies  # type: ignore[attr-defined]
    look = copies._versions

    async def overtaken(entries: list[Entry]) -> dict[Key, int]:
        found: dict[Key, int] = await look(entries)
        monkeypatch.undo()
        await apply(replica, entry("users", rows.user(1, name="newer"), V + 5))
        return found

    monkeypatch.setattr(copies, "_versions", overtaken)
    applied = await apply(replica, entry("users", rows.user(1, name="older"), V + 1), entry("users", rows.user(2), V))
    assert applied.won == {Key("users", ID(2))}
    found = await replica.entry("users", ID(1))
    assert found.row is not None
    assert (found.version, found.row[3]) == (V + 5, "newer")


# Order inside a batch ------------------------------------------------------------------------------------------------


async def test_parents_and_children_may_come_in_any_order(replica: Site) -> None:
    family = [
        entry("messages", {**rows.message(3, 2), "sequence_number": 1}),
        entry("chat_sessions", rows.chat(2, user_id=ID(1))),
        entry("user_memory", rows.memory(4, 1)),
        entry("files", rows.file(5, 1)),
        entry("users", rows.user(1)),
        entry("system_logs", rows.log(6, ip_address="2001:db8::1")),
    ]
    assert len((await apply(replica, *family)).won) == 6
    for one in family:
        assert (await replica.entry(one.table, one.id)).row == one.row
    gone = [one._replace(row=None, hash=None, version=V + 1) for one in family]
    assert len((await apply(replica, *reversed(gone))).won) == 6
    assert [await replica.rows(table) for table in TABLES] == [[]] * len(TABLES)


async def test_a_child_that_outlives_its_parent_stays(replica: Site) -> None:
    """It went to another parent before the first one was deleted, and both come in one batch."""
    await apply(replica, entry("users", rows.user(1)), entry("users", rows.user(2)))
    await apply(replica, entry("user_memory", rows.memory(3, 1)))
    moved = entry("user_memory", rows.memory(3, 2, version=2), V + 1)
    await apply(replica, moved, tombstone("users", ID(1), V + 2))
    assert (await replica.entry("user_memory", ID(3))).row == moved.row


async def test_a_missing_parent_is_named_and_nothing_applied(replica: Site) -> None:
    given = [entry("users", rows.user(1)), entry("user_memory", rows.memory(3, 1)), entry("files", rows.file(4, 2))]
    applied = await apply(replica, *given)
    assert applied == Applied(blockers=(Key("users", ID(2)),))
    assert await replica.rows("users") == []
    assert (await replica.entry("users", ID(1))).version == 0
    assert len((await apply(replica, *given, entry("users", rows.user(2)))).won) == 4


async def test_a_child_of_a_parent_that_is_deleted_in_the_batch_is_asked_for_again(replica: Site) -> None:
    """It was read before the delete that took it along."""
    await apply(replica, entry("users", rows.user(1)))
    applied = await apply(replica, entry("user_memory", rows.memory(3, 1), V), tombstone("users", ID(1), V + 1))
    assert applied.won == frozenset()
    assert Key("user_memory", ID(3)) in applied.blockers
    again = await apply(replica, tombstone("user_memory", ID(3), V + 2), tombstone("users", ID(1), V + 1))
    assert len(again.won) == 2


# Unique keys ---------------------------------------------------------------------------------------------------------


async def test_rows_that_exchange_a_unique_key_are_exchanged(replica: Site) -> None:
    first = [
        entry("users", rows.user(1, clerk_id="a")),
        entry("users", rows.user(2, clerk_id="b")),
        entry("chat_sessions", rows.chat(3, chat_id="a")),
        entry("chat_sessions", rows.chat(4, chat_id="b")),
        entry("messages", {**rows.message(5, 3), "sequence_number": 1}),
        entry("messages", {**rows.message(6, 3), "sequence_number": 2}),
        entry("user_memory", rows.memory(7, 1, key="a")),
        entry("user_memory", rows.memory(8, 1, key="b")),
        entry("files", rows.file(9, 1, storage_key="a")),
        entry("files", rows.file(10, 1, storage_key="b")),
        # A key of a parent alone, and one with little room.
        entry("user_quotas", rows.whole("user_quotas", 11, user_id=ID(1))),
        entry("user_quotas", rows.whole("user_quotas", 12, user_id=ID(2))),
        entry(
            "storage_metrics", rows.whole("storage_metrics", 13, metric="m", scope="s", period="2026-11")
        ),  # a short one
        entry("storage_metrics", rows.whole("storage_metrics", 14, metric="m", scope="s", period="2026-12")),
    ]
    await apply(replica, *first)
    swapped = []
    for one, other in zip(first[::2], first[1::2], strict=True):
        table = TABLES[one.table]
        column = table.names.index(next(c for c in reversed(table.unique_keys[1])))
        for mine, theirs in ((one, other), (other, one)):
            assert mine.row is not None
            assert theirs.row is not None
            row = dict(zip(table.names, mine.row, strict=True)) | {table.names[column]: theirs.row[column]}
            swapped.append(entry(one.table, row, V + 1))
    applied = await apply(replica, *swapped)
    assert applied.won == {one.key for one in swapped}
    for one in swapped:
        assert (await replica.entry(one.table, one.id)).row == one.row


async def test_a_chain_of_keys_moves_on(replica: Site) -> None:
    """Each takes the key of the one before it, and the first one's is free."""
    chain = [entry("chat_sessions", rows.chat(n, chat_id=f"k{n}")) for n in range(1, 6)]
    await apply(replica, *chain)
    moved = [entry("chat_sessions", rows.chat(n, chat_id=f"k{n + 1}"), V + n) for n in range(1, 6)]
    assert len((await apply(replica, *moved)).won) == 5
    assert [row[1] for row in await replica.rows("chat_sessions")] == ["k2", "k3", "k4", "k5", "k6"]


async def test_a_key_that_was_deleted_and_made_anew_goes_to_the_new_row(replica: Site) -> None:
    await apply(replica, entry("chat_sessions", rows.chat(1, chat_id="mine")))
    again = entry("chat_sessions", rows.chat(2, chat_id="mine"), V + 2)
    assert await apply(replica, again) == Applied(blockers=(Key("chat_sessions", ID(1)),))
    assert (await apply(replica, again, tombstone("chat_sessions", ID(1), V + 1))).won == {
        Key("chat_sessions", ID(1)),
        Key("chat_sessions", ID(2)),
    }
    assert [row[0] for row in await replica.rows("chat_sessions")] == [ID(2)]


async def test_the_holder_of_a_wanted_key_is_named_and_nothing_applied(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1, clerk_id="a")), entry("users", rows.user(2, clerk_id="b")))
    applied = await apply(
        replica, entry("users", rows.user(3, clerk_id="a"), V + 1), entry("users", rows.user(4, clerk_id="c"), V + 1)
    )
    assert applied == Applied(blockers=(Key("users", ID(1)),))
    assert len(await replica.rows("users")) == 2


async def test_a_holder_that_came_in_an_old_state_is_asked_for_again(replica: Site) -> None:
    """It is in the batch and does not win: what it holds now is not what the batch says."""
    old = entry("users", rows.user(1, clerk_id="a"), V)
    await apply(replica, old)
    applied = await apply(replica, old, entry("users", rows.user(2, clerk_id="a"), V + 2))
    assert applied.blockers == (Key("users", ID(1)),)


async def test_rows_read_at_different_moments_that_claim_one_key_are_asked_for_again(replica: Site) -> None:
    applied = await apply(
        replica, entry("users", rows.user(1, clerk_id="a"), V), entry("users", rows.user(2, clerk_id="a"), V + 2)
    )
    assert set(applied.blockers) == {Key("users", ID(1)), Key("users", ID(2))}
    assert await replica.rows("users") == []


# From store to store -------------------------------------------------------------------------------------------------


async def test_a_store_is_copied_and_copied_back(make_site: MakeSite, backend: str) -> None:
    """All tables, foreign text and documents, into the backend and, with the roles turned round, out of it again."""
    source, target = await make_site("sqlite"), await make_site(backend)
    await source.insert("users", rows.user(1, name="Zoë \u2028 𝔘", profile={"z": 1.5, "a": [True, None, 2**53 + 1]}))
    await source.insert("chat_sessions", rows.chat(2, user_id=ID(1)))
    await source.insert("files", rows.file(5, 1, file_size=2**62))
    await source.install("primary")
    await target.install("replica")
    for table in TABLES:
        after = "-"
        while after:
            after = await source.replica.seed(table, "" if after == "-" else after, 1)
    await source.store.commit([*rows.append(3, 2, content="needle in hay"), Insert("system_logs", rows.log(6))])
    await source.insert("user_memory", rows.memory(4, 1, value={"k": ["v"]}))
    await copy_all(source, target)
    assert await source.dirty() == {}
    assert [await target.rows(table) for table in TABLES] == [await source.rows(table) for table in TABLES]
    for table in TABLES:
        assert await target.replica.digest(table) == await source.replica.digest(table)

    for unit in ("memory", "chats", "files", "users", "audit"):
        assert await source.replica.change_gate(unit, expect={}, change={"role": "fenced"})
        assert await target.replica.change_gate(
            unit, expect={"next_epoch": 2}, change={"role": "primary", "epoch": 2, "next_epoch": 3}
        )
        assert await source.replica.change_gate(unit, expect={"role": "fenced"}, change={"role": "replica"})
    await target.store.commit([*rows.append(7, 2), Update("users", {"id": ID(1)}, {"name": "back"})])
    await copy_all(target, source)
    assert [await target.rows(table) for table in TABLES] == [await source.rows(table) for table in TABLES]


async def test_search_finds_copied_messages_and_no_others(replica: Site) -> None:
    if not replica.store.capabilities.search:
        pytest.skip(f"{replica.backend} has no search")

    async def find(words: str) -> list[str]:
        found = await replica.store.read(Search("messages", search.parse_query(words), columns=("id",)))
        return [str(row[0]) for row in found]

    message = {**rows.message(3, 2, content="a needle"), "sequence_number": 1}
    await apply(replica, entry("chat_sessions", rows.chat(2)), entry("messages", message))
    assert await find("needle") == [ID(3)]
    await apply(replica, entry("messages", {**message, "content": "some thread"}, V + 1))
    assert (await find("needle"), await find("thread")) == ([], [ID(3)])
    await apply(replica, tombstone("messages", ID(3), V + 2))
    assert await find("thread") == []


async def test_rows_of_a_backfill_are_taken_where_some_are_known_already(replica: Site) -> None:
    given = [entry("users", rows.user(n), EPOCH) for n in range(1, 5)]
    assert (await apply(replica, given[1])).won == {given[1].key}
    newer = entry("users", rows.user(3, name="newer"), EPOCH + 1)
    await apply(replica, newer)
    assert (await apply(replica, *given)).won == {given[0].key, given[3].key}
    assert await apply(replica, *given) == Applied()
    found = await replica.replica.entries("users", [one.id for one in given])
    assert {one.id: (one.version, one.row) for one in found} == {
        one.id: (one.version, one.row) for one in (given[0], given[1], newer, given[3])
    }


async def test_a_row_of_a_backfill_names_who_holds_its_key(replica: Site) -> None:
    await apply(replica, entry("users", rows.user(1, clerk_id="one"), EPOCH))
    applied = await apply(
        replica,
        entry("users", rows.user(2, clerk_id="one"), EPOCH),
        entry("users", rows.user(3, clerk_id="three"), EPOCH),
    )
    assert Key("users", ID(1)) in applied.blockers
    assert await replica.rows("users") == [entry("users", rows.user(1, clerk_id="one")).row]


async def test_many_rows_go_in_one_copy(make_site: MakeSite, backend: str) -> None:
    target = await make_site(backend)
    await target.install("replica")
    given = [entry("users", rows.user(n, name="n" * 200, clerk_id=f"c{n}")) for n in range(1, 1001)]
    assert len((await target.replica.apply(given)).won) == 1000
    again = [entry("users", rows.user(n, name="m", clerk_id=f"c{1001 - n}"), V + 1) for n in range(1, 1001)]
    assert len((await target.replica.apply(again)).won) == 1000
    found = await target.replica.entries("users", [one.id for one in again])
    assert {one.id: (one.row, one.hash) for one in found} == {one.id: (one.row, one.hash) for one in again}
