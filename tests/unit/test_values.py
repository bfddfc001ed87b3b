"""The boundary rule: what passes reads back equal, what is refused is named and never shown."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dal import values
from dal.errors import InvalidInputError, LimitExceededError
from dal.limits import MAX_INT64, MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_TEXT_BYTES, MIN_INT64
from dal.ops import JsonValue
from dal.tables import CHAT_SESSIONS, FILES, MESSAGES, SYSTEM_LOGS, USERS, Table

NASTY = Path(__file__).parents[3] / "shared" / "data" / "nasty" / "nasty.json"


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Plain(Enum):
    A = "a"


class Pair(NamedTuple):
    left: int
    right: int


storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(MIN_INT64, MAX_INT64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | storable_text,
    lambda children: st.lists(children) | st.dictionaries(storable_text, children),
    max_leaves=30,
)


def nested(levels: int) -> list[object]:
    document: list[object] = []
    for _ in range(levels - 1):
        document = [document]
    return document


# Text


@given(storable_text)
def test_storable_text_comes_back_as_it_is(text: str) -> None:
    assert values.check_text("content", text) == text


@pytest.mark.parametrize("text", ["\0", "a\0b", "日本\0", "\ud800", "ab\udfffc", "\ud83d\ude00"])
def test_unstorable_characters_are_refused_by_name_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        values.check_text("content", "secret" + text)
    message = str(refused.value)
    assert message.startswith("content: found ")
    assert "secret" not in message
    assert "U+0000" in message or "surrogate U+D" in message
    message.encode()


def test_the_place_of_an_unstorable_character_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"title: found U\+0000 at character 2,"):
        values.check_text("title", "ab\0")
    with pytest.raises(InvalidInputError, match=r"title: found the lone surrogate U\+D800 at character 1,"):
        values.check_text("title", "a\ud800\0")


def test_lengths_are_counted_in_characters_and_are_inclusive() -> None:
    assert values.check_text("k", "é" * 255, max_chars=255, min_chars=1) == "é" * 255
    with pytest.raises(LimitExceededError, match="256 characters, at most 255"):
        values.check_text("k", "é" * 256, max_chars=255)
    with pytest.raises(InvalidInputError, match="0 characters, at least 1"):
        values.check_text("k", "", max_chars=255, min_chars=1)


@pytest.mark.parametrize("letter", ["a", "あ"])
def test_the_byte_limit_of_text_is_reached_and_not_passed(letter: str) -> None:
    fits = letter * (MAX_TEXT_BYTES // len(letter.encode()))
    assert values.check_text("content", fits) is fits
    with pytest.raises(LimitExceededError, match="bytes of UTF-8"):
        values.check_text("content", fits + letter)


def test_a_text_enum_is_taken_by_its_text() -> None:
    checked = values.check_text("role", Colour.RED)
    assert checked == "red"
    assert type(checked) is str


@pytest.mark.parametrize("value", [None, 1, b"bytes", ["a"], Plain.A])
def test_what_is_not_text_is_refused_by_its_type(value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"role: expected text .*{type(value).__name__}"):
        values.check_text("role", value)


# JSON


@given(documents)
def test_a_document_comes_back_equal_and_plain(document: JsonValue) -> None:
    checked = values.check_json("metadata", document)
    assert checked == document
    assert json.dumps(checked) == json.dumps(document)
    assert orjson.loads(orjson.dumps(checked)) == document


def test_a_checked_document_shares_nothing_with_the_callers() -> None:
    document: dict[str, list[int]] = {"tags": [1]}
    checked = values.check_json("metadata", document)
    document["tags"].append(2)
    assert checked == {"tags": [1]}
    empty: dict[str, JsonValue] = {}
    assert values.check_json("metadata", empty) is not empty


@pytest.mark.parametrize("number", [1e300, -1e-300, 5e-324, -0.0, 0.1, 1e16, MAX_INT64, MIN_INT64])
def test_numbers_keep_their_value_type_and_sign(number: float) -> None:
    checked = values.check_json("value", number)
    assert checked == number
    assert type(checked) is type(number)
    assert isinstance(checked, int | float)
    assert math.copysign(1, checked) == math.copysign(1, number)


@pytest.mark.parametrize("document", [Colour.RED, [Level.HIGH], {Colour.RED: Colour.RED}, OrderedDict(a=[Level.HIGH])])
def test_subclasses_of_json_types_are_taken_by_their_plain_value(document: object) -> None:
    checked = values.check_json("metadata", document)
    assert checked == document
    plain_types = {dict, list, str, int}
    stack: list[object] = [checked]
    while stack:
        node = stack.pop()
        assert type(node) in plain_types
        if isinstance(node, dict):
            stack.extend([*node, *node.values()])
        elif isinstance(node, list):
            stack.extend(node)


@pytest.mark.parametrize(
    ("document", "place", "found"),
    [
        ({"tags": ["a", "b", "c", "x\0"]}, "metadata.tags[3]", "U+0000"),
        ({"tags": {"deep": ["\ud800"]}}, "metadata.tags.deep[0]", "U+D800"),
        ({"a": float("nan")}, "metadata.a", "nan"),
        ([float("inf")], "metadata[0]", "inf"),
        ([-float("inf")], "metadata[0]", "-inf"),
        ({"n": MAX_INT64 + 1}, "metadata.n", "64 bits"),
        ({"n": MIN_INT64 - 1}, "metadata.n", "64 bits"),
        ({"n": 10**10_000}, "metadata.n", "64 bits"),
        ({"t": (1, 2)}, "metadata.t", "tuple"),
        ({"t": Pair(1, 2)}, "metadata.t", "Pair"),
        ({"t": {1}}, "metadata.t", "set"),
        ({"t": b"x"}, "metadata.t", "bytes"),
        ({"t": datetime(2024, 1, 1, tzinfo=UTC)}, "metadata.t", "datetime"),
        ({"t": UUID(int=1)}, "metadata.t", "UUID"),
        ({"t": Plain.A}, "metadata.t", "Plain"),
        ({"t": object()}, "metadata.t", "object"),
        ({"a": {1: "x"}}, "metadata.a", "int"),
        ({None: "x"}, "metadata", "NoneType"),
        ({"a b": ["\0"]}, "metadata['a b'][0]", "U+0000"),
        ({"k" * 100: "\0"}, f"metadata['{'k' * 40}\\u2026']", "U+0000"),
        ({"bad\0key": 1}, "metadata['bad\\x00key'] (a key)", "U+0000"),
        ({"bad\ud800key": 1}, "metadata['bad\\ud800key'] (a key)", "U+D800"),
    ],
)
def test_what_does_not_read_back_equal_is_refused_with_its_place(document: object, place: str, found: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        values.check_json("metadata", document)
    message = str(refused.value)
    assert message.startswith(place + ":")
    assert found in message
    message.encode()


def test_an_escaped_backslash_is_not_mistaken_for_u0000() -> None:
    document = {"path": "\\u0000", "\\u0000": ["C:\\u0000"]}
    assert values.check_json("metadata", document) == document


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: [d] * 200], ids=["narrow", "wide"])
def test_the_depth_limit_is_reached_and_not_passed(wrap: object) -> None:
    assert callable(wrap)
    extra = len(wrap([])) and 1
    fits = wrap(nested(MAX_JSON_DEPTH - extra))
    assert values.check_json("metadata", fits) == fits
    with pytest.raises(LimitExceededError, match=f"deeper than {MAX_JSON_DEPTH}"):
        values.check_json("metadata", wrap(nested(MAX_JSON_DEPTH - extra + 1)))


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    document = {"text": "[{" * 500}
    assert values.check_json("metadata", document) == document


@pytest.mark.parametrize("levels", [500, 100_000])
def test_no_depth_leads_to_a_recursion_error(levels: int) -> None:
    with pytest.raises(LimitExceededError):
        values.check_json("metadata", nested(levels))


def test_a_document_within_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(LimitExceededError):
        values.check_json("metadata", circle)


def test_the_size_limit_of_json_is_reached_and_not_passed() -> None:
    fits = "a" * (MAX_JSON_BYTES - 2)
    assert values.check_json("value", fits) == fits
    with pytest.raises(LimitExceededError, match="bytes of JSON"):
        values.check_json("value", fits + "a")


def test_an_object_is_a_dict_or_nothing() -> None:
    assert values.check_object("metadata", None) == {}
    assert values.check_object("metadata", {"a": 1}) == {"a": 1}
    for other in ([], "text", 1, [("a", 1)]):
        with pytest.raises(InvalidInputError, match="expected a JSON object"):
            values.check_object("metadata", other)


def test_nasty_strings_pass_as_text_value_and_key_or_are_refused_for_a_reason() -> None:
    if not NASTY.exists():
        pytest.skip("the collection of nasty strings is not present")
    for entry in json.loads(NASTY.read_text("utf-8")):
        text = entry["text"]
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            for check in (values.check_text, values.check_json):
                with pytest.raises(InvalidInputError):
                    check("content", text)
        else:
            assert values.check_text("content", text) == text
            assert values.check_json("metadata", {text: [text]}) == {text: [text]}


# Times


def test_an_aware_time_becomes_the_same_instant_in_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    checked = values.check_time("created_at", datetime(2024, 5, 6, 7, 8, 9, 123456, tokyo))
    assert checked == datetime(2024, 5, 5, 22, 8, 9, 123456, UTC)
    assert checked.tzinfo is UTC


def test_a_naive_time_is_refused() -> None:
    class Nowhere(tzinfo):
        def utcoffset(self, dt: datetime | None, /) -> None:
            return None

        dst = utcoffset
        tzname = utcoffset

    for naive in (datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=Nowhere())):
        with pytest.raises(InvalidInputError, match=r"created_at: .*without a time zone"):
            values.check_time("created_at", naive)


@pytest.mark.parametrize(
    "edge",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    ],
)
def test_a_time_that_leaves_the_calendar_in_utc_is_refused(edge: datetime) -> None:
    with pytest.raises(InvalidInputError, match="outside the years"):
        values.check_time("expires_at", edge)


def test_a_subclass_of_datetime_becomes_a_plain_one() -> None:
    class Stamp(datetime):
        pass

    checked = values.check_time("created_at", Stamp(2024, 1, 1, tzinfo=UTC))
    assert type(checked) is datetime
    assert checked == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, 0, "2024-01-01T00:00:00Z", datetime(2024, 1, 1).date()])
def test_what_is_not_a_datetime_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="expected a datetime"):
        values.check_time("created_at", value)


def test_now_is_aware_and_utc() -> None:
    assert values.now().tzinfo is UTC


# Ids


@given(st.uuids())
def test_any_uuid_is_taken_in_upper_and_lower_case(uuid: UUID) -> None:
    assert values.check_id("id", str(uuid)) == str(uuid)
    assert values.check_id("id", str(uuid).upper()) == str(uuid)
    assert values.as_id(str(uuid).upper()) == str(uuid)
    assert values.is_id(str(uuid).upper())


@pytest.mark.parametrize(
    "value",
    [
        "",
        "c-1",
        "01890a5d-ac96-774b-bcce-b302099a8057\n",
        "01890a5dac96774bbcceb302099a8057",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
        "g1890a5d-ac96-774b-bcce-b302099a8057",
        "٠1890a5d-ac96-774b-bcce-b302099a8057",
        "\0" * 36,
        "\ud800" * 36,
    ],
)
def test_other_text_is_no_id(value: str) -> None:
    assert values.as_id(value) is None
    assert not values.is_id(value)
    with pytest.raises(InvalidInputError, match="user_id: expected a UUID") as refused:
        values.check_id("user_id", value)
    str(refused.value).encode()


@pytest.mark.parametrize("value", [None, 1, UUID(int=1)])
def test_an_id_is_text(value: object) -> None:
    with pytest.raises(InvalidInputError, match=type(value).__name__):
        values.check_id("user_id", value)


def test_new_ids_are_canonical_version_7_and_sorted() -> None:
    ids = [values.new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(values.as_id(i) is not None and UUID(i).version == 7 for i in ids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_processes_forked_from_one_make_different_ids() -> None:
    # In a process of its own: forking this one would warn about its threads.
    program = """
