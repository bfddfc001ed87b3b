"""What a demo of a move shows: lines that stay, and on a terminal, below them, the move and its writers as they are.

In a pipe there are the lines alone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dal.cli.move.show import bar
from dal.cli.output import table
from dal.errors import DalError
from dal.move.status import look

if TYPE_CHECKING:
    from rich.table import Table

    from dal.cli.demo_writers import Writers
    from dal.move.sides import Sides
    from dal.move.status import MoveStatus

_REFRESH_S: Final = 0.2
_LABEL_CHARS: Final = 11


class Screen:
    """Shows a move until it is left. `step` says what is being waited for."""

    def __init__(self, out: Console, sides: Sides, writers: Writers) -> None:
        self.step = ""
        self._out = out
        self._sides = sides
        self._writers = writers
        self._live = Live(console=out, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._out.is_terminal:
            self._live.start()
            self._task = asyncio.create_task(self._show())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._live.stop()

    def line(self, label: str, text: str) -> None:
        """A line that stays."""
        print_line(self._out, label, text)

    async def _show(self) -> None:
        writers = self._writers
        while True:
            with suppress(DalError):  # the mover meets it as well, and ends where it does not pass
                move = _overview(await look(self._sides))
                told = f"  {len(writers.ledgers)} writers: {writers.acknowledged:,} calls answered"
                self._live.update(Group(move, Text(told), Text(f"  {self.step}", style="bold")), refresh=True)
            await asyncio.sleep(_REFRESH_S)


def print_line(out: Console, label: str, text: str) -> None:
    """What is said, behind what it is about."""
    out.print(f"  {label:<{_LABEL_CHARS}}{text}", soft_wrap=True)


def _overview(status: MoveStatus) -> Table:
    """The units of the move, in the width of any terminal; `dal move watch` says more."""
    rows = [
        (
            unit.unit,
            unit.phase,
            unit.primary or "fenced",
            bar(unit.copied, unit.total) if unit.total else "",
            f"{unit.copied:,} of {unit.total:,}" if unit.total else "none",
            unit.dirty,
        )
        for unit in status.units.values()
    ]
    return table(None, ("unit", "phase", "lives on", "copied", "rows>", "dirty>"), rows)
