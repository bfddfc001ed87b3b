"""The logs in line files, one for each day: read from disk, and changed by checkpoints only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, cast

import orjson

from dal.backends.file import index as ids
from dal.backends.file.index import Index, Place
from dal.backends.file.layout import Layout
from dal.backends.file.linerows import LineRows, Report
from dal.backends.file.lines import open_lines
from dal.backends.rows import ID, Scan, Stored
from dal.file_tables import FILE_ACCESS_LOGS
from dal.ops import Value
from dal.tables import MESSAGES, SYSTEM_LOGS, Table

_TIME_AND_ID: Final = re.compile(rb'\{"id":"([^"]*)",.*,"created_at":"([^"]*)Z"\}', re.DOTALL)
_ID_FIRST: Final = b'{"id":"'  # how this library's lines begin
_ID: Final = slice(len(_ID_FIRST), len(_ID_FIRST) + 36)
_ROWS: Final = 1024


class Log(NamedTuple):
    """A log: entries by the day (UTC) of their `created_at`, in a directory of one file a day.

    directory  one of the layout's, or within it.
    kind       the index's.
    """

    table: Table
    directory: str
    kind: int

    def day_of(self, row: Stored) -> str:
        """The day whose file an entry lies in."""
        return cast(str, row[-1].date().isoformat())  # `created_at` is the last column of a log


LOGS: Final = {
    log.table.name: log
    for log in (Log(SYSTEM_LOGS, "audit", ids.LOGS), Log(FILE_ACCESS_LOGS, "files/access", ids.ACCESSES))
}
#: Every table kept in lines, with the index's kind of its ids.
KINDS: Final = {MESSAGES.name: ids.MESSAGES, **{name: log.kind for name, log in LOGS.items()}}


def directory_of(table: str) -> str:
    """The directory that a table's files of lines are in, or in whose shards."""
    return LOGS[table].directory if table in LOGS else "chats"


