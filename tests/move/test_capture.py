"""A primary's registry: whatever is written, by whoever, has an entry under a new version."""

from __future__ import annotations

from typing import cast

import pytest

from dal.ops import Compare, Delete, Insert, Op, Update, Upsert, Value
from dal.replica import EPOCH, Key
from dal.tables import TABLES
from dal.testing import rows
from tests.move.replicas import Fields, Site, copied, hashed, keys, on_sql

ID = rows.row_id


async def test_what_the_library_writes_is_registered(primary: Site) -> None:
    await primary.insert("users", rows.user(1))
    await primary.store.commit([Insert("chat_sessions", rows.chat(2)), *rows.append(3, 2)])
    found = await primary.dirty()
    assert set(found) == {Key("users", ID(1)), Key("chat_sessions", ID(2)), Key("messages", ID(3))}
    for entry in found.values():
        assert entry.version > EPOCH
        assert (entry.state, entry.hash) == ("dirty", None)
    assert found[Key("messages", ID(3))].row == (await primary.rows("messages"))[0]


async def test_every_row_has_a_version_of_its_own_and_later_ones_are_higher(primary: Site) -> None:
    await primary.insert("users", *(rows.user(n) for n in range(1, 6)))
    before = {key: entry.version for key, entry in (await primary.dirty()).items()}
    assert len(set(before.values())) == 5
    await primary.store.commit([Update("users", {"id": ID(2)}, {"name": "Ada"})])
    await primary.store.commit([Delete("users", (Compare("id", "=", ID(1)),))])
    after = await primary.dirty()
    assert max(before.values()) < after[Key("users", ID(2))].version < after[Key("users", ID(1))].version
    assert after[Key("users", ID(1))].row is None
    assert after[Key("users", ID(3))].version == before[Key("users", ID(3))]


async def test_every_table_is_captured_in_every_way_of_writing(primary: Site) -> None:
    made: dict[str, Fields] = {
        "users": rows.user(1),
        "chat_sessions": rows.chat(2),
        "messages": rows.message(3, 2),
        "user_memory": rows.memory(4, 1),
        "files": rows.file(5, 1),
        "system_logs": rows.log(6),
    }
    numbers = {"users": 1, "files": 5, "multipart_uploads": 10}
    for n, (name, declared) in enumerate(TABLES.items()):
        if name not in made:
            of = {parent.column: ID(numbers[parent.table]) for parent in declared.parents}
            made[name] = rows.whole(name, numbers.get(name, 20 + n), **of)
    for table, row in made.items():
        key = Key(table, str(row["id"]))
        plain = cast("dict[str, Value]", row)
        writes: list[Op] = [
            Insert(table, row),
            Update(table, {"id": plain["id"]}, {"created_at": rows.moment(99)}),
            Upsert(table, plain, ("id",), tuple(name for name in row if name != "id")),
        ]
        versions = []
        for op in writes:
            await primary.store.commit([op])
            versions.append((await primary.dirty())[key].version)
        assert versions == sorted(set(versions)), table
    for table in reversed(TABLES):
        await primary.store.commit([Delete(table, (Compare("created_at", ">", rows.moment(-1)),))])
        assert [entry.row for entry in await primary.replica.dirty(table, 10)] == [None], table


async def test_a_refused_batch_registers_nothing(primary: Site) -> None:
    with pytest.raises(Exception, match="user"):
        await primary.store.commit([Insert("users", rows.user(1)), Insert("user_memory", rows.memory(2, 404))])
    assert await primary.dirty() == {}


async def test_what_hangs_on_a_deleted_row_is_registered_too(primary: Site) -> None:
    await primary.insert("users", rows.user(1))
    await primary.insert("chat_sessions", rows.chat(2, user_id=ID(1)))
    await primary.insert("messages", rows.message(3, 2))
    await primary.insert("user_memory", rows.memory(4, 1))
    await primary.insert("files", rows.file(5, 1))
    await primary.drain()
    await primary.store.commit([Delete("users", (Compare("id", "=", ID(1)),))])
    found = await primary.dirty()
    gone = {key for key, entry in found.items() if entry.row is None}
    assert gone == {Key("users", ID(1)), Key("user_memory", ID(4)), Key("files", ID(5))}
    assert set(found) - gone == {Key("chat_sessions", ID(2))}
    await primary.store.commit([Delete("chat_sessions", (Compare("id", "=", ID(2)),))])
    assert (await primary.dirty())[Key("messages", ID(3))].row is None


@on_sql
async def test_other_programs_writes_are_registered(primary: Site) -> None:
    await primary.insert_raw("users", rows.user(1))
    await primary.insert_raw("chat_sessions", rows.chat(2))
    first = await primary.dirty()
    assert set(first) == {Key("users", ID(1)), Key("chat_sessions", ID(2))}
    await primary.raw(f"UPDATE users SET name = 'Ada' WHERE id = '{ID(1)}'", "DELETE FROM chat_sessions")
    second = await primary.dirty()
    assert second[Key("users", ID(1))].version > first[Key("users", ID(1))].version
    row = second[Key("users", ID(1))].row
    assert row is not None
    assert row[TABLES["users"].names.index("name")] == "Ada"
    assert second[Key("chat_sessions", ID(2))].row is None


@on_sql
async def test_a_changed_key_is_a_tombstone_and_a_new_row(primary: Site) -> None:
    await primary.insert("users", rows.user(1))
    await primary.raw(f"UPDATE users SET id = '{ID(2)}'")
    found = await primary.dirty()
    assert found[Key("users", ID(1))].row is None
    assert found[Key("users", ID(2))].row is not None
    (old,) = await primary.replica.registered("users", [ID(1)])
    assert old.deleted


@on_sql
async def test_a_delete_and_a_new_row_of_the_same_key_is_one_live_entry(primary: Site) -> None:
    await primary.insert("users", rows.user(1))
    before = await primary.entry("users", ID(1))
    await primary.raw("DELETE FROM users")
    await primary.insert_raw("users", rows.user(1, name="again"))
    after = await primary.entry("users", ID(1))
    assert after.version > before.version + 1
    assert (await primary.replica.registered("users", [ID(1)]))[0].deleted is False


async def test_a_change_behind_the_copy_stays_dirty(primary: Site) -> None:
    """The acknowledgement names the version that was copied."""
    await primary.insert("users", rows.user(1), rows.user(2))
    read = await primary.dirty()
    await primary.store.commit([Update("users", {"id": ID(1)}, {"name": "later"})])
    await primary.replica.acknowledge([copied(hashed(entry)) for entry in read.values()])
    assert set(await primary.dirty()) == {Key("users", ID(1))}


async def test_without_a_role_of_primary_nothing_is_registered(site: Site) -> None:
    await site.install("replica")
    assert keys([entry for table in TABLES for entry in await site.replica.dirty(table, 10)]) == set()
    await site.replica.uninstall(keep_fence=False)
    await site.insert("users", rows.user(1))
    await site.install("primary")
    assert await site.dirty() == {}
