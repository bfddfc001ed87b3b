"""How values cross the driver: text both ways, times as UTC, ids as text, documents through orjson.

Parameters are sent without a type, so that the server takes the type from the place where they stand and one statement
is prepared once, whatever the size of a number. Times are read by their own offset: nothing has to be set in the
session, which a pooler would hand to somebody else.
"""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.types.string import TextLoader

from dal.ops import JsonValue


class _IntDumper(Dumper):
    """The driver would choose smallint, integer, bigint or numeric by the value."""

    def dump(self, obj: int) -> bytes:
        return b"%d" % obj


class _TimeLoader(Loader):
    def load(self, data: Buffer) -> datetime:
        found = datetime.fromisoformat(bytes(data).decode())
        return found if found.tzinfo is UTC else found.astimezone(UTC)


class _DocumentLoader(Loader):
    def load(self, data: Buffer) -> JsonValue:
        found: JsonValue = orjson.loads(data)
        return found


def adapters() -> AdaptersMap:
    """The driver's own adapters with ours in front, for connections of this backend only."""
    found = AdaptersMap(psycopg.adapters)
    found.register_dumper(int, _IntDumper)
    found.register_loader("uuid", TextLoader)
    found.register_loader("inet", TextLoader)
    found.register_loader("timestamptz", _TimeLoader)
    found.register_loader("jsonb", _DocumentLoader)
    return found
