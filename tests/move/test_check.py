"""The deep check of any two stores, in no move: it names what differs and stays different, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import cast

import pytest
import pytest_asyncio

from dal.backends.memory import MemoryStore
from dal.errors import CorruptDataError, DalError, InvalidInputError, UnavailableError, UnsupportedError
from dal.factory import create_store
from dal.move import checking, walking, watching
from dal.move.check_report import CheckProgress, CheckReport, Place, report_of
from dal.move.checking import check
from dal.move.differences import Difference
from dal.move.orphans import Orphans
from dal.move.reading import Reader
from dal.ops import Compare, Delete, Insert, Op, Query, Row, Select, Update, Value
from dal.replica import UNITS
from dal.tables import TABLES
from dal.testing import rows
from tests.move.pairs import CHATS, COUNTS, FIRST, MESSAGES, PAIRS, USERS, Pair, pair_of, seed, seeded
from tests.move.replicas import run_sqlite

ID = rows.row_id


@pytest.fixture
def schemas_of_pairs(request: pytest.FixtureRequest) -> None:
    """What makes the databases' schemas has an event loop of its own, and goes before the test's."""
    for name in ("sqlite_with_schema", "postgres_with_schema", "d1_schema"):
        request.getfixturevalue(name)


@pytest_asyncio.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path, schemas_of_pairs: None) -> AsyncIterator[Pair]:
    """Two open stores of different backends with the same rows."""
    made = pair_of(request.param, request, tmp_path)
    await made.open()
    await made.seed()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def twins() -> AsyncIterator[Pair]:
    """The same in memory, for what does not depend on the backend."""
    made = Pair(MemoryStore(), MemoryStore())
    await made.open()
    await made.seed()
    yield made
    await made.close()


class FakeTime:
    """A timer that moves when somebody sleeps; what others do meanwhile is `sleeping`."""

    def __init__(self, sleeping: Callable[[], Awaitable[object]]) -> None:
        self.now = 0.0
        self._sleeping = sleeping

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await self._sleeping()


async def find(pair: Pair, **options: object) -> tuple[CheckReport, list[Difference]]:
    found: list[Difference] = []
    report = await check(*pair, pause_s=0, on_difference=found.append, **options)  # type: ignore[arg-type]
    return report, found


def named(found: Sequence[Difference]) -> set[tuple[str, str, int, tuple[str, ...]]]:
    return {(d.kind, d.table, rows.number_of(d.id), d.fields) for d in found}


async def test_equal_stores_of_any_two_backends_are_found_equal(pair: Pair) -> None:
    report, found = await find(pair)
    assert found == []
    assert report.is_equal
    assert report.is_whole
    assert {name: (r.source, r.target, r.equal) for name, r in report.tables.items()} == {
        name: (count, count, count) for name, count in COUNTS.items()
    }


async def test_each_kind_of_difference_is_named_with_its_fields(pair: Pair) -> None:
    await pair.target.commit([Delete("messages", (Compare("id", "=", ID(205)),))])
    await pair.target.commit([Insert("user_memory", rows.memory(900, 1))])
    await pair.target.commit([Update("users", {"id": ID(2)}, {"name": "Ada", "preferences": {"b": 2, "a": True}})])
    await pair.source.commit([Update("files", {"id": ID(401)}, {"filename": "b.txt"}, {"version": 1})])
    report, found = await find(pair)
    assert named(found) == {
        ("missing", "messages", 205, ()),
        ("extra", "user_memory", 900, ()),
        ("content_differs", "users", 2, ("name", "preferences")),
        ("stale", "files", 401, ("filename", "version")),
    }
    assert {d.side for d in found} == {"target"}
    assert not report.is_equal
    assert report.differences == 4
    assert report.tables["messages"].counts == {"missing": 1}
    assert report.tables["messages"].equal == MESSAGES - 1


async def test_composed_and_decomposed_accents_differ_and_key_order_does_not(pair: Pair) -> None:
    await pair.source.commit([Update("files", {"id": ID(400)}, {"metadata": {"a": 1, "b": [1.0], "c": {}}})])
    await pair.target.commit([Update("files", {"id": ID(400)}, {"metadata": {"c": {}, "b": [1], "a": 1}})])
    await pair.source.commit([Update("messages", {"id": ID(200)}, {"content": "Caf\u00e9"})])
    await pair.target.commit([Update("messages", {"id": ID(200)}, {"content": "Cafe\u0301"})])
    assert named((await find(pair))[1]) == {("content_differs", "messages", 200, ("content",))}


async def test_pages_never_lose_a_row_wherever_they_end(twins: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "CHECK_PAGE_ROWS", 3)
    gone = [ID(n) for n in (200, 202, 203, 204, 205, 206, 207, 223)]
    await twins.target.commit([Delete("messages", (Compare("id", "in", tuple(gone)),))])
    await twins.target.commit([Insert("system_logs", rows.log(n)) for n in (1, 2, 3, 4, 506, 900, 901)][:4])
    await twins.target.commit([Insert("system_logs", rows.log(n)) for n in (900, 901)])
    report, found = await find(twins)
    assert {d.id for d in found if d.kind == "missing"} == set(gone)
    assert {rows.number_of(d.id) for d in found if d.kind == "extra"} == {1, 2, 3, 4, 900, 901}
    assert report.differences == len(gone) + 6


async def test_an_empty_store_misses_everything(twins: Pair) -> None:
    empty = MemoryStore()
    await empty.open()
    _, found = await find(Pair(twins.source, empty))
    assert len(found) == sum(COUNTS.values())
    assert {d.kind for d in found} == {"missing"}
    _, found = await find(Pair(empty, twins.source))
    assert {d.kind for d in found} == {"extra"}
    assert len(found) == sum(COUNTS.values())


async def test_only_the_units_asked_for_are_compared(twins: Pair) -> None:
    await twins.target.commit([Delete("user_memory", (Compare("id", "=", ID(300)),))])
    report, found = await find(twins, units=("chats", "audit"))
    assert found == []
    assert set(report.tables) == {"chat_sessions", "messages", "system_logs"}
    assert (await find(twins, units=("memory",)))[0].differences == 1
    with pytest.raises(InvalidInputError, match="messages: no such unit; there are memory, chats"):
        await find(twins, units=("messages",))


class Changing(MemoryStore):
    """A store whose reads are followed by something: what other people do meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.after_read: Callable[[Query], Awaitable[None]] | None = None

    async def read(self, query: Query) -> list[Row]:
        found = await super().read(query)
        if self.after_read is not None:
            after_read, self.after_read = self.after_read, None
            await after_read(query)
            self.after_read = after_read
        return found


