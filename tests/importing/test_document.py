"""A line as a JSON document, and the policy for text that no store keeps."""

from __future__ import annotations

import json

import pytest

from dal import InvalidInputError
from dal.importing.document import parse
from dal.ops import JsonValue


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": "plain"}',
        '{"a": "鶏肉 🎉"}'.encode(),
        b'{"a": 9223372036854775807, "b": -0.0, "c": 1e300}',
        b'{"a": "\\ud83c\\udf89"}',
        b'{"a": "\\\\u0000"}',
    ],
)
def test_a_line_means_what_the_standard_library_says(line: bytes) -> None:
    assert parse(line, "refuse").fields == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b'{"a": 1}}',
        b"nul",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"[1]",
        b'"text"',
        b"null",
        b"\xff{}",
        b'{"a": "\x01"}',
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused_without_a_crash(line: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(line, "refuse")
    assert len(caught.value.message) < 200


def test_an_integer_outside_64_bits_is_not_turned_into_a_float() -> None:
    document = parse(b'{"a": 123456789012345678901234567890}', "refuse")
    assert document.fields == {"a": 123456789012345678901234567890}
    assert not document.vouched


BAD: list[tuple[bytes, JsonValue]] = [
    (b'{"a": "x\\u0000y"}', {"a": "x\ufffdy"}),
    (b'{"a": "x\\ud800y"}', {"a": "x\ufffdy"}),
    (b'{"a": "\\udc00\\ud800"}', {"a": "\ufffd\ufffd"}),
    (b'{"k\\u0000": ["\\ud8ff", {"n": null}]}', {"k\ufffd": ["\ufffd", {"n": None}]}),
    (b'{"a": "x\xed\xa0\x80y"}', {"a": "x\ufffdy"}),
]


@pytest.mark.parametrize(("line", "replaced"), BAD)
def test_bad_text_is_replaced_when_asked(line: bytes, replaced: JsonValue) -> None:
    document = parse(line, "replace")
    assert document.fields == replaced
    assert document.replaced >= 1


@pytest.mark.parametrize(("line", "_"), BAD)
def test_bad_text_is_never_vouched_for(line: bytes, _: JsonValue) -> None:
    document = parse(line, "refuse")
    assert not document.vouched
    assert document.replaced == 0


def test_pairs_of_surrogates_are_not_bad_text() -> None:
    document = parse(b'{"a": "\\ud83c\\udf89", "b": "\\u0000"}', "replace")
    assert document.fields == {"a": "🎉", "b": "\ufffd"}
    assert document.replaced == 1


def test_keys_that_become_the_same_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="become the same"):
        parse(b'{"k\\u0000": 1, "k\\ud800": 2}', "replace")


def test_replacing_goes_no_deeper_than_what_could_be_stored() -> None:
    with pytest.raises(InvalidInputError, match="nested deeper"):
        parse(b'{"a":' * 300 + b'"\\u0000"' + b"}" * 300, "replace")
