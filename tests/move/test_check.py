"""The deep check of any two stores, in no move: it names what differs and stays different, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import cast

import pytest
import pytest_asyncio

from dal.backends.memory import MemoryStore
from dal.errors import InvalidInputError, UnsupportedError
from dal.move import checking, walking, watching
from dal.move.check_report import CheckProgress, Place, report_of
from dal.move.checking import check
from dal.move.differences import Difference
from dal.ops import Compare, Delete, Insert, Op, Query, Row, Select, Update, Value
from dal.replica import UNITS
from dal.testing import rows
from tests.move.pairs import COUNTS, FIRST, MESSAGES, USERS, FakeTime, Pair, find, pair, schemas_of_pairs, twins

__all__ = ["pair", "schemas_of_pairs", "twins"]

ID = rows.row_id


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


async def test_no_two_pages_are_read_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of one process that read at once are far slower than one after the other."""
    monkeypatch.setattr(walking, "CHECK_PAGE_ROWS", 3)
    reading = most = 0

    class Slow(MemoryStore):
        async def read(self, query: Query) -> list[Row]:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            await asyncio.sleep(0)
            reading -= 1
            return await super().read(query)

    pair = Pair(Slow(), Slow())
    await pair.open()
    await pair.seed()
    assert (await find(pair))[0].is_equal
    assert most == 1


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
