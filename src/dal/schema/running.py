"""Running one file, forward or back: as one transaction, or statement by statement where it asks for that.

A file in a transaction is one batch: its ledger row first (unique, so that a second runner is refused before it has
done anything), the lease's guard, and the statements. Without a transaction, the number of statements
that have run is written after each of them, together with the guard, and the next run goes on behind it. A statement
that can run in a transaction there does so together with its count, so that it runs exactly once. One that cannot
(CREATE INDEX CONCURRENTLY, VACUUM) is noted as begun before it runs; when its end was never seen, the next run looks
what became of it before it runs it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final, Literal

from dal.errors import DalError, DalTimeoutError, SchemaError, UnavailableError
from dal.schema import indexes, ledger
from dal.schema.connection import Connection, EngineName, Run, StatementError
from dal.schema.files import Migration, Script
from dal.schema.ledger import Details
from dal.schema.lock import Lease, LeaseLostError, is_lost
from dal.schema.patience import is_busy, patiently
from dal.schema.progress import Migrated, OnProgress, Progress
from dal.schema.statements import Statement, tokens, words_of

_ROWS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH"})
_SETS: Final = (["SET"], ["RESET"], ["PRAGMA"])
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
        engine, name = self.connection.engine, migration.name
        run = _FileRun(self, name, migration.up, back=False)
        all_done = len(migration.statements) if migration.directives.transaction else 0
        describe = ledger.describe(engine, migration, self.schema_set, all_done, self.backup_ref)
        enter, finish = ledger.enter(engine, name), ledger.finish(engine, name)
        done, in_doubt = (begun.done_count, begun.in_doubt) if begun else (0, False)
        if migration.directives.transaction:
            whole = ledger.progress(engine, name, migration.statements, back=False)
            return await run.at_once([enter, describe, whole], finish, done=done)
        await run.note([describe])
        return await run.one_by_one(done, [enter, finish], in_doubt=in_doubt)

    async def back(self, migration: Migration, details: Details | None, *, is_applied: bool) -> Migrated:
        """Takes the file back. Raises as `forward`.

        is_applied  False: it was begun and never finished.
        """
        assert migration.down is not None  # noqa: S101  # the caller has looked
        engine, name = self.connection.engine, migration.name
        run = _FileRun(self, name, migration.down, back=True)
        gone = ledger.leave(engine, name)
        if not is_applied and details is not None and not (details.done_count or details.in_doubt):
            await run.note(gone)  # nothing of it has happened
            return run.done(0)
        undone = details.undone_count if details else 0
        if migration.down.directives.transaction:
            return await run.at_once(gone, done=undone)
        if details is None:
            await run.note([ledger.describe(engine, migration, self.schema_set, 0, None)])
        # Of a file that was never finished, the doubt may be about its way forward.
        in_doubt = bool(details and details.in_doubt and (is_applied or undone))
        return await run.one_by_one(undone, gone, in_doubt=in_doubt)


class _FileRun:
    def __init__(self, runner: Runner, name: str, script: Script, *, back: bool) -> None:
        self._runner = runner
        self._connection = runner.connection
        self._engine: EngineName = runner.connection.engine
        self._guard = runner.lease.guard()
        self._name = name
        self._script = script
        self._back = back
        self._started = perf_counter()

    async def at_once(self, first: Sequence[Run], afterwards: Run | None = None, *, done: int = 0) -> Migrated:
        """The whole file as one transaction, behind what was done when it was not one yet. Nothing of the ledger's
        comes behind the statements, for they may have set another search path; what is to be noted afterwards is no
        loss when it is lost."""
        statements = self._script.statements[done:]
        batch = [*first, self._guard, *((s.sql, ()) for s in statements)]
        places = range(done, done + len(statements))
        self._tell("running", 0)
        await self._attempt(lambda: self._run(batch), places, before=len(first) + 1)
        if afterwards is not None:
            with suppress(LeaseLostError, LostAnswerError, DalError):
                await self.note([afterwards])
        return self.done(len(statements))

    async def one_by_one(self, done: int, last: Sequence[Run], *, in_doubt: bool) -> Migrated:
        """Each statement by itself, from the one behind those that are done."""
        statements = self._script.statements
        try:
            await self._set_again(statements[:done])
            await self._go_on(done, in_doubt=in_doubt)
        finally:
            if self._engine == "postgresql" and any(self._sets(statement) for statement in statements):
                with suppress(StatementError, DalError):
                    await self._connection.run_alone("RESET ALL")  # for the next file
        await self.note(last)
        return self.done(len(statements) - done)

    async def _go_on(self, done: int, *, in_doubt: bool) -> None:
        statements = self._script.statements
        for place in range(done, len(statements)):
            self._tell("running", place + 1)
            statement = statements[place]
            counted = ledger.progress(self._engine, self._name, statements[: place + 1], back=self._back)
            if _fits_transaction(statement, self._engine):
                await self._together(statement, counted, place)
                continue
            if not (in_doubt and place == done and await indexes.is_done(self._connection, statement)):
                await self._alone(statement, place)
            await self.note([counted])

    async def _set_again(self, statements: Sequence[Statement]) -> None:
        """What an earlier run has set in its session, for the statements that this one goes on with."""
        for place, statement in enumerate(statements):
            if self._sets(statement):
                again = partial(self._connection.run_alone, statement.sql)
                await self._attempt(again, range(place, place + 1), before=0)

    def _sets(self, statement: Statement) -> bool:
        return _sets(statement, self._engine)

    async def _together(self, statement: Statement, counted: Run, place: int) -> None:
        settings: list[Run] = []
        if self._engine == "postgresql":  # which forgets after each batch what was set in it
            settings = [(s.sql, ()) for s in self._script.statements[:place] if self._sets(s)]
        batch = [self._guard, counted, *settings, (statement.sql, ())]
        await self._attempt(lambda: self._run(batch), range(place, place + 1), before=len(batch) - 1)

    async def _alone(self, statement: Statement, place: int) -> None:
        await self.note([ledger.doubt(self._engine, self._name, in_doubt=True)])

        async def once() -> None:
            await indexes.clear_invalid(self._connection, statement)
            await self._connection.run_alone(statement.sql)

        try:
            await self._attempt(once, range(place, place + 1), before=0)
        except (SchemaError, DalTimeoutError):
            # It was refused, so there is no doubt any more. Where this cannot be written, the next run looks.
            with suppress(StatementError, DalError):
                await self._connection.run([self._guard, ledger.doubt(self._engine, self._name, in_doubt=False)])
            raise

    async def note(self, batch: Sequence[Run]) -> None:
        """Writes down something of the ledger's own, as long as the lease holds."""
        guarded = [self._guard, *batch]
        await self._attempt(lambda: self._connection.run(guarded), range(0), before=0)

    def done(self, statements: int) -> Migrated:
        self._tell("done", len(self._script.statements))
        return Migrated(name=self._name, duration_ms=self._elapsed_ms(), statements=statements)

    async def _run(self, batch: Sequence[Run]) -> None:
        await self._connection.run(batch, foreign_keys=self._script.directives.foreign_keys)

    async def _attempt(self, call: Callable[[], Awaitable[None]], places: range, *, before: int) -> None:
        """Makes the call, patiently, and tells its failure in words.

        places  of the file's statements that it runs; none where it writes the ledger only.
        before  statements of the ledger's own that go before those.
        """

        async def meanwhile(reason: str) -> None:
            self._tell("waiting", places.start + 1 if len(places) == 1 else 0, reason)
            # What the batch renewed was rolled back with it.
            with suppress(StatementError, DalError):
                await self._connection.run([self._guard])

        try:
            await patiently(call, wait_s=self._runner.busy_wait_s, meanwhile=meanwhile)
        except StatementError as error:
            place = None if error.index is None else error.index - before + places.start
            is_ours = place in places
            if not is_ours and not is_busy(error) and await self._is_overtaken(error):
                raise LeaseLostError from error
            raise self._told(error, place if is_ours else None, places) from error
        except DalError as error:
            if isinstance(error, UnavailableError) and error.outcome == "unknown":
                raise LostAnswerError(self._name, error) from error
            raise self._named(error) from error

    async def _is_overtaken(self, error: StatementError) -> bool:
        """Whether the guard refused the batch, or the ledger's unique name: a tool that takes no lock (wrangler) may
        have entered the file meanwhile."""
        if await is_lost(self._connection, self._runner.lease):
            return True
        if error.kind != "unique" or self._back:
            return False
        return any(row.name == self._name for row in (await ledger.read(self._connection)).applied)

    def _told(self, error: StatementError, place: int | None, places: range) -> DalError:
        """The failure as people read it: where, what the engine said, what became of the rest."""
        script, address = self._script, self._connection.address
        where, what = script.name, ""
        if place is None and len(places) == 1:
            place = places.start
        if place is not None:
            statement = script.statements[place]
            where = f"{where}:{statement.line_of(error.position or 0)}"
            what = f"; the statement: {statement.beginning()}"
        elif not places:
            what = "; its entry in the ledger was to be written"
        stays = "failed and was rolled back"
        if not script.directives.transaction:
            before = "the one before it stays" if places.start == 1 else f"the {places.start} before it stay"
            stays = f"failed; {before}, and the next run goes on there" if places.start else "failed; nothing was done"
        if is_busy(error):
            message = f"{address}: {where} {stays}: locks were in its way for {self._runner.busy_wait_s:g} s"
            return DalTimeoutError(f"{message}: {error.reason}{what}", operation=self._operation)
        return SchemaError(f"{address}: {where} {stays}: {error.reason}{what}", operation=self._operation)

    def _named(self, error: DalError) -> DalError:
        """The same error with the file's name: the disk is full, the server is gone."""
        return type(error)(
            f"{self._connection.address}: {self._script.name} was not carried out: {error.message}",
            operation=self._operation,
            backend=error.backend,
            retryable=error.retryable,
            outcome=error.outcome,
        )

    @property
    def _operation(self) -> str:
        return "schema.down" if self._back else "schema.up"

    def _elapsed_ms(self) -> int:
        return round((perf_counter() - self._started) * 1000)

    def _tell(self, phase: Literal["waiting", "running", "done"], statement: int, detail: str = "") -> None:
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


def _fits_transaction(statement: Statement, engine: EngineName) -> bool:
    """Whether it may run in a transaction, for certain."""
    words = words_of(statement.sql, engine, 2)
    if words and words[0] in _ROWS:
        return not _sets(statement, engine)
    return (
        len(words) == 2
        and words[0] in _DEFINES
        and words[1] in _DEFINED
        and not any(token.says("CONCURRENTLY") for token in tokens(statement.sql, engine))
    )


def _sets(statement: Statement, engine: EngineName) -> bool:
    """Whether it changes the session rather than the database."""
    words = words_of(statement.sql, engine, 1)
    if words == ["SELECT"]:
        return any(token.says("SET_CONFIG") for token in tokens(statement.sql, engine))
    return words in _SETS