@pytest_asyncio.fixture
async def live() -> AsyncIterator[Pair]:
    made = Pair(Changing(), MemoryStore())
    await made.open()
    await made.seed()
    yield made
    await made.close()


async def test_a_row_on_its_way_is_no_difference(live: Pair) -> None:
    """The target gets the row between two looks."""
    await live.source.commit([Insert("system_logs", rows.log(900))])

    async def copy() -> None:
        if not await live.target.read(Select("system_logs", (Compare("id", "=", ID(900)),))):
            await live.target.commit([Insert("system_logs", rows.log(900))])

    time = FakeTime(copy)
    report = await check(*live, timer=time, sleep=time.sleep)
    assert report.is_equal
    assert report.tables["system_logs"].equal == COUNTS["system_logs"] + 1


async def test_a_row_that_keeps_changing_is_pending_and_never_a_difference(live: Pair) -> None:
    changes = 0
    await live.target.commit([Update("users", {"id": ID(1)}, {"name": "another"})])

    async def change(_: Query) -> None:
        nonlocal changes
        changes += 1
        await live.source.commit([Update("users", {"id": ID(1)}, {"name": f"name {changes}"})])

    cast(Changing, live.source).after_read = change
    report, found = await find(live)
    assert found == []
    assert report.pending == 1
    assert report.tables["users"].pending == 1
    assert not report.is_equal


