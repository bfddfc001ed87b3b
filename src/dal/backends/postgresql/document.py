"""JSON documents as jsonb takes them: every number reads back equal, and as the kind of number it was.

jsonb keeps numbers as decimals: it writes them without an exponent, so that a float like 1e16 would come back as an
integer, and knows no negative zero. Such floats are written in full, with ".0" where they are whole; the rest is
orjson's text.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

import orjson

from dal.ops import JsonValue

_UNSAFE: Final = re.compile(rb"\de[-+]?\d|-0\.0").search
#: A decimal nearer to zero than any float: read back, it is the float that rounds it, sign included.
_NEGATIVE_ZERO: Final = orjson.Fragment(f"-0.{'0' * 330}1")


def encode_document(value: JsonValue) -> str:
    """The document as text. Cost: one pass in C; only a document with such a float in it is walked."""
    data = orjson.dumps(value)
    if _UNSAFE(data) is not None:
        data = orjson.dumps(_written_out(value))
    return data.decode()


def _written_out(value: JsonValue) -> object:
    """The document with the floats that jsonb would change replaced by their digits."""
    if isinstance(value, float):
        short = repr(value)
        if short == "-0.0":
            return _NEGATIVE_ZERO
        if "e" not in short:
            return value
        digits = format(Decimal(short), "f")
        return orjson.Fragment(digits if "." in digits else f"{digits}.0")
    if isinstance(value, dict):
        return {name: _written_out(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_written_out(item) for item in value]
    return value
