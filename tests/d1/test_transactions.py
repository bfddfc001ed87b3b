"""The optimistic unit of work: what it sees, what it notices, and what it writes at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest
import pytest_asyncio

from dal import ConflictError, DataAccess
from dal.access import Transaction
from dal.errors import AlreadyExistsError, LimitExceededError, MissingReferenceError, UnavailableError
from dal.limits import D1_LONG_TEXT_CHARS, D1_MAX_VALUE_BYTES, D1_PART_BYTES
from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Query, Ref, Search, Select, Sum, Update, Upsert
from dal.search import parse_query
from dal.store import ReadCommit, Store
from dal.testing import rows
from tests.d1.conftest import Place

_IDS: Final = ("id",)


@pytest_asyncio.fixture
async def rival(place: Place) -> AsyncIterator[Store]:
    """Somebody else's store on the same database."""
    made = place.store()
    await made.open()
    yield made
    await made.close()


async def _fill(store: Store) -> None:
    await store.commit(
        [
            Insert("users", rows.user(1, clerk_id="ada")),
            Insert("users", rows.user(2)),
            Insert("chat_sessions", rows.chat(3, user_id=rows.row_id(1), title="old")),
            Insert("chat_sessions", rows.chat(4)),
            *rows.append(5, 3, content="engine one"),
            *rows.append(6, 3, content="engine two"),
            Insert("user_memory", rows.memory(7, 1, value=1)),
        ]
    )


