"""Opaque page cursors: where a listing stopped, bound to that listing.

A cursor holds the order values of the last row of its page (keyset), so the next page costs the same as the first and
is stable under inserts and deletes, and a fingerprint of the listing, so that one handed to another listing, or to the
same one with other filters, is refused. It is not a secret and not signed: forged values reach a query only as
parameters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import orjson

from dal.errors import InvalidInputError
from dal.ops import Compare, Ref, Value
from dal.tables import TABLES, Kind
from dal.values import check_column


class Listing(NamedTuple):
    """A paged query: which rows, in which order. `filters` are the caller's, and part of what a cursor is bound to."""

    table: str
    order: tuple[str, ...]
    filters: tuple[Compare, ...] = ()
    extra: str = ""

    def cursor(self, values: Sequence[Value]) -> str:
        """The cursor of a page whose last row has these order values."""
        plain = [v.isoformat() if isinstance(v, datetime) else v for v in values]
        return _text(orjson.dumps([self._fingerprint(), *plain]))

    def after(self, cursor: str | None) -> tuple[Value, ...] | None:
        """The order values in a cursor of this listing. Raises InvalidInputError for any other text."""
        if cursor is None:
            return None
        try:
            data = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            if _text(data) != cursor:  # the decoder passes over what is no digit of its own
                raise ValueError("more, or other, than was encoded")
            fields = orjson.loads(data)
            if not isinstance(fields, list) or fields[0] != self._fingerprint() or len(fields) != len(self.order) + 1:
                raise InvalidInputError("after: this cursor comes from another listing; start again without it")
            return tuple(self._value(name, v) for name, v in zip(self.order, fields[1:], strict=True))
        except (ValueError, TypeError, IndexError, AttributeError, binascii.Error) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError("after: not a cursor of this library; pass `Page.next` unchanged") from error

    def _value(self, name: str, value: Value) -> Value:
        table, column = TABLES[self.table], name.removeprefix("-")
        if table.by_name[column].kind is Kind.TIME and isinstance(value, str):
            value = datetime.fromisoformat(value)
        return check_column(table, column, value)

    def _fingerprint(self) -> str:
        filters = [
            (c.column, c.op, repr(c.value.key) if isinstance(c.value, Ref) else repr(c.value)) for c in self.filters
        ]
        text = repr((self.table, self.order, filters, self.extra))
        return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
