"""`dal move plan`: what a move would meet, before anything is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dal.cli.move.options import From, Only, Quick, To, names_of
from dal.cli.options import AsJson
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, complain, run
from dal.cli.terminal_bars import TerminalBars
from dal.errors import ConfigurationError, DalError, SchemaError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from dal.cli.move.stores import Place, Places
    from dal.move.inspecting import Reading
    from dal.move.obstacles import Obstacle
    from dal.move.planning import Plan
    from dal.store import Store


def plan(source: From = None, target: To = None, only: Only = None, quick: Quick = False, json: AsJson = False) -> None:
    """Look at both stores and say what a move would take and what stands in its way. Touches nothing.

    Every row of the source is read and held against what the target can keep; --quick looks at a sample. Exits with 0
    when nothing is in the way, with 1 when something is.
    """

    async def work() -> int:
        from dal.cli.move.stores import both_places

        places = both_places(source, target)
        made = await _look(places, names_of(only), quick)
        if json:
            print_json({**places.to_json(), **made.as_dict()})
        else:
            print_plan(made, places)
        if made.obstacles:
            complain("something is in the way; nothing was touched")
            return FAILED
        complain(f"nothing is in the way. Next: dal move start{places.arguments}")
        return 0

    run(work())


async def _look(places: Places, names: list[str], quick: bool) -> Plan:
    from dal.move.operating import closed_units

    units = closed_units(names)
    target, obstacle, note = await _opened(places.target)
    try:
        async with places.source.opened() as source:
            made = await plan_of(source, target, places, units, quick)
    finally:
        if target is not None:
            await target.close()
    if obstacle is not None:
        made.obstacles.insert(0, obstacle)
    if note:
        made.notes.append(note)
    return made


async def plan_of(source: Store, target: Store | None, places: Places, units: tuple[str, ...], quick: bool) -> Plan:
    """The plan over these open stores, its progress shown while rows are read."""
    from dal.move.planning import plan as make_plan

    with PlanProgress() as progress:
        return await make_plan(
            source,
            target,
            units,
            target_backend=places.target.backend,
            quick=quick,
            source_free_bytes=places.source.free_bytes(),
            target_free_bytes=places.target.free_bytes(),
            on_reading=progress.show,
        )


async def _opened(place: Place) -> tuple[Store | None, Obstacle | None, str]:
    """The target's store, or why there is none: an obstacle, or a note where `start` makes it itself."""
    from dal.move.obstacles import Obstacle

    store = place.store(auto_migrate=False)
    try:
        await store.open()
    except SchemaError as error:
        if place.is_embedded:
            return None, None, f"{error.message}; `dal move start` makes it, or brings it up, by itself"
        return None, Obstacle("schema", place.without_schema(error)), ""
    except ConfigurationError:
        raise
    except DalError as error:
        if place.is_embedded and place.parsed.path is not None and not place.parsed.path.exists():
            return None, None, "the target is not there yet; `dal move start` makes it"
        return None, Obstacle("unreachable", f"the target: {error.message}"), ""
    return store, None, ""


def print_plan(made: Plan, places: Places) -> None:
    """The plan for people."""
    from dal.cli.move.show import seconds

    out = console()
    rows = [(name, made.rows[name], size(made.bytes.get(name, 0))) for name in made.rows]
    with_rows = [row for row in rows if row[1]]
    out.print(table("what moves", ("table", "rows>", "text and documents>"), with_rows or rows))
    stores = [
        (name, place.shown, f"{speed.latency_ms:.2f}", f"{speed.rows_s:,.0f}" if speed.rows_s else "")
        for name, place, speed in (("source", places.source, made.source), ("target", places.target, made.target))
        if speed is not None
    ]
    out.print(table("how fast they are", ("", "store", "a read, ms>", "rows/s in pages>"), stores))
    looked = f"{made.read:,} of {made.total_rows:,} rows were read" if made.is_sampled else f"{made.read:,} rows read"
    about = "" if made.seconds is None else f"; the move takes about {seconds(made.seconds)} until it is verified"
    out.print(one_line(f"{made.total_rows:,} rows, about {size(made.total_bytes)}{about} ({looked})"))
    for note in made.notes:
        out.print(one_line(f"note: {note}"))
    if made.obstacles:
        out.print(table("in the way", ("kind", "what", "rows>", "for example"), map(_row, made.obstacles)))


def print_obstacles(made: Plan) -> None:
    """What is in the way, on standard error."""
    for obstacle in made.obstacles:
        rows = f" ({obstacle.rows:,} rows, for example {', '.join(obstacle.samples)})" if obstacle.samples else ""
        complain(one_line(f"in the way: {obstacle.text}{rows}"))


def _row(obstacle: Obstacle) -> tuple[object, ...]:
    return obstacle.kind, obstacle.text, obstacle.rows or None, "\n".join(obstacle.samples)


def size(size_bytes: int) -> str:
    """Bytes as a person says them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes} bytes"


class PlanProgress(TerminalBars):
    """Rows read, on a terminal only."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, TaskID] = {}

    def _make_bars(self) -> Bars:
        return _bars()

    def show(self, reading: Reading) -> None:
        if self._bars is None:
            return
        if reading.table not in self._tasks:
            self._tasks[reading.table] = self._bars.add_task(f"reading {reading.table}", total=reading.total)
        self._bars.update(self._tasks[reading.table], completed=reading.rows, total=reading.total)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        transient=True,
    )
