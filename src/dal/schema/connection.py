"""A database as the schema engine sees it: two verbs, so that any engine with atomic batches can be migrated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

EngineName: TypeAlias = Literal["sqlite", "postgresql"]


class AlreadyAppliedError(Exception):
    """A unique key refused the batch, as when another runner holds its ledger row. Never seen by callers."""


class Connection(Protocol):
    """One database.

    engine   which dialect its migrations are written in; D1 is `sqlite`.
    address  what messages call it: a path or a URL, never with a password.
    """

    @property
    def engine(self) -> EngineName: ...

    @property
    def address(self) -> str: ...

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """The rows of one SELECT."""
        ...

    async def run(self, statements: Sequence[tuple[str, Sequence[object]]]) -> None:
        """Runs them in order as one transaction, all or none.

        Raises AlreadyAppliedError when a unique key refuses it, other errors of the taxonomy when it fails.
        """
        ...
