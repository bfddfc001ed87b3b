"""The progress of a run, on standard error: what runs now on a terminal, a line for each file and phase elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from dal.cli.output import one_line
from dal.cli.running import complain
from dal.cli.schema.show import print_findings
from dal.cli.terminal_bars import TerminalBars

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from dal.schema import Progress
    from dal.schema.deploying.deployment import Phase, PhaseName

#: Phases that say something when they are done; the others only when they fail.
_TELLING: Final[tuple[PhaseName, ...]] = ("order", "validate", "backup", "verify", "explain", "report")


class MigrationProgress(TerminalBars):
    """`show` takes what the engine reports of files, `phase` what `deploy` reports of its phases.

    verb       what is said of a finished file: `applied`, `took back`; None: files are only tried.
    total      how many files there are to do, where that is known.
    directory  of the files, for findings.
    """

    def __init__(self, verb: str | None, total: int | None = None, *, directory: Path | None = None) -> None:
        super().__init__()
        self._verb = verb
        self._total = total
        self._directory = directory
        self._begun: list[str] = []
        self._phase = ""
        self._waits_for = ""
        self._task: TaskID | None = None

    def _make_bars(self) -> Bars:
        bars = _bars()
        self._task = bars.add_task("looking", total=None)
        return bars

    def phase(self, phase: Phase) -> None:
        """A phase has begun or ended. Its findings are shown when it ends."""
        if phase.state == "running":
            self._phase = phase.name
            self._describe(phase.name)
            return
        if phase.findings:
            print_findings(phase.findings, self._directory, to_stderr=True)
        if phase.state == "done" and phase.name in _TELLING:
            self._line(f"{phase.name}: {phase.message}, {phase.duration_ms:,} ms")

    def show(self, so_far: Progress) -> None:
        """A file has begun, gone on, ended, or waits."""
        if so_far.phase == "waiting":
            self._show_waiting(so_far)
            return
        tried = self._verb is None or self._phase == "validate"
        if so_far.phase == "done" and not tried:
            self._line(f"{self._verb} {so_far.name} in {so_far.elapsed_ms:,} ms")
        is_new = so_far.name not in self._begun and not tried
        if is_new:
            self._begun.append(so_far.name)
        place = f"{len(self._begun)} of {self._total}" if self._total else f"{len(self._begun)}"
        what = f"trying {so_far.name}" if tried else f"file {place}  {so_far.name}"
        many = f"  statement {so_far.statement} of {so_far.of}" if so_far.statement else ""
        self._describe(f"{what}{many}", so_far.statement, so_far.of)
        if is_new and self._bars is not None:
            self._bars.refresh()  # each file is seen, however short it takes

    def _show_waiting(self, so_far: Progress) -> None:
        what = f"for a lock, to go on with {so_far.name}" if so_far.name else "for the migration lock"
        text = f"waiting {what}" + (f": {so_far.detail}" if so_far.detail else "")
        self._describe(text)
        if self._bars is None and text != self._waits_for:
            self._line(text)
        self._waits_for = text

    def _line(self, text: str) -> None:
        # rich has taken sys.stderr over while its display is live, and keeps that below what is printed.
        complain(one_line(text))

    def _describe(self, text: str, done: int = 0, total: int = 0) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=one_line(text), completed=done, total=total or None)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        transient=True,
    )
