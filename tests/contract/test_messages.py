"""`dal.messages`: adding, reading, counting and flagging, on every backend and through every layer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from dal import (
    AlreadyExistsError,
    ConflictError,
    DataAccess,
    InvalidInputError,
    LimitExceededError,
    Message,
    MissingReferenceError,
    NewMessage,
    NotFoundError,
)
from dal.limits import MAX_BATCH_MESSAGES
from dal.testing import FakeClock

UNKNOWN = "01900000-0000-7000-8000-00000000dead"


@pytest.fixture(autouse=True)
async def chat(dal: DataAccess) -> None:
    await dal.chats.create("c")


async def fill(dal: DataAccess, count: int) -> list[Message]:
    return await dal.messages.add_many("c", [NewMessage("user", f"m{n}") for n in range(1, count + 1)])


# -- add


async def test_add_gives_the_message_as_stored(dal: DataAccess, clock: FakeClock) -> None:
    message = await dal.messages.add("c", "user", "hello")
    assert message == Message(
        id=message.id,
        chat_id="c",
        role="user",
        content="hello",
        metadata={},
        sequence_number=1,
        token_count=None,
        abuse_flagged=False,
        created_at=clock.now,
        version=1,
    )
    assert await dal.messages.get(message.id) == message
    assert await dal.messages.history("c") == [message]


async def test_add_keeps_every_argument(dal: DataAccess) -> None:
    given, moment = str(uuid4()), datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=9)))
    message = await dal.messages.add(
        "c", "tool", "", metadata={"a": {"b": []}}, token_count=0, id=given, created_at=moment, expected_sequence=1
    )
    assert (message.id, message.role, message.content, message.metadata) == (given, "tool", "", {"a": {"b": []}})
    assert message.token_count == 0
    assert message.created_at == moment
    assert message.created_at.tzinfo is UTC
    assert await dal.messages.get(given) == message


async def test_messages_are_numbered_from_one_without_a_gap_in_each_chat(dal: DataAccess) -> None:
    await dal.chats.create("other")
    numbers = [(await dal.messages.add(key, "user", "x")).sequence_number for key in ("c", "c", "other", "c", "other")]
    assert numbers == [1, 2, 1, 3, 2]


async def test_order_is_the_number_and_never_the_time(dal: DataAccess) -> None:
    for day in (3, 1, 2, 1):
        await dal.messages.add("c", "user", str(day), created_at=datetime(2020, 1, day, tzinfo=UTC))
    assert [m.content for m in await dal.messages.history("c")] == ["3", "1", "2", "1"]
    assert [m.content async for m in dal.messages.iterate("c")] == ["3", "1", "2", "1"]


async def test_add_to_an_unknown_chat_is_refused(dal: DataAccess) -> None:
    with pytest.raises(MissingReferenceError):
        await dal.messages.add("no such chat", "user", "x")
    with pytest.raises(MissingReferenceError):
        await dal.messages.add_many("no such chat", [NewMessage("user", "x")])
    with pytest.raises((MissingReferenceError, ConflictError)):
        await dal.messages.add("no such chat", "user", "x", expected_sequence=1)


async def test_adding_the_same_id_again_gives_the_stored_message(dal: DataAccess, clock: FakeClock) -> None:
    given = str(uuid4())
    first = await dal.messages.add("c", "user", "hello", metadata={"a": 1.0}, token_count=3, id=given)
    await dal.messages.add("c", "user", "another")
    clock.advance(60)
    assert await dal.messages.add("c", "user", "hello", metadata={"a": 1.0}, token_count=3, id=given) == first
    assert await dal.messages.add("c", "user", "hello", metadata={"a": 1.0}, token_count=3, id=given.upper()) == first
    assert await dal.messages.count("c") == 2
    found = await dal.chats.get("c")
    assert found is not None
    assert found.message_count == 2


async def test_adding_another_message_under_a_known_id_is_refused(dal: DataAccess) -> None:
    await dal.chats.create("other")
    given = str(uuid4())
    first = await dal.messages.add("c", "user", "hello", metadata={"a": 1}, token_count=3, id=given)
    for chat_id, role, content, metadata, token_count in (
        ("c", "user", "other content", {"a": 1}, 3),
        ("c", "assistant", "hello", {"a": 1}, 3),
        ("c", "user", "hello", {"a": 2}, 3),
        ("c", "user", "hello", {"a": 1}, 4),
        ("other", "user", "hello", {"a": 1}, 3),
    ):
        with pytest.raises(AlreadyExistsError) as caught:
            await dal.messages.add(chat_id, role, content, metadata=dict(metadata), token_count=token_count, id=given)
        assert "content" not in str(caught.value)
    assert await dal.messages.history("c") == [first]
    assert await dal.messages.count("other") == 0


async def test_a_repeat_is_known_by_its_id_whatever_sequence_it_expects(dal: DataAccess) -> None:
    given = str(uuid4())
    first = await dal.messages.add("c", "user", "hello", id=given, expected_sequence=1)
    await dal.messages.add("c", "user", "more")
    assert await dal.messages.add("c", "user", "hello", id=given, expected_sequence=1) == first


async def test_the_expected_sequence_is_the_number_the_message_must_get(dal: DataAccess) -> None:
    assert (await dal.messages.add("c", "user", "1", expected_sequence=1)).sequence_number == 1
    assert (await dal.messages.add("c", "user", "2", expected_sequence=2)).sequence_number == 2
    for wrong in (1, 2, 4):
        with pytest.raises(ConflictError) as caught:
            await dal.messages.add("c", "user", "lost", expected_sequence=wrong)
        assert not caught.value.retryable
        assert "3" in str(caught.value)
    assert await dal.messages.count("c") == 2


@pytest.mark.parametrize("wrong", [0, -1, 2**31, True, "1", 1.0])
async def test_an_expected_sequence_that_no_message_can_have_is_refused(dal: DataAccess, wrong: int) -> None:
    with pytest.raises(InvalidInputError, match="expected_sequence"):
        await dal.messages.add("c", "user", "x", expected_sequence=wrong)
    assert await dal.messages.count("c") == 0


# -- add_many


async def test_add_many_numbers_in_the_given_order(dal: DataAccess, clock: FakeClock) -> None:
    await dal.messages.add("c", "user", "first")
    moment = clock.now - timedelta(days=1)
    given = str(uuid4())
    added = await dal.messages.add_many(
        "c",
        [
            NewMessage("user", "a"),
            NewMessage(role="assistant", content="b", metadata={"k": [1]}, token_count=9, id=given, created_at=moment),
            NewMessage("user", "a"),
        ],
    )
    assert [m.sequence_number for m in added] == [2, 3, 4]
    assert [m.content for m in added] == ["a", "b", "a"]
    assert (added[1].id, added[1].metadata, added[1].token_count, added[1].created_at) == (
        given,
        {"k": [1]},
        9,
        moment,
    )
    assert added[0].created_at == clock.now
    assert (await dal.messages.history("c"))[1:] == added


async def test_add_many_of_nothing_is_nothing(dal: DataAccess) -> None:
    assert await dal.messages.add_many("c", []) == []
    found = await dal.chats.get("c")
    assert found is not None
    assert found.version == 1


async def test_add_many_is_all_or_none(dal: DataAccess) -> None:
    taken = await dal.messages.add("c", "user", "taken")
    with pytest.raises(AlreadyExistsError):
        await dal.messages.add_many("c", [NewMessage("user", "x"), NewMessage("user", "other", id=taken.id)])
    with pytest.raises(InvalidInputError):
        await dal.messages.add_many("c", [NewMessage("user", "x"), NewMessage("user", "\0")])
    same = str(uuid4())
    with pytest.raises(InvalidInputError):
        await dal.messages.add_many("c", [NewMessage("user", "x", id=same), NewMessage("user", "x", id=same)])
    assert await dal.messages.history("c") == [taken]


async def test_add_many_with_the_same_ids_again_gives_the_stored_messages(dal: DataAccess) -> None:
    messages = [NewMessage("user", f"m{n}", id=str(uuid4())) for n in range(5)]
    first = await dal.messages.add_many("c", messages)
    assert await dal.messages.add_many("c", messages) == first
    assert await dal.messages.count("c") == 5


async def test_a_thousand_messages_go_in_at_once_and_too_many_are_refused(dal: DataAccess) -> None:
    added = await fill(dal, 1000)
    assert [m.sequence_number for m in added] == list(range(1, 1001))
    assert await dal.messages.count("c") == 1000
    with pytest.raises(LimitExceededError, match="messages: found 10001, at most 10000 allowed"):
        await fill(dal, MAX_BATCH_MESSAGES + 1)
    assert await dal.messages.count("c") == 1000


async def test_what_is_no_message_is_refused_by_its_place_before_anything_is_written(dal: DataAccess) -> None:
    good = NewMessage("user", "x")
    for wrong in ({"role": "user", "content": "x"}, ("user", "x"), None, "x", 1, NewMessage):
        messages: Any = [good, good, wrong]
        with pytest.raises(InvalidInputError, match=r"messages\[2\]: expected a NewMessage"):
            await dal.messages.add_many("c", messages)
    for none in (None, good, (m for m in [good]), {good.content: good}):
        with pytest.raises(InvalidInputError, match="messages: expected a sequence"):
            await dal.messages.add_many("c", none)  # type: ignore[arg-type]
    assert await dal.messages.count("c") == 0


# -- history


async def test_history_gives_the_newest_oldest_of_them_first(dal: DataAccess) -> None:
    added = await fill(dal, 25)
    assert await dal.messages.history("c") == added[-20:]
    assert await dal.messages.history("c", limit=3) == added[-3:]
    assert await dal.messages.history("c", limit=1000) == added


async def test_history_with_before_and_offset(dal: DataAccess) -> None:
    added = await fill(dal, 12)

    async def numbers(**arguments: int) -> list[int]:
        found = await dal.messages.history("c", **arguments)
        assert found == [added[m.sequence_number - 1] for m in found]
        return [m.sequence_number for m in found]

    assert await numbers(limit=3, before=10) == [7, 8, 9]
    assert await numbers(limit=3, before=3) == [1, 2]
    assert await numbers(before=1) == []
    assert await numbers(limit=2, before=2**31 - 1) == [11, 12]
    assert await numbers(limit=3, offset=2) == [8, 9, 10]
    assert await numbers(limit=3, offset=11) == [1]
    assert await numbers(offset=12) == []
    assert await numbers(offset=500) == []
    assert await numbers(limit=2, offset=1, before=10) == [7, 8]
    assert await numbers(limit=2, offset=9, before=10) == []
    assert await numbers(limit=2, offset=1_000_000, before=10) == []


async def test_history_of_an_unknown_chat_is_a_missing_reference_and_of_an_empty_one_is_empty(dal: DataAccess) -> None:
    assert await dal.messages.history("c") == []
    assert await dal.messages.history("c", before=1) == []
    for arguments in ({}, {"limit": 1}, {"offset": 3}, {"before": 3}):
        with pytest.raises(MissingReferenceError):
            await dal.messages.history("no such chat", **arguments)


BAD_BOUNDS: dict[str, list[object]] = {
    "limit": [0, -1, 1001, True, "3", 2.0, None, 10**30],
    "offset": [-1, 1_000_001, "3"],
    "before": [0, -5, 2**31, "3"],
}


@pytest.mark.parametrize("argument", list(BAD_BOUNDS))
async def test_history_refuses_a_bound_that_means_nothing(dal: DataAccess, argument: str) -> None:
    await fill(dal, 2)
    for value in BAD_BOUNDS[argument]:
        arguments: dict[str, Any] = {argument: value}
        with pytest.raises(InvalidInputError, match=argument):
            await dal.messages.history("c", **arguments)
    with pytest.raises(LimitExceededError, match="limit"):
        await dal.messages.history("c", limit=1001)
    with pytest.raises(LimitExceededError, match="offset: found 1000001, at most 1000000"):
        await dal.messages.history("c", offset=1_000_001)


# -- iterate, count, get, flag


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 1000])
async def test_iterate_gives_every_message_oldest_first(dal: DataAccess, batch_size: int) -> None:
    added = await fill(dal, 10)
    assert [m async for m in dal.messages.iterate("c", batch_size=batch_size)] == added


async def test_iterate_gives_messages_added_while_it_runs(dal: DataAccess) -> None:
    await fill(dal, 4)
    seen = []
    async for message in dal.messages.iterate("c", batch_size=2):
        seen.append(message.sequence_number)
        if message.sequence_number == 1:
            await dal.messages.add("c", "user", "late")
    assert seen == [1, 2, 3, 4, 5]


async def test_iterate_may_be_left_early_and_writes_go_on(dal: DataAccess) -> None:
    await fill(dal, 10)
    async for message in dal.messages.iterate("c", batch_size=2):
        if message.sequence_number == 3:
            break
    await dal.messages.add("c", "user", "after")
    assert await dal.messages.count("c") == 11


async def test_iterate_over_an_empty_chat_ends_and_over_an_unknown_one_is_a_missing_reference(dal: DataAccess) -> None:
    assert [m async for m in dal.messages.iterate("c")] == []
    with pytest.raises(MissingReferenceError):
        [m async for m in dal.messages.iterate("no such chat")]


@pytest.mark.parametrize("batch_size", [0, -1, 1001, "5"])
async def test_iterate_refuses_a_batch_size_out_of_bounds(dal: DataAccess, batch_size: int) -> None:
    with pytest.raises(InvalidInputError, match="batch_size"):
        [m async for m in dal.messages.iterate("c", batch_size=batch_size)]


async def test_count_counts_the_messages_of_one_chat(dal: DataAccess) -> None:
    assert await dal.messages.count("c") == 0
    await fill(dal, 3)
    await dal.chats.create("other")
    await dal.messages.add("other", "user", "x")
    assert await dal.messages.count("c") == 3
    with pytest.raises(MissingReferenceError):
        await dal.messages.count("no such chat")


async def test_get_of_an_unknown_message_is_none(dal: DataAccess) -> None:
    for unknown in (UNKNOWN, "not a uuid", ""):
        assert await dal.messages.get(unknown) is None


async def test_flag_sets_and_clears_and_changes_nothing_else(dal: DataAccess, clock: FakeClock) -> None:
    first, second = await fill(dal, 2)
    chat = await dal.chats.get("c")
    clock.advance(9)
    assert await dal.messages.flag(first.id) == first.model_copy(update={"abuse_flagged": True, "version": 2})
    assert await dal.messages.flag(first.id, False) == first.model_copy(update={"version": 3})
    flagged = await dal.messages.flag(first.id, abuse_flagged=True)
    assert await dal.messages.history("c") == [flagged, second]
    assert await dal.chats.get("c") == chat
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(NotFoundError):
            await dal.messages.flag(unknown)
    with pytest.raises(InvalidInputError):
        await dal.messages.flag(first.id, "yes")  # type: ignore[arg-type]