#: Writes of a transaction, and reads that must give inside it what they give after it.
WRITES: Final[dict[str, list[Op]]] = {
    "inserts": [
        Insert("users", rows.user(20, clerk_id="new")),
        Insert("chat_sessions", rows.chat(21, user_id=rows.row_id(20))),
        *rows.append(22, 21, content="engine three"),
        *rows.append(23, 3, content="engine four"),
    ],
    "updates": [
        Update("users", {"clerk_id": "ada"}, {"name": "Ada", "clerk_id": "lovelace"}),
        Update(
            "chat_sessions", {"chat_id": "chat-3"}, {"title": "new", "user_id": rows.row_id(2)}, {"message_count": 7}
        ),
        Update("messages", {"id": rows.row_id(5)}, {"content": "no more of it", "abuse_flagged": True}),
    ],
    "upserts": [
        Upsert("user_memory", rows.memory(30, 1), ("user_id", "memory_type", "key"), ("value",), {"version": 1}),
        Upsert("user_memory", rows.memory(7, 1, value=9), ("id",), ("value",), {"version": 3}),
    ],
    "a parent's delete": [Delete("users", (Compare("id", "=", rows.row_id(1)),))],
    "a chat's delete": [Delete("chat_sessions", (Compare("id", "=", rows.row_id(3)),))],
    "a delete by the parent's column": [Delete("messages", (Compare("chat_session_id.title", "=", "old"),))],
    "a delete after a change of the parent": [
        Update("chat_sessions", {"id": rows.row_id(3)}, {"title": "changed"}),
        Delete("messages", (Compare("chat_session_id.title", "=", "old"),)),
        Delete("messages", (Compare("chat_session_id.title", "=", "changed"), Compare("sequence_number", "=", 1))),
    ],
    "a row that comes and goes": [
        Insert("users", rows.user(20)),
        Delete("users", (Compare("id", "=", rows.row_id(20)),)),
    ],
    "a key that changes hands": [
        Update("users", {"clerk_id": "ada"}, {"clerk_id": None}),
        Update("users", {"id": rows.row_id(2)}, {"clerk_id": "ada"}),
    ],
    "a long text": [*rows.append(40, 4, content="engine " + "x" * (D1_LONG_TEXT_CHARS + 1))],
    "many long texts": [
        op for n in range(7) for op in rows.append(40 + n, 4, content=f"engine {n} " + "é" * (D1_PART_BYTES // 2))
    ],
}
READS: Final[list[Query]] = [
    Select("users", order=("id",)),
    Select("chat_sessions", order=("-last_activity_at", "-id"), limit=2),
    Select("messages", order=("-sequence_number", "id"), columns=("id", "content", "chat_session_id.title")),
    Select("messages", (Compare("chat_session_id.user_id", "=", rows.row_id(2)),), ("id",), columns=_IDS),
    Select("messages", (Compare("chat_session_id", "=", Ref("chat_sessions", {"chat_id": "chat-3"}, "id")),), ("id",)),
    Select("user_memory", order=("id",), columns=("id", "value", "version")),
    Count("messages", (Compare("abuse_flagged", "=", True),)),
    Count("chat_sessions", (Compare("user_id", "=", None),)),
    Sum("chat_sessions", "message_count"),
    Search("messages", parse_query("engine"), columns=_IDS),
    Search("messages", parse_query("engine"), (Compare("chat_session_id.user_id", "=", rows.row_id(2)),), columns=_IDS),
]


@pytest.mark.parametrize("name", list(WRITES))
async def test_a_transaction_reads_what_it_will_have_written(store: Store, name: str) -> None:
    await _fill(store)
    async with store.transaction() as transaction:
        for op in WRITES[name]:
            await transaction.commit([op])
        inside = [await transaction.read(query) for query in READS]
    assert inside == [await store.read(query) for query in READS]


@pytest.mark.parametrize("name", list(WRITES))
async def test_one_batch_inside_says_what_it_says_outside(
    store: Store, another_place: Callable[[], Place], name: str
) -> None:
    await _fill(store)
    other = another_place().store()
    await other.open()
    await _fill(other)
    async with store.transaction() as transaction:
        inside = await transaction.commit(WRITES[name])
    assert inside == await other.commit(WRITES[name])
    assert await rows.everything(store) == await rows.everything(other)
    await other.close()


Seen = Callable[[ReadCommit], Awaitable[object]]
#: What a transaction can rest on, and the change by somebody else that it must notice.
RACES: Final[dict[str, tuple[Seen, list[Op]]]] = {
    "a row read": (
        lambda tx: tx.read(Select("users", (Compare("id", "=", rows.row_id(1)),))),
        [Update("users", {"id": rows.row_id(1)}, {"name": "changed"})],
    ),
    "a row that was not there": (
        lambda tx: tx.read(Select("users", (Compare("clerk_id", "=", "wanted"),))),
        [Insert("users", rows.user(90, clerk_id="wanted"))],
    ),
    "a count": (lambda tx: tx.read(Count("users")), [Insert("users", rows.user(90))]),
    "a sum": (
        lambda tx: tx.read(Sum("chat_sessions", "message_count")),
        [Update("chat_sessions", {"id": rows.row_id(4)}, {"message_count": 5})],
    ),
    "a page": (lambda tx: tx.read(Select("users", order=("-id",), limit=1)), [Insert("users", rows.user(90))]),
    "a search": (
        lambda tx: tx.read(Search("messages", parse_query("engine"), columns=_IDS)),
        [*rows.append(90, 4, content="another engine")],
    ),
    "a parent's column": (
        lambda tx: tx.read(Select("messages", columns=("chat_session_id.title",))),
        [Update("chat_sessions", {"id": rows.row_id(3)}, {"title": "changed"})],
    ),
    "an owner that a delete takes away": (
        lambda tx: tx.read(Select("chat_sessions", (Compare("id", "=", rows.row_id(3)),), columns=("id", "user_id"))),
        [Delete("users", (Compare("id", "=", rows.row_id(1)),))],
    ),
    "a row changed by it too": (
        lambda tx: tx.commit([Update("users", {"id": rows.row_id(1)}, {"name": "mine"})]),
        [Update("users", {"id": rows.row_id(1)}, {"name": "changed"})],
    ),
    "a number it was given": (
        lambda tx: tx.commit(rows.append(91, 3)),
        [*rows.append(90, 3)],
    ),
    "a key it takes": (
        lambda tx: tx.commit([Insert("users", rows.user(91, clerk_id="wanted"))]),
        [Insert("users", rows.user(90, clerk_id="wanted"))],
    ),
    "a parent it leans on": (
        lambda tx: tx.commit([Insert("files", rows.file(91, 2))]),
        [Delete("users", (Compare("id", "=", rows.row_id(2)),))],
    ),
    "rows it deletes": (
        lambda tx: tx.commit([Delete("user_memory", (Compare("memory_type", "=", "fact"),))]),
        [Insert("user_memory", rows.memory(90, 2))],
    ),
    "a guard of its own": (
        lambda tx: tx.commit([Guard("users", {"id": rows.row_id(1)}, {"version": 1})]),
        [Update("users", {"id": rows.row_id(1)}, add={"version": 1})],
    ),
}


@pytest.mark.parametrize("name", list(RACES))
async def test_what_it_rests_on_must_still_hold(store: Store, rival: Store, name: str) -> None:
    await _fill(store)
    see, change = RACES[name]
    with pytest.raises(ConflictError) as caught:
        async with store.transaction() as transaction:
            await see(transaction)
            await rival.commit(change)
            await transaction.commit([Insert("system_logs", rows.log(99))])
    assert caught.value.retryable
    assert await store.read(Count("system_logs")) == [(0,)]
    async with store.transaction() as transaction:  # again, and nobody in the way
        await transaction.read(Count("users"))
        await transaction.commit([Insert("system_logs", rows.log(99))])
    assert await store.read(Count("system_logs")) == [(1,)]


async def test_what_it_did_not_look_at_may_change(store: Store, rival: Store) -> None:
    await _fill(store)
    async with store.transaction() as transaction:
        await transaction.read(Select("users", (Compare("id", "=", rows.row_id(1)),)))
        await rival.commit([Update("users", {"id": rows.row_id(2)}, {"name": "changed"}), *rows.append(90, 4)])
        await transaction.commit(rows.append(91, 3))
    assert await store.read(Count("messages")) == [(4,)]


async def test_readers_alone_notice_that_two_reads_do_not_belong_together(store: Store, rival: Store) -> None:
    await _fill(store)
    with pytest.raises(ConflictError):
        async with store.transaction() as transaction:
            await transaction.read(Count("users"))
            await rival.commit([Insert("users", rows.user(90)), Insert("system_logs", rows.log(90))])
            await transaction.read(Count("system_logs"))
    async with store.transaction() as transaction:
        await transaction.read(Count("users"))
        await rival.commit([Insert("users", rows.user(91))])


async def test_the_same_read_twice_that_differs_is_a_conflict_at_once(store: Store, rival: Store) -> None:
    with pytest.raises(ConflictError):
        async with store.transaction() as transaction:
            await transaction.read(Count("users"))
            await rival.commit([Insert("users", rows.user(90))])
            await transaction.read(Count("users"))
            raise AssertionError("not seen")


async def test_a_refusal_that_rests_on_two_moments_is_a_conflict(store: Store, rival: Store) -> None:
    """The chat was read before it went, the message's parent is looked for after."""
    await _fill(store)
    with pytest.raises(ConflictError):
        async with store.transaction() as transaction:
            assert await transaction.read(Select("chat_sessions", (Compare("id", "=", rows.row_id(4)),)))
            await rival.commit([Delete("chat_sessions", (Compare("id", "=", rows.row_id(4)),))])
            await transaction.commit([Insert("messages", rows.message(91, 4))])
    with pytest.raises(MissingReferenceError):
        async with store.transaction() as transaction:
            await transaction.commit([Insert("messages", rows.message(91, 4))])


async def test_a_transaction_is_written_by_one_request(place: Place, store: Store) -> None:
    await _fill(store)
    async with store.transaction() as transaction:
        for n in range(4):
            await transaction.commit(rows.append(50 + n, 3))
        assert place.rows("SELECT count(*) FROM messages") == [[2]], "nothing is written before the end"
        sent = place.engine.requests(place.database)
    assert place.engine.requests(place.database) == sent + 1


async def test_lookups_go_together(place: Place, store: Store) -> None:
    """A batch of many rows is not a request for each of them."""
    await _fill(store)
    async with store.transaction() as transaction:
        sent = place.engine.requests(place.database)
        await transaction.commit([Insert("users", rows.user(100 + n, clerk_id=f"c{n}")) for n in range(200)])
        await transaction.commit([op for n in range(50) for op in rows.append(400 + n, 3)])
        assert place.engine.requests(place.database) - sent <= 5
    assert await store.read(Count("users")) == [(202,)]


async def test_thousands_of_rows_may_be_read_and_deleted(store: Store, rival: Store) -> None:
    """What stands for so many rows in full is longer than any value of D1's."""
    await store.commit([Insert("system_logs", rows.log(n, message="m" * 150, context={"n": n})) for n in range(9000)])
    every = (Compare("action", "=", "test"),)
    async with store.transaction() as transaction:
        assert len(await transaction.read(Select("system_logs", every, ("id",)))) == 9000
        assert (await transaction.commit([Delete("system_logs", every)])).counts == (9000,)
        assert await transaction.read(Count("system_logs")) == [(0,)]
    assert await store.read(Count("system_logs")) == [(0,)]
    await store.commit([Insert("system_logs", rows.log(n, message="m" * 150)) for n in range(9000)])
    with pytest.raises(ConflictError):
        async with store.transaction() as transaction:
            await transaction.commit([Delete("system_logs", every)])
            await rival.commit([Insert("system_logs", rows.log(9001))])
    assert await store.read(Count("system_logs")) == [(9001,)]


async def test_what_is_too_large_for_d1_is_refused_where_it_is_said(store: Store) -> None:
    await _fill(store)
    async with store.transaction() as transaction:
        await transaction.commit([Insert("system_logs", rows.log(1))])
        with pytest.raises(LimitExceededError, match=str(D1_MAX_VALUE_BYTES)):
            await transaction.commit(rows.append(90, 3, content="x" * (D1_MAX_VALUE_BYTES + 1)))
        with pytest.raises(AlreadyExistsError):
            await transaction.commit([Insert("users", rows.user(1))])
    assert await store.read(Count("system_logs")) == [(1,)]


async def test_a_lost_answer_at_the_end_is_made_good(place: Place, store: Store) -> None:
    await _fill(store)
    place.faults({"when": "after", "match": "INSERT INTO messages", "drop": True, "count": 2})
    async with store.transaction() as transaction:
        await transaction.commit(rows.append(90, 3))
        await transaction.commit([Delete("user_memory", (Compare("user_id", "=", rows.row_id(1)),))])
    assert place.rows("SELECT count(*) FROM messages") == [[3]]
    assert place.rows("SELECT count(*) FROM user_memory") == [[0]]


async def test_an_end_that_is_never_answered_says_so(place: Place, store: Store) -> None:
    await _fill(store)
    with pytest.raises(UnavailableError) as caught:
        async with store.transaction() as transaction:
            await transaction.commit(rows.append(90, 3))
            place.faults({"when": "after", "match": "dal_commits", "drop": True, "count": 100})
    assert caught.value.outcome == "unknown"


async def test_sixteen_tasks_on_two_stores_win_in_the_end(store: Store, rival: Store) -> None:
    await _fill(store)

    async def count_up(tx: Transaction) -> None:
        chat = await tx.chats.get("chat-4")
        assert chat is not None
        count = chat.metadata.get("n", 0)
        assert isinstance(count, int)
        await tx.chats.update("chat-4", metadata={"n": count + 1})

    both = (DataAccess(store), DataAccess(rival))
    await asyncio.gather(*(both[n % 2].run_in_transaction(count_up, attempts=60) for n in range(16)))
    found = await both[0].chats.get("chat-4")
    assert found is not None
    assert found.metadata == {"n": 16}


async def test_a_transaction_begins_when_cancelled_commits_have_ended(place: Place, store: Store) -> None:
    """A cancelled commit goes on by itself; half of it must not turn up between two reads."""
    sent = place.engine.requests(place.database)
    place.faults({"when": "before", "match": "INSERT INTO users", "delay_ms": 300})
    commit = asyncio.create_task(store.commit([Insert("users", rows.user(1)), Insert("system_logs", rows.log(1))]))
    while await asyncio.to_thread(place.engine.requests, place.database) == sent:
        assert not commit.done()
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    async with store.transaction() as transaction:
        assert await transaction.read(Count("users")) == [(1,)]
        assert await transaction.read(Count("system_logs")) == [(1,)]
