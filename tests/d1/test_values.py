"""What crosses the wire: exact numbers, texts of any size that D1 takes, and refusals of what it does not."""

from __future__ import annotations

from typing import cast

import orjson
import pytest

from dal import LimitExceededError
from dal.backends.d1.wire import Entry, body_of, entries_of, plain
from dal.backends.sql import SqlStore, Statement
from dal.limits import (
    D1_LONG_TEXT_CHARS,
    D1_MAX_PARAMS,
    D1_MAX_REQUEST_BYTES,
    D1_MAX_SQL_BYTES,
    D1_MAX_VALUE_BYTES,
    D1_PART_BYTES,
)
from dal.ops import Insert, Op, Ref, Select, Sum, Update
from dal.store import Store
from dal.testing import rows
from tests.d1.conftest import Place

#: Bytes that the numbers, times and short texts of a message's row are counted for, amply.
_REST = 500


async def _one(store: Store, sql: str, *params: object) -> tuple[object, ...]:
    return (await cast(SqlStore, store)._executor.fetch(Statement(sql, params, returns=True)))[0]


@pytest.mark.parametrize("number", [0, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
async def test_an_integer_arrives_as_the_integer_it_is(store: Store, number: int) -> None:
    found = await _one(store, "SELECT typeof(?), CAST(? AS TEXT), ? / 2 = CAST(? AS INTEGER) / 2", *[number] * 4)
    assert found == ("integer", str(number), 1)


async def test_other_values_arrive_as_what_they_are(store: Store) -> None:
    long = "長" * (D1_LONG_TEXT_CHARS + 1)
    odd = "a'b\"\\\u2028"
    found = await _one(store, "SELECT typeof(?), typeof(?), ?, ?, length(?)", None, "text", True, odd, long)
    assert found == ("null", "text", 1, odd, len(long))


async def test_sums_and_counters_beyond_2_to_53_are_exact(store: Store) -> None:
    await store.commit([Insert("users", rows.user(1))])
    await store.commit([Insert("files", rows.file(n, 1, file_size=2**60 + n)) for n in (2, 3, 4)])
    changed = Update("files", {"id": rows.row_id(2)}, add={"file_size": 1}, returning=("file_size",))
    assert (await store.commit([changed])).rows == ((2**60 + 3,),)
    assert await store.read(Sum("files", "file_size")) == [(3 * 2**60 + 10,)]
    size = Ref("files", {"id": rows.row_id(2)}, "file_size", 5)
    inserted = Insert("files", {**rows.file(9, 1), "file_size": size}, returning=("file_size",))
    assert (await store.commit([inserted])).rows == ((2**60 + 8,),)


@pytest.mark.parametrize("character", ["x", "\n", "é", "😀", '"'])
async def test_a_row_at_the_limit_is_kept_and_one_above_is_refused_unsent(
    place: Place, store: Store, character: str
) -> None:
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    size = len(character.encode())
    fits = character * ((D1_MAX_VALUE_BYTES - _REST) // size)
    await store.commit([Insert("messages", rows.message(2, 1, content=fits))])
    assert await store.read(Select("messages", columns=("content",))) == [(fits,)]
    sent = place.engine.requests(place.database)
    for ops in (
        [Insert("messages", rows.message(3, 1, content=character * (D1_MAX_VALUE_BYTES // size)))],
        [Insert("messages", rows.message(3, 1, content=fits, metadata={"half": fits}))],
        [Update("messages", {"id": rows.row_id(2)}, {"content": character * (D1_MAX_VALUE_BYTES // size + 1)})],
    ):
        with pytest.raises(LimitExceededError, match="2000000") as caught:
            await store.commit(cast("list[Op]", ops))
        assert caught.value.outcome == "not_applied"
    assert place.engine.requests(place.database) == sent


async def test_many_large_rows_go_in_one_batch(place: Place, store: Store) -> None:
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    texts = [chr(97 + n) * (D1_PART_BYTES // 3 + n * 90_000) for n in range(12)]
    sent = place.engine.requests(place.database)
    ops: list[Op] = [Insert("messages", rows.message(10 + n, 1, content=text)) for n, text in enumerate(texts)]
    await store.commit(ops)
    assert place.engine.requests(place.database) == sent + 1
    found = await store.read(Select("messages", order=("id",), columns=("content",)))
    assert [row[0] for row in found] == texts


async def test_a_batch_beyond_what_one_request_takes_is_refused_unsent(place: Place, store: Store) -> None:
    sent = place.engine.requests(place.database)
    text = "x" * 1_900_000
    ops = [Insert("system_logs", rows.log(n, message=text)) for n in range(D1_MAX_REQUEST_BYTES // len(text) + 1)]
    with pytest.raises(LimitExceededError, match=str(D1_MAX_REQUEST_BYTES)):
        await store.commit(ops)
    assert place.engine.requests(place.database) == sent


def test_values_travel_as_one_parameter_and_long_texts_beside_it() -> None:
    long = "x" * (D1_LONG_TEXT_CHARS + 1)
    (entry,) = entries_of(Statement("INSERT INTO t (a, b, c) VALUES (?, ?, ?)", (1, long, None)))
    assert entry.sql == "INSERT INTO t (a, b, c) VALUES (json_extract(?1, '$[0]'), ?2, json_extract(?1, '$[2]'))"
    assert entry.params == ("[1,null,null]", long)
    (entry,) = entries_of(Statement("INSERT INTO t (a) VALUES (?)", [[1], [2]], many=True))
    assert entry.params == ("[[1],[2]]",)
    assert entries_of(Statement("INSERT INTO t (a) VALUES (?)", [], many=True)) == []
    assert entries_of(Statement("SELECT '?'")) == [Entry("SELECT '?'", ())]
    with pytest.raises(ValueError, match="1 placeholders for 2 values"):
        entries_of(Statement("SELECT ?", (1, 2)))


def test_more_long_texts_than_parameters_are_refused() -> None:
    texts = ["x" * (D1_LONG_TEXT_CHARS + 1)] * D1_MAX_PARAMS
    with pytest.raises(LimitExceededError, match=str(D1_MAX_PARAMS)):
        entries_of(Statement(f"SELECT {', '.join('?' * len(texts))}", texts))


def test_rows_are_split_where_they_would_not_fit_into_a_value() -> None:
    texts = ["y" * (D1_PART_BYTES // 2 + 1), "z" * 10, "é" * D1_PART_BYTES, "w"]
    entries = entries_of(Statement("INSERT INTO t (a) VALUES (?)", [[text] for text in texts], many=True))
    assert all(len(str(param).encode()) <= D1_MAX_VALUE_BYTES for entry in entries for param in entry.params)
    assert [entry.sql.startswith("WITH") for entry in entries] == [True, False, True]


def test_a_body_is_one_statement_or_a_batch() -> None:
    one = Entry("SELECT ?1", ("a",))
    assert orjson.loads(body_of([one])) == {"sql": "SELECT ?1", "params": ["a"]}
    assert orjson.loads(body_of([one, one])) == {"batch": [{"sql": "SELECT ?1", "params": ["a"]}] * 2}


@pytest.mark.parametrize(
    ("sql", "params", "figure"),
    [
        ("SELECT 1 -- " + "x" * D1_MAX_SQL_BYTES, (), str(D1_MAX_SQL_BYTES)),
        ("SELECT 1", tuple(range(D1_MAX_PARAMS + 1)), str(D1_MAX_PARAMS)),
        ("SELECT ?", ("é" * D1_MAX_VALUE_BYTES,), str(D1_MAX_VALUE_BYTES)),
    ],
    ids=["SQL", "parameters", "value"],
)
def test_a_statement_of_others_beyond_a_limit_is_refused_unsent(
    sql: str, params: tuple[object, ...], figure: str
) -> None:
    with pytest.raises(LimitExceededError, match=figure):
        plain(sql, params)
