"""What a move would meet, found before anything is touched: rows, speeds, an estimate, and what stands in the way.

Every row of the source is read once (or a sample of them) and held against what its columns declare and the target can
keep: a value that foreign writers left there shows here, not in the middle of a move. Nothing is written, and neither
store needs to be in a move. Obstacles hold ids and names of fields, never content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from time import monotonic
from typing import Final

from dal.limits import PLAN_LOOKS, PLAN_REGISTRY_BYTES, PLAN_SAMPLE_ROWS
from dal.move.inspecting import Inspection, OnReading
from dal.move.obstacles import Obstacle
from dal.move.reading import Reader
from dal.ops import JsonValue, Select
from dal.replica import UNITS, Gate, Movable
from dal.store import Store
from dal.tables import TABLES, Table

#: Rows a second that are copied into a target, about: what an estimate begins from. `rehearse` measures them.
_APPLIED_ROWS_S: Final = {"sqlite": 6_000.0, "postgresql": 8_000.0, "file": 5_000.0, "d1": 1_500.0}
_ROUND_TRIPS: Final = 4  # of a batch, to the target
_BATCH_ROWS: Final = 1_000
_LARGER_AS_ROWS: Final = 2.0  # what indexes and the search index add to the bytes of rows, at most


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


async def plan(
    source: Store,
    target: Store | None,
    units: Sequence[str],
    *,
    target_backend: str,
    quick: bool = False,
    source_free_bytes: int | None = None,
    target_free_bytes: int | None = None,
    on_reading: OnReading = lambda _: None,
    random: Random | None = None,
) -> Plan:
    """Looks at both stores, bare and open.

    target             None: it is not there yet, or could not be opened.
    quick              a sample of each table instead of every row.
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
    inspection = Inspection(source, target_backend, on_reading)
    started = monotonic()
    for table in tables:
        if not made.rows[table.name]:
            made.bytes[table.name] = 0
            continue
        sampled = PLAN_SAMPLE_ROWS if quick else None
        size = await inspection.look(table, made.rows[table.name], sampled, random or Random())  # noqa: S311
        made.bytes[table.name] = size
    made.read = inspection.read
    made.obstacles += inspection.obstacles
    made.notes += inspection.notes
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
    damage = await Reader("source", store).damage()
    made.obstacles += [Obstacle("damage", f"the {name}: {sentence}") for sentence in damage]
    for sentence in await store.replica().obstacles():
        if sentence not in damage:
            made.obstacles.append(Obstacle("store", f"the {name}: {sentence}"))


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
