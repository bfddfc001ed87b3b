"""The canonical bytes of a row, and hashes of them: what "the same content" means to moves and to the check.

A row's fields follow each other in the table's declared order, each as tag, length and bytes. Two rows have the same
bytes when every field is equal as a value: times by the instant, documents whatever the order of their keys, numbers
in documents by value (1 and 1.0 are one number; true is none, and -0.0, which stores keep, is not 0.0). Text counts by
its code points: composed and decomposed accents are two texts. The form is the same in every store and for all time:
registries hold hashes of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from hashlib import blake2b
from operator import itemgetter
from typing import Final, TypeAlias, cast

import orjson

from dal.ops import JsonValue, Row, Value
from dal.tables import Column, Kind, Table

#: Bits of a digest that a registry keeps: exact through JSON, and databases can add up the halves.
HASH_BITS: Final = 52
_DIGEST_BYTES: Final = 16
_PREFIX_BYTES: Final = 7
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: A whole float, or one with an exponent, in encoded JSON; a hit inside a text only costs a closer look.
_MAY_BE_WHOLE: Final = re.compile(rb"\d\.0|\de").search
_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1  # what the encoder of documents takes
_TAGS: Final = {
    Kind.ID: "u",
    Kind.TEXT: "s",
    Kind.INT: "i",
    Kind.BIGINT: "i",
    Kind.BOOL: "b",
    Kind.TIME: "t",
    Kind.JSON: "j",
    Kind.IP: "a",
}

_Encoder: TypeAlias = Callable[[Row], bytes]


def canonical(table: Table, row: Row) -> bytes:
    """The row, given in declared order, as bytes: equal for equal content, different for any other."""
    return _encoder(table)(row)


def digest(table: Table, row: Row) -> bytes:
    """BLAKE2b-128 of the canonical row."""
    return blake2b(_encoder(table)(row), digest_size=_DIGEST_BYTES).digest()


def row_hash(table: Table, row: Row) -> int:
    """The first 52 bits of the digest, as a number: what registries keep of a row."""
    return hash_of(_encoder(table)(row))


def hash_of(data: bytes) -> int:
    """The hash of the row that has these canonical bytes."""
    found = blake2b(data, digest_size=_DIGEST_BYTES).digest()
    return int.from_bytes(found[:_PREFIX_BYTES], "big") >> (_PREFIX_BYTES * 8 - HASH_BITS)


def same_rows(table: Table, left: Sequence[Row], right: Sequence[Row]) -> bool:
    """Whether these rows have the same content, each as its like; where they do, sooner than one after the other.

    What Python calls different is; but of documents it calls some equal that are not.
    """
    try:
        if list(left) != list(right):
            return False
    except RecursionError:  # a document nested that deep
        return all(map(partial(same_row, table), left, right))
    _, documents = _places(table)
    return all(
        same_document(cast(JsonValue, [row[place] for row in left]), cast(JsonValue, [row[place] for row in right]))
        for place in documents
    )


def same_row(table: Table, left: Row, right: Row) -> bool:
    """Whether two rows have the same content; cheaper than two digests."""
    plain, documents = _places(table)
    if plain(left) != plain(right):
        return False
    return all(same_document(cast(JsonValue, left[place]), cast(JsonValue, right[place])) for place in documents)


def same_document(left: JsonValue, right: JsonValue) -> bool:
    """Whether two documents have the same canonical form. Values that Python calls equal may differ: 1 and True do."""
    try:
        if orjson.dumps(left) == orjson.dumps(right):  # mostly, and then their form need not be found
            return True
    except TypeError:
        pass
    return canonical_document(left) == canonical_document(right)


def differing_fields(table: Table, left: Row, right: Row) -> tuple[str, ...]:
    """Names of the columns whose values differ, in declared order."""
    return tuple(
        column.name
        for column, ours, theirs in zip(table.columns, left, right, strict=True)
        if _field(column, ours) != _field(column, theirs)
    )


def canonical_document(value: JsonValue) -> bytes:
    """A JSON document as bytes: keys sorted, whole floats as integers."""
    try:
        data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        if _MAY_BE_WHOLE(data) is not None:
            data = orjson.dumps(_whole_numbers(value), option=orjson.OPT_SORT_KEYS)
    except (TypeError, RecursionError):  # nested deeper than the encoder goes: somebody else wrote it
        return _written_slowly(value)
    return data


def _whole_numbers(value: JsonValue) -> JsonValue:
    if isinstance(value, float):
        return int(value) if _is_whole(value) else value
    if isinstance(value, dict):
        return {name: _whole_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return value


def _is_whole(value: float) -> bool:
    """Whether an integer of a document may be equal to it; minus zero, which no integer is, stays a float."""
    if not value.is_integer() or not _MIN_INT <= value <= _MAX_INT:
        return False
    return value != 0 or str(value) != "-0.0"


def _written_slowly(value: JsonValue) -> bytes:
    """The same form without recursion, for documents of any depth."""
    parts: list[bytes] = []
    todo: list[JsonValue | bytes] = [value]
    while todo:
        node = todo.pop()
        if isinstance(node, bytes):
            parts.append(node)
        elif isinstance(node, dict):
            todo.append(b"}")
            for place, (name, item) in reversed(list(enumerate(sorted(node.items(), key=itemgetter(0))))):
                todo += (item, (b"," if place else b"") + orjson.dumps(name) + b":")
            todo.append(b"{")
        elif isinstance(node, list):
            todo.append(b"]")
            for place, item in reversed(list(enumerate(node))):
                todo += (item, b"," if place else b"")
            todo.append(b"[")
        else:
            parts.append(orjson.dumps(_whole_numbers(node)))
    return b"".join(parts)


def _microseconds(value: datetime) -> bytes:
    return b"%d" % ((value - _EPOCH) // _MICROSECOND)


_number: Final = b"%d".__mod__

_AS_BYTES: Final[dict[Kind, Callable[..., bytes]]] = {
    Kind.ID: str.encode,
    Kind.TEXT: str.encode,
    Kind.INT: _number,
    Kind.BIGINT: _number,
    Kind.BOOL: _number,
    Kind.TIME: _microseconds,
    Kind.JSON: canonical_document,
    Kind.IP: str.encode,
}


def _field(column: Column, value: Value) -> bytes | None:
    return None if value is None and column.kind is not Kind.JSON else _AS_BYTES[column.kind](value)


@cache
def _encoder(table: Table) -> _Encoder:
    """The function from a row of this table to its bytes.

    It is one bytes format written for the table's columns: two thirds of the time of a loop over them. The text holds
    places and tags only, no name and no value. Null is a field of length -1.
    """
    scope: dict[str, object] = {f"encode{place}": _AS_BYTES[c.kind] for place, c in enumerate(table.columns)}
    values: list[str] = []
    for place, column in enumerate(table.columns):
        length, data = f"len(b{place} := encode{place}(row[{place}]))", f"b{place}"
        if _may_be_null(column):
            length, data = f"-1 if row[{place}] is None else {length}", f"b'' if row[{place}] is None else {data}"
        values += (length, data)
    form = "".join(f"{_TAGS[c.kind]}%d:%b" for c in table.columns)
    return cast(_Encoder, eval(f"lambda row: b'{form}' % ({', '.join(values)})", scope))  # noqa: S307


def _may_be_null(column: Column) -> bool:
    # JSON has its own null, so a None in a JSON column is a document.
    return column.nullable and column.kind is not Kind.JSON


@cache
def _places(table: Table) -> tuple[Callable[[Row], tuple[Value, ...]], tuple[int, ...]]:
    """What takes the values of a row's other columns out of it, and the places of its documents."""
    documents = tuple(place for place, c in enumerate(table.columns) if c.kind is Kind.JSON)
    plain = [place for place in range(len(table.columns)) if place not in documents]
    return itemgetter(*plain), documents
