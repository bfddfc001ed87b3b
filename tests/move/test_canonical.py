"""Two rows have the same bytes when they hold the same content, and never otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dal.move.canonical import (
    HASH_BITS,
    _written_slowly,
    canonical,
    canonical_document,
    differing_fields,
    digest,
    row_hash,
    same_row,
)
from dal.ops import JsonValue, Row, Value
from dal.tables import MESSAGES, SYSTEM_LOGS, TABLES, USER_MEMORY, USERS, Kind
from dal.testing import rows
from dal.testing.nasty import DOCUMENTS, NUMBERS, TEXTS, nested

SAMPLES = {
    "users": rows.user(1),
    "chat_sessions": rows.chat(1),
    "messages": rows.message(1, 1),
    "user_memory": rows.memory(1, 1),
    "files": rows.file(1, 1),
    "system_logs": rows.log(1, ip_address="192.0.2.1"),
}
SAMPLES |= {name: rows.whole(name, 1) for name in TABLES if name not in SAMPLES}

_integers = st.integers(-(2**63), 2**63 - 1)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)
_whole_floats = st.integers(-(2**70), 2**70).map(float)
_leaves = st.none() | st.booleans() | _integers | st.integers(-2, 2) | _floats | _whole_floats | _texts
documents = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3)
)


def row_of(values: dict[str, Value]) -> Row:
    return tuple(values.values())


def message(**changes: Value) -> Row:
    return row_of(cast("dict[str, Value]", rows.message(5, 1, **changes)))


def memory(value: JsonValue) -> Row:
    return row_of(rows.memory(5, 1, value=value))


def equal_in_meaning(left: JsonValue, right: JsonValue) -> bool:
    """The definition: Python's equality, but true is no number and minus zero is not zero."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal_in_meaning(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal_in_meaning, left, right))
    if left == 0 and right == 0:
        return (str(left) == "-0.0") == (str(right) == "-0.0")
    return left == right


def test_the_bytes_of_a_row_are_fixed_for_all_time() -> None:
    """Registries hold hashes of them: a change of the form would make every row look changed."""
    row = message(content="Stra\u00dfe", metadata={"b": 1.0, "a": [True, None, -0.0, 1.5]}, token_count=None)
    expected = (
        '["01900000-0000-7000-8000-000000000005","01900000-0000-7000-8000-000000000001","user","Stra\u00dfe",'
        '{"a":[true,null,-0.0,1.5],"b":1},5,null,false,"2026-01-02T03:04:10.678901+00:00",1]'
    ).encode()
    assert canonical(MESSAGES, row) == expected
    assert digest(MESSAGES, row) == blake2b(expected, digest_size=16).digest()
    assert row_hash(MESSAGES, row) == 0x377BDF5E1A296


def test_a_hash_is_the_beginning_of_the_digest_and_exact_as_a_double() -> None:
    row = message()
    assert f"{row_hash(MESSAGES, row):013x}" == digest(MESSAGES, row).hex()[: HASH_BITS // 4]
    assert row_hash(MESSAGES, row) < 2**53


@given(documents, documents)
def test_documents_have_the_same_bytes_if_and_only_if_they_are_equal(left: JsonValue, right: JsonValue) -> None:
    is_equal = equal_in_meaning(left, right)
    assert (canonical_document(left) == canonical_document(right)) is is_equal
    assert same_row(USER_MEMORY, memory(left), memory(right)) is is_equal
    assert differing_fields(USER_MEMORY, memory(left), memory(right)) == (() if is_equal else ("value",))


@given(documents)
def test_documents_too_deep_for_the_encoder_have_the_same_form(document: JsonValue) -> None:
    assert _written_slowly(document) == canonical_document(document)


def test_a_document_of_any_depth_has_bytes() -> None:
    assert canonical_document(nested(900)) != canonical_document(nested(901))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (1, 1.0),
        (1e16, 10**16),
        (-(2.0**63), -(2**63)),
        ([{"a": [0.0]}], [{"a": [0]}]),
    ],
)
def test_other_forms_of_one_document_are_equal(left: JsonValue, right: JsonValue) -> None:
    assert canonical(USER_MEMORY, memory(left)) == canonical(USER_MEMORY, memory(right))
    assert same_row(USER_MEMORY, memory(left), memory(right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, True),
        (0, False),
        (0.0, -0.0),
        (0, -0.0),
        (1, "1"),
        (None, "null"),
        (2**53, 2**53 + 1),
        (float(2**53), 2**53 + 1),
        (0.1, 0.1 + 2**-56),
        ({"\u00e9": 1}, {"e\u0301": 1}),
        ([], {}),
        ([1, 2], [2, 1]),
        ({"a": None}, {}),
    ],
)
def test_what_looks_alike_in_documents_differs(left: JsonValue, right: JsonValue) -> None:
    assert canonical(USER_MEMORY, memory(left)) != canonical(USER_MEMORY, memory(right))
    assert not same_row(USER_MEMORY, memory(left), memory(right))


