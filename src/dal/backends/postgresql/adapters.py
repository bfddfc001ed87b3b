"""How values cross the driver: as text both ways, without a Python call for any of them.

Parameters are sent without a type, so that the server takes the type from the place where they stand and one statement
is prepared once, whatever the size of a number. Times and documents come out as text and are decoded a column at a time
by the dialect (measured: a loader written in Python costs a microsecond a value).
"""

from __future__ import annotations

import psycopg
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.types.string import TextLoader

_AS_TEXT = ("uuid", "inet", "timestamptz", "jsonb")


class _IntDumper(Dumper):
    """The driver would choose smallint, integer, bigint or numeric by the value."""

    def dump(self, obj: int) -> bytes:
        return b"%d" % obj


def adapters() -> AdaptersMap:
    """The driver's own adapters with ours in front, for connections of this backend only."""
    found = AdaptersMap(psycopg.adapters)
    found.register_dumper(int, _IntDumper)
    for name in _AS_TEXT:
        found.register_loader(name, TextLoader)
    return found
