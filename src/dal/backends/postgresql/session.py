"""Batches and transactions on one connection.

A batch of one statement is its own transaction; several go down the connection in pipeline mode between BEGIN and
COMMIT, one round trip for all; a COPY, which a pipeline cannot hold, splits it. Whatever goes wrong, the connection is
left outside any transaction, or closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus

from dal.backends.postgresql.dialect import SEARCH_OPERATOR
from dal.backends.postgresql.errors import BACKEND, timed_out, translate, translate_read
from dal.backends.postgresql.pool import Connection
from dal.backends.sql import Result, Statement
from dal.errors import transaction_over
from dal.limits import STATEMENT_TIMEOUT_S

_Cursor: TypeAlias = psycopg.AsyncCursor[tuple[Any, ...]]

#: The server ends a statement at STATEMENT_TIMEOUT_S; this is for a server or network that has gone silent.
SILENCE_S: Final = STATEMENT_TIMEOUT_S + 5
SILENT: Final = "the server fell silent"

COPY: Final = "COPY "
_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_COMMIT: Final = Statement("COMMIT")
_SAVE: Final = Statement("SAVEPOINT dal_batch")
_KEEP: Final = Statement("RELEASE SAVEPOINT dal_batch")
_UNDO: Final = "ROLLBACK TO SAVEPOINT dal_batch"


class PostgresSession:
    """The connection of one open transaction, as the shared store sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.is_open = True  # the connection is somebody else's once it has ended

    async def fetch(self, statement: Statement) -> Sequence[tuple[object, ...]]:
        self._check_open("read")
        try:
            async with asyncio.timeout(SILENCE_S):
                return await (await execute(self._connection, statement)).fetchall()
        except psycopg.Error as error:
            raise translate_read(error) from error
        except TimeoutError as error:
            raise timed_out("read", SILENT) from error

    async def batch(self, statements: Sequence[Statement]) -> Sequence[Result]:
        self._check_open("commit")
        progress = _Progress()
        try:
            async with asyncio.timeout(SILENCE_S):
                results = await _run(self._connection, [_SAVE, *statements, _KEEP], progress)
        except psycopg.Error as error:
            if self._connection.info.transaction_status == TransactionStatus.INERROR:
                await self._undo()
            raise translate(error, "commit", statement=progress.refused(1, len(statements))) from error
        except TimeoutError as error:
            raise timed_out("commit", SILENT) from error
        return results[1:-1]

    def _check_open(self, operation: str) -> None:
        if not self.is_open:
            raise transaction_over(operation, BACKEND)

    async def _undo(self) -> None:
        """Back to where the batch began, which was refused."""
        try:
            async with asyncio.timeout(SILENCE_S):
                # Prepared, because only then psycopg always looks at its outcome, and forgets what it holds prepared:
                # a statement that the refusal skipped is not.
                await self._connection.execute(_UNDO, prepare=True)
        except psycopg.Error as error:
            raise translate(error, "commit") from error
        except TimeoutError as error:
            raise timed_out("commit", SILENT) from error


async def execute(connection: Connection, statement: Statement) -> _Cursor:
    """Runs one statement. None for no parameters: the driver then looks for no placeholders.

    A search is never prepared: the plan for any words would walk all messages where that for rare words asks the index.
    """
    prepare = False if SEARCH_OPERATOR in statement.sql else None
    return await connection.execute(statement.sql, statement.params or None, prepare=prepare)


async def run_batch(
    connection: Connection, statements: Sequence[Statement], begin: Sequence[Statement]
) -> Sequence[Result]:
    """Runs the statements as one transaction. Raises Violation and errors of the taxonomy, with nothing written.

    begin  statements that open a transaction of several statements.
    """
    progress = _Progress()
    alone = len(statements) == 1 and not statements[0].many
    inside = statements if alone else [*begin, *statements, _COMMIT]
    before = 0 if alone else len(begin)
    try:
        async with asyncio.timeout(SILENCE_S):
            results = await _run(connection, inside, progress)
    except psycopg.Error as error:
        await roll_back(connection)
        refused = progress.refused(before, len(statements))
        raise translate(error, "commit", sent=progress.at_the_end, statement=refused) from error
    except TimeoutError as error:
        raise timed_out("commit", SILENT, sent=progress.at_the_end) from error
    return results[before : before + len(statements)]


@asynccontextmanager
async def serializable(connection: Connection, begin: Sequence[Statement]) -> AsyncIterator[PostgresSession]:
    """A transaction on this connection: committed at the end of the block, rolled back when it raises."""
    for statement in begin:
        await _control(connection, statement, sent=False)
    session = PostgresSession(connection)
    try:
        try:
            yield session
        finally:
            session.is_open = False
    except Exception:
        await roll_back(connection)
        raise
    await _control(connection, _COMMIT, sent=True)


async def roll_back(connection: Connection) -> None:
    """Leaves the connection outside any transaction, or closed."""
    if connection.info.transaction_status in _OPEN:
        try:
            async with asyncio.timeout(SILENCE_S):
                await connection.rollback()
        except (psycopg.Error, TimeoutError):
            await connection.close()


