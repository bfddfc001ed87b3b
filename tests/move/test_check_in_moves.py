"""Checks of stores in a move: versions and registries tell what is in flight, and rows what is true."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import pytest_asyncio

from dal.errors import UnsupportedError
from dal.move import registries, walking
from dal.move.check_report import CheckReport, Mode
from dal.move.checking import check
from dal.move.differences import Difference
from dal.ops import Compare, Delete, Insert, Update
from dal.replica import UNITS, Gate, Role
from dal.tables import TABLES
from dal.testing import rows
from tests.move.pairs import COUNTS, seed
from tests.move.replicas import MakeSite, Site, copy_all

ID = rows.row_id

#: For what does not depend on the backend of the source.
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class Sites:
    """A source and a target of one move, the target a copy of the source."""

    def __init__(self, source: Site, target: Site) -> None:
        self.source = source
        self.target = target

    async def find(self, mode: Mode = "deep", **options: object) -> tuple[CheckReport, list[Difference]]:
        found: list[Difference] = []
        report = await check(
            self.source.store,
            self.target.store,
            mode=mode,
            pause_s=0,
            on_difference=found.append,
            **options,  # type: ignore[arg-type]
        )
        return report, found

    async def phase(self, phase: str) -> None:
        for unit in UNITS:
            for site in (self.source, self.target):
                assert await site.replica.change_gate(unit, expect={}, change={"phase": phase})

    async def switch(self) -> None:
        """Makes the target the primary of everything."""
        for unit in UNITS:
            assert await self.source.replica.change_gate(unit, expect={}, change={"role": "replica"})
            assert await self.target.replica.change_gate(unit, expect={}, change={"role": "primary", "epoch": 2})


async def pretend_copied(site: Site) -> None:
    """What a mover that forgets to copy would do."""
    await site.drain()


async def damage(site: Site, statement: str) -> None:
    """Changes rows of a replica past its registry, as a failing disk would. SQLite only."""
    await site.raw("UPDATE dal_applying SET is_on = 1", statement, "UPDATE dal_applying SET is_on = 0")


def named(found: Sequence[Difference]) -> set[tuple[str, str, int, str]]:
    return {(d.kind, d.table, rows.number_of(d.id), d.side) for d in found}


@pytest_asyncio.fixture
async def sites(backend: str, make_site: MakeSite) -> Sites:
    made = Sites(await make_site(backend), await make_site("sqlite"))
    await made.source.install("primary")
    await made.target.install("replica")
    await seed(made.source.store)
    await copy_all(made.source, made.target)
    await made.phase("SYNC")
    return made


@pytest.mark.parametrize("mode", ["deep", "quick", "tail"])
async def test_a_copy_is_found_equal(sites: Sites, mode: Mode) -> None:
    report, found = await sites.find(mode)
    assert found == []
    assert report.is_equal
    assert report.in_move == tuple(UNITS)
    assert {name: (r.source, r.target, r.equal) for name, r in report.tables.items()} == {
        name: (count, count, count) for name, count in COUNTS.items()
    }


@on_sqlite
@pytest.mark.parametrize("mode", ["deep", "quick", "tail"])
async def test_rows_that_are_gone_on_both_sides_are_not_counted(sites: Sites, mode: Mode) -> None:
    await sites.source.store.commit([Delete("files", (Compare("id", "in", (ID(400), ID(401))),))])
    await copy_all(sites.source, sites.target)
    report, _ = await sites.find(mode)
    result, count = report.tables["files"], COUNTS["files"] - 2
    assert (result.source, result.target, result.equal) == (count, count, count)


async def change_three(site: Site) -> None:
    await site.store.commit([Insert("user_memory", rows.memory(900, 1))])
    await site.store.commit([Update("users", {"id": ID(1)}, {"name": "Ada"})])
    await site.store.commit([Delete("files", (Compare("id", "=", ID(400)),))])


@on_sqlite
@pytest.mark.parametrize("mode", ["deep", "quick", "tail"])
async def test_what_was_not_copied_yet_is_pending(sites: Sites, mode: Mode) -> None:
    await change_three(sites.source)
    report, found = await sites.find(mode)
    assert found == []
    assert report.pending == 3
    assert not report.is_equal


@pytest.mark.parametrize("mode", ["deep", "quick", "tail"])
async def test_what_counts_as_copied_and_is_not_differs(sites: Sites, mode: Mode) -> None:
    await change_three(sites.source)
    await pretend_copied(sites.source)
    report, found = await sites.find(mode)
    assert named(found) == {
        ("missing", "user_memory", 900, "target"),
        ("stale", "users", 1, "target"),
        ("extra", "files", 400, "target"),
    }
    assert report.pending == 0
    (stale,) = [d for d in found if d.kind == "stale"]
    assert stale.fields == ("name",)
    assert stale.altered == ()


@on_sqlite
@pytest.mark.parametrize("mode", ["deep", "quick"])
async def test_a_row_copied_while_it_is_watched_is_no_difference(sites: Sites, mode: Mode) -> None:
    await change_three(sites.source)
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await copy_all(sites.source, sites.target)

    report = await check(sites.source.store, sites.target.store, mode=mode, timer=lambda: now, sleep=sleep)
    assert report.is_equal
    assert now > 0


@on_sqlite
async def test_content_changed_behind_the_replica_is_found_and_told_apart(sites: Sites) -> None:
    await damage(sites.target, f"UPDATE messages SET content = 'x' WHERE id = '{ID(203)}'")
    await damage(sites.target, f"DELETE FROM messages WHERE id = '{ID(204)}'")
    await damage(sites.target, f"UPDATE user_memory SET id = '{ID(901)}' WHERE id = '{ID(301)}'")
    _, found = await sites.find()
    assert named(found) == {
        ("content_differs", "messages", 203, "target"),
        ("missing", "messages", 204, "target"),
        ("missing", "user_memory", 301, "target"),
        ("extra", "user_memory", 901, "target"),
    }
    (differs,) = [d for d in found if d.kind == "content_differs"]
    assert differs.fields == ("content",)
    assert differs.altered == ("target",)


@on_sqlite
@pytest.mark.parametrize("mode", ["deep", "quick", "tail"])
async def test_what_a_cascade_took_from_the_replica_waits_for_its_copy(sites: Sites, mode: Mode) -> None:
    await damage(sites.target, f"DELETE FROM messages WHERE id = '{ID(204)}'")
    await sites.target.raw(f"UPDATE dal_sync SET state = 2, deleted = 1, hash = NULL WHERE pk = '{ID(204)}'")
    report, found = await sites.find(mode)
    assert found == []
    assert report.pending >= 1


@on_sqlite
async def test_a_registry_that_is_wrong_about_equal_rows_is_no_difference(sites: Sites) -> None:
    await sites.target.raw(f"UPDATE dal_sync SET hash = hash + 1 WHERE pk = '{ID(203)}'")
    await sites.target.raw(f"UPDATE dal_sync SET hash = NULL WHERE pk = '{ID(204)}'")
    modes: tuple[Mode, ...] = ("quick", "tail", "deep")
    for mode in modes:
        report, found = await sites.find(mode)
        assert found == []
        assert report.is_equal


@on_sqlite
@pytest.mark.parametrize("mode", ["deep", "quick"])
async def test_while_the_backfill_is_under_way_rows_wait_for_it(backend: str, make_site: MakeSite, mode: Mode) -> None:
    sites = Sites(await make_site(backend), await make_site("sqlite"))
    await seed(sites.source.store)
    await sites.source.install("primary")
    await sites.target.install("replica")
    report, found = await sites.find(mode)
    assert found == []
    assert not report.is_equal
    assert report.pending == (sum(COUNTS.values()) if mode == "deep" else 0)
    assert set(report.unseen) == (set(TABLES) if mode == "quick" else set())
    await sites.phase("SYNC")
    report, found = await sites.find()
    assert {d.kind for d in found} == {"missing"}
    assert len(found) == sum(COUNTS.values())


@on_sqlite
@pytest.mark.parametrize("mode", ["deep", "quick", "tail"])
async def test_the_side_that_is_no_primary_is_the_one_that_differs(sites: Sites, mode: Mode) -> None:
    await sites.switch()
    await change_three(sites.target)
    report, found = await sites.find(mode)
    assert found == []
    assert report.pending == 3
    await pretend_copied(sites.target)
    report, found = await sites.find(mode)
    assert named(found) == {
        ("missing", "user_memory", 900, "source"),
        ("stale", "users", 1, "source"),
        ("extra", "files", 400, "source"),
    }


async def test_a_tail_passes_over_what_was_found_equal_before(sites: Sites) -> None:
    report, _ = await sites.find("tail", mark=True)
    assert report.rows == 2 * sum(COUNTS.values())
    report, _ = await sites.find("tail")
    assert report.rows == 0
    await sites.source.store.commit([Update("users", {"id": ID(1)}, {"name": "Ada"})])
    await copy_all(sites.source, sites.target)
    report, _ = await sites.find("tail")
    assert {name: r.source for name, r in report.tables.items() if r.source} == {"users": 1}
    assert report.is_equal


@on_sqlite
async def test_a_deep_check_marks_only_what_was_equal(sites: Sites) -> None:
    await change_three(sites.source)
    await pretend_copied(sites.source)
    await sites.find("deep", mark=True)
    report, found = await sites.find("tail", mark=True)
    assert len(found) == 3
    assert {name: r.source for name, r in report.tables.items() if r.source} == {"users": 1, "user_memory": 1}
    report, found = await sites.find("tail")
    assert len(found) == 3


@on_sqlite
async def test_a_deep_check_marks_page_by_page_all_that_was_equal(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever its pages and those of the registry end, and rows that are gone on both sides too."""
    monkeypatch.setattr(walking, "CHECK_PAGE_ROWS", 5)
    monkeypatch.setattr(registries, "MOVE_TAIL_ROWS", 3)
    await sites.source.store.commit([Delete("files", (Compare("id", "in", (ID(401), ID(402))),))])
    await copy_all(sites.source, sites.target)
    await damage(sites.target, f"UPDATE messages SET content = 'x' WHERE id = '{ID(207)}'")
    await damage(sites.target, f"DELETE FROM messages WHERE id = '{ID(214)}'")
    assert len((await sites.find("deep", mark=True))[1]) == 2
    waiting = await sites.source.raw("SELECT pk FROM dal_sync WHERE state <> 0 ORDER BY pk")
    assert [rows.number_of(str(pk)) for (pk,) in waiting] == [207, 214]