import os
from dal.values import new_id
new_id()
for _ in range(2):
    child = os.fork()
    if child == 0:
        print("\\n".join(new_id()[19:] for _ in range(100)), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    random_parts = run.stdout.split()
    assert len(random_parts) == len(set(random_parts)) == 200


# Addresses


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("::FFFF:c000:201", "::ffff:192.0.2.1"),
        ("0:0:0:0:0:ffff:102:304", "::ffff:1.2.3.4"),
    ],
)
def test_an_address_has_one_form(text: str, canonical: str) -> None:
    assert values.check_ip("ip_address", text) == canonical
    assert values.canonical_ip(canonical) == canonical


@pytest.mark.parametrize("value", ["", "localhost", "127.0.0.1/8", "fe80::1%eth0", "010.0.0.1", "1.2.3", "\0", None, 1])
def test_what_is_no_plain_address_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="ip_address: expected an IPv4 or IPv6"):
        values.check_ip("ip_address", value)


# Numbers


def test_limits_are_inclusive_and_say_which_way_they_were_missed() -> None:
    assert values.check_limit("limit", 1, 1000) == 1
    assert values.check_limit("limit", 1000, 1000) == 1000
    with pytest.raises(LimitExceededError, match="1001, at most 1000"):
        values.check_limit("limit", 1001, 1000)
    with pytest.raises(InvalidInputError, match="limit: found 0") as refused:
        values.check_limit("limit", 0, 1000)
    assert not isinstance(refused.value, LimitExceededError)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_only_an_integer_is_an_integer(value: object) -> None:
    with pytest.raises(InvalidInputError, match="expected an integer"):
        values.check_int("offset", value, 0, 10)


