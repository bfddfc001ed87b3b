"""The interpreter as an oracle: what the conformance kit cannot see from outside, and hand-worked answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping

import pytest

from dal.backends import interpreter, memory
from dal.backends.memory import MemoryStore
from dal.backends.overlay import Overlay, carry_out
from dal.backends.rows import Change, Drop, MemoryRows, Rows, Scan, Stored, decode, encode
from dal.errors import (
    AlreadyExistsError,
    ConflictError,
    DalTimeoutError,
    LimitExceededError,
    MissingReferenceError,
    UnavailableError,
    UnsupportedError,
)
from dal.limits import MAX_BATCH_OPS
from dal.ops import Compare, Count, Delete, Guard, Insert, JsonValue, Op, Ref, Select, Update, Upsert, Value
from dal.tables import TABLES
from dal.testing import rows

IDS = {"id": "x"}


def _tables() -> dict[str, MemoryRows]:
    return {name: MemoryRows(table) for name, table in TABLES.items()}


def _commit(tables: Mapping[str, Rows], *ops: Op) -> interpreter.Outcome:
    outcome = interpreter.apply(tables, ops, backend="test")
    carry_out(tables, outcome.changes)
    return outcome


# -- a batch and its changes


def test_a_batch_leaves_the_tables_alone_and_says_what_changes() -> None:
    tables = _tables()
    outcome = interpreter.apply(tables, [Insert("users", rows.user(1)), Insert("users", rows.user(2))], backend="test")
    assert len(tables["users"]) == 0
    stored = encode(TABLES["users"], rows.user(1))
    assert outcome.changes[0] == Change("users", rows.row_id(1), stored)
    carry_out(tables, outcome.changes)
    assert tables["users"].get(rows.row_id(1)) == stored


def test_a_row_changed_often_in_a_batch_is_one_change() -> None:
    tables = _tables()
    _commit(tables, Insert("chat_sessions", rows.chat(1)))
    ops = [op for n in range(2, 22) for op in rows.append(n, 1)]
    changes = interpreter.apply(tables, ops, backend="test").changes
    assert sum(1 for change in changes if change.table == "chat_sessions") == 1
    assert sum(1 for change in changes if change.table == "messages") == 20


def test_deleting_a_chat_drops_its_messages_without_reading_them() -> None:
    tables = _tables()
    _commit(tables, Insert("chat_sessions", rows.chat(1)))
    _commit(tables, *(op for n in range(2, 30) for op in rows.append(n, 1)))
    changes = interpreter.apply(tables, [Delete("chat_sessions", (Compare("chat_id", "=", "chat-1"),))], backend="t")
    assert sorted(changes.changes) == sorted(
        [Drop("messages", "chat_session_id", rows.row_id(1)), Change("chat_sessions", rows.row_id(1), None)]
    )


def test_a_chat_deleted_and_made_anew_in_one_batch_has_only_its_new_messages() -> None:
    tables = _tables()
    _commit(tables, Insert("chat_sessions", rows.chat(1)), *rows.append(2, 1), *rows.append(3, 1))
    gone = Delete("chat_sessions", (Compare("id", "=", rows.row_id(1)),))
    _commit(tables, gone, Insert("chat_sessions", rows.chat(1)), *rows.append(4, 1))
    found = interpreter.read(tables, Select("messages", columns=("id", "sequence_number")))
    assert found == [(rows.row_id(4), 1)]


def test_keys_may_change_hands_within_a_batch() -> None:
    tables = _tables()
    _commit(tables, Insert("users", rows.user(1, clerk_id="a")), Insert("users", rows.user(2, clerk_id="b")))
    first, second = {"id": rows.row_id(1)}, {"id": rows.row_id(2)}
    _commit(
        tables,
        Update("users", first, {"clerk_id": "c"}),
        Update("users", second, {"clerk_id": "a"}),
        Update("users", first, {"clerk_id": "b"}),
    )
    for key, number in (("a", 2), ("b", 1)):
        found = tables["users"].find(("clerk_id",), (key,))
        assert found is not None
        assert found[0] == rows.row_id(number)
    assert tables["users"].find(("clerk_id",), ("c",)) is None


def test_set_null_touches_nothing_but_the_reference() -> None:
    tables = _tables()
    _commit(tables, Insert("users", rows.user(1)), Insert("chat_sessions", rows.chat(2, user_id=rows.row_id(1))))
    _commit(tables, Delete("users", (Compare("id", "=", rows.row_id(1)),)))
    (row,) = interpreter.read(tables, Select("chat_sessions"))
    assert row == tuple(rows.chat(2, user_id=None)[name] for name in TABLES["chat_sessions"].names)


@pytest.mark.parametrize(
    ("ops", "error"),
    [
        ([Insert("users", rows.user(1))], AlreadyExistsError),
        ([Insert("users", rows.user(3, clerk_id="taken"))], AlreadyExistsError),
        ([Insert("chat_sessions", rows.chat(3, user_id=rows.row_id(99)))], MissingReferenceError),
        ([Insert("messages", rows.message(3, 99))], MissingReferenceError),
        ([Insert("messages", rows.message(3, 9, chat_session_id=Ref("users", IDS, "id")))], MissingReferenceError),
        ([Update("users", {"id": rows.row_id(2)}, {"clerk_id": "taken"})], AlreadyExistsError),
        ([Guard("users", {"clerk_id": "taken"}, {"email": "x"})], ConflictError),
        ([Guard("users", {"clerk_id": "nobody"})], ConflictError),
        ([Delete("users", ())], ValueError),
        ([Update("users", {"id": rows.row_id(1)}, {"id": rows.row_id(5)})], ValueError),
        ([Update("users", {"email": "x"}, {"name": "x"})], ValueError),
        ([Insert("users", {"id": "x"})], ValueError),
        ([Guard("users", {"clerk_id": "taken"}, {"profile": {}})], ValueError),
    ],
    ids=str,
)
def test_a_refused_batch_changes_nothing(ops: list[Op], error: type[Exception]) -> None:
    tables = _tables()
    _commit(tables, Insert("users", rows.user(1, clerk_id="taken")), Insert("users", rows.user(2)))
    before = {name: list(table) for name, table in tables.items()}
    with pytest.raises(error):
        interpreter.apply(tables, [Insert("users", rows.user(50)), *ops], backend="test")
    assert {name: list(table) for name, table in tables.items()} == before


def test_null_never_clashes() -> None:
    tables = _tables()
    _commit(tables, *(Insert("users", rows.user(n, clerk_id=None)) for n in range(5)))
    assert len(tables["users"]) == 5


# -- by value


async def test_nobody_changes_a_stored_value_through_a_reference() -> None:
    store = MemoryStore()
    await store.open()
    inner: list[JsonValue] = [1]
    given: dict[str, JsonValue] = {"a": inner}
    await store.commit([Insert("users", rows.user(1, profile=given))])
    inner.append(2)
    ((read,),) = await store.read(Select("users", columns=("profile",)))
    assert read == {"a": [1]}
    assert isinstance(read, dict)
    read["a"] = "changed"
    assert await store.read(Select("users", columns=("profile",))) == [({"a": [1]},)]


@pytest.mark.parametrize("value", [None, -0.0, 1e300, 2**63 - 1, -(2**63), "\u2028", {"é": [True, 1, 1.0]}], ids=repr)
def test_a_stored_row_decodes_to_what_was_given(value: JsonValue) -> None:
    row = rows.memory(1, 2, value=value)
    table = TABLES["user_memory"]
    back = decode(table, encode(table, row))
    assert back == tuple(row[name] for name in table.names)
    assert repr(back[table.names.index("value")]) == repr(value)


# -- overlays


def _random_row(dice: random.Random) -> Stored:
    number = dice.randrange(12)
    changes: dict[str, Value] = {"sequence_number": dice.randrange(1, 30), "version": dice.randrange(100)}
    message = rows.message(number, dice.randrange(3), **changes)
    return encode(TABLES["messages"], {name: value for name, value in message.items() if not isinstance(value, Ref)})


def test_an_overlay_shows_what_the_rows_below_will_be() -> None:
    """Against plain rows, through any number of random changes: every access path gives the same."""
    dice = random.Random()
    seed = dice.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(60):
        below, plain = MemoryRows(TABLES["messages"]), MemoryRows(TABLES["messages"])
        for _ in range(dice.randrange(15)):
            _change(dice, below, plain)
        over: Rows = Overlay(below)
        stacked = Overlay(over)
        for _ in range(dice.randrange(10)):
            _change(dice, over, plain)
        for _ in range(dice.randrange(10)):
            _change(dice, stacked, plain)
        _assert_same(stacked, plain)
        carry_out({"messages": over}, stacked.changes())
        _assert_same(over, plain)
        assert isinstance(over, Overlay)
        carry_out({"messages": below}, over.changes())
        _assert_same(below, plain)


def _change(dice: random.Random, *tables: Rows) -> None:
    row, kind = _random_row(dice), dice.randrange(8)
    key = ("chat_session_id", "sequence_number")
    for table in tables:
        if kind == 0:
            table.remove(row[0])
        elif kind == 1:
            table.drop("chat_session_id", row[1])
        elif (holder := table.find(key, (row[1], row[5]))) is None or holder[0] == row[0]:
            table.put(row)


def _assert_same(one: Rows, other: Rows) -> None:
    key = ("chat_session_id", "sequence_number")
    for number in range(12):
        assert one.get(rows.row_id(number)) == other.get(rows.row_id(number))
    assert sorted(one.scan(Scan())[0]) == sorted(other.scan(Scan())[0])
    for chat in range(3):
        for sequence in range(1, 30):
            wanted = (rows.row_id(chat), sequence)
            assert one.find(key, wanted) == other.find(key, wanted)
        of_chat = (Compare("chat_session_id", "=", rows.row_id(chat)), Compare("sequence_number", ">=", 5))
        for order in (("sequence_number",), ("-sequence_number",)):
            found = [list(table.scan(Scan(of_chat, order, (9,)))[0]) for table in (one, other)]
            assert found[0] == found[1]
            assert all(table.scan(Scan(of_chat, order))[1] for table in (one, other)), "in order without sorting"


@pytest.mark.parametrize("order", [("sequence_number",), ("-sequence_number",)])
def test_rows_below_that_are_hidden_by_a_run_of_numbers_are_not_read(order: tuple[str, ...]) -> None:
    """A checkpoint has appended what the overlay still holds: a page must not cost what is hidden."""
    read = 0

    class Counted(MemoryRows):
        def scan(self, plan: Scan) -> tuple[Iterable[Stored], bool]:
            found, is_ordered = super().scan(plan)
            return self._count(found), is_ordered

        def _count(self, found: Iterable[Stored]) -> Iterator[Stored]:
            nonlocal read
            for row in found:
                read += 1
                yield row

    below = Counted(TABLES["messages"])
    for number in range(1, 1001):
        row = rows.message(number, 1, sequence_number=number)
        below.put(encode(TABLES["messages"], row))  # type: ignore[arg-type]  # without a Ref
    over = Overlay(below)
    for number in (*range(3, 500), *range(510, 998)):
        stored = below.get(rows.row_id(number))
        assert stored is not None
        over.put(stored)
    of_chat = (Compare("chat_session_id", "=", rows.row_id(1)),)
    found = interpreter.read({"messages": over}, Select("messages", of_chat, order, columns=("sequence_number",)))
    assert [row[0] for row in found] == sorted(range(1, 1001), reverse=order[0][0] == "-")
    assert read == 2 + 10 + 3


def test_a_detached_scan_is_of_the_moment_it_was_prepared() -> None:
    tables = _tables()
    _commit(tables, *(Insert("users", rows.user(n)) for n in range(3)))
    over = Overlay(tables["users"])
    over.put(encode(TABLES["users"], rows.user(3)))
    over.remove(rows.row_id(0))
    finish = interpreter.prepare({"users": over}, Select("users", order=("id",), columns=("id",)), detached=True)
    over.put(encode(TABLES["users"], rows.user(4)))
    over.remove(rows.row_id(1))
    assert [rows.number_of(row[0]) for row in finish()] == [1, 2, 3]


# -- the memory store


async def test_a_write_waits_for_a_transaction_and_only_so_long() -> None:
    store = MemoryStore(lock_timeout_s=0.01)
    await store.open()
    async with store.transaction() as transaction:
        await transaction.commit([Insert("users", rows.user(1))])
        with pytest.raises(DalTimeoutError) as caught:
            await store.commit([Insert("users", rows.user(2))])
        assert caught.value.retryable
        assert await store.read(Count("users")) == [(0,)]
    await store.commit([Insert("users", rows.user(2))])
    assert await store.read(Count("users")) == [(2,)]


async def test_a_cancelled_transaction_lets_go() -> None:
    store = MemoryStore()
    await store.open()
    inside = asyncio.Event()

    async def hold() -> None:
        async with store.transaction() as transaction:
            await transaction.commit([Insert("users", rows.user(1))])
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.commit([Insert("users", rows.user(2))])
    assert await rows.numbers(store, Select("users")) == [2]


async def test_a_transaction_that_is_over_takes_nothing_more() -> None:
    store = MemoryStore()
    await store.open()
    async with store.transaction() as transaction:
        pass
    with pytest.raises(UnsupportedError):
        await transaction.commit([Insert("users", rows.user(1))])
    with pytest.raises(UnsupportedError):
        await transaction.read(Count("users"))


async def test_a_closed_store_says_so() -> None:
    store = MemoryStore()
    with pytest.raises(UnavailableError):
        await store.read(Count("users"))
    await store.open()
    await store.close()
    with pytest.raises(UnavailableError):
        await store.commit([Insert("users", rows.user(1))])
    assert (await store.health()).status == "down"


async def test_a_batch_has_at_most_so_many_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MemoryStore().capabilities.max_batch_ops == MAX_BATCH_OPS
    monkeypatch.setattr(memory, "MAX_BATCH_OPS", 3)
    store = MemoryStore()
    await store.open()
    await store.commit([Insert("users", rows.user(n)) for n in range(3)])
    with pytest.raises(LimitExceededError):
        await store.commit([Insert("users", rows.user(10 + n)) for n in range(4)])
    assert await store.read(Count("users")) == [(3,)]


async def test_an_upsert_takes_part_in_later_operations_of_its_batch() -> None:
    store = MemoryStore()
    await store.open()
    item = rows.memory(2, 1, value="v")
    receipt = await store.commit(
        [
            Insert("users", rows.user(1)),
            Upsert("user_memory", item, ("user_id", "memory_type", "key"), ("value",), {"version": 1}),
            Guard("user_memory", {"id": rows.row_id(2)}, {"version": 1}),
            Upsert("user_memory", item, ("user_id", "memory_type", "key"), ("value",), {"version": 1}),
            Guard("user_memory", {"id": rows.row_id(2)}, {"version": 2}),
        ]
    )
    assert receipt.counts == (1, 1, 0, 1, 0)
