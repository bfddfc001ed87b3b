"""Reads that wait together share a round trip.

Alone, a read takes a connection and runs at once. When every lane is busy, reads queue; a lane that comes free takes
all that wait, up to a bound, and sends them down its connection in pipeline mode (measured at 100 tasks: 2.3 times a
pool of 20 connections). Each read's error is its own: when one of a shared trip fails, the others are read again alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import Final, NamedTuple

import psycopg

from dal.backends.postgresql.errors import closed, timed_out, translate_read
from dal.backends.postgresql.pool import Connection, ConnectionPool
from dal.backends.postgresql.session import SILENCE_S, SILENT, execute, pipeline
from dal.backends.sql import Statement
from dal.errors import DalError

Rows = Sequence[tuple[object, ...]]

_LANES: Final = 4  # connections that shared reads use at most; measured best of 1 to 4 on two cores
_READS_A_TRIP: Final = 16


class _Waiting(NamedTuple):
    statement: Statement
    answer: asyncio.Future[Rows]


class SharedReads:
    """Runs reading statements over a few connections of the pool."""

    def __init__(self, pool: ConnectionPool, *, max_connections: int) -> None:
        self._pool = pool
        self._free_lanes = min(_LANES, max_connections)
        self._queue: deque[_Waiting] = deque()
        self._trips: set[asyncio.Task[None]] = set()

    async def fetch(self, statement: Statement) -> Rows:
        """The rows of one statement, in its own snapshot. Raises errors of the taxonomy; nothing is ever written."""
        if self._free_lanes == 0:
            answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
            self._queue.append(_Waiting(statement, answer))
            return await answer
        self._free_lanes -= 1
        try:
            return await self._fetch_alone(statement)
        finally:
            self._lane_is_free()

    async def close(self) -> None:
        """Waits for the reads that have a connection; those that still queue fail."""
        while self._queue:
            _fail(self._queue.popleft(), closed("read"))
        if self._trips:
            await asyncio.wait(self._trips)

    def _lane_is_free(self) -> None:
        if not self._queue:
            self._free_lanes += 1
            return
        trip = asyncio.get_running_loop().create_task(self._serve_queue())
        self._trips.add(trip)
        trip.add_done_callback(self._trips.discard)

    async def _serve_queue(self) -> None:
        try:
            while batch := self._next_batch():
                await self._fetch_together(batch)
        finally:
            self._lane_is_free()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < _READS_A_TRIP:
            waiting = self._queue.popleft()
            if not waiting.answer.done():  # its caller was cancelled
                batch.append(waiting)
        return batch

    async def _fetch_alone(self, statement: Statement) -> Rows:
        connection = await self._pool.take("read")
        try:
            async with asyncio.timeout(SILENCE_S):
                return await (await execute(connection, statement)).fetchall()
        except psycopg.Error as error:
            raise translate_read(error) from error
        except TimeoutError as error:
            raise timed_out("read", SILENT) from error
        finally:
            await self._pool.give_back(connection)

    async def _fetch_together(self, batch: list[_Waiting]) -> None:
        try:
            connection = await self._pool.take("read")
        except DalError as error:
            for waiting in batch:
                _fail(waiting, copy(error))
            return
        refused: Exception | None = None
        try:
            async with asyncio.timeout(SILENCE_S):
                await _pipeline(connection, batch)
        except TimeoutError:
            for waiting in batch:
                _fail(waiting, timed_out("read", SILENT))
        except Exception as error:  # of whatever kind: others would wait for ever for one that nobody has thought of
            refused = error
        finally:
            lost = connection.closed
            await self._pool.give_back(connection)
        if refused is not None:
            await self._settle(batch, refused, lost=lost)

    async def _settle(self, batch: list[_Waiting], error: Exception, *, lost: bool) -> None:
        """Gives an answer to each read that shared a failed trip and has none yet.

        Called with no connection in hand: each read takes its own, and there may be no second one.
        """
        for waiting in batch:
            if waiting.answer.done():
                continue
            if lost and isinstance(error, psycopg.Error):
                _fail(waiting, translate_read(error))
                continue
            try:
                rows = await self._fetch_alone(waiting.statement)
            except Exception as own:
                _fail(waiting, own)
            else:
                _succeed(waiting, rows)


async def _pipeline(connection: Connection, batch: list[_Waiting]) -> None:
    async with pipeline(connection):
        cursors = [await execute(connection, w.statement) for w in batch]
        for waiting, cursor in zip(batch, cursors, strict=True):
            _succeed(waiting, await cursor.fetchall())


def _succeed(waiting: _Waiting, rows: Rows) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(rows)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
