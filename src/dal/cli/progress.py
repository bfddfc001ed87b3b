"""The progress of an import on standard error: bytes of the file, rate, time left; gone when it is done."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dal.cli.output import one_line

if TYPE_CHECKING:
    from dal.importing import Progress as ImportedSoFar


class ImportProgress:
    """A bar per phase of importing one file. Shown on a terminal only."""

    def __init__(self, path: Path) -> None:
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows", markup=False),
            TextColumn("{task.fields[rate]:,.0f}/s", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        name = one_line(path.name)
        self._load = self._bars.add_task(f"loading {name}", total=None, rows=0, rate=0.0)
        self._index = self._bars.add_task(f"indexing {name}", total=None, rows=0, rate=0.0, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, so_far: ImportedSoFar) -> None:
        rows = so_far.messages + so_far.memory_items
        if so_far.phase == "load":
            self._update(self._load, so_far.read_bytes, so_far.size_bytes, rows)
        else:
            self._bars.update(self._load, visible=False)
            self._bars.update(self._index, visible=True)
            self._update(self._index, so_far.indexed, max(rows, so_far.indexed), so_far.indexed)

    def _update(self, task_id: int, done: int, total: int, rows: int) -> None:
        task = next(t for t in self._bars.tasks if t.id == task_id)
        self._bars.update(task.id, completed=done, total=total, rows=rows, rate=rows / max(task.elapsed or 0.0, 1e-3))
