"""Repair in a move: the primary's rows are copied again, in the usual way, and only when that is asked for."""

from __future__ import annotations

import pytest

from dal.errors import UnsupportedError
from dal.move.checking import check
from dal.move.differences import Difference
from dal.move.repair import ACTION, Repair, repair
from dal.ops import Select
from dal.testing import rows
from tests.move.replicas import copy_all, on_sql
from tests.move.test_check_in_moves import Sites, change_three, damage, named, on_sqlite, pretend_copied, sites

__all__ = ["sites"]

ID = rows.row_id


async def mended(sites: Sites, found: list[Difference], *, dry_run: bool = True, delete_extra: bool = False) -> Repair:
    stores = sites.source.store, sites.target.store
    return await repair(*stores, found, dry_run=dry_run, delete_extra=delete_extra)


@on_sqlite
async def test_nothing_is_changed_unless_asked(sites: Sites) -> None:
    await change_three(sites.source)
    await pretend_copied(sites.source)
    _, found = await sites.find()
    plan = await mended(sites, found)
    assert plan == Repair({"user_memory": [ID(900)], "users": [ID(1)]}, {}, left=1)
    assert await sites.source.dirty() == {}
    assert len((await sites.find())[1]) == 3


@on_sqlite
async def test_what_differs_is_copied_again_and_what_is_too_much_stays(sites: Sites) -> None:
    await change_three(sites.source)
    await pretend_copied(sites.source)
    _, found = await sites.find()
    plan = await mended(sites, found, dry_run=False)
    assert plan.done
    assert (await sites.find())[0].pending == 2 + 2  # each table has its entry in the trail
    await copy_all(sites.source, sites.target)
    assert named((await sites.find())[1]) == {("extra", "files", 400, "target")}


@on_sql
async def test_rows_too_many_go_where_that_is_said(sites: Sites) -> None:
    await change_three(sites.source)
    await pretend_copied(sites.source)
    await damage(sites.target, f"UPDATE user_memory SET id = '{ID(901)}' WHERE id = '{ID(301)}'")
    _, found = await sites.find()
    plan = await mended(sites, found, dry_run=False, delete_extra=True)
    assert plan.deleted == {"files": [ID(400)], "user_memory": [ID(901)]}
    await copy_all(sites.source, sites.target)
    assert (await sites.find())[0].is_equal


@on_sqlite
async def test_every_repair_is_in_the_trail_of_both_stores_without_content(sites: Sites) -> None:
    await change_three(sites.source)
    await pretend_copied(sites.source)
    _, found = await sites.find()
    await mended(sites, found, dry_run=False)
    await copy_all(sites.source, sites.target)
    for site in (sites.source, sites.target):
        read = await site.store.read(Select("system_logs", columns=("action", "entity_type", "context")))
        written = {str(row[1]): row[2] for row in read if row[0] == ACTION}
        assert written == {
            "users": {"copied": 1, "deleted": 0, "ids": [ID(1)]},
            "user_memory": {"copied": 1, "deleted": 0, "ids": [ID(900)]},
        }


@on_sqlite
async def test_the_primary_repairs_the_other_side_also_after_a_switch(sites: Sites) -> None:
    await sites.switch()
    await change_three(sites.target)
    await pretend_copied(sites.target)
    _, found = await sites.find()
    await mended(sites, found, dry_run=False, delete_extra=True)
    await copy_all(sites.target, sites.source)
    assert (await sites.find())[0].is_equal


@on_sqlite
async def test_damage_in_the_primary_is_not_spread(sites: Sites) -> None:
    await sites.switch()
    await sites.target.raw(
        f"UPDATE users SET name = 'x' WHERE id = '{ID(1)}'",
        # As if no trigger had seen it.
        "UPDATE dal_sync SET state = 1, ver = (SELECT max(ver) FROM dal_sync WHERE entity = 'files') "
        f"WHERE pk = '{ID(1)}'",
        f"UPDATE dal_sync SET hash = 1 WHERE pk = '{ID(1)}' AND entity = 'users'",
    )
    _, found = await sites.find()
    (one,) = found
    assert "target" in one.altered
    plan = await mended(sites, found, dry_run=False, delete_extra=True)
    assert plan == Repair(doubtful=1)


@on_sqlite
async def test_stores_in_no_move_are_not_repaired(sites: Sites) -> None:
    for site in (sites.source, sites.target):
        await site.replica.uninstall(keep_fence=False)
    found: list[Difference] = []
    await sites.target.raw(f"DELETE FROM files WHERE id = '{ID(400)}'")
    await check(sites.source.store, sites.target.store, pause_s=0, on_difference=found.append)
    with pytest.raises(UnsupportedError, match="files: a move repairs rows"):
        await mended(sites, found)
