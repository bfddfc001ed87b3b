"""Times of exports, as the conversation format has them.

A number is seconds since 1970, or milliseconds when it is so large that seconds would lie beyond the year 5138; so is a
text of digits. A text in UTC loses its `Z`. Whatever is no time stays as it is: the import then keeps it in the
metadata, and the message gets the time of the one before it.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from dal.ops import JsonValue

_FIRST_MILLISECONDS: Final = 100_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def export_time(value: JsonValue) -> JsonValue:
    """The instant as text in UTC, to the microsecond; the value itself where it is not understood."""
    if type(value) is str:
        return value.removesuffix("Z") if len(value) <= len("2024-03-13T14:48:37.115821Z") else value
    if type(value) is not int and type(value) is not float:
        return value
    if not math.isfinite(value):
        return value
    seconds = value / 1000 if abs(value) >= _FIRST_MILLISECONDS else value
    try:
        # A float is nearest to the microsecond that was meant: 1750537482.970556 is one.
        return (_EPOCH + timedelta(microseconds=round(seconds * 1_000_000))).replace(tzinfo=None).isoformat()
    except OverflowError:
        return value