@on_sqlite
async def test_what_lies_outside_a_sample_is_not_marked(sites: Sites) -> None:
    many = [Insert("system_logs", rows.log(n)) for n in range(10_000, 10_400)]
    await sites.source.store.commit(many)
    await copy_all(sites.source, sites.target)
    report, _ = await sites.find("deep", units=("audit",), mark=True, sampled=100, random=Random(1))
    seen = report.tables["system_logs"].equal
    ((marked,),) = await sites.source.raw("SELECT count(*) FROM dal_sync WHERE entity = 'system_logs' AND state = 0")
    assert isinstance(marked, int)
    assert 0 < marked <= seen


@on_sqlite
async def test_units_outside_the_move_are_compared_by_their_rows_alone(backend: str, make_site: MakeSite) -> None:
    sites = Sites(await make_site(backend), await make_site("sqlite"))
    roles: list[tuple[Site, Role]] = [(sites.source, "primary"), (sites.target, "replica")]
    for site, role in roles:
        await seed(site.store)
        await site.replica.install([Gate("memory", "m1", "source", role, 1, 2, "SYNC")])
    await sites.source.store.commit([Update("users", {"id": ID(2)}, {"name": "Ada"})])
    await sites.source.store.commit([Update("user_memory", {"id": ID(302)}, {"value": "new"})])
    report, found = await sites.find()
    assert report.in_move == ("memory",)
    assert named(found) == {("content_differs", "users", 2, "target")}
    assert report.tables["user_memory"].pending == 1
    with pytest.raises(UnsupportedError, match="users: a quick check"):
        await sites.find("quick")
    assert (await sites.find("quick", units=("memory",)))[0].pending == 1


@on_sqlite
async def test_stores_whose_move_is_over_are_compared_as_any_two_stores(sites: Sites) -> None:
    await sites.switch()
    await sites.source.replica.uninstall(keep_fence=True)
    assert (await sites.find())[0].in_move == ()
    await sites.target.replica.uninstall(keep_fence=False)
    await sites.target.store.commit([Update("users", {"id": ID(2)}, {"name": "Ada"})])
    report, found = await sites.find()
    assert report.in_move == ()
    assert named(found) == {("content_differs", "users", 2, "target")}


@on_sqlite
async def test_stores_of_different_moves_are_compared_as_any_two_stores(backend: str, make_site: MakeSite) -> None:
    sites = Sites(await make_site(backend), await make_site("sqlite"))
    for site, move in ((sites.source, "m1"), (sites.target, "m2")):
        await seed(site.store)
        await site.install("primary", move=move)
    report, found = await sites.find()
    assert report.is_equal
    assert report.in_move == ()
    assert found == []
