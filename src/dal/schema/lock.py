"""One runner at a time: a leased row in the database, and the engine's own lock where it has one.

The row says who holds the lease and until when, by the server's clock alone. No task renews it in the background, for
a connection is used by one task at a time and a second one would say nothing about the first. Instead every batch of a
runner begins with the renewal (`Lease.guard`), and that statement is refused when the lease has gone to somebody else:
a runner that slept for an hour, or a batch that arrives late, does nothing at all.

- A file in a transaction: the guard's row lock (PostgreSQL) or the write lock (SQLite) is held to its end, so nobody
  takes over while it runs, however long. On D1 a batch is atomic and alone.
- A statement outside a transaction runs without a row lock and may outlast the lease. On PostgreSQL the session's
  advisory lock, which is taken *before* the row and given back after it, keeps others away as long as the session
  lives, and vanishes with it. It is polled: waiting inside it would hold a snapshot, for which CREATE INDEX
  CONCURRENTLY waits, which is a deadlock. On SQLite such a statement (VACUUM) holds the file itself.
- Each taking has an owner of its own, so that what a former taking has left under way is refused as well.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final, NamedTuple
from uuid import uuid4

from dal.errors import DalError, DalTimeoutError, SchemaError, UnavailableError
from dal.limits import SCHEMA_LEASE_S, SCHEMA_RETRY_FIRST_S
from dal.schema.connection import Connection, EngineName, Run, StatementError
from dal.schema.ledger import NOW
from dal.schema.patience import is_busy

_LATER: Final[dict[EngineName, str]] = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?)",
    "postgresql": "clock_timestamp() + CAST(%s AS INTERVAL)",
}
_LONG_AGO: Final = "'1970-01-01T00:00:00.000Z'"


class LeaseLostError(Exception):
    """Another runner has taken over. Never seen by callers."""


class Holder(NamedTuple):
    """Who has the lease, since when (server's clock, UTC), and whether it has run out."""

    owner: str
    name: str
    since: str
    expired: bool


class Lease:
    """The right to migrate, as long as `guard` is not refused."""

    def __init__(self, engine: EngineName, lease_s: float) -> None:
        self.owner = uuid4().hex
        self._engine: EngineName = engine
        self._span = f"+{lease_s:g} seconds"

    def guard(self) -> Run:
        """Renews the lease; refused (owner cannot be NULL) when it is somebody else's."""
        return _run(
            self._engine,
            "UPDATE dal_migration_lock SET owner = CASE WHEN owner = ? THEN owner END, expires_at = {later} "
            "WHERE id = 1",
            self.owner,
            self._span,
        )

    def take(self, former: str) -> Run:
        """Takes it where it is free or has run out, or is the one that this runner held before."""
        return _run(
            self._engine,
            "INSERT INTO dal_migration_lock (id, owner, holder, acquired_at, expires_at) "
            "VALUES (1, ?, ?, {now}, {later}) "
            "ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, holder = excluded.holder, "
            "acquired_at = excluded.acquired_at, expires_at = excluded.expires_at "
            "WHERE dal_migration_lock.expires_at <= {now} OR dal_migration_lock.owner = ?",
            self.owner,
            f"process {os.getpid()} on {socket.gethostname()}",
            self._span,
            former,
        )

    def release(self) -> Run:
        """Gives it back. The row stays, without an owner, so that a guard that comes late is refused."""
        return _run(
            self._engine,
            "UPDATE dal_migration_lock SET owner = '', expires_at = {long_ago} WHERE id = 1 AND owner = ?",
            self.owner,
        )


@asynccontextmanager
async def held(
    connection: Connection, *, wait_s: float, on_wait: Callable[[str], None], former: str = ""
) -> AsyncIterator[Lease]:
    """The lease, waited for where another runner has it.

    on_wait  told who has it.
    former   owner of a lease that this runner held and may have lost.
    Raises   DalTimeoutError: another runner had it all the time.
    """
    lease = Lease(connection.engine, SCHEMA_LEASE_S)
    started = monotonic()
    while not await _taken(connection, lease, former):
        holder = await _holder(connection)
        who = f"{holder.name}, since {holder.since}" if holder is not None and holder.owner else "another runner"
        waited_s = monotonic() - started
        if waited_s > wait_s:
            raise DalTimeoutError(
                f"{connection.address}: {who}, has held the migration lock for {waited_s:.0f} s; "
                "see whether it still runs, and try again",
                operation="schema.lock",
            )
        on_wait(who)
        await asyncio.sleep(random.uniform(1, 3) * SCHEMA_RETRY_FIRST_S)  # noqa: S311
    try:
        yield lease
    finally:
        # Where this fails the lease runs out by itself.
        with suppress(StatementError, DalError):
            await connection.run([lease.release()])
        with suppress(StatementError, DalError):
            await connection.end_exclusive()


async def is_lost(connection: Connection, lease: Lease) -> bool:
    """Whether somebody else has it: for engines that do not say which statement was refused."""
    holder = await _holder(connection)
    return holder is None or holder.owner != lease.owner


async def _taken(connection: Connection, lease: Lease, former: str) -> bool:
    if not await connection.try_exclusive():
        return False
    taken = False
    try:
        holder = await _holder(connection)
        if holder is not None and holder.owner == lease.owner:  # taken, and then it could not be read
            taken = True
            return True
        if holder is not None and not holder.expired and holder.owner != former:
            return False
        try:
            await connection.run([lease.take(former)])
        except StatementError as error:
            if not is_busy(error):
                raise SchemaError(
                    f"{connection.address}: the migration lock cannot be taken: {error.reason}", operation="schema.lock"
                ) from error
            return False
        except UnavailableError as error:
            if error.outcome != "unknown":
                raise
        taken = not await is_lost(connection, lease)
        return taken
    finally:
        if not taken:
            await connection.end_exclusive()


async def _holder(connection: Connection) -> Holder | None:
    since = "acquired_at" if connection.engine == "sqlite" else "(acquired_at AT TIME ZONE 'UTC')::text"
    sql = (
        f"SELECT owner, holder, {since}, CASE WHEN expires_at <= {NOW[connection.engine]} THEN 1 ELSE 0 END "  # noqa: S608
        "FROM dal_migration_lock WHERE id = 1"
    )
    try:
        rows = await connection.fetch(sql)
    except DalTimeoutError:  # a writer of SQLite in its last moments lets nobody read
        return Holder("?", "another writer", "now", expired=False)
    return Holder(str(rows[0][0]), str(rows[0][1]), str(rows[0][2]), bool(rows[0][3])) if rows else None


def _run(engine: EngineName, sql: str, *params: object) -> Run:
    whole = sql.format(now=NOW[engine], later=_LATER[engine], long_ago=_LONG_AGO)
    return (whole if engine == "sqlite" else whole.replace("?", "%s")), params