class LogRows(LineRows):
    """A log in `<directory>/<day>.jsonl`, each day in the order of arrival."""

    def __init__(self, log: Log, layout: Layout, index: Index, report: Report) -> None:
        super().__init__(log.table, layout, index, report)
        self._log = log
        self._read_to: dict[str, int] = {}  # where in a day's file the last entry stood that was asked for by its id

    def get(self, row_id: Value) -> Stored | None:
        place = self._index.find(self._log.kind, cast(str, row_id))
        if place is None:
            return None
        wanted = cast(str, row_id).encode()
        rows = self._of_day(place.place, lambda line: wanted in line)
        return next((row for row in rows if row[ID] == row_id), None)

    def find(self, key: tuple[str, ...], values: tuple[Value, ...]) -> Stored | None:  # noqa: ARG002  # only the id
        return self.get(values[0])

    def scan(self, plan: Scan) -> tuple[Iterable[Stored], bool]:
        equal = plan.equal()
        if "id" in equal:
            row = self.get(equal["id"])
            return ([] if row is None else [row]), True
        for condition in plan.where:
            if condition.column == "id" and condition.op == "in":
                return self._at_places(
                    self._index.find_many(self._log.kind, cast("Iterable[str]", condition.value))
                ), False
        if plan.order == ("id",):
            return self._by_id(None if plan.after is None else cast(str, plan.after[0])), True
        by_time = bool(plan.order) and plan.order[0] in ("created_at", "-created_at")
        descending = by_time and plan.order[0][0] == "-"
        days = self._days(plan, by_time=by_time, descending=descending)
        if plan.order in (("-created_at", "-id"), ("created_at", "id")):
            return (row for day in days for row in self._sorted_day(day, plan, descending=descending)), True
        return (row for day in days for row in self._of_day(day)), False

    def _at_places(self, places: Iterable[Place]) -> Iterator[Stored]:
        """The entries with the ids of these places, each day's in one reading."""
        days: dict[str, set[bytes]] = {}
        for place in places:
            days.setdefault(place.place, set()).add(place.id.encode())
        return (row for day, wanted in days.items() for row in self._wanted(day, wanted))

    def _wanted(self, day: str, wanted: set[bytes]) -> Iterator[Stored]:
        """The day's entries with these ids.

        Who reads page after page finds the next one behind the last: reading begins there, and at the beginning where
        something is missing then.
        """

        def passes(line: bytes) -> bool:
            return line[_ID] in wanted or not line.startswith(_ID_FIRST)

        left = set(wanted)
        try:
            file = open_lines(self._layout, lambda: self._layout.log(self._log.directory, day))
        except FileNotFoundError:
            return
        with file:
            start = self._read_to.get(day, 0)
            if start and file.line(start - 1, 1) != b"\n":
                start = 0
            for first, end in ((start, file.size), (0, start)):
                for offset, line in file.forward(first) if left else ():
                    if offset >= end:
                        break
                    if not passes(line):
                        continue
                    row = self._row(file, offset, line)
                    if row is not None and row[ID].encode() in left:
                        left.discard(row[ID].encode())
                        self._read_to[day] = offset
                        yield row
                        if not left:
                            break

    def _by_id(self, after: str | None) -> Iterator[Stored]:
        """Entries in the order of ids, so many at a time."""
        places = self._index.behind(self._log.kind, after)
        while some := list(islice(places, _ROWS)):
            found = {row[ID]: row for row in self._at_places(some)}
            yield from (found[place.id] for place in some if place.id in found)

    def _days(self, plan: Scan, *, by_time: bool, descending: bool) -> list[str]:
        days = sorted(self._layout.days(self._log.directory), reverse=descending)
        bounds = [(c.op, c.value) for c in plan.where if c.column == "created_at"]
        if by_time and plan.after is not None:
            bounds.append(("<=" if descending else ">=", plan.after[0]))
        for op, value in bounds:
            if value is None or isinstance(value, tuple | list):
                continue
            day = value.date().isoformat()  # type: ignore[union-attr]  # a TIME column
            if op in ("<", "<="):
                days = [d for d in days if d <= day]
            elif op in (">", ">="):
                days = [d for d in days if d >= day]
        return days

    def _sorted_day(self, day: str, plan: Scan, *, descending: bool) -> Iterator[Stored]:
        """A day's entries in order: the places of all of them are sorted, the entries read as they are asked for."""
        wanted = [
            str(c.value).encode() for c in plan.where if c.op == "=" and isinstance(c.value, str) and _is_plain(c.value)
        ]
        try:
            file = open_lines(self._layout, lambda: self._layout.log(self._log.directory, day))
        except FileNotFoundError:
            return
        with file:
            places = [
                (*_time_and_id(line), offset, len(line))
                for offset, line in file.forward()
                if all(text in line for text in wanted)
            ]
            places.sort(reverse=descending)
            for _, _, offset, size in places:
                row = self._row(file, offset, file.line(offset, size))
                if row is not None:
                    yield row

    def _of_day(self, day: str, passes: Callable[[bytes], bool] | None = None) -> Iterator[Stored]:
        try:
            file = open_lines(self._layout, lambda: self._layout.log(self._log.directory, day))
        except FileNotFoundError:
            return
        with file:
            for offset, line in file.forward():
                if passes is None or passes(line):
                    row = self._row(file, offset, line)
                    if row is not None:
                        yield row


def _time_and_id(line: bytes) -> tuple[bytes, bytes]:
    """What a log entry is sorted by, as text: without its Z a time without a fraction comes before one with it."""
    match = _TIME_AND_ID.fullmatch(line)
    if match:
        return match[2], match[1]
    try:  # a line that something else has written
        value = orjson.loads(line)
        return str(value["created_at"]).removesuffix("Z").encode(), str(value["id"]).encode()
    except (ValueError, KeyError, TypeError):
        return b"", b""


def _is_plain(text: str) -> bool:
    """Whether JSON holds the text as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text
