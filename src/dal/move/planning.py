"""What a move would meet, found before anything is touched: rows, speeds, an estimate, and what stands in the way.

Every row of the source is read once (or a sample of them) and held against what its columns declare and the target can
keep: a value that foreign writers left there shows here, not in the middle of a move. Nothing is written, and neither
store needs to be in a move. Obstacles hold ids and names of fields, never content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from time import monotonic
from typing import Final, Literal, NamedTuple, TypeAlias
from uuid import UUID

import orjson

from dal.errors import DalError, InvalidInputError, LimitExceededError
from dal.limits import (
    D1_MAX_VALUE_BYTES,
    PLAN_LOOKS,
    PLAN_PAGE_ROWS,
    PLAN_PAUSE_S,
    PLAN_REGISTRY_BYTES,
    PLAN_SAMPLE_ROWS,
    PLAN_SAMPLES,
)
from dal.move.orphans import Orphans
from dal.move.reading import Reader
from dal.ops import JsonValue, Row, Select, Value
from dal.replica import UNITS, Entry, Gate, Movable
from dal.store import Store
from dal.tables import TABLES, Kind, Table
from dal.values import check_column

#: unreachable  the store does not answer, or cannot be opened.    schema      the target's is missing or older.
#: occupied     the target holds rows already.                      other_move  a store takes part in another move.
#: value        a value that the target cannot keep as it is.       too_large   a row beyond the target's limits.
#: orphan       a row whose parent is missing.                      unreadable  a row that cannot be read.
#: damage       data that the store itself leaves out.
#: store        what the store says of itself: rights, engine, triggers.       space       not enough of it.
ObstacleKind: TypeAlias = Literal[
    "unreachable",
    "schema",
    "occupied",
    "other_move",
    "unreadable",
    "value",
    "too_large",
    "orphan",
    "damage",
    "store",
    "space",
]
#: A move can begin in spite of these: what cannot be copied stays behind, and its unit is not switched.
_HARMLESS: Final = frozenset({"occupied", "orphan", "damage", "store"})
#: Stores that keep almost any value.
_LENIENT: Final = frozenset({"sqlite", "file"})
#: Rows a second that a target takes in batches, on one core; measured, for an estimate.
_APPLIED_ROWS_S: Final = {"sqlite": 6_000.0, "postgresql": 8_000.0, "file": 4_000.0, "d1": 1_500.0}
_ROUND_TRIPS: Final = 4  # of a batch, to the target
_BATCH_ROWS: Final = 1_000
_LARGER_AS_ROWS: Final = 2.0  # what indexes and the search index add to the bytes of rows, at most
_ROW_BYTES: Final = 120  # ids, times and numbers of a row


@dataclass(slots=True)
class Obstacle:
    """One thing in the way. `rows` were found to have it; `samples` are ids of some of them.

    is_kept  the target takes such a value as it is, although another store would not.
    """

    kind: ObstacleKind
    text: str
    table: str = ""
    rows: int = 0
    samples: list[str] = field(default_factory=list)
    is_kept: bool = False

    @property
    def may_be_allowed(self) -> bool:
        return self.kind in _HARMLESS or self.is_kept

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "kind": self.kind,
            "text": self.text,
            "table": self.table or None,
            "rows": self.rows,
            "samples": list(self.samples),
            "may_be_allowed": self.may_be_allowed,
        }


@dataclass(slots=True, kw_only=True)
class Speed:
    """One store: the time of a small read, and rows read in pages a second (0 where there were none)."""

    backend: str
    latency_ms: float
    rows_s: float = 0.0

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "backend": self.backend,
            "latency_ms": round(self.latency_ms, 2),
            "rows_s": round(self.rows_s) if self.rows_s else None,
        }


@dataclass(slots=True, kw_only=True)
class Plan:
    """What was found.

    rows, bytes   of each table in the source; bytes of text and documents, about, from the rows that were read.
    read          rows that were looked at.
    seconds       about how long the move takes until it is verified, without anybody writing; None without a target.
    notes         what is worth knowing and in nobody's way.
    """

    units: tuple[str, ...]
    rows: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    read: int = 0
    is_sampled: bool = False
    source: Speed | None = None
    target: Speed | None = None
    seconds: float | None = None
    obstacles: list[Obstacle] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_resumed: bool = False

    @property
    def total_rows(self) -> int:
        return sum(self.rows.values())

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "units": list(self.units),
            "ok": not self.obstacles,
            "sampled": self.is_sampled,
            "read": self.read,
            "rows": dict(self.rows),
            "bytes": dict(self.bytes),
            "total_rows": self.total_rows,
            "total_bytes": self.total_bytes,
            "source_speed": None if self.source is None else self.source.as_dict(),
            "target_speed": None if self.target is None else self.target.as_dict(),
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "move_is_on": self.is_resumed,
            "obstacles": [obstacle.as_dict() for obstacle in self.obstacles],
            "notes": list(self.notes),
        }


class Reading(NamedTuple):
    """Where a plan is: rows of the table that were read, of how many."""

    table: str
    rows: int
    total: int


OnReading: TypeAlias = Callable[[Reading], None]


async def plan(
    source: Store,
    target: Store | None,
    units: Sequence[str],
    *,
    target_backend: str,
    quick: bool = False,
    read_rows: bool = True,
    source_free_bytes: int | None = None,
    target_free_bytes: int | None = None,
    on_reading: OnReading = lambda _: None,
    random: Random | None = None,
) -> Plan:
    """Looks at both stores, bare and open.

    target             None: it is not there yet, or could not be opened.
    quick              a sample of each table instead of every row.
    read_rows          False: only what can be asked without reading rows.
    *_free_bytes       free space where an embedded store lies; None: unknown, or somebody else's.
    """
    made = Plan(units=tuple(units), is_sampled=quick)
    await _look_at_moves(made, source, target)
    await _ask(made, "source", source)
    if target is not None:
        await _ask(made, "target", target)
    tables = [TABLES[name] for name in TABLES if any(name in UNITS[unit] for unit in units)]
    reader = Reader("source", source)
    for table in tables:
        made.rows[table.name] = await reader.count(table)
    made.source = Speed(backend=source.capabilities.backend, latency_ms=await _latency_ms(source))
    if target is not None:
        made.target = Speed(backend=target.capabilities.backend, latency_ms=await _latency_ms(target))
        if not made.is_resumed:
            await _look_for_rows(made, target, tables)
    if read_rows:
        inspection = _Inspection(made, source, target_backend, on_reading)
        started = monotonic()
        for table in tables:
            await inspection.look(table, PLAN_SAMPLE_ROWS if quick else None, random or Random())  # noqa: S311
        if made.read:
            made.source.rows_s = made.read / max(monotonic() - started, 1e-6)
    _estimate(made, target_backend)
    _look_for_space(made, source_free_bytes, target_free_bytes)
    return made


# The stores themselves -----------------------------------------------------------------------------------------------


async def _look_at_moves(made: Plan, source: Store, target: Store | None) -> None:
    """Whether one of them takes part in a move."""
    ours = await _gates(source)
    theirs = {} if target is None else await _gates(target)
    if ours and set(ours) == set(theirs) and {g.move for g in ours.values()} == {g.move for g in theirs.values()}:
        made.is_resumed = True
        made.notes.append("the move is on already; `dal move status` shows how far it is")
        if set(ours) != set(made.units):
            text = f"the move that is on is of {', '.join(ours)}; end it before one of {', '.join(made.units)}"
            made.obstacles.append(Obstacle("other_move", text))
        return
    if ours:
        is_retired = all(gate.phase == "RETIRED" for gate in ours.values())
        what = "was moved away and refuses writes" if is_retired else "takes part in another move"
        made.obstacles.append(Obstacle("other_move", f"the source {what}; end that with `dal move abort`, or move on"))
    elif theirs and any(gate.side != "target" or gate.epoch for gate in theirs.values()):
        text = "the target takes part in another move; end that first"
        made.obstacles.append(Obstacle("other_move", text))


async def _gates(store: Store) -> dict[str, Gate]:
    return dict(await store.replica().gates()) if isinstance(store, Movable) else {}


async def _ask(made: Plan, name: str, store: Store) -> None:
    """What the store says of itself."""
    backend = store.capabilities.backend
    if not isinstance(store, Movable):
        made.obstacles.append(Obstacle("store", f"the {name}: {backend} cannot take part in a move"))
        return
    for sentence in await store.replica().obstacles():
        made.obstacles.append(Obstacle("store", f"the {name}: {sentence}"))
    for sentence in await Reader("source", store).damage():
        known = any(sentence in obstacle.text for obstacle in made.obstacles)
        if not known:
            made.obstacles.append(Obstacle("damage", f"the {name}: {sentence}"))


async def _look_for_rows(made: Plan, target: Store, tables: Sequence[Table]) -> None:
    reader = Reader("target", target)
    counts = {table.name: await reader.count(table) for table in tables}
    if found := {name: count for name, count in counts.items() if count}:
        what = ", ".join(f"{count:,} {name}" for name, count in found.items())
        text = (
            f"the target is not empty: {what}. Rows of the same ids would be written over, others would be reported "
            "as extra; name an empty store"
        )
        made.obstacles.append(Obstacle("occupied", text, rows=sum(found.values())))


async def _latency_ms(store: Store) -> float:
    """The median time of a read of one row."""
    times: list[float] = []
    for _ in range(PLAN_LOOKS):
        started = monotonic()
        await store.read(Select("users", order=("id",), limit=1, columns=("id",)))
        times.append(monotonic() - started)
    return median(times) * 1000


def _estimate(made: Plan, target_backend: str) -> None:
    applied_s = made.total_rows / _APPLIED_ROWS_S.get(target_backend, 2_000.0)
    read_s = 2 * made.total_rows / made.source.rows_s if made.source is not None and made.source.rows_s else 0.0
    batches = made.total_rows / _BATCH_ROWS + len(made.rows)
    latency_s = sum(speed.latency_ms for speed in (made.source, made.target) if speed is not None) / 1000
    # Copied once and compared once: both stores are read for that again.
    made.seconds = applied_s + read_s + batches * _ROUND_TRIPS * latency_s + 1.0


def _look_for_space(made: Plan, source_free: int | None, target_free: int | None) -> None:
    registry = made.total_rows * PLAN_REGISTRY_BYTES
    for name, free, needed in (
        ("source", source_free, registry),
        ("target", target_free, registry + int(made.total_bytes * _LARGER_AS_ROWS)),
    ):
        if free is not None and free < needed:
            text = f"the {name} may need {needed / 1e6:,.0f} MB more on its disk, and {free / 1e6:,.0f} MB are free"
            made.obstacles.append(Obstacle("space", text))


# Rows ----------------------------------------------------------------------------------------------------------------


class _Inspection:
    """Reads the source and holds every value against its column."""

    def __init__(self, made: Plan, source: Store, target_backend: str, on_reading: OnReading) -> None:
        self._made = made
        self._source = source
        self._reader = Reader("source", source)
        self._target_backend = target_backend
        self._on_reading = on_reading
        self._orphans = Orphans(self._reader)
        self._found: dict[tuple[str, str], Obstacle] = {}

    async def look(self, table: Table, sampled: int | None, random: Random) -> None:
        """Every row of the table, or about so many of them."""
        total = self._made.rows[table.name]
        places = [""] if sampled is None or total <= sampled else await self._places(table, random)
        read = size = 0
        seen: set[str] = set()
        for place in places:
            left = None if len(places) == 1 else sampled and sampled // len(places)
            after = place
            while left is None or left > 0:
                limit = PLAN_PAGE_ROWS if left is None else min(left, PLAN_PAGE_ROWS)
                entries, last = await self._page(table, after, limit)
                if not last:
                    break
                after = last
                if len(places) > 1:
                    entries = [entry for entry in entries if entry.id not in seen]
                    seen.update(entry.id for entry in entries)
                for entry in entries:
                    assert entry.row is not None  # noqa: S101  # a reader by the waist gives rows
                    size += self._inspect(table, entry.row)
                await self._orphans.look(table, entries)
                read += len(entries)
                left = None if left is None else left - limit
                self._on_reading(Reading(table.name, read, max(total, read)))
        self._made.read += read
        self._made.bytes[table.name] = size if len(places) == 1 or not read else size * total // read
        await self._confirm_orphans(table)

    async def _places(self, table: Table, random: Random) -> list[str]:
        """Ids to begin at; only the beginning, where ids are no UUIDs."""
        try:
            first, last = (UUID(text).int for text in await self._ends(table))
        except ValueError:
            return [""]
        return ["", *[str(UUID(int=random.randint(first, last))) for _ in range(9)]]

    async def _ends(self, table: Table) -> tuple[str, str]:
        first = await self._reader.page(table, "", 1)
        return (first[0].id if first else ""), await self._reader.last_id(table)

    async def _page(self, table: Table, after: str, limit: int) -> tuple[list[Entry], str]:
        """The next rows and the last id looked at; empty at the end. A row that cannot be read is an obstacle."""
        try:
            entries = await self._reader.page(table, after, limit)
        except DalError as error:
            if error.retryable:
                raise
            if limit > 1:
                return await self._page(table, after, limit // 2)
            return [], await self._pass_over(table, after)
        return entries, entries[-1].id if entries else ""

    async def _pass_over(self, table: Table, after: str) -> str:
        """Takes note of the row behind this id, which cannot be read; its id."""
        place = (after,) if after else None
        query = Select(table.name, order=("id",), after=place, limit=1, columns=("id",))
        row_id = "".join(str(row[0]) for row in await self._source.read(query))
        if row_id:
            text = f"{table.name}: rows that cannot be read, for a value is not what it must be"
            self._note(table, row_id, "unreadable", text)
        return row_id

    def _inspect(self, table: Table, row: Row) -> int:
        """About how many bytes the row takes."""
        row_id, size = str(row[0]), _ROW_BYTES
        for column, value in zip(table.columns, row, strict=True):
            try:
                checked = check_column(table, column.name, value)
            except InvalidInputError as error:
                self._refused(table, row_id, column.name, error)
                continue
            if column.kind in (Kind.ID, Kind.IP) and checked != value:
                text = f"{table.name}.{column.name}: not written as this library writes it, and another store would"
                self._note(table, row_id, "value", text, is_kept=True)
            size += _size(value)
        if self._target_backend == "d1" and size - _ROW_BYTES > D1_MAX_VALUE_BYTES:
            text = f"{table.name}: rows of more than {D1_MAX_VALUE_BYTES:,} bytes, which D1 does not take"
            self._note(table, row_id, "too_large", text)
        return size

    def _refused(self, table: Table, row_id: str, column: str, error: InvalidInputError) -> None:
        """A value that the library would not take from anybody."""
        what = "text or a document that is too long" if isinstance(error, LimitExceededError) else _what(error.message)
        if what in _LENGTHS and self._target_backend != "postgresql":
            note = f"{table.name}.{column}: there is {what}; {self._target_backend} keeps it all the same"
            if note not in self._made.notes:
                self._made.notes.append(note)
            return
        text = f"{table.name}.{column}: {what}, which {self._target_backend} may not keep"
        self._note(table, row_id, "value", text, is_kept=what == _NUL)

    def _note(self, table: Table, row_id: str, kind: ObstacleKind, text: str, *, is_kept: bool = False) -> None:
        found = self._found.get((kind, text))
        if found is None:
            found = self._found[kind, text] = Obstacle(kind, text, table.name)
            found.is_kept = is_kept and self._target_backend in _LENIENT
            self._made.obstacles.append(found)
        found.rows += 1
        if len(found.samples) < PLAN_SAMPLES:
            found.samples.append(row_id)

    async def _confirm_orphans(self, table: Table) -> None:
        """Rows whose parent is still missing when they are asked for again: a chat that is being made is none."""
        if not self._orphans.any:
            return
        await asyncio.sleep(PLAN_PAUSE_S)
        for difference in await self._orphans.confirmed(table):
            column = difference.fields[0]
            parent = table.parent_of[column].table
            text = f"{table.name}.{column}: rows that refer to {parent} which are not there"
            self._note(table, difference.id, "orphan", text)


_NUL: Final = "text with U+0000"
_TOO_SHORT: Final = "text that is too short"
_LENGTHS: Final = frozenset({"text or a document that is too long", _TOO_SHORT})


def _what(message: str) -> str:
    """What is wrong with a value: what dal.values says of it, without its place and its numbers."""
    for sign, what in (
        ("U+0000", _NUL),
        ("lone surrogate", "text with lone surrogates"),
        ("signed 64 bits", "numbers outside 64 bits"),
        ("allowed are", "numbers out of the column's range"),
        ("at least", _TOO_SHORT),
        ("found None", "null where there must be a value"),
    ):
        if sign in message:
            return what
    return "not what the column is declared to hold"


def _size(value: Value) -> int:
    if type(value) is str:
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if type(value) is dict or type(value) is list:
        try:
            return len(orjson.dumps(value))
        except TypeError:
            return len(str(value))
    return 0
