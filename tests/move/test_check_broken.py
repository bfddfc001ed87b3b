"""The deep check of a store that is broken: its reads fail, its documents are damaged, its rows lack parents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from dal.backends.memory import MemoryStore
from dal.errors import CorruptDataError, DalError, UnavailableError
from dal.factory import create_store
from dal.move.checking import check
from dal.move.orphans import Orphans
from dal.move.reading import Reader
from dal.ops import Compare, Delete, Insert, Query, Row, Select
from dal.tables import TABLES
from dal.testing import rows
from tests.move.pairs import CHATS, MESSAGES, FakeTime, Pair, find, seed, seeded, twins
from tests.move.replicas import run_sqlite

__all__ = ["twins"]

ID = rows.row_id


class Failing(MemoryStore):
    """Reads fail from some call on, for as often as told."""

    def __init__(self, *, after: int, times: int, error: Exception) -> None:
        super().__init__()
        self.calls, self.after, self.times, self.error = 0, after, times, error

    async def read(self, query: Query) -> list[Row]:
        self.calls += 1
        if self.after < self.calls <= self.after + self.times:
            raise self.error
        return await super().read(query)


async def failing(twins: Pair, *, times: int, error: Exception, after: int = 4) -> Pair:
    store = Failing(after=after, times=times, error=error)
    await store.open()
    await seed(store)
    return Pair(twins.source, store)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.move.reading.RETRY_FIRST_WAIT_S", 0)


@pytest.mark.usefixtures("no_waiting")
async def test_a_connection_that_is_lost_for_a_moment_is_passed_over(twins: Pair) -> None:
    pair = await failing(twins, times=2, error=UnavailableError("the connection was lost"))
    assert (await find(pair))[0].is_equal


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("after", range(12))
async def test_a_store_that_fails_for_good_is_never_taken_for_an_empty_one(twins: Pair, after: int) -> None:
    pair = await failing(twins, times=1000, error=UnavailableError("the connection was lost"), after=after)
    with pytest.raises(UnavailableError, match="the connection was lost"):
        await find(pair)


@pytest.mark.parametrize("error", [CorruptDataError("damaged"), ValueError("no JSON")])
async def test_what_cannot_be_understood_ends_the_check(twins: Pair, error: Exception) -> None:
    with pytest.raises(CorruptDataError):
        await find(await failing(twins, times=1, error=error))


async def test_a_document_that_is_no_json_ends_the_check(tmp_path: Path) -> None:
    place = tmp_path / "dal.db"
    pair = Pair(MemoryStore(), create_store(f"sqlite://{place}"))
    await pair.open()
    await pair.seed()
    run_sqlite(
        place,
        f"UPDATE files SET metadata = '{{\"a\": ' WHERE id = '{ID(403)}'",
        settings=["PRAGMA ignore_check_constraints = 1"],
    )
    with pytest.raises(DalError, match="files"):
        await find(pair)
    await pair.close()


async def test_ids_out_of_order_end_the_check(twins: Pair) -> None:
    class Unsorted(MemoryStore):
        async def read(self, query: Query) -> list[Row]:
            return list(reversed(await super().read(query)))

    store = Unsorted()
    await store.open()
    await seed(store)
    with pytest.raises(CorruptDataError, match="users in the target: ids came out of order"):
        await find(Pair(twins.source, store))


@pytest_asyncio.fixture
async def orphaned(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two stores with the same rows, of which the source has lost a chat and kept its messages."""
    place = tmp_path / "dal.db"
    pair = Pair(create_store(f"sqlite://{place}"), MemoryStore())
    await pair.open()
    await pair.seed()
    run_sqlite(place, f"DELETE FROM chat_sessions WHERE id = '{ID(101)}'")
    yield pair
    await pair.close()


async def test_orphans_are_named_on_the_side_that_has_them(orphaned: Pair) -> None:
    report, found = await find(orphaned)
    orphans = {(d.side, d.table, d.fields) for d in found if d.kind == "orphan"}
    assert orphans == {("source", "messages", ("chat_session_id",))}
    assert report.tables["messages"].counts == {"orphan": MESSAGES // CHATS}
    assert report.tables["chat_sessions"].counts == {"extra": 1}
    report, found = await find(orphaned, units=("chats",))
    assert report.tables["messages"].counts == {"orphan": MESSAGES // CHATS}


async def test_a_child_that_is_gone_in_the_end_is_no_orphan(orphaned: Pair) -> None:
    await orphaned.target.commit([Delete("chat_sessions", (Compare("id", "=", ID(101)),))])

    async def cascade() -> None:
        await orphaned.source.commit([Delete("messages", (Compare("chat_session_id", "=", ID(101)),))])

    time = FakeTime(cascade)
    report = await check(*orphaned, timer=time, sleep=time.sleep)
    assert report.is_equal


async def test_a_child_whose_parent_comes_back_is_no_orphan(orphaned: Pair) -> None:
    async def come_back() -> None:
        if not await orphaned.source.read(Select("chat_sessions", (Compare("id", "=", ID(101)),))):
            await orphaned.source.commit([Insert("chat_sessions", seeded()["chat_sessions"][1])])

    time = FakeTime(come_back)
    report = await check(*orphaned, timer=time, sleep=time.sleep)
    assert report.tables["messages"].counts == {}
    assert report.is_equal


async def test_known_parents_are_bounded(twins: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.move.orphans.CHECK_KNOWN_PARENTS", 3)
    orphans = Orphans(reader := Reader("source", twins.source))
    for name in ("users", "chat_sessions", "messages"):
        after = ""
        while page := await reader.rows(TABLES[name], after, 2):
            await orphans.look(TABLES[name], page)
            after = cast(str, page[-1][0])
    assert max(map(len, orphans._known.values())) <= 3
    assert not orphans.any
    assert (await find(twins))[0].is_equal


async def test_a_damaged_document_of_both_stores_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    pair = Pair(create_store(f"file://{tmp_path / 'a'}"), create_store(f"file://{tmp_path / 'b'}"))
    await pair.open()
    await pair.seed()
    await pair.close()
    for side in ("a", "b"):
        (document,) = (tmp_path / side).rglob(f"{ID(402)}.json")
        document.write_bytes(b'{"id": ')
    await pair.open()
    report, found = await find(pair)
    await pair.close()
    assert found == []
    assert not report.is_equal
    assert [len(report.damage[side]) for side in ("source", "target")] == [1, 1]