def test_an_integer_enum_is_taken_by_its_number() -> None:
    checked = values.check_int("offset", Level.HIGH, 0, 10)
    assert checked == 3
    assert type(checked) is int


# Columns


def test_a_column_is_checked_by_its_declaration() -> None:
    uuid = values.new_id()
    assert values.check_column(MESSAGES, "id", uuid.upper()) == uuid
    assert values.check_column(MESSAGES, "role", "user") == "user"
    assert values.check_column(MESSAGES, "abuse_flagged", True) is True
    assert values.check_column(MESSAGES, "token_count", None) is None
    assert values.check_column(FILES, "file_size", MAX_INT64) == MAX_INT64
    assert values.check_column(USERS, "profile", {"a": [1]}) == {"a": [1]}
    assert values.check_column(SYSTEM_LOGS, "ip_address", "::FFFF:1.2.3.4") == "::ffff:1.2.3.4"
    assert values.check_column(MESSAGES, "created_at", datetime(2024, 1, 1, tzinfo=UTC)).__class__ is datetime


@pytest.mark.parametrize(
    ("table", "column", "value", "error"),
    [
        (CHAT_SESSIONS, "chat_id", "", InvalidInputError),
        (CHAT_SESSIONS, "chat_id", "x" * 256, LimitExceededError),
        (CHAT_SESSIONS, "chat_id", None, InvalidInputError),
        (MESSAGES, "token_count", 2**31, InvalidInputError),
        (MESSAGES, "token_count", True, InvalidInputError),
        (MESSAGES, "abuse_flagged", 1, InvalidInputError),
        (MESSAGES, "abuse_flagged", None, InvalidInputError),
        (FILES, "file_size", 2**63, InvalidInputError),
        (MESSAGES, "metadata", (1,), InvalidInputError),
        (MESSAGES, "created_at", datetime(2024, 1, 1), InvalidInputError),
        (MESSAGES, "id", "x", InvalidInputError),
    ],
)
def test_a_column_refuses_what_it_does_not_declare(
    table: Table, column: str, value: object, error: type[InvalidInputError]
) -> None:
    with pytest.raises(error, match=f"{table.name}.{column}"):
        values.check_column(table, column, value)


def test_none_in_a_json_column_is_the_document_null() -> None:
    assert values.check_column(USERS, "profile", None) is None


def test_an_unknown_column_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        values.check_column(USERS, "nickname", "x")
