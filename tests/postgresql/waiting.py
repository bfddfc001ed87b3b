"""Waiting for a state of the server, seen from a connection of its own; never for time to pass."""

from __future__ import annotations

import asyncio

import psycopg

TIMEOUT_S = 30.0


async def until(url: str, condition: str, *params: object) -> None:
    """Returns when the SELECT's first value is true, whoever brought it about."""
    async with asyncio.timeout(TIMEOUT_S), await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            row = await (await connection.execute(condition.encode(), params or None)).fetchone()
            if row is not None and row[0]:
                return


#: Sessions of the schema engine that wait for a lock. A statement, so that callers can count or end them.
WAITING = (
    "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND application_name = 'dal schema'"
)
ONE_WAITS = f"SELECT count(*) = 1 {WAITING}"
CUT_IT = f"SELECT count(pg_terminate_backend(pid)) = 1 {WAITING}"
