"""One line as a JSON document, with the policy for text that no store keeps.

Parsing is in C and the usual line is vouched for as a whole: when the strict parser took it and it holds no escaped
U+0000, no very long number and few bytes, nothing in its strings and numbers can be refused later, so the loop over
messages need not look at each. Any other line is parsed by the standard library, which hands out lone surrogates and
exact integers, and is then checked value by value.
"""

from __future__ import annotations

import json
import re
from typing import Final, Literal, NamedTuple, NoReturn

import orjson

from dal.errors import InvalidInputError, LimitExceededError
from dal.limits import MAX_JSON_DEPTH
from dal.ops import JsonValue

BadText = Literal["refuse", "replace"]

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
# Nineteen digits in a row might be an integer outside 64 bits. Translating and finding takes a quarter of a regex.
_DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS: Final = b"0" * 19
_VOUCHED_BYTES: Final = 1024 * 1024  # far below every limit on one text or one document
_MAX_DEPTH: Final = MAX_JSON_DEPTH + 8  # the document stands some levels above the metadata inside it


class Document(NamedTuple):
    """A parsed line.

    vouched   every string and number in it can be stored; only kinds, lengths of keys and nesting are left to check.
    replaced  how many texts had characters replaced.
    """

    fields: dict[str, JsonValue]
    vouched: bool
    replaced: int


def parse(data: bytes, on_bad_text: BadText) -> Document:
    """The object on this line. Raises InvalidInputError where there is none, with a reason that quotes nothing."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_slowly(data, on_bad_text)
    if b"\\u0000" in data or len(data) > _VOUCHED_BYTES or _MANY_DIGITS in data.translate(_DIGITS_TO_ZERO):
        return _parse_slowly(data, on_bad_text)
    if type(value) is not dict:
        _refuse_kind(value)
    return Document(value, True, 0)


def _parse_slowly(data: bytes, on_bad_text: BadText) -> Document:
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"not UTF-8: wrong byte at {error.start}") from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise LimitExceededError(f"nested deeper than {_MAX_DEPTH} levels") from error
    except ValueError as error:  # an integer of thousands of digits
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("not JSON that can be stored: an integer of thousands of digits") from error
    if type(value) is not dict:
        _refuse_kind(value)
    if on_bad_text == "replace":
        replacing = _Replacing()
        fields = replacing.object(value, 1)
        return Document(fields, False, replacing.count)
    return Document(value, False, 0)


class _Replacing:
    """A copy of a document with U+FFFD for every character that cannot be stored; `count` texts had one."""

    def __init__(self) -> None:
        self.count = 0

    def object(self, value: dict[str, JsonValue], depth: int) -> dict[str, JsonValue]:
        copy = {self.text(key): self.value(child, depth + 1) for key, child in value.items()}
        if len(copy) != len(value):
            raise InvalidInputError("two keys of one JSON object become the same when bad characters are replaced")
        return copy

    def value(self, value: JsonValue, depth: int) -> JsonValue:
        if depth > _MAX_DEPTH:
            raise LimitExceededError(f"nested deeper than {_MAX_DEPTH} levels")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self.object(value, depth)
        if isinstance(value, list):
            return [self.value(child, depth + 1) for child in value]
        return value

    def text(self, value: str) -> str:
        clean, count = _UNSTORABLE.subn(_REPLACEMENT, value)
        self.count += count > 0
        return clean


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInputError(f"not JSON: found {name}, which JSON cannot hold")


def _refuse_kind(value: object) -> NoReturn:
    raise InvalidInputError(f"expected a JSON object, found {type(value).__name__}")
