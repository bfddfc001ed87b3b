"""Every value comes back exact: as text, as a document, as a document's key, and as a key to find the row by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dal.ops import Compare, Count, Delete, Guard, Insert, JsonValue, Ref, Select, Update, Upsert, Value
from dal.store import Store
from dal.testing import rows
from dal.testing.nasty import DOCUMENTS, NUMBERS, TEXTS, same

_TIMES = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, 100000, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]


async def _round_trip(store: Store, value: JsonValue) -> JsonValue:
    """The document as the store gives it back: returned by the write, and read."""
    await store.commit([Insert("users", rows.user(1))])
    receipt = await store.commit([Insert("user_memory", rows.memory(2, 1, value=value), returning=("value",))])
    found = await store.read(Select("user_memory", columns=("value",)))
    assert len(found) == 1
    assert receipt.rows[0] is not None
    assert same(receipt.rows[0][0], found[0][0])
    result = found[0][0]
    assert not isinstance(result, datetime)
    return result


class ValueConformance:
    """Text, numbers, documents, times, truth values and addresses."""

    @pytest.mark.parametrize("name", list(TEXTS))
    async def test_text_comes_back_exact_wherever_it_stands(self, store: Store, name: str) -> None:
        text = TEXTS[name]
        document: JsonValue = {"value": text, "list": [text], text: {text: text}}
        written = rows.message(2, 1, content=text, metadata=document)
        await store.commit(
            [Insert("chat_sessions", rows.chat(1, chat_id=text, title=text)), Insert("messages", written)]
        )
        columns = ("content", "metadata", "chat_session_id.chat_id", "chat_session_id.title")
        found = await store.read(Select("messages", (Compare("chat_session_id.chat_id", "=", text),), columns=columns))
        assert found == [(text, document, text, text)]

    async def test_keys_that_look_alike_are_different_keys(self, store: Store) -> None:
        keys = list(TEXTS.values())
        assert len(set(keys)) == len(keys)
        await store.commit([Insert("users", rows.user(1))])
        await store.commit([Insert("user_memory", rows.memory(10 + n, 1, key=key)) for n, key in enumerate(keys)])
        await store.commit([Insert("chat_sessions", rows.chat(10 + n, chat_id=key)) for n, key in enumerate(keys)])
        on = ("user_id", "memory_type", "key")
        for n, key in enumerate(keys):
            assert await rows.numbers(store, Select("chat_sessions", (Compare("chat_id", "=", key),))) == [10 + n]
            update = Update("chat_sessions", {"chat_id": key}, {"title": key}, {"version": 1}, ("id",))
            upsert = Upsert("user_memory", rows.memory(999, 1, key=key, value=key), on, ("value",), returning=("id",))
            lookup: dict[str, Value] = {"user_id": rows.row_id(1), "memory_type": "fact", "key": key}
            receipt = await store.commit(
                [update, upsert, Guard("chat_sessions", {"chat_id": key}, {"version": 2}), Guard("user_memory", lookup)]
            )
            assert receipt.rows[:2] == ((rows.row_id(10 + n),), (rows.row_id(10 + n),))
            session = Compare("id", "=", Ref("chat_sessions", {"chat_id": key}, "id"))
            assert await store.read(Select("chat_sessions", (session,), columns=("title",))) == [(key,)]
        for gone, key in enumerate(keys, start=1):
            assert (await store.commit([Delete("user_memory", (Compare("key", "=", key),))])).counts == (1,)
            assert await store.read(Count("user_memory")) == [(len(keys) - gone,)]

    @pytest.mark.parametrize("name", list(NUMBERS))
    async def test_a_number_in_a_document_comes_back_exact(self, store: Store, name: str) -> None:
        number = NUMBERS[name]
        document: JsonValue = {"number": number, "list": [number, -number if number != -(2**63) else 0]}
        assert same(await _round_trip(store, document), document)

    @pytest.mark.parametrize("name", list(NUMBERS))
    async def test_a_number_may_be_the_whole_document(self, store: Store, name: str) -> None:
        assert same(await _round_trip(store, NUMBERS[name]), NUMBERS[name])

    @pytest.mark.parametrize("name", list(DOCUMENTS))
    async def test_a_document_comes_back_equal(self, store: Store, name: str) -> None:
        assert same(await _round_trip(store, DOCUMENTS[name]), DOCUMENTS[name])

    async def test_a_document_read_is_the_readers_own(self, store: Store) -> None:
        document: dict[str, JsonValue] = {"list": [1]}
        await store.commit([Insert("users", rows.user(1, profile=document))])
        for _ in range(2):
            (profile,) = (await store.read(Select("users", columns=("profile",))))[0]
            assert profile == {"list": [1]}
            assert isinstance(profile, dict)
            profile["list"] = "changed by a reader"
        document["list"] = "changed by the writer"
        assert await store.read(Select("users", columns=("profile",))) == [({"list": [1]},)]

    @pytest.mark.parametrize("time", _TIMES, ids=str)
    async def test_a_time_comes_back_aware_in_utc_to_the_microsecond(self, store: Store, time: datetime) -> None:
        await store.commit([Insert("users", rows.user(1, created_at=time, last_active_at=time))])
        query = Select("users", (Compare("created_at", "=", time),), columns=("created_at", "last_active_at"))
        found = await store.read(query)
        assert found == [(time, time)]
        for value in found[0]:
            assert isinstance(value, datetime)
            assert value.utcoffset() == timedelta(0)

    async def test_times_are_ordered_as_times(self, store: Store) -> None:
        await store.commit([Insert("system_logs", rows.log(n, created_at=time)) for n, time in enumerate(_TIMES)])
        assert await rows.numbers(store, Select("system_logs", order=("created_at",))) == list(range(len(_TIMES)))
        assert await rows.numbers(store, Select("system_logs", order=("-created_at",), limit=1)) == [len(_TIMES) - 1]

    async def test_truth_values_are_bool(self, store: Store) -> None:
        flags = [True, False]
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        await store.commit(
            [Insert("messages", rows.message(10 + n, 1, abuse_flagged=flag)) for n, flag in enumerate(flags)]
        )
        found = await store.read(Select("messages", order=("id",), columns=("abuse_flagged",)))
        assert [value for (value,) in found] == flags
        assert all(type(value) is bool for (value,) in found)

    @pytest.mark.parametrize("number", [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)])
    async def test_a_64_bit_column_keeps_64_bits(self, store: Store, number: int) -> None:
        await store.commit([Insert("users", rows.user(1)), Insert("files", rows.file(2, 1, file_size=number))])
        found = await store.read(Select("files", (Compare("file_size", "=", number),), columns=("file_size",)))
        assert found == [(number,)]
        assert type(found[0][0]) is int

    @pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0", "::", "2001:db8::1", "fe80::1"])  # noqa: S104
    async def test_an_address_comes_back_as_its_text(self, store: Store, address: str) -> None:
        await store.commit([Insert("system_logs", rows.log(1, ip_address=address))])
        assert await store.read(Select("system_logs", columns=("ip_address",))) == [(address,)]

    async def test_a_null_is_none_and_differs_from_empty_text_and_a_null_document(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1, name=None)), Insert("users", rows.user(2, name=""))])
        await store.commit([Insert("user_memory", rows.memory(3, 1, value=None))])
        assert await store.read(Select("users", order=("id",), columns=("name",))) == [(None,), ("",)]
        assert await rows.numbers(store, Select("users", (Compare("name", "=", None),))) == [1]
        assert await rows.numbers(store, Select("users", (Compare("name", "=", ""),))) == [2]
        assert await store.read(Select("user_memory", columns=("value",))) == [(None,)]

    async def test_a_large_message_comes_back_whole(self, store: Store) -> None:
        text = "\u3042\U0001f600 \u2028'\"\\" * 100_000
        await store.commit(
            [Insert("chat_sessions", rows.chat(1)), Insert("messages", rows.message(2, 1, content=text))]
        )
        found = await store.read(Select("messages", columns=("content",)))
        assert found == [(text,)]
