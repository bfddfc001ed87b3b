"""How the work of `dal files move` and its like is shown: a bar on a terminal, lines of JSON for programs."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from dal.cli.output import one_line
from dal.cli.running import complain
from dal.cli.terminal_bars import TerminalBars

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from dal.files_move.report import ContentsProgress, Problem

_EVERY_S = 1.0
_SHOWN_PROBLEMS = 20


class ContentsBars(TerminalBars):
    """The progress on standard error; with `as_json` lines on standard output, each second and for each problem."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._told_at = 0.0
        self._problems = 0
        self._task: TaskID | None = None

    def _make_bars(self) -> Bars:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        names = ("files", "size", "rate", "left", "problems")
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in names),
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
            transient=True,
        )

    def show(self, now: ContentsProgress) -> None:
        """How far the work is."""
        if self._as_json:
            self._tell(now)
        if self._bars is None:
            return
        from dal.cli.move.show import seconds
        from dal.files_move.tally import size_name

        if self._task is None:
            self._task = self._bars.add_task(now.action, total=None, files="", size="", rate="", left="", problems="")
        # Bytes are what takes time; where all files are empty, files are.
        done, total = (now.bytes, now.total_bytes) if now.total_bytes else (now.files, now.total_files)
        self._bars.update(
            self._task,
            completed=done,
            total=total or 1,
            files=f"{now.files:,} of {now.total_files:,} files",
            size=f"{size_name(now.bytes)} of {size_name(now.total_bytes)}",
            rate=f"{size_name(now.rate_bytes_s)}/s",
            left=f"left {seconds(now.eta_s)}",
            problems=f"{now.problems:,} problems" if now.problems else "",
        )

    def problem(self, problem: Problem) -> None:
        """One that was just found."""
        if self._as_json:
            from dal.cli.move.show import print_line

            print_line({"event": "problem", **problem._asdict()})
            return
        self._problems += 1
        if self._problems <= _SHOWN_PROBLEMS:
            complain(one_line(f"{problem.kind}: {problem.key}: {problem.text}"))
        elif self._problems == _SHOWN_PROBLEMS + 1:
            complain("… and more; --report FILE lists some of each kind, --json all")

    def _tell(self, now: ContentsProgress) -> None:
        from dal.cli.move.show import print_line

        at = monotonic()
        if at - self._told_at >= _EVERY_S:
            self._told_at = at
            print_line({"event": "progress", **now.as_dict()})
