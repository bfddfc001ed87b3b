"""A database as the schema engine sees it: few verbs, so that any engine with atomic batches can be migrated.

Implemented beside each SQL backend, on one connection of its own that nothing else uses. What a migration may do, it
does through these verbs; the engine never needs an interactive transaction, because D1 has none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, runtime_checkable

EngineName: TypeAlias = Literal["sqlite", "postgresql"]
#: Where the dialect runs: D1 speaks SQLite's with rules of its own.
Place: TypeAlias = Literal["sqlite", "d1", "postgresql"]
#: A statement and its parameters; without parameters the text is run as it is, whatever characters it holds.
Run: TypeAlias = tuple[str, Sequence[object]]


class StatementError(Exception):
    """The database refused a statement of a batch, and with it the whole batch. Never seen by callers.

    index     which one of the batch; None where the engine does not say.
    reason    what the engine said, in its own words, on one line: a migration's author needs them.
    code      SQLSTATE, or SQLite's name of the error; empty where there is none.
    kind      `unique`: a unique key refused it, as when another runner holds the ledger row.  `busy`: a lock was not to
              be had in time, or a deadlock was broken; the same batch may succeed later.  `other`: it is wrong.
    position  character of the statement (from 0) that the engine pointed at; None where it did not.
    """

    def __init__(
        self,
        index: int | None,
        reason: str,
        *,
        code: str = "",
        kind: Literal["unique", "busy", "other"] = "other",
        position: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason
        self.code = code
        self.kind = kind
        self.position = position


class Reader(Protocol):
    """As much of a database as it takes to see where it stands.

    engine   which dialect its migrations are written in.
    address  what messages call it: a path or a URL, never with a password.
    """

    @property
    def engine(self) -> EngineName: ...

    @property
    def address(self) -> str: ...

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """The rows of one SELECT, placeholders `?` on SQLite and D1, `%s` on PostgreSQL."""
        ...


class Connection(Reader, Protocol):
    """One database, to be migrated. Used by one task at a time."""

    @property
    def place(self) -> Place: ...

    async def explain(self, sql: str) -> Sequence[tuple[object, ...]]:
        """How the engine would run one statement, which is not run: on SQLite and D1 the rows of EXPLAIN QUERY PLAN; on
        PostgreSQL one row, the text of EXPLAIN (FORMAT JSON), planned without sequential scans wherever there is
        another way, because the tables of a test are so small that no index pays.

        Raises DalError where the statement is wrong.
        """
        ...

    async def run(self, statements: Sequence[Run], *, foreign_keys: bool = True) -> None:
        """Runs them in order as one transaction, all or none, durable on return.

        foreign_keys  False: SQLite does not enforce foreign keys meanwhile, so that a table can be rebuilt without its
                      children being deleted, and all of them are checked before the commit. PostgreSQL ignores it.
        Raises        StatementError: refused, nothing has happened. UnavailableError and others of the taxonomy: the
                      database did not answer; `outcome="unknown"` where the commit was on its way.
        """
        ...

    async def run_alone(self, sql: str) -> None:
        """Runs one statement outside any transaction, as CREATE INDEX CONCURRENTLY and VACUUM demand.

        Raises as `run`; `outcome="unknown"` where the answer was lost.
        """
        ...

    async def try_exclusive(self) -> bool:
        """Takes the engine's own lock for migrations if it is free: PostgreSQL's session advisory lock, which vanishes
        with the connection; one that was lost is opened again. Never waits. Engines without such a lock always answer
        True."""
        ...

    async def end_exclusive(self) -> None:
        """Gives it back. Harmless where it was not held."""
        ...

    def scratch(self) -> AbstractAsyncContextManager[Connection]:
        """An empty database of the same engine and version, gone when the block ends, also after an error.

        Raises SchemaError where none can be made (a missing privilege); it says which.
        """
        ...

    @property
    def backup_suffix(self) -> str:
        """Of the files that `dump` makes: `.db`, `.dump`, `.sql` or `.json`."""
        ...

    async def dump(self, path: Path, *, look: Callable[[Reader], Awaitable[None]] | None = None) -> None:
        """Writes the whole database to a new file of mode 0600, as of one moment. Raises DalError; a file that was
        begun and not finished is removed.

        look  called with a Reader that sees just what the file holds, whatever others write meanwhile: the copy itself
              on SQLite, the exported snapshot that pg_dump works from on PostgreSQL. What it raises ends the dump.
        """
        ...

    async def load(self, path: Path) -> None:
        """Makes the database what `dump` wrote: objects that came later are gone. All or nothing where the engine can.

        Raises DalError.
        """
        ...


@runtime_checkable
class Bookmarks(Protocol):
    """What a connection offers beside that whose engine can go back by itself, as D1 does with Time Travel."""

    async def bookmark(self) -> str | None:
        """The engine's name for the present state; None where this database has none."""
        ...
