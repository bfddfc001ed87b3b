"""Progress bars on standard error that are shown on a terminal only."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


class TerminalBars(ABC):
    """A progress whose bars live as long as the `with` block. `_bars` is None where nobody watches a terminal."""

    def __init__(self) -> None:
        self._bars: Bars | None = None

    @abstractmethod
    def _make_bars(self) -> Bars:
        """The bars, not yet started; rich is loaded here and no earlier."""

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = self._make_bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
