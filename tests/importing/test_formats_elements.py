"""The objects of a JSON file, taken apart without parsing: the same whatever pieces the file comes in."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dal.importing.elements import elements

JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def values(data: bytes, size: int = 3) -> list[object]:
    """What was found: objects, and what was wrong."""
    return [line.problem or json.loads(line.data) for line in elements(pieces(data, size))]


@settings(max_examples=40)
@given(OBJECTS, st.integers(1, 9), st.booleans(), st.booleans())
def test_a_list_gives_its_objects_in_whatever_pieces_it_comes(
    objects: list[object], size: int, is_ascii: bool, is_spread: bool
) -> None:
    data = json.dumps(objects, ensure_ascii=is_ascii, indent=1 if is_spread else None).encode()
    assert values(data, size) == objects


@settings(max_examples=40)
@given(OBJECTS, st.integers(1, 9))
def test_objects_may_just_follow_each_other(objects: list[object], size: int) -> None:
    data = b"\n".join(json.dumps(value).encode() for value in objects)
    assert values(data, size) == objects


@settings(max_examples=40)
@given(JSON.filter(lambda value: isinstance(value, dict | list)), st.integers(1, 9))
def test_a_whole_document_stays_whole(value: object, size: int) -> None:
    found = [json.loads(line.data) for line in elements(pieces(json.dumps(value).encode(), size), is_whole=True)]
    assert found == [value]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'[{"a": 1}, {"b": "}', "the file ends too early"),
        (b'[{"a": 1}', "the file ends too early"),
        (b'[{"a": 1}, x, {"b": 2}]', "something other than objects"),
        (b'[{"a": 1}, 7]', "something other than objects"),
        (b'{"a": 1} ]', "something other than objects"),
        (b'{"a": 1} x', "expected JSON objects"),
    ],
)
def test_what_is_wrong_comes_after_every_whole_object(data: bytes, problem: str) -> None:
    first, last = values(data)
    assert first == {"a": 1}
    assert str(last).startswith(problem)


def test_text_that_is_no_json_is_named_and_nothing_gives_nothing() -> None:
    assert values(b"hello") == ["expected JSON objects, or a list of them"]
    assert values(b"[]") == values(b"") == values(b" \n") == []


def test_an_object_beyond_the_limit_is_not_read() -> None:
    found = list(elements(pieces(b'[{"a": "' + b"x" * 100 + b'"}]', 8), max_bytes=50))
    assert [(line.number, line.data, line.problem is None) for line in found] == [(1, b"", False)]


def test_a_file_that_breaks_off_says_why() -> None:
    found = list(elements([b'[{"a": 1}, {"b"', "the gzip stream ends early"]))
    assert [(line.number, line.problem) for line in found] == [(1, None), (2, "the gzip stream ends early")]
