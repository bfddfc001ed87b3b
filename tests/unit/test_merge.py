"""Merging means the same as committing one after the other; what would not is not merged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dal.backends.memory import MemoryStore
from dal.errors import DalError
from dal.layers.merge import Merged, Merger, merge, take_apart
from dal.limits import MAX_GROUP_CHARS, MAX_GROUP_COMMITS, MAX_GROUP_OPS
from dal.ops import Compare, Delete, Guard, Insert, Op, Receipt, Ref, Row, Select, Update, Upsert, Value
from dal.tables import TABLES

Commit = tuple[Op, ...]

T0 = datetime(2024, 1, 1, tzinfo=UTC)


def time(minute: int) -> datetime:
    return T0.replace(minute=minute % 60)


def uuid(kind: int, number: int) -> str:
    return f"00000000-0000-7000-{kind:04x}-{number:012x}"


def user(number: int) -> Insert:
    row: dict[str, Value | Ref] = {
        "id": uuid(1, number),
        "clerk_id": f"clerk-{number}",
        "email": None,
        "name": None,
        "profile": {},
        "preferences": {},
        "status": "active",
        "created_at": T0,
        "updated_at": T0,
        "last_active_at": None,
        "version": 1,
    }
    return Insert("users", row)


def chat(number: int) -> Insert:
    row: dict[str, Value | Ref] = {
        "id": uuid(2, number),
        "chat_id": f"c{number}",
        "user_id": None,
        "title": None,
        "profile": "general",
        "metadata": {},
        "status": "active",
        "message_count": 0,
        "created_at": T0,
        "updated_at": T0,
        "last_message_at": None,
        "last_activity_at": T0,
        "version": 1,
    }
    return Insert("chat_sessions", row)


def append(chat_number: int, ids: Sequence[int], at: datetime = T0) -> Commit:
    """What messages.add and add_many emit."""
    key = {"chat_id": f"c{chat_number}"}
    times = {"updated_at": at, "last_message_at": at, "last_activity_at": at}
    update = Update("chat_sessions", key, times, {"message_count": len(ids), "version": 1})
    return (
        update,
        *(
            Insert(
                "messages",
                {
                    "id": uuid(3, number),
                    "chat_session_id": Ref("chat_sessions", key, "id"),
                    "role": "user",
                    "content": f"message {number}",
                    "metadata": {},
                    "sequence_number": Ref("chat_sessions", key, "message_count", place + 1 - len(ids)),
                    "token_count": None,
                    "abuse_flagged": False,
                    "created_at": at,
                    "version": 1,
                },
                ("sequence_number",),
            )
            for place, number in enumerate(ids)
        ),
    )


def audit(number: int, *, returning: tuple[str, ...] = ()) -> Insert:
    row: dict[str, Value | Ref] = dict.fromkeys(TABLES["system_logs"].names)
    return Insert(
        "system_logs",
        {**row, "id": uuid(4, number), "action": "test", "level": "info", "context": {}, "created_at": T0},
        returning,
    )


def touch(number: int, at: datetime = T0) -> Update:
    return Update("users", {"id": uuid(1, number)}, {"last_active_at": at, "updated_at": at}, {"version": 1})


def retitle(number: int, title: str) -> Update:
    key = {"chat_id": f"c{number}"}
    return Update("chat_sessions", key, {"title": title}, {"version": 1}, ("title", "version", "message_count"))


def remember(user_number: int, key: str, value: int, item: int) -> Upsert:
    row: dict[str, Value] = {
        "id": uuid(5, item),
        "user_id": uuid(1, user_number),
        "memory_type": "t",
        "key": key,
        "value": value,
        "expires_at": None,
        "created_at": T0,
        "updated_at": T0,
        "version": 1,
    }
    alive = (Compare("expires_at", "null or >", T0),)
    return Upsert(
        "user_memory", row, ("user_id", "memory_type", "key"), ("value",), {"version": 1}, alive, ("version",)
    )


SETUP: Commit = (user(0), user(1), chat(0), chat(1))


async def state(store: MemoryStore) -> dict[str, list[Row]]:
    return {name: await store.read(Select(name, order=("id",))) for name in TABLES}


async def one_after_the_other(commits: Sequence[Commit]) -> tuple[list[Receipt | None], dict[str, list[Row]]]:
    store = MemoryStore()
    await store.open()
    await store.commit(SETUP)
    receipts: list[Receipt | None] = []
    for ops in commits:
        try:
            receipts.append(await store.commit(ops))
        except DalError:
            receipts.append(None)
    return receipts, await state(store)


async def all_at_once(merged: Merged) -> tuple[list[Receipt] | None, dict[str, list[Row]]]:
    store = MemoryStore()
    await store.open()
    await store.commit(SETUP)
    try:
        receipts = merged.split(await store.commit(merged.ops))
    except DalError:
        return None, await state(store)
    return receipts, await state(store)


def fitting(commits: Sequence[Commit]) -> tuple[list[Commit], Merged]:
    """As many as fit together, others left out, and their batch."""
    merger, taken = Merger(), []
    for ops in commits:
        simple = take_apart(ops)
        if simple is not None and merger.add(simple):
            taken.append(ops)
    return taken, merger.merged()


@st.composite
def commits(draw: st.DrawFn) -> list[Commit]:
    """Concurrent commits of every kind a repository emits, and some that none does, on few rows."""
    made: list[Commit] = []
    for number in range(draw(st.integers(2, 8))):
        # Chat 2 and user 2 are not there, unless a commit of the same group makes them.
        which, at = draw(st.integers(0, 2)), time(draw(st.integers(0, 59)))
        ids = [number * 10 + i for i in range(draw(st.integers(1, 3)))]
        key = {"chat_id": f"c{which}"}
        made.append(
            draw(
                st.sampled_from(
                    [
                        append(which, ids, at),
                        append(which, ids, at),
                        append(which, [0], at),  # an id that another append may hold
                        (*append(which, ids, at), audit(number)),
                        (touch(which, at),),
                        (touch(which, at), audit(number)),
                        (audit(number, returning=("action",)),),
                        (retitle(which, f"title {number}"),),
                        (Update("chat_sessions", {"id": uuid(2, which)}, {}, {"message_count": 1}),),
                        (Update("chat_sessions", key, {"message_count": 7}),),
                        (Update("chat_sessions", key, {"chat_id": f"c{number}"}),),
                        (Update("chat_sessions", key, {"title": "x", "updated_at": at}),),
                        (remember(which, "k", number, number),),
                        (remember(which, f"k{number}", number, number), audit(number)),
                        (user(which),),
                        (chat(which),),
                        (user(2), chat(2)),
                        (chat(2), *append(2, ids, at)),
                        (Guard("users", {"id": uuid(1, which)}), touch(which, at)),
                        (Delete("users", (Compare("id", "=", uuid(1, which)),)),),
                    ]
                )
            )
        )
    return made


@settings(max_examples=400)
@given(commits())
def test_a_merged_batch_means_the_same_as_its_commits_in_order(candidates: list[Commit]) -> None:
    taken, merged = fitting(candidates)

    async def compare() -> None:
        receipts, after = await one_after_the_other(taken)
        merged_receipts, merged_after = await all_at_once(merged)
        if merged_receipts is None:  # refused as a whole: then one of them is refused alone, or needs another's row
            creates = any(type(op) is Insert and op.table in ("users", "chat_sessions") for ops in taken for op in ops)
            assert None in receipts or creates
        else:
            assert merged_receipts == receipts
            assert merged_after == after

    asyncio.run(compare())


def test_appends_to_one_chat_are_one_update_and_numbered_inserts() -> None:
    merged = merge([append(0, [1], time(1)), append(0, [2, 3], time(2)), append(0, [4], time(3))])
    update, *inserts = merged.ops
    key = {"chat_id": "c0"}
    times = dict.fromkeys(("updated_at", "last_message_at", "last_activity_at"), time(3))
    assert update == Update("chat_sessions", key, times, {"message_count": 4, "version": 3})
    numbers = [insert.row["sequence_number"] for insert in inserts if isinstance(insert, Insert)]
    assert numbers == [Ref("chat_sessions", key, "message_count", plus) for plus in (-3, -2, -1, 0)]
    receipt = Receipt((1,) * 5, (None, (11,), (12,), (13,), (14,)))
    assert merged.split(receipt) == [
        Receipt((1, 1), (None, (11,))),
        Receipt((1, 1, 1), (None, (12,), (13,))),
        Receipt((1, 1), (None, (14,))),
    ]


def test_merging_leaves_the_callers_values_alone() -> None:
    first, second = append(0, [1], time(1)), append(0, [2], time(2))
    merge([first, second])
    assert (first, second) == (append(0, [1], time(1)), append(0, [2], time(2)))


def test_rows_are_locked_in_one_order_whatever_the_order_of_the_calls() -> None:
    forth: list[Commit] = [
        append(1, [1]),
        (remember(1, "b", 1, 1),),
        (touch(1),),
        append(0, [2]),
        (remember(0, "a", 1, 2),),
    ]

    def locked(merged: Merged) -> list[tuple[str, object]]:
        return [
            (op.table, tuple(op.key.values()) if isinstance(op, Update) else tuple(op.row[c] for c in op.on))
            for op in merged.ops
            if isinstance(op, Update | Upsert)
        ]

    order = locked(merge(forth))
    assert order == sorted(order)
    assert locked(merge(forth[::-1])) == order


def test_inserts_come_last_parents_first_those_of_one_shape_together() -> None:
    merged = merge(
        [
            (audit(1),),
            append(0, [1]),
            (audit(2, returning=("id",)),),
            append(1, [2]),
            (audit(3),),
            (user(5),),
        ]
    )
    kinds = [(type(op).__name__, op.table, getattr(op, "returning", ())) for op in merged.ops]
    assert kinds == [
        ("Update", "chat_sessions", ()),
        ("Update", "chat_sessions", ()),
        ("Insert", "users", ()),
        ("Insert", "messages", ("sequence_number",)),
        ("Insert", "messages", ("sequence_number",)),
        ("Insert", "system_logs", ()),
        ("Insert", "system_logs", ()),
        ("Insert", "system_logs", ("id",)),
    ]


@pytest.mark.parametrize(
    "ops",
    [
        (),
        (Guard("users", {"id": uuid(1, 0)}),),
        (Delete("users", (Compare("id", "=", uuid(1, 0)),)),),
        (touch(0), touch(1)),
        (touch(0), remember(0, "k", 1, 1)),
        (audit(1), touch(0)),
        (user(5), chat(5)),
        (chat(5), *append(5, [1])),
        (touch(0), user(5)),
        (*append(0, [1])[1:],),
        (Update("users", {"id": uuid(1, 0)}, {"clerk_id": "new"}),),
        (Update("chat_sessions", {"chat_id": "c0"}, {"message_count": 3}, {"message_count": 1}),),
        (Update("chat_sessions", {"chat_id": "c0"}, {"message_count": 3}), append(0, [1])[1]),
        (remember(0, "k", 1, 1)._replace(where=(Compare("user_id.status", "=", "active"),)),),
        (remember(0, "k", 1, 1)._replace(update=("key",)),),
        (Update("users", {"id": {"a": "document"}}, {"name": "x"}),),
        (Update("no_such_table", {"id": uuid(1, 0)}),),
    ],
)
def test_what_could_mean_something_else_goes_alone(ops: Commit) -> None:
    assert take_apart(ops) is None
    with pytest.raises(ValueError, match="cannot be merged"):
        merge([ops])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The same row, where what one says depends on the other's place.
        ((retitle(0, "a"),), (retitle(0, "b"),)),
        ((retitle(0, "a"),), append(0, [1])),
        (append(0, [1]), (retitle(0, "a"),)),
        (append(0, [1]), (Update("chat_sessions", {"chat_id": "c0"}, {"message_count": 7}),)),
        ((Update("chat_sessions", {"chat_id": "c0"}, {"message_count": 7}),), append(0, [1])),
        # Two names that may mean one row.
        (append(0, [1]), (Update("chat_sessions", {"id": uuid(2, 1)}, {"title": "x"}),)),
        # One item written twice.
        ((remember(0, "k", 1, 1),), (remember(0, "k", 2, 2),)),
        # A row that is new, or not yet, for the other.
        ((user(2),), (touch(2),)),
        ((touch(2),), (user(2),)),
    ],
)
def test_commits_that_do_not_commute_are_kept_apart(first: Commit, second: Commit) -> None:
    for ops in (first, second):
        assert take_apart(ops) is not None
    with pytest.raises(ValueError, match="cannot be merged"):
        merge([first, second])


def test_a_batch_ends_at_its_number_of_commits() -> None:
    taken, merged = fitting([(audit(i),) for i in range(MAX_GROUP_COMMITS + 1)])
    assert len(taken) == len(merged.ops) == MAX_GROUP_COMMITS


def test_a_batch_ends_at_its_number_of_operations() -> None:
    half = tuple(audit(i) for i in range(MAX_GROUP_OPS // 2))
    taken, _ = fitting([half, half, (audit(9999),)])
    assert len(taken) == 2
    merger = Merger(max_ops=3)
    simple = take_apart((audit(1), audit(2)))
    assert simple is not None
    assert merger.add(simple)
    assert not merger.add(simple)


def test_a_batch_ends_at_its_amount_of_text_but_one_large_commit_goes() -> None:
    large: Commit = (Insert("system_logs", {**audit(1).row, "message": "x" * (MAX_GROUP_CHARS + 1)}),)
    taken, _ = fitting([large, (audit(2),)])
    assert taken == [large]
    taken, _ = fitting([(audit(2),), large])
    assert len(taken) == 1
