"""JSON documents as jsonb takes them: every number reads back equal, and as the kind of number it was.

jsonb keeps numbers as decimals and writes them without an exponent, so a float like 1e16 would come back as an integer.
Such a float is written in full, with ".0" where it is whole; everything else is orjson's text.
"""

from __future__ import annotations

import re
from decimal import Decimal

import orjson

from dal.ops import JsonValue

_EXPONENT = re.compile(rb"\de[-+]?\d").search


def encode_document(value: JsonValue) -> str:
    """The document as text. Cost: one pass in C; only a document with an exponent in it is walked."""
    data = orjson.dumps(value)
    if _EXPONENT(data) is not None:
        data = orjson.dumps(_written_out(value))
    return data.decode()


def _written_out(value: JsonValue) -> object:
    """The document with floats that have an exponent replaced by their digits."""
    if isinstance(value, float):
        short = repr(value)
        if "e" not in short:
            return value
        digits = format(Decimal(short), "f")
        return orjson.Fragment(digits if "." in digits else f"{digits}.0")
    if isinstance(value, dict):
        return {name: _written_out(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_written_out(item) for item in value]
    return value
