"""A real D1 for tests and benchmarks: workerd, the engine that hosted D1 runs on, behind D1's own REST API.

`D1Engine()` starts it on a free loopback port with a worker of ours (`d1/worker.mjs`), which needs no Node. Databases
are the unit of isolation and cost a millisecond: every test asks for one of its own. Faults are asked for by database:
answers lost before or after the commit, errors, pages of HTML, delays, connections that break off. The engine can be
killed and started again on the same data and port. `python -m tests.engines.d1` prints the settings of a fresh database
and keeps the engine up until standard input closes or Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import httpx

from tests.engines import child, node
from tests.engines.postgres import START_TIMEOUT_S, EngineMissingError

BINARY_VARIABLE: Final = "WORKERD_BIN"
_SOURCE: Final = Path(__file__).parent / "d1"
#: Tables with rows of tests: not the ledger, not those that a virtual table keeps for itself, not the engine's own.
TABLES: Final = """
SELECT name FROM sqlite_master AS m WHERE type = 'table' AND name NOT IN ('d1_migrations', 'dal_migration_details')
AND name NOT LIKE '\\_cf%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND NOT EXISTS (
SELECT 1 FROM sqlite_master AS v WHERE v.sql LIKE 'CREATE VIRTUAL %' AND m.name LIKE v.name || '\\_%' ESCAPE '\\')
"""


class D1Database(NamedTuple):
    """One database, and how a store of it is configured."""

    base: str
    account: str
    token: str
    id: str

    @property
    def url(self) -> str:
        return f"d1://{self.account}/{self.id}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs beside the URL."""
        return {"D1_API_TOKEN": self.token, "D1_API_BASE": self.base}

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs that is given no URL."""
        return {"D1_ACCOUNT_ID": self.account, "D1_DATABASE_ID": self.id, **self.environment}


class D1Engine:
    """workerd of our own, in a directory that goes away with it. Raises EngineMissingError where it cannot start."""

    def __init__(self) -> None:
        self._binary = find_binary()
        self.account, self.token = secrets.token_hex(16), f"token-{secrets.token_hex(16)}"
        self.directory = child.private_directory("dal-d1-")
        # The engine may run as another user, who must be able to read its worker.
        self._source = Path(shutil.copytree(_SOURCE, self.directory / "worker"))
        (self.directory / "data").mkdir()
        for path in (self._source, *self._source.iterdir(), self.directory / "data"):
            child.give_to_child(path)
        self._log: IO[bytes] = (self.directory / "log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = child.free_port()
        self._shared: D1Database | None = None
        self._tables: list[str] = []
        self._client = httpx.Client(headers={"authorization": f"Bearer {self.token}"}, timeout=START_TIMEOUT_S)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/client/v4"

    def start(self) -> None:
        """Starts the engine on its port and data, and waits until it answers."""
        command: list[str | Path] = [
            *(self._binary, "serve", self._source / "engine.capnp"),
            f"--socket-addr=http=127.0.0.1:{self.port}",
            f"--directory-path=storage={self.directory / 'data'}",
        ]
        settings = {"D1_ENGINE_ACCOUNT": self.account, "D1_ENGINE_TOKEN": self.token}
        self._process = child.start(
            command, cwd=self.directory, log=self._log, stop_signal=signal.SIGKILL, settings=settings
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineMissingError(f"workerd did not start: {self.log_tail()}")
            time.sleep(0.01)  # a server that starts has nothing to wait on but its answers

    def kill(self) -> None:
        """A crash: the engine ends at once, whatever it was doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def close(self) -> None:
        self.kill()
        self._client.close()
        self._log.close()
        child.remove(self.directory)

    def create_database(self, name: str | None = None) -> D1Database:
        """A new, empty database."""
        made = self._call("POST", self._databases, {"name": name or f"test-{secrets.token_hex(8)}"})
        return D1Database(self.base, self.account, self.token, made["uuid"])

    def emptied_database(self, schema: Sequence[str]) -> D1Database:
        """One database of this engine, with the schema that these statements make and no row from any test before.

        Always the same statements. A third of the work of a new one; for whoever leaves its schema and faults alone.
        """
        if self._shared is None:
            self._shared = self.create_database()
            self.query(self._shared, *schema)
            self._tables = [name for (name,) in self.query(self._shared, TABLES)]
        deleting = [f'DELETE FROM "{name}"' for name in self._tables]
        self.query(self._shared, "PRAGMA defer_foreign_keys = on", *deleting)
        return self._shared

    def drop_database(self, database: D1Database) -> None:
        self._call("DELETE", f"{self._databases}/{database.id}")

    def names(self) -> list[str]:
        """The names of all databases."""
        return [found["name"] for found in self._call("GET", self._databases)]

    def query(self, database: D1Database, *statements: str, params: list[object] | None = None) -> list[list[Any]]:
        """Runs statements as one batch, past any client of ours; the rows of the last one."""
        batch = [{"sql": sql, "params": params or []} for sql in statements]
        result = self._call("POST", f"{self._databases}/{database.id}/raw", {"batch": batch})
        rows: list[list[Any]] = result[-1]["results"]["rows"]
        return rows

    def copy_of(self, database: D1Database) -> list[str]:
        """Statements that make the tables of this database, and its migration ledger, in another one."""
        found = self.query(
            database,
            # Tables that a virtual table brings come with it; workerd's own stay out.
            "SELECT sql FROM sqlite_master AS m WHERE sql IS NOT NULL AND name NOT LIKE '\\_cf%' ESCAPE '\\' "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND NOT EXISTS (SELECT 1 FROM sqlite_master AS v "
            "WHERE v.sql LIKE 'CREATE VIRTUAL %' AND m.name LIKE v.name || '\\_%' ESCAPE '\\' AND m.type = 'table') "
            "ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 ELSE 2 END, rowid",
        )
        ledger = [self.query(database, f"SELECT name FROM {table} ORDER BY 1") for table in ("d1_migrations",)]
        names = [row[0] for rows in ledger for row in rows]
        return [sql for (sql,) in found] + [f"INSERT INTO d1_migrations (name) VALUES ('{name}')" for name in names]

    def faults(self, database: D1Database, *faults: Mapping[str, object]) -> None:
        """What befalls the next queries of this database, as d1/worker.mjs describes it; none takes the rest away."""
        self._call("POST", f"http://127.0.0.1:{self.port}/faults/{database.id}", list(faults))

    def requests(self, database: D1Database) -> int:
        """How many query requests this database was sent since it woke up."""
        count: int = self._call("GET", f"http://127.0.0.1:{self.port}/requests/{database.id}")
        return count

    def log_tail(self, size_bytes: int = 600) -> str:
        return (self.directory / "log").read_bytes()[-size_bytes:].decode(errors="replace").strip()

    @property
    def _databases(self) -> str:
        return f"{self.base}/accounts/{self.account}/d1/database"

    def _call(self, method: str, url: str, body: object = None) -> Any:
        answer = self._client.request(method, url, json=body)
        found = answer.json()
        if not found["success"]:
            raise RuntimeError(f"{method} {url}: {found['errors']}")
        return found["result"]

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._client.get(f"http://127.0.0.1:{self.port}/health").status_code == httpx.codes.OK
        return False


def find_binary(environ: Mapping[str, str] = os.environ) -> Path:
    """workerd as WORKERD_BIN names it, else from npm. Raises EngineMissingError."""
    named = environ.get(BINARY_VARIABLE)
    if not named:
        return node.workerd()
    if not os.access(named, os.X_OK):
        raise EngineMissingError(f"{BINARY_VARIABLE}={named} is no program")
    return Path(named).resolve()


def main() -> int:
    try:
        engine = D1Engine()
    except EngineMissingError as error:
        print(f"ENGINE NOT TESTED: d1 ({error})", file=sys.stderr)
        return 1
    try:
        database = engine.create_database()
        for name, value in database.environment.items():
            print(f"{name}={value}")
        print(f"DAL_URL={database.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    finally:
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