async def test_rows_written_to_both_stores_while_they_are_compared_are_no_differences(live: Pair) -> None:
    """Whatever a page of one side shows and that of the other side does not."""
    random, number = Random(1), 1000

    async def change(_: Query) -> None:
        nonlocal number
        number += 1
        ops: list[Op] = [
            Insert("system_logs", rows.log(number, id=ID(random.choice((0, 10_000)) + number))),
            Update("users", {"id": ID(1 + number % USERS)}, {"name": f"name {number}"}),
            Delete("messages", (Compare("id", "=", ID(FIRST["messages"] + number % MESSAGES)),)),
        ]
        for store in random.sample([cast(MemoryStore, live.source), live.target], 2):
            await (MemoryStore.commit(store, ops) if isinstance(store, MemoryStore) else store.commit(ops))

    cast(Changing, live.source).after_read = change
    _, found = await find(live)
    assert found == []


async def test_many_rows_under_suspicion_are_waited_for_before_more_are_read(
    twins: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "CHECK_WATCHED_ROWS", 3)
    monkeypatch.setattr(walking, "CHECK_PAGE_ROWS", 2)
    monkeypatch.setattr(watching, "CHECK_PAGE_ROWS", 2)
    most = 0

    def watch(progress: CheckProgress) -> None:
        nonlocal most
        most = max(most, progress.watched)

    empty = MemoryStore()
    await empty.open()

    async def nothing() -> None:
        pass

    time = FakeTime(nothing)
    report = await check(twins.source, empty, timer=time, sleep=time.sleep, on_progress=watch)
    assert report.differences == sum(COUNTS.values())
    assert most <= 3


async def test_progress_counts_rows_up_to_the_total(twins: Pair) -> None:
    seen: list[CheckProgress] = []
    await find(twins, on_progress=seen.append)
    assert {p.table: (p.rows, p.total) for p in seen} == {name: (count, count) for name, count in COUNTS.items()}


async def test_a_check_that_ran_out_of_time_goes_on_where_it_stopped(
    twins: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "CHECK_PAGE_ROWS", 5)
    gone = [ID(n) for n in (100, 201, 213, 304, 508)]
    for table in ("messages", "user_memory", "system_logs"):
        await twins.target.commit([Delete(table, (Compare("id", "in", tuple(gone)),))])
    report, found = await find(twins, max_seconds=0)
    stops, places = 1, [report.stopped]
    assert report.stopped is not None
    assert not report.is_whole
    while report.stopped is not None:
        saved = report_of(json.loads(json.dumps(report.as_dict())))
        assert saved.stopped == report.stopped
        report, more = await find(twins, max_seconds=0, resume=saved)
        found += more
        stops += 1
        places.append(report.stopped)
    assert stops > 10
    assert len(set(places)) == stops
    assert {rows.number_of(d.id) for d in found} == {201, 213, 304, 508}
    assert report.differences == 4
    assert {name: r.source for name, r in report.tables.items()} == COUNTS
    assert report.is_whole


def test_what_is_no_state_of_a_check_is_refused() -> None:
    for saved in ({}, {"stopped": None}, {"stopped": {"table": "users"}}):
        with pytest.raises(InvalidInputError, match="not the state of a check"):
            report_of(saved)


async def test_a_check_is_resumed_only_in_a_table_that_is_compared(twins: Pair) -> None:
    report, _ = await find(twins, max_seconds=0)
    assert report.stopped == Place("users", ID(USERS))
    with pytest.raises(InvalidInputError, match="users: the check stopped in this table"):
        await find(twins, units=("memory",), resume=report)


async def test_a_sample_looks_at_about_so_many_rows_and_finds_a_store_full_of_differences(twins: Pair) -> None:
    many = [rows.log(n) for n in range(10_000, 14_000)]
    await twins.source.commit([Insert("system_logs", row) for row in many])
    await twins.target.commit([Insert("system_logs", row | {"message": "changed"}) for row in many])
    report, found = await find(twins, sampled=300, random=Random(1))
    result = report.tables["system_logs"]
    assert 150 <= result.source <= 300
    assert len({d.id for d in found}) >= 150
    assert {d.fields for d in found} == {("message",)}
    assert report.tables["messages"].source == MESSAGES
    assert not report.is_whole


async def test_a_sample_finds_rows_that_one_side_has_not(twins: Pair) -> None:
    many = [rows.log(n) for n in range(10_000, 12_000)]
    await twins.source.commit([Insert("system_logs", row) for row in many])
    await twins.target.commit([Insert("system_logs", row) for row in many if rows.number_of(row["id"]) % 2])
    _, found = await find(twins, sampled=200, random=Random(2))
    assert found
    assert all(rows.number_of(d.id) % 2 == 0 for d in found)


