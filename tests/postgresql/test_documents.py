"""Documents in jsonb: every number reads back equal, and as the kind of number it was."""

from __future__ import annotations

import json
from decimal import Decimal
from math import copysign
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dal.backends.postgresql.document import encode_document
from dal.backends.sql import SqlStore
from dal.ops import Compare, JsonValue, Select
from tests.postgresql.rows import user

FLOATS = [
    1e16, 1e300, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1e-7, 123456789.123456789, 1.5e17,
    1e22, 1e23, 0.1, -0.0, 0.0, -1e16, -5e-324, 1.0, 100.0, 3.0e15,
]  # fmt: skip
INTEGERS = [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right and copysign(1, left) == copysign(1, right)
    return type(left) is type(right) and left == right


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_as_digits_that_read_back_to_it(value: float) -> None:
    text = encode_document([value])
    assert "e" not in text.lower()
    digits = cast("list[Decimal]", json.loads(text, parse_float=Decimal, parse_int=_refuse_integer))
    assert _same(float(digits[0]), value)


def _refuse_integer(text: str) -> int:
    raise AssertionError(f"{text} would be read back as an integer")


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_stays_one(value: int) -> None:
    assert encode_document(value) == str(value)


def test_text_that_looks_like_a_number_is_left_alone() -> None:
    assert json.loads(encode_document({"1e16": "2E5", "deep": ["-0.0", 1e16]})) == {
        "1e16": "2E5",
        "deep": ["-0.0", 10000000000000000.0],
    }


@pytest.mark.parametrize("seed", range(3))
async def test_numbers_come_back_from_the_database_as_they_went(store: SqlStore, seed: int) -> None:
    numbers: list[JsonValue] = [*FLOATS, *INTEGERS]
    profile: dict[str, JsonValue] = {
        "list": numbers[seed:],
        "nested": {str(n): n for n in numbers},
        "list of lists": [[n] for n in numbers],
    }
    row = user(profile=profile)
    await store.commit([row])
    stored = await store.read(Select("users", (Compare("id", "=", cast(str, row.row["id"])),), columns=("profile",)))
    found = cast("dict[str, JsonValue]", stored[0][0])
    assert found == profile
    for left, right in zip(cast("list[object]", found["list"]), numbers[seed:], strict=True):
        assert _same(left, right), (left, right)
