"""A connection that loses answers and is interrupted where a test wants it; underneath is the real engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from dal.errors import UnavailableError
from dal.schema import Connection
from dal.schema.connection import Run

Fault = Literal["lost before", "lost after"]


class Faulty:
    """As the connection inside; the first batch or statement that holds `text` meets the fault, once.

    lost before  it never arrives, and nobody is told so.  lost after  it has happened when the answer is lost.
    before       awaited before each batch and lone statement, with its text.
    """

    def __init__(
        self,
        inner: Connection,
        text: str = "",
        fault: Fault | None = None,
        *,
        before: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._inner = inner
        self._text = text
        self._fault = fault
        self._before = before
        self.ran: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def run(self, statements: Sequence[Run], *, foreign_keys: bool = True) -> None:
        text = ";".join(sql for sql, _ in statements)
        await self._meet(text, lambda: self._inner.run(statements, foreign_keys=foreign_keys))

    async def run_alone(self, sql: str) -> None:
        await self._meet(sql, lambda: self._inner.run_alone(sql))

    async def _meet(self, text: str, call: Callable[[], Awaitable[None]]) -> None:
        if self._before is not None:
            await self._before(text)
        self.ran.append(text)
        fault = self._fault if self._text in text else None
        if fault is not None:
            self._fault = None
        if fault == "lost before":
            raise UnavailableError("the connection broke", outcome="unknown")
        await call()
        if fault == "lost after":
            raise UnavailableError("the connection broke", outcome="unknown")