async def _control(connection: Connection, statement: Statement, *, sent: bool) -> None:
    try:
        async with asyncio.timeout(SILENCE_S):
            await execute(connection, statement)
    except psycopg.Error as error:
        await roll_back(connection)
        raise translate(error, "transaction", sent=sent) from error
    except TimeoutError as error:
        raise timed_out("transaction", SILENT, sent=sent) from error


@asynccontextmanager
async def pipeline(connection: Connection) -> AsyncIterator[None]:
    """The connection in pipeline mode. What the block raises is raised once that has ended.

    Told of it earlier, the driver would log whatever else comes out of the pipeline as "error ignored": a warning in
    the application's output for every batch that the server refuses.

    Behind a refusal the server skips what is left in the pipeline, preparations too. In a transaction the driver
    forgets what it holds prepared when that is rolled back; out of one, it is made to forget here, in two round trips.

    Cancelled in the block, the connection is closed. On its way out the driver would wait for the end of all that was
    sent, which may be an hour away, and nobody cancels twice.

    Cancelled while it enters, the driver leaves the connection in pipeline mode (psycopg 3.3.9), where every later
    statement would seem done before it is: such a connection is closed.
    """
    failed: BaseException | None = None
    try:
        async with connection.pipeline():
            try:
                yield
            except BaseException as error:
                failed = error
                if not isinstance(error, Exception):
                    await connection.close()
    except psycopg.Error as error:
        failed = failed or error
    finally:
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:
            await connection.close()
    if failed is not None:
        if isinstance(failed, psycopg.Error) and connection.info.transaction_status == TransactionStatus.IDLE:
            await _forget_prepared(connection)
        raise failed


async def _forget_prepared(connection: Connection) -> None:
    """Makes driver and server forget what is prepared: the driver does that at a rollback, and offers no other way."""
    try:
        await connection.execute("BEGIN", prepare=False)
        await connection.rollback()
    except psycopg.Error:
        await connection.close()


class _Progress:
    """How far a list of statements came."""

    def __init__(self) -> None:
        self.started: list[tuple[int, _Cursor]] = []
        #: The last statement may have reached the server: what decides whether the whole is written.
        self.at_the_end = False

    def start(self, connection: Connection, place: int) -> _Cursor:
        cursor = connection.cursor()
        self.started.append((place, cursor))
        return cursor

    def refused(self, before: int, count: int) -> int | None:
        """Which of the `count` statements behind the `before` first ones was refused; None when it was another."""
        for place, cursor in self.started:
            if cursor.pgresult is None or cursor.pgresult.status not in _DONE:
                return place - before if before <= place < before + count else None
        return None


async def _run(connection: Connection, statements: Sequence[Statement], progress: _Progress) -> list[Result]:
    if len(statements) == 1:
        progress.at_the_end = True
        if statements[0].sql.startswith(COPY):
            return [await _copy(connection, 0, statements[0], progress)]
        cursor = progress.start(connection, 0)
        await _send(cursor, statements[0].sql, statements[0].params)
        return [await _result(statements[0], [cursor])]
    results: list[Result] = []
    for is_copy, group in groupby(enumerate(statements), key=lambda numbered: numbered[1].sql.startswith(COPY)):
        numbered = list(group)
        if is_copy:
            results += [await _copy(connection, place, statement, progress) for place, statement in numbered]
        else:
            results += await _pipeline(connection, numbered, progress, last=len(statements) - 1)
    return results


async def _pipeline(
    connection: Connection, numbered: Sequence[tuple[int, Statement]], progress: _Progress, *, last: int
) -> list[Result]:
    cursors: list[list[_Cursor]] = []
    async with pipeline(connection):
        for place, statement in numbered:
            progress.at_the_end = place == last
            cursors.append([])
            for params in statement.params if statement.many else (statement.params,):
                cursor = progress.start(connection, place)
                cursors[-1].append(cursor)
                await _send(cursor, statement.sql, params)
    return [await _result(statement, found) for (_, statement), found in zip(numbered, cursors, strict=True)]


async def _copy(connection: Connection, place: int, statement: Statement, progress: _Progress) -> Result:
    """A COPY … FROM STDIN; its parameters are blocks of text in COPY's own format."""
    cursor = progress.start(connection, place)
    async with cursor.copy(statement.sql) as copy:
        for block in statement.params:
            await copy.write(block)  # type: ignore[arg-type]  # bytes, as the planner makes them
    return Result(cursor.rowcount)


async def _send(cursor: _Cursor, sql: str, params: Any) -> None:
    await cursor.execute(sql, params or None)


async def _result(statement: Statement, cursors: Sequence[_Cursor]) -> Result:
    if statement.returns:
        return Result(cursors[0].rowcount, await cursors[0].fetchall())
    return Result(sum(max(cursor.rowcount, 0) for cursor in cursors))
