"""Rows of two stores compared column by column, in the form in which each store has them.

What has the same form on both sides, under the same decoder, is equal and is not decoded: tuples are compared, in C.
The rest is decoded and compared as values, with the meaning that dal.move.canonical gives to "equal". Measured for a
message: 0.2 µs where both sides are SQLite, 0.8 µs between SQLite and PostgreSQL, whose times and documents are written
in other ways; decoding both rows alone takes 1.1 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, cast

from dal.move.canonical import same_document
from dal.ops import JsonValue, Value
from dal.store import Stored
from dal.tables import Column, Kind, Table

_Decoder: TypeAlias = Callable[..., Value] | None
_SAME: Final[Sequence[int]] = ()


def differing_rows(table: Table, ours: Stored, theirs: Stored) -> set[int]:
    """The places of rows that differ, or that hold what cannot be decoded; empty where all have the same content.

    Whole rows in declared order, equally many on both sides, each at the place of its like. Rows that were decoded
    already are `Stored(rows, {})`.
    """
    if not ours.rows:
        return set()
    differing: set[int] = set()
    columns = zip(table.columns, zip(*ours.rows, strict=True), zip(*theirs.rows, strict=True), strict=True)
    for place, (column, left, right) in enumerate(columns):
        differing.update(_differing(column, left, right, ours.decoders.get(place), theirs.decoders.get(place)))
    return differing


def _differing(
    column: Column,
    left: Sequence[object],
    right: Sequence[object],
    decode_left: _Decoder,
    decode_right: _Decoder,
) -> Sequence[int]:
    """The places at which one column differs."""
    places: Sequence[int] = range(len(left))
    is_document = column.kind is Kind.JSON
    # A form means the same under the same decoder. Of documents as values, Python calls some equal that are not.
    if decode_left == decode_right and not (is_document and decode_left is None):
        if left == right:
            return _SAME
        places = [place for place, (one, other) in enumerate(zip(left, right, strict=True)) if one != other]
    try:
        ours, theirs = _values(column, left, places, decode_left), _values(column, right, places, decode_right)
    except ValueError:
        return places
    if is_document:
        if same_document(ours, theirs):
            return _SAME
        pairs = zip(places, ours, theirs, strict=True)
        return [place for place, one, other in pairs if not same_document(one, other)]
    if ours == theirs:
        return _SAME
    return [place for place, one, other in zip(places, ours, theirs, strict=True) if one != other]


def _values(column: Column, forms: Sequence[object], places: Sequence[int], decode: _Decoder) -> list[JsonValue]:
    """The values at these places. JSON has its own null, so nothing of a document is passed over."""
    chosen = forms if len(places) == len(forms) else [forms[place] for place in places]
    if decode is None:
        return cast("list[JsonValue]", list(chosen))
    if column.nullable and column.kind is not Kind.JSON:
        return cast("list[JsonValue]", [None if form is None else decode(form) for form in chosen])
    return cast("list[JsonValue]", list(map(decode, chosen)))