@pytest.mark.parametrize("options", [{"sampled": 1}, {"max_seconds": 1.0}])
async def test_only_a_deep_check_is_sampled_or_bounded(twins: Pair, options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="only a deep check"):
        await find(twins, mode="quick", **options)


@pytest.mark.parametrize("mode", ["quick", "tail"])
async def test_registries_are_compared_only_where_there_are_any(twins: Pair, mode: str) -> None:
    with pytest.raises(UnsupportedError, match="use a deep check"):
        await find(twins, mode=mode)


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


async def test_orphans_are_named_on_the_side_that_has_them(tmp_path: Path) -> None:
    place = tmp_path / "dal.db"
    pair = Pair(create_store(f"sqlite://{place}"), MemoryStore())
    await pair.open()
    await pair.seed()
    run_sqlite(place, f"DELETE FROM chat_sessions WHERE id = '{ID(101)}'")
    report, found = await find(pair)
    orphans = {(d.side, d.table, d.fields) for d in found if d.kind == "orphan"}
    assert orphans == {("source", "messages", ("chat_session_id",))}
    assert report.tables["messages"].counts == {"orphan": MESSAGES // CHATS}
    assert report.tables["chat_sessions"].counts == {"extra": 1}
    report, found = await find(pair, units=("chats",))
    assert report.tables["messages"].counts == {"orphan": MESSAGES // CHATS}
    await pair.close()


async def test_a_child_that_is_gone_in_the_end_is_no_orphan(tmp_path: Path) -> None:
    place = tmp_path / "dal.db"
    pair = Pair(create_store(f"sqlite://{place}"), MemoryStore())
    await pair.open()
    await pair.seed()
    run_sqlite(place, f"DELETE FROM chat_sessions WHERE id = '{ID(101)}'")
    await pair.target.commit([Delete("chat_sessions", (Compare("id", "=", ID(101)),))])

    async def cascade() -> None:
        await pair.source.commit([Delete("messages", (Compare("chat_session_id", "=", ID(101)),))])

    time = FakeTime(cascade)
    report = await check(*pair, timer=time, sleep=time.sleep)
    assert report.is_equal
    await pair.close()


async def test_a_child_whose_parent_comes_back_is_no_orphan(tmp_path: Path) -> None:
    place = tmp_path / "dal.db"
    pair = Pair(create_store(f"sqlite://{place}"), MemoryStore())
    await pair.open()
    await pair.seed()
    run_sqlite(place, f"DELETE FROM chat_sessions WHERE id = '{ID(101)}'")

    async def come_back() -> None:
        if not await pair.source.read(Select("chat_sessions", (Compare("id", "=", ID(101)),))):
            await pair.source.commit([Insert("chat_sessions", seeded()["chat_sessions"][1])])

    time = FakeTime(come_back)
    report = await check(*pair, timer=time, sleep=time.sleep)
    assert report.tables["messages"].counts == {}
    assert report.is_equal
    await pair.close()


async def test_known_parents_are_bounded(twins: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.move.orphans.CHECK_KNOWN_PARENTS", 3)
    orphans = Orphans(reader := Reader("source", twins.source))
    for name in ("users", "chat_sessions", "messages"):
        after = ""
        while page := await reader.page(TABLES[name], after, 2):
            await orphans.look(TABLES[name], page)
            after = page[-1].id
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


async def test_a_report_keeps_a_few_differences_of_each_kind_and_no_content(twins: Pair) -> None:
    secret = "a secret of theirs"
    many: list[dict[str, Value]] = [rows.log(n, message=secret) for n in range(1000, 1030)]
    await twins.source.commit([Insert("system_logs", row) for row in many])
    report, _ = await find(twins)
    result = report.tables["system_logs"]
    assert result.counts == {"missing": 30}
    assert len(result.samples) == 20
    data = json.dumps(report.as_dict())
    assert ID(1000) in data
    assert secret not in data


def test_every_unit_is_compared_by_default() -> None:
    assert tuple(UNITS) == checking.EVERY_UNIT
