"""Running one file, forward or back: as one transaction, or statement by statement where it asks for that.

A file in a transaction is one batch: its ledger row first (unique, so that a second runner is refused before it has
done anything), the lease's guard, the statements, and the guard again. Without a transaction, the number of statements
that have run is written after each of them, together with the guard, and the next run goes on behind it. A statement
that can run in a transaction there does so together with its count, so that it runs exactly once. One that cannot
(CREATE INDEX CONCURRENTLY, VACUUM) is noted as begun before it runs; when its end was never seen, the next run looks
what became of it before it runs it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from dal.errors import DalError, DalTimeoutError, SchemaError, UnavailableError
from dal.schema import indexes, ledger
from dal.schema.connection import Connection, EngineName, Run, StatementError
from dal.schema.files import Migration, Script
from dal.schema.ledger import Details
from dal.schema.lock import Lease, LeaseLostError, is_lost
from dal.schema.patience import is_busy, patiently
from dal.schema.progress import Migrated, OnProgress, Progress
from dal.schema.statements import Statement, tokens, words_of

_CHANGES_ROWS: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH"})
_DEFINES: Final = frozenset({"CREATE", "ALTER", "DROP"})
_DEFINED: Final = frozenset({"TABLE", "VIEW", "INDEX", "UNIQUE", "TRIGGER", "FUNCTION", "SEQUENCE"})


class LostAnswerError(Exception):
    """It is not known whether what was sent has happened; the ledger will tell. Never seen by callers."""

    def __init__(self, name: str, error: UnavailableError) -> None:
        super().__init__(name)
        self.name = name
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """What every file of one run shares.

    busy_wait_s  how long a file is tried again that meets locks.
    """

    connection: Connection
    lease: Lease
    schema_set: str
    backup_ref: str | None
    busy_wait_s: float
    on_progress: OnProgress

    async def forward(self, migration: Migration, begun: Details | None) -> Migrated:
        """Applies the file. Raises SchemaError, DalTimeoutError, LeaseLostError, LostAnswerError."""
        engine = self.connection.engine
        run = _FileRun(self, migration, migration.up, back=False)
        count = len(migration.statements)
        if migration.directives.transaction:
            first = [
                ledger.enter(engine, migration.name),
                ledger.describe(engine, migration, self.schema_set, count, self.backup_ref),
            ]
            return await run.at_once(first, [ledger.finish(engine, migration.name)])
        await run.write([ledger.describe(engine, migration, self.schema_set, 0, self.backup_ref), self.lease.guard()])
        last = [ledger.enter(engine, migration.name), ledger.finish(engine, migration.name)]
        return await run.one_by_one(begun.done_count if begun else 0, last, in_doubt=bool(begun and begun.in_doubt))

    async def back(self, migration: Migration, details: Details | None) -> Migrated:
        """Takes the file back. Raises as `forward`."""
        assert migration.down is not None  # noqa: S101  # the caller has looked
        engine = self.connection.engine
        run = _FileRun(self, migration, migration.down, back=True)
        gone = ledger.leave(engine, migration.name)
        if migration.down.directives.transaction:
            return await run.at_once(gone, [])
        if details is None:
            await run.write([ledger.describe(engine, migration, self.schema_set, 0, None), self.lease.guard()])
        undone = details.undone_count if details else 0
        return await run.one_by_one(undone, gone, in_doubt=bool(details and details.in_doubt and details.undone_count))


class _FileRun:
    def __init__(self, runner: Runner, migration: Migration, script: Script, *, back: bool) -> None:
        self._runner = runner
        self._connection = runner.connection
        self._engine: EngineName = runner.connection.engine
        self._name = migration.name
        self._script = script
        self._back = back
        self._started = perf_counter()

    async def at_once(self, first: Sequence[Run], last: Sequence[Run]) -> Migrated:
        """The whole file as one transaction."""
        guard = self._runner.lease.guard()
        batch = [*first, guard, *((s.sql, ()) for s in self._script.statements), *last, guard]
        self._tell("running", 0)
        await self._attempt(lambda: self._run(batch), 0, before=len(first) + 1)
        return self._done(len(self._script.statements))

    async def one_by_one(self, done: int, last: Sequence[Run], *, in_doubt: bool) -> Migrated:
        """Each statement by itself, from the one behind those that are done."""
        statements = self._script.statements
        guard = self._runner.lease.guard()
        for place in range(done, len(statements)):
            self._tell("running", place + 1)
            statement = statements[place]
            counted = ledger.progress(self._engine, self._name, statements[: place + 1], back=self._back)
            if _takes_part(statement, self._engine):
                batch = [guard, (statement.sql, ()), counted]
                await self._attempt(lambda batch=batch: self._run(batch), place, before=1)
                continue
            if not (in_doubt and place == done and await indexes.is_done(self._connection, statement)):
                await self._alone(statement, place)
            await self.write([guard, counted])
        await self.write([guard, *last])
        return self._done(len(statements) - done)

    async def _alone(self, statement: Statement, place: int) -> None:
        guard = self._runner.lease.guard()
        await self.write([guard, ledger.doubt(self._engine, self._name, in_doubt=True)])

        async def once() -> None:
            await indexes.clear_invalid(self._connection, statement)
            await self._connection.run_alone(statement.sql)

        try:
            await self._attempt(once, place, before=0)
        except (SchemaError, DalTimeoutError):
            # It was refused, so there is no doubt any more. Where this cannot be written, the next run looks.
            with suppress(StatementError, DalError):
                await self._connection.run([guard, ledger.doubt(self._engine, self._name, in_doubt=False)])
            raise

    async def write(self, batch: Sequence[Run]) -> None:
        """A batch of the ledger's own."""
        await self._attempt(lambda: self._connection.run(batch), 0, before=len(batch))

    async def _run(self, batch: Sequence[Run]) -> None:
        await self._connection.run(batch, foreign_keys=self._script.directives.foreign_keys)

    async def _attempt(self, call, place: int, *, before: int) -> None:  # type: ignore[no-untyped-def]
        """Makes the call, patiently, and tells its failure in words.

        place   of the first statement of the file that it runs.
        before  statements of the ledger's own that go before that one.
        """

        async def meanwhile(reason: str) -> None:
            self._tell("waiting", place + 1, reason)
            # What the batch renewed was rolled back with it.
            with suppress(StatementError, DalError):
                await self._connection.run([self._runner.lease.guard()])

        try:
            await patiently(call, wait_s=self._runner.busy_wait_s, meanwhile=meanwhile)
        except StatementError as error:
            if await self._is_overtaken(error, before):
                raise LeaseLostError from error
            raise self._told(error, place, before) from error
        except UnavailableError as error:
            if error.outcome == "unknown":
                raise LostAnswerError(self._name, error) from error
            raise

    async def _is_overtaken(self, error: StatementError, before: int) -> bool:
        if is_busy(error) or (error.index is not None and 0 < before <= error.index and before < error.index):
            return False
        try:
            return await is_lost(self._connection, self._runner.lease)
        except DalError:
            return False

    def _told(self, error: StatementError, place: int, before: int) -> DalError:
        index = None if error.index is None else error.index - before + place
        statements = self._script.statements
        address = self._connection.address
        stays = "and was rolled back"
        if not self._script.directives.transaction:
            stays = (
                f"at statement {place + 1} of {len(statements)}; those before it stay, and the next run goes on there"
            )
        where, what = self._script.name, ""
        if index is not None and 0 <= index < len(statements):
            statement = statements[index]
            where = f"{where}:{statement.line_of(error.position or 0)}"
            what = f"; the statement: {statement.beginning()}"
        message = f"{address}: {where} failed {stays}: {error.reason}{what}"
        if is_busy(error):
            message = (
                f"{address}: {where} met a lock each time for {self._runner.busy_wait_s:g} s {stays}: "
                f"{error.reason}{what}; try again when the application is quieter"
            )
            return DalTimeoutError(message, operation=self._operation)
        return SchemaError(message, operation=self._operation)

    @property
    def _operation(self) -> str:
        return "schema.down" if self._back else "schema.up"

    def _done(self, statements: int) -> Migrated:
        self._tell("done", len(self._script.statements))
        return Migrated(name=self._name, duration_ms=self._elapsed_ms(), statements=statements)

    def _elapsed_ms(self) -> int:
        return round((perf_counter() - self._started) * 1000)

    def _tell(self, phase, statement: int, detail: str = "") -> None:  # type: ignore[no-untyped-def]
        self._runner.on_progress(
            Progress(
                name=self._script.name,
                statement=statement,
                of=len(self._script.statements),
                elapsed_ms=self._elapsed_ms(),
                phase=phase,
                detail=detail,
            )
        )


def _takes_part(statement: Statement, engine: EngineName) -> bool:
    """Whether it may run in a transaction, for certain."""
    words = words_of(statement.sql, engine, 2)
    if words[:1] and words[0] in _CHANGES_ROWS:
        return True
    return (
        len(words) == 2
        and words[0] in _DEFINES
        and words[1] in _DEFINED
        and not any(token.says("CONCURRENTLY") for token in tokens(statement.sql, engine))
    )
