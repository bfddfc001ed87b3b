"""Copies on their way: what is overtaken, taken along or altered there is never acknowledged as copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from dal.move.relay import copy_dirty, copy_keys
from dal.move.sides import read_gates
from dal.ops import Compare, Delete, Update, Value
from dal.replica import Entry, Key, Replica
from dal.store import Stored
from dal.tables import TABLES
from dal.testing import rows
from tests.move.moving import ALL, MANY_ROWS, backend, quick, source, start, target
from tests.move.replicas import MakeSite, Site

__all__ = ["backend", "quick", "source", "target"]

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_child_taken_by_a_late_delete_of_its_parent_is_brought_back(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.settle()
    user = rows.row_id(1)
    await source.store.commit([Delete("users", (Compare("id", "=", user),))])
    late = [entry for entry in await source.replica.entries("users", [user]) if entry.row is None]
    assert late
    await source.insert("users", rows.user(1))
    await source.insert("user_memory", rows.memory(2001, 1, value="made again"))
    # The child arrives first, then a copier that was held up with what it had read before.
    await copy_keys(source.replica, target.replica, [Key("user_memory", rows.row_id(2001))], frozenset(ALL))
    await target.replica.apply(late)
    await move.settle()
    assert await move.differences() == 0
    assert any(row[0] == rows.row_id(2001) for row in await target.rows("user_memory"))


class _LateDelete:
    """A target where a delete arrives behind what it takes along, before that is read back."""

    def __init__(self, inner: Replica, late: Sequence[Entry]) -> None:
        self._inner = inner
        self._late = late

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def stored(self, table: str, ids: Sequence[str]) -> Stored:
        assert (await self._inner.apply(self._late)).won
        return await self._inner.stored(table, ids)


async def test_a_child_taken_while_it_is_read_back_is_no_copy(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.settle()
    user, item = rows.row_id(1), Key("user_memory", rows.row_id(2001))
    await source.store.commit([Delete("users", (Compare("id", "=", user),))])
    late = await source.replica.entries("users", [user])
    await source.insert("users", rows.user(1))
    await source.insert("user_memory", rows.memory(2001, 1, value="made again"))
    result = await copy_keys(source.replica, cast(Replica, _LateDelete(target.replica, late)), [item], frozenset(ALL))
    assert (result.copied, result.overtaken, result.different) == (0, 1, [])
    await move.settle()
    assert await move.differences() == 0
    assert item.id in [row[0] for row in await target.rows("user_memory")]


async def test_a_reference_taken_by_a_late_delete_of_its_parent_is_no_difference(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.settle()
    user, chat = rows.row_id(1), Key("chat_sessions", rows.row_id(900))
    await source.store.commit([Delete("users", (Compare("id", "=", user),))])
    late = await source.replica.entries("users", [user])
    await source.insert("users", rows.user(1))
    await source.insert("chat_sessions", rows.chat(900, user_id=user))

    behind = cast(Replica, _LateDelete(target.replica, late))
    result = await copy_keys(source.replica, behind, [chat], frozenset(ALL))
    assert (result.copied, result.overtaken, result.different) == (0, 1, [])
    await move.settle()
    assert await move.differences() == 0
    assert [row[2] for row in await target.rows("chat_sessions") if row[0] == chat.id] == [user]


@pytest.mark.parametrize("changed", [{"name": "other"}, {"profile": {"a": True}}], ids=["a value", "a document"])
async def test_what_a_replica_does_not_keep_as_it_was_given_is_named_and_stays_dirty(
    source: Site, target: Site, changed: Mapping[str, Value]
) -> None:
    """Under the same version and hash: content alone tells."""
    move = await start(source, target)
    await move.settle()
    users = [Key("users", rows.row_id(n)) for n in (8001, 8002)]
    await source.insert("users", *(rows.user(n, profile={"a": 1}) for n in (8001, 8002)))

    class _Altering:
        def __getattr__(self, name: str) -> object:
            return getattr(target.replica, name)

        async def entries(self, table: str, ids: Sequence[str]) -> list[Entry]:
            found = await target.replica.entries(table, ids)
            return [_altered(entry) if entry.id == users[1].id else entry for entry in found]

        async def stored(self, table: str, ids: Sequence[str]) -> Stored:
            return Stored([entry.row for entry in await self.entries(table, ids) if entry.row is not None], {})

    def _altered(entry: Entry) -> Entry:
        assert entry.row is not None
        row: dict[str, Value] = {**dict(zip(TABLES["users"].names, entry.row, strict=True)), **changed}
        return entry._replace(row=tuple(row.values()))

    result = await copy_keys(source.replica, cast(Replica, _Altering()), users, frozenset(ALL))
    assert (result.copied, result.overtaken, result.different) == (1, 0, [users[1]])
    assert [entry.key for entry in await source.replica.dirty("users", 10)] == [users[1]]


async def test_two_rows_that_exchange_a_unique_value_are_copied(source: Site, target: Site) -> None:
    move = await start(source, target)
    await move.settle()
    one, two = rows.row_id(1), rows.row_id(2)
    clerks = {str(row[0]): row[1] for row in await source.rows("users")}
    await source.store.commit(
        [
            Update("users", {"id": one}, {"clerk_id": "between"}),
            Update("users", {"id": two}, {"clerk_id": clerks[one]}),
            Update("users", {"id": one}, {"clerk_id": clerks[two]}),
        ]
    )
    result = await copy_dirty(source.replica, target.replica, "users", 1, frozenset(ALL))
    assert (result.stuck, result.different) == ({}, [])
    assert await move.differences("users") == 0


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_rows_that_the_target_cannot_hold_are_named_and_the_others_are_copied(
    source: Site, make_site: MakeSite, backend: str
) -> None:
    target = await make_site(backend)
    too_long = Key("users", rows.row_id(8001))
    # As a program does that knows no library: SQLite keeps texts of any length, and zeros in them.
    await source.insert("users", rows.user(8001, name="n" * 256), rows.user(8002, name="n" * 255))
    await source.store.commit([Update("messages", {"id": rows.row_id(1000)}, {"content": "a\0b"})])
    await source.insert("user_memory", rows.memory(9001, 8001))
    move = await start(source, target)
    mover = move.mover()
    await mover.run(lambda gates: all(found.phase in ("SYNC", "VERIFIED") for found in gates.values()))
    while await mover.step(await read_gates(move.sides)):
        pass
    progress = mover.progress
    assert progress.refused.keys() == {too_long, Key("messages", rows.row_id(1000))}
    assert progress.stuck == {Key("user_memory", rows.row_id(9001)): (too_long,)}
    assert "1 rows hold what the other store cannot: users['" in progress.held_up["users"]
    assert "\0" not in str(progress.held_up)
    assert len(await target.rows("users")) == 11
    assert len(await target.rows("messages")) == MANY_ROWS - 1
    await source.store.commit([Update("users", {"id": too_long.id}, {"name": "n"})])
    await source.store.commit([Update("messages", {"id": rows.row_id(1000)}, {"content": "a"})])
    await move.settle()
    assert await move.differences() == 0
