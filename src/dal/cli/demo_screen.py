"""What a demo of a move shows: lines that stay, and on a terminal, below them, the move and its writers as they are.

In a pipe there are the lines alone.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dal.errors import DalError

if TYPE_CHECKING:
    from dal.cli.demo_writers import Writers
    from dal.move.sides import Sides

_REFRESH_S: Final = 0.2
_LABEL_CHARS: Final = 20


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
        self._out.print(f"  {label:<{_LABEL_CHARS}}{text}", soft_wrap=True)

    async def _show(self) -> None:
        from dal.cli.move.show import overview
        from dal.move.status import Pace, look

        pace = Pace()
        while True:
            try:
                move = overview(pace.see(await look(self._sides)))
            except DalError:  # the mover meets it as well, and ends where it does not pass
                move = Text("")
            writers = self._writers
            told = f"{len(writers.ledgers)} writers: {writers.acknowledged:,} calls answered, {writers.failed} failed"
            self._live.update(Group(Text(""), move, Text(told), Text(self.step, style="bold")), refresh=True)
            await asyncio.sleep(_REFRESH_S)