def test_no_two_nasty_values_have_the_same_bytes() -> None:
    texts = {canonical(MESSAGES, message(content=text)) for text in TEXTS.values()}
    assert len(texts) == len(set(TEXTS.values()))
    assert len({canonical_document(document) for document in DOCUMENTS.values()}) == len(DOCUMENTS)
    # 1 and 1.0 are one number.
    assert len({canonical_document(number) for number in NUMBERS.values()}) == len(NUMBERS) - 1


def test_composed_and_decomposed_accents_are_two_texts() -> None:
    assert differing_fields(MESSAGES, message(content="Caf\u00e9"), message(content="Cafe\u0301")) == ("content",)


def test_one_instant_has_one_form_in_every_zone() -> None:
    tokyo = rows.START.astimezone(timezone(timedelta(hours=9)))
    assert canonical(MESSAGES, message(created_at=tokyo)) == canonical(MESSAGES, message(created_at=rows.START))


@given(st.datetimes(), st.datetimes())
def test_times_differ_down_to_the_microsecond(left: datetime, right: datetime) -> None:
    first, second = message(created_at=left.replace(tzinfo=UTC)), message(created_at=right.replace(tzinfo=UTC))
    assert (canonical(MESSAGES, first) == canonical(MESSAGES, second)) is (left == right)
    later = left.replace(tzinfo=UTC, microsecond=left.microsecond ^ 1)
    assert canonical(MESSAGES, first) != canonical(MESSAGES, message(created_at=later))


def test_nothing_and_empty_text_differ() -> None:
    nothing, empty = row_of(rows.user(1, name=None)), row_of(rows.user(1, name=""))
    assert differing_fields(USERS, nothing, empty) == ("name",)
    assert canonical(USERS, nothing) != canonical(USERS, empty)


def test_content_cannot_pass_from_one_field_to_the_next() -> None:
    left = row_of(rows.log(1, user_agent='a","b', request_uri=None))
    right = row_of(rows.log(1, user_agent="a", request_uri='b",null'))
    assert canonical(SYSTEM_LOGS, left) != canonical(SYSTEM_LOGS, right)
    assert differing_fields(SYSTEM_LOGS, left, right) == ("user_agent", "request_uri")


@pytest.mark.parametrize("name", TABLES)
def test_every_field_of_every_table_counts(name: str) -> None:
    table = TABLES[name]
    row = row_of(cast("dict[str, Value]", SAMPLES[name]))
    seen = {canonical(table, row)}
    for place, column in enumerate(table.columns):
        other = (*row[:place], _changed(column.kind, row[place]), *row[place + 1 :])
        seen.add(canonical(table, other))
        assert differing_fields(table, row, other) == (column.name,)
        assert not same_row(table, row, other)
    assert len(seen) == len(table.columns) + 1


def _changed(kind: Kind, value: Value) -> Value:
    if kind is Kind.TIME:
        return rows.START if value is None else cast(datetime, value) + timedelta(microseconds=1)
    if kind is Kind.BOOL:
        return not value
    if kind in (Kind.INT, Kind.BIGINT):
        return cast(int, value or 0) + 1
    return {"changed": True} if kind is Kind.JSON else f"{value}x"
