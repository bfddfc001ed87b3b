"""Times of the source: what is meant, and what must be kept beside it because the stored time says less.

A time without a zone is UTC. A time that is missing or cannot be read is None, and the caller puts another in its
place; one that names another zone, or is finer than microseconds, is stored as its instant. In both cases the text
itself is worth keeping.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from dal.ops import JsonValue

_SECONDS_CHARS: Final = len("2022-08-06T17:52:13")
_DATE_CHARS: Final = len("2022-08-06")
_MICROSECONDS_CHARS: Final = len("2022-08-06T17:52:13.340000")


def read_time(value: JsonValue) -> tuple[datetime | None, bool]:
    """The instant in UTC, or None, and whether the stored time says all that the source said."""
    if type(value) is not str:
        return None, False
    if _SECONDS_CHARS <= len(value) <= _MICROSECONDS_CHARS and value[_DATE_CHARS] in "T ":
        try:
            return datetime.fromisoformat(value + "Z"), True  # a third of the time that replace(tzinfo=UTC) takes
        except ValueError:
            pass  # a zone of its own, or no time at all
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is None:
            return time.replace(tzinfo=UTC), False
        return datetime.fromtimestamp(0, UTC) + (time - _EPOCH), False
    except (ValueError, OverflowError):
        return None, False


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
