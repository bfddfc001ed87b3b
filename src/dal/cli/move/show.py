"""How a move is shown: a table of its units for one look, bars for a look that goes on, lines where nobody watches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from dal.cli.output import compact_json, one_line
from dal.cli.running import complain
from dal.cli.terminal_bars import TerminalBars

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bars
    from rich.progress import TaskID
    from rich.table import Table

    from dal.move.check_report import CheckReport
    from dal.move.status import MoveStatus, UnitStatus

_BAR_CHARS: Final = 8


def print_line(value: object) -> None:
    """One JSON object on a line of its own, seen at once by who reads the pipe."""
    sys.stdout.write(compact_json(value) + "\n")
    sys.stdout.flush()


def lines_of(status: MoveStatus) -> list[str]:
    """What is to be said of the move as a whole."""
    if not status.move:
        return ["no move is on"]
    if status.is_retired:
        return ["the move is retired: the target is the store now, and the source refuses writes"]
    who = "no mover is running" if status.lease_s is None else f"mover {status.lease_owner[-8:]} is at work"
    found = [f"move {status.move}: {who}"]
    if status.unseen:
        found.append(f"the target does not answer, what is shown is the source's word: {status.unseen}")
    found += [f"{unit.unit}: {unit.problem}" for unit in status.units.values() if unit.problem]
    return found


def overview(status: MoveStatus) -> RenderableType:
    """The units of a move, a row each."""
    from rich.console import Group
    from rich.text import Text

    said = [Text(one_line(line)) for line in lines_of(status)]
    return Group(*said, _table(status)) if status.is_on else Group(*said)


def _table(status: MoveStatus) -> Table:
    from dal.cli.output import table

    units = status.units.values()
    has_cutovers = any(unit.cutovers for unit in units)
    has_shadow = any(unit.shadow_percent or unit.shadow for unit in units)
    columns = [
        "unit",
        "phase",
        "on",
        "copied",
        "rows>",
        "rows/s>",
        "left>",
        "dirty>",
        "stall>",
        "last check",
        "shadow reads",
    ]
    rows: list[list[object]] = [
        [
            unit.unit,
            unit.phase,
            unit.primary or "fenced",
            bar(unit.copied, unit.total),
            f"{unit.copied:,} of {unit.total:,}",
            "" if unit.rate is None else f"{unit.rate:,.0f}",
            seconds(unit.eta_s),
            f"{unit.dirty:,}" + (f", {seconds(unit.lag_s)}" if unit.dirty else ""),
            f"{unit.cutovers[-1].get('stall_ms')} ms" if unit.cutovers else "",
            checked(unit, status.at_ms),
            shadow(unit),
        ]
        for unit in units
    ]
    for name, is_there in (("shadow reads", has_shadow), ("stall>", has_cutovers)):
        if not is_there:
            place = columns.index(name)
            del columns[place]
            for row in rows:
                del row[place]
    made = table(None, columns, rows)
    for column in made.columns[: columns.index("last check")]:
        column.no_wrap = True
    return made


def bar(done: int, total: int) -> str:
    """How much of it is done, drawn."""
    share = 1.0 if not total else min(1.0, done / total)
    full = int(share * _BAR_CHARS)
    return f"{'█' * full}{'░' * (_BAR_CHARS - full)} {int(share * 100)}%"


def seconds(value: float | None) -> str:
    """A time as a person says it; `?` where nobody knows."""
    if value is None:
        return "?"
    if value < 60:
        return f"{value:.0f} s" if value >= 10 or value == 0 else f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def checked(unit: UnitStatus, now_ms: int) -> str:
    """The last whole check: how long ago, and what it found."""
    at_ms, differences = unit.check.get("at_ms"), unit.check.get("differences")
    if not isinstance(at_ms, int):
        return "not yet"
    ago = seconds(max(0, now_ms - at_ms) / 1000)
    return f"{'clean' if not differences else f'{differences} DIFFER'}, {ago} ago"


def shadow(unit: UnitStatus) -> str:
    """What became of the reads that were compared."""
    if not unit.shadow_percent and not unit.shadow:
        return "off"
    compared, different = unit.shadow.get("compared", 0), unit.shadow.get("different", 0)
    unsettled = unit.shadow.get("unsettled", 0)
    open_ = f", {unsettled} unsettled" if unsettled else ""
    return f"{unit.shadow_percent} %: {compared} compared, {different} different{open_}"


def check_rows(report: CheckReport) -> list[tuple[object, ...]]:
    """A check's findings, a row for each table."""
    return [
        (
            name,
            result.source,
            result.target,
            result.equal,
            result.differences,
            result.pending,
            ", ".join(f"{count} {kind}" for kind, count in result.counts.items()),
        )
        for name, result in report.tables.items()
    ]


class MoveProgress(TerminalBars):
    """The progress of a move on standard error: a bar for each table on a terminal, a line for each phase elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, TaskID] = {}
        self._phases: dict[str, str] = {}
        self._checks: dict[str, object] = {}

    def _make_bars(self) -> Bars:
        return _bars()

    def line(self, text: str) -> None:
        """One line, above the bars."""
        complain(one_line(text))  # rich has taken sys.stderr over while its display is live

    def show(self, status: MoveStatus) -> None:
        for unit in status.units.values():
            self._phase(unit)
            self._check(unit)
            if self._bars is not None:
                self._update(unit)

    def _phase(self, unit: UnitStatus) -> None:
        """A line for each phase; bars say it themselves but for those that last."""
        if self._phases.get(unit.unit) == unit.phase:
            return
        self._phases[unit.unit] = unit.phase
        if self._bars is None or unit.phase in ("VERIFIED", "SWITCHED"):
            self.line(f"{unit.unit}: {unit.phase}, {unit.copied:,} of {unit.total:,} rows")

    def _check(self, unit: UnitStatus) -> None:
        """A line for each check that found something."""
        differences, at_ms = unit.check.get("differences"), unit.check.get("at_ms")
        if differences and self._checks.get(unit.unit) != at_ms:
            self._checks[unit.unit] = at_ms
            self.line(f"{unit.unit}: the check found {differences} rows that differ; dal move check says which")

    def _update(self, unit: UnitStatus) -> None:
        assert self._bars is not None  # noqa: S101
        for name, found in unit.tables.items():
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(
                    name, total=None, count="", phase="", rate="", left="", dirty=""
                )
            is_last = name == next(reversed(unit.tables))
            self._bars.update(
                self._tasks[name],
                completed=found.copied if found.total else 1,
                total=found.total or 1,
                count=f"{found.copied:,} of {found.total:,}" if found.total else "empty",
                phase=unit.phase,
                rate=f"{unit.rate or 0:,.0f} rows/s" if is_last else "",
                left=f"left {seconds(unit.eta_s)}" if is_last and unit.eta_s != 0 else "",
                dirty=f"{found.dirty:,} dirty" if found.dirty else "",
            )


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    names = ("count", "phase", "rate", "left", "dirty")
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in names),
        console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        transient=True,
    )
