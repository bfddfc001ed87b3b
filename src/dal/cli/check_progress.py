"""The progress of a check on standard error: a bar a table with rows, rate and time left; gone when it is done."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from dal.move.check_report import CheckProgress


class CheckBars:
    """A bar for each table, begun when its first page was compared. Shown on a terminal only."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.is_shown = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows", markup=False),
            TextColumn("{task.fields[rate]:,.0f}/s", markup=False),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[found]}", markup=False),
            console=console,
            transient=True,
            disable=not self.is_shown,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, so_far: CheckProgress) -> None:
        if so_far.table not in self._tasks:
            self._tasks[so_far.table] = self._bars.add_task(so_far.table, total=None, rows=0, rate=0.0, found="")
        task = next(t for t in self._bars.tasks if t.id == self._tasks[so_far.table])
        found = f"{so_far.differences:,} different, {so_far.watched:,} watched" if so_far.differences else ""
        rate = so_far.rows / max(task.elapsed or 0.0, 1e-3)
        self._bars.update(task.id, completed=so_far.rows, total=so_far.total, rows=so_far.rows, rate=rate, found=found)
