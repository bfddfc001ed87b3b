"""PostgreSQL for `dal.schema`: one connection of its own, outside the pool, on which migrations run.

A batch goes down in one trip and its COMMIT in another, so that locks are held for as short as can be and only a lost
COMMIT leaves its outcome unknown. No statement is limited in time, but waiting for a lock is: an ALTER TABLE that
queues behind a long query stops everybody who comes after it. Statements with CONCURRENTLY are the exception: they
wait for old transactions without standing in anybody's way, and lock_timeout would cut just that wait short and leave
an invalid index. What a batch sets in the session (`SET search_path …`, as pg_dump writes it) does not reach the next;
what `run_alone` is told to set holds for everything after it, until it is told `RESET ALL`.

Through a pooler one may look (`fetch`) and not touch: session locks and settings mean nothing there, and pg_dump would
leave its own in connections that the application gets next.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus, TransactionStatus

from dal.backends.postgresql.adapters import adapters
from dal.backends.postgresql.address import Address, parse_address
from dal.backends.postgresql.connecting import greet
from dal.backends.postgresql.errors import BACKEND, closed, translate
from dal.backends.postgresql.guard import Guard
from dal.backends.postgresql.pool import Connection
from dal.backends.postgresql.refusals import is_lost, read_refusal, refusal
from dal.backends.postgresql.session import pipeline, roll_back
from dal.errors import ConfigurationError, DalError
from dal.limits import MIGRATION_LOCK_TIMEOUT_S
from dal.schema.connection import EngineName, Place, Reader, Run, StatementError

#: The session's defaults: `RESET ALL` comes back to them. Keepalives let the server notice a dead runner within a
#: minute and give its locks back; on a Unix socket it notices anyway.
_OPTIONS: Final = (
    f"-c statement_timeout=0 -c lock_timeout={int(MIGRATION_LOCK_TIMEOUT_S * 1000)} "
    "-c idle_in_transaction_session_timeout=0 -c standard_conforming_strings=on "
    "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
)
_OPTIONS_SINCE: Final = ((140000, " -c idle_session_timeout=0"), (170000, " -c transaction_timeout=0"))
#: The same from our side: a server that is gone without a word is noticed in the middle of a long statement.
_KEEPALIVES: Final = {"keepalives_idle": "20", "keepalives_interval": "10", "keepalives_count": "3"}
#: What the server may not have or not allow: to look for the runner in the middle of a long statement (PostgreSQL 14,
#: and not on every system), and to have what was committed on the disk whatever the database's own settings are.
_DEFAULTS: Final = (
    "SET client_connection_check_interval = '5s'",
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)
_RESET: Final = ("RESET SESSION AUTHORIZATION", "RESET ROLE", "RESET ALL")
_FORGET: Final = re.compile(r"\s*RESET\s+ALL\b", re.IGNORECASE)
_RESET_ALL: Final = re.compile(r"\s*RESET\s+ALL\b", re.IGNORECASE)
#: Behind what a file sets, the schema where the ledger is, so that the ledger is found.
_KEEP_HOME: Final = (
    "SELECT set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), %s::text), false)"
)
_WAIT_FOR_EVER: Final = "SET lock_timeout = 0"

#: Key of the lock for migrations: "dal" and the schema whose ledger is at stake; such locks are the database's own.
_LOCK_CLASS: Final = 0x0064616C
_KEY: Final = f"{_LOCK_CLASS}, hashtext(coalesce(current_schema(), ''))"

_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_CONCURRENTLY: Final = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
_SETTING: Final = re.compile(
    r"\s*(?:(?:SET|RESET)\b(?!\s+(?:LOCAL|CONSTRAINTS|TRANSACTION)\b)|SELECT\s+(?:pg_catalog\s*\.\s*)?set_config\b)",
    re.IGNORECASE,
)
#: What cannot be one of several statements in a transaction of ours, found before anything is sent.
_COPY: Final = re.compile(r"\s*COPY\b.*\b(?:STDIN|STDOUT)\b", re.IGNORECASE | re.DOTALL)
_CONTROL: Final = re.compile(
    r"\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!(?:\s+\w+)?\s+TO\b))\b",
    re.IGNORECASE,
)
_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


@asynccontextmanager
async def open_schema(conninfo: str) -> AsyncIterator[PostgresSchemaConnection]:
    """The database at this URL or keyword string, for `dal.schema`, until the block ends.

    Raises  ConfigurationError, UnavailableError: it cannot be reached.
    """
    address = parse_address(conninfo, application_name="dal schema")
    connection = await connect(address)
    try:
        yield connection
    finally:
        await connection.close()


async def connect(address: Address, *, guard: Guard | None = None) -> PostgresSchemaConnection:
    """The opened connection; whoever asks closes it. Raises ConfigurationError and UnavailableError.

    guard  refuses statements of `run` and `run_alone`, for a schema that stands in for a database.
    """
    server = await greet(address)
    given = conninfo_to_dict(address.conninfo)
    more = "".join(option for since, option in _OPTIONS_SINCE if server.version >= since)
    options = address.conninfo if server.pooled else address.with_options(_OPTIONS + more)
    try:
        connection: Connection = await psycopg.AsyncConnection.connect(
            make_conninfo(options, **{name: value for name, value in _KEEPALIVES.items() if name not in given}),
            autocommit=True,
            prepare_threshold=None,
            context=adapters(),
        )
    except psycopg.Error as error:
        found = translate(error, "open")
        raise found if isinstance(found, DalError) else closed("open") from error
    opened = PostgresSchemaConnection(connection, address, pooled=server.pooled, guard=guard)
    try:
        await opened.settle()
    except BaseException:
        await opened.close()
        raise
    return opened


class PostgresSchemaConnection:
    """One database to be migrated, as `dal.schema.connection` promises. Verbs of several tasks wait for one another."""

    def __init__(self, connection: Connection, address: Address, *, pooled: bool, guard: Guard | None = None) -> None:
        self._connection = connection
        self._address = address
        self._pooled = pooled
        self._guard = guard
        self._turn = asyncio.Lock()
        self._exclusive = False
        self._defaults: list[str] = []
        self._settings: list[str] = []  # what `run_alone` was told to set
        self._home: str | None = None  # where the ledger is, quoted

    @property
    def engine(self) -> EngineName:
        return "postgresql"

    @property
    def place(self) -> Place:
        return "postgresql"

    @property
    def address(self) -> str:
        return self._address.label

    @property
    def backup_suffix(self) -> str:
        return ".dump"

    @property
    def confined(self) -> bool:
        """A scratch that is only a schema of the real database; some statements are refused in it."""
        return self._guard is not None

    @property
    def driver(self) -> Connection:
        """For this backend's own modules."""
        return self._connection

    @property
    def target(self) -> Address:
        """For this backend's own modules."""
        return self._address

    async def settle(self) -> None:
        """Finds out what this server can set."""
        for setting in () if self._pooled else _DEFAULTS:
            try:
                await self._connection.execute(setting.encode())
                self._defaults.append(setting)
            except psycopg.Error as error:
                if is_lost(error):
                    raise refusal(error, None, sent=False) from error

    async def close(self) -> None:
        """Closes the connection; the lock goes with it."""
        await self._connection.close()

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        async with self._turn:
            try:
                return await (await self._connection.execute(sql.encode(), params or None)).fetchall()
            except psycopg.Error as error:
                raise read_refusal(error) from error

    async def explain(self, sql: str) -> Sequence[tuple[object, ...]]:
        async with self._turn:
            try:
                async with self._connection.transaction(force_rollback=True):
                    await self._connection.execute("SET LOCAL enable_seqscan = off")
                    cursor = await self._connection.execute(b"EXPLAIN (FORMAT JSON) " + sql.encode())
                    return [(json.dumps(plan),) for (plan,) in await cursor.fetchall()]
            except psycopg.Error as error:
                raise read_refusal(error) from error

    async def run(self, statements: Sequence[Run], *, foreign_keys: bool = True) -> None:
        del foreign_keys  # an ALTER TABLE does here what takes a rebuild elsewhere
        self.require_direct("run a migration")
        for index, (sql, _) in enumerate(statements):
            self._require_fit(index, sql, inside=True)
        async with self._turn:
            try:
                await self._set()
                await self._send(statements)
                await self._commit()
            except BaseException:
                await self._undo()
                raise
            finally:
                if self._settings or any(_SETTING.match(sql) for sql, _ in statements):
                    await self._reset()

    async def run_alone(self, sql: str) -> None:
        self.require_direct("run a migration")
        self._require_fit(0, sql, inside=False)
        async with self._turn:
            if _SETTING.match(sql):
                await self._remember(sql)
                return
            waits = _CONCURRENTLY.search(_QUOTED.sub(" ", sql)) is not None
            try:
                await self._set(*([_WAIT_FOR_EVER] if waits else []))
                await self._alone(sql)
            finally:
                if waits or self._settings:
                    await self._reset()

    async def try_exclusive(self) -> bool:
        self.require_direct("lock the database for migrations")
        if self._connection.closed:
            # Who asks for the lock again after an answer was lost wants to know what became of it.
            fresh = await connect(self._address, guard=self._guard)
            self._connection, self._exclusive = fresh.driver, False
        if not self._exclusive:
            self._exclusive = (await self.fetch(f"SELECT pg_try_advisory_lock({_KEY})"))[0][0] is True
        return self._exclusive

    async def end_exclusive(self) -> None:
        if self._exclusive:
            self._exclusive = False
            async with self._turn:
                try:
                    await self._connection.execute(f"SELECT pg_advisory_unlock({_KEY})".encode())
                except psycopg.Error:
                    await self._connection.close()  # it is gone, or it goes now, and the lock with it

    def scratch(self) -> AbstractAsyncContextManager[PostgresSchemaConnection]:
        from dal.backends.postgresql.scratch import scratch

        return scratch(self)

    async def dump(self, path: Path, *, look: Callable[[Reader], Awaitable[None]] | None = None) -> None:
        from dal.backends.postgresql.dump import dump

        await dump(self, path, look=look)

    async def load(self, path: Path) -> None:
        from dal.backends.postgresql.dump import load

        await load(self, path)

    def neighbour(
        self, *, options: str = "", dbname: str | None = None, application_name: str | None = None
    ) -> Address:
        """The address of another connection to this very server (not another of several hosts), with the password that
        was good for it. `options` come behind the caller's own and win."""
        info, given = self._connection.info, conninfo_to_dict(self._address.conninfo)
        changed = {
            "host": info.host,
            "hostaddr": info.hostaddr if given.get("hostaddr") else None,
            "port": str(info.port),
            "dbname": dbname,
            "password": info.password or None,
            "options": f"{given.get('options') or ''} {options}".strip() or None,
            "application_name": application_name,
        }
        conninfo = make_conninfo(self._address.conninfo, **{key: value for key, value in changed.items() if value})
        label = f"postgresql://{info.host}:{info.port}/{dbname or info.dbname}"
        return replace(self._address, conninfo=conninfo, label=label)

    async def command(self, sql: str) -> None:
        """One statement of this backend's own, outside any transaction. Raises as `run_alone`."""
        async with self._turn:
            await self._alone(sql)

    def require_direct(self, what: str) -> None:
        """Raises ConfigurationError behind a pooler."""
        if self._pooled:
            raise ConfigurationError(
                f"{self.address} is answered by a connection pooler, through which one cannot {what}: locks and "
                "settings of a session do not hold there; give --url the address of the server itself",
                operation="schema",
                backend=BACKEND,
            )

    # -----------------------------------------------------------------------------------------------------------------

    def _require_fit(self, index: int, sql: str, *, inside: bool) -> None:
        if _COPY.match(_QUOTED.sub(" ", sql) if sql[:4].upper() == "COPY" else sql):
            raise StatementError(index, "COPY takes its rows from psql here; a migration writes INSERT")
        if inside and _CONTROL.match(sql):
            raise StatementError(index, "the statement would end the transaction in which the file is run")
        if self._guard is not None:
            self._guard.require_inside(index, sql)

    async def _send(self, statements: Sequence[Run]) -> None:
        """BEGIN and the statements, in one trip; the transaction is open on return."""
        cursors: list[psycopg.AsyncCursor[tuple[object, ...]]] = []
        try:
            async with pipeline(self._connection):
                await self._connection.execute("BEGIN")
                for sql, params in statements:
                    cursors.append(self._connection.cursor())
                    await cursors[-1].execute(sql.encode(), params or None)
        except psycopg.Error as error:
            raise refusal(error, _refused(cursors), sent=False) from error
        if self._connection.info.transaction_status != TransactionStatus.INTRANS:
            raise StatementError(None, "a statement ended the transaction itself; what came before it may be there")

    async def _commit(self) -> None:
        try:
            await self._connection.execute("COMMIT")
        except psycopg.Error as error:
            raise refusal(error, None, sent=True) from error

    async def _undo(self) -> None:
        await roll_back(self._connection)
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            await self._connection.close()

    async def _remember(self, setting: str) -> None:
        if self._home is None:
            ((home,),) = await self._control("SELECT quote_ident(coalesce(current_schema(), 'public'))")
            self._home = str(home)
        await self._alone(setting)
        self._settings = [] if _RESET_ALL.match(setting) else [*self._settings, setting]
        await self._reset()

    async def _set(self, *first: str) -> None:
        """Sets what `run_alone` was told to set."""
        for setting in (*first, *self._settings):
            await self._control(setting)
        if any("search_path" in setting.lower() for setting in self._settings):
            await self._control(_KEEP_HOME, self._home)

    async def _control(self, sql: str, *params: object) -> list[tuple[object, ...]]:
        try:
            cursor = await self._connection.execute(sql.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise refusal(error, None, sent=False) from error

    async def _alone(self, sql: str) -> None:
        sent = not self._connection.closed
        try:
            await self._connection.execute(sql.encode())
        except psycopg.Error as error:
            raise refusal(error, 0, sent=sent) from error

    async def _reset(self) -> None:
        """The session as it was opened."""
        try:
            for statement in (*_RESET, *self._defaults):
                await self._connection.execute(statement.encode())
        except BaseException as error:
            await self._connection.close()
            if not isinstance(error, psycopg.Error):
                raise


def _refused(cursors: Sequence[psycopg.AsyncCursor[tuple[object, ...]]]) -> int | None:
    for index, cursor in enumerate(cursors):
        if cursor.pgresult is None or cursor.pgresult.status not in _DONE:
            return index
    return None
