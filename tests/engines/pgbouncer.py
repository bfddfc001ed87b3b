"""PgBouncer in transaction mode before a PostgreSQL server, from Debian's package, with few server connections.

Every transaction may get another server connection, which is what shows whether anything is left in a session.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.engines import child
from tests.engines.postgres import START_TIMEOUT_S, EngineMissingError

_SERVER_CONNECTIONS = 3


class PgBouncer:
    """A pooler of this test's own, in front of the database at `url`."""

    def __init__(self, url: str) -> None:
        binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise EngineMissingError("no pgbouncer on PATH; Debian's package is called pgbouncer")
        self.directory = child.private_directory("dal-pgb-")
        self._log = (self.directory / "log").open("ab")
        target = conninfo_to_dict(url)
        port = child.free_port()
        settings = self.directory / "pgbouncer.ini"
        settings.write_text(
            # auth_type any: everybody is let in, as the user that the database's line names.
            f"[databases]\n* = host={target['host']} port={target['port']} user={target['user']}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {_SERVER_CONNECTIONS}\nmax_client_conn = 300\n"
        )
        child.give_to_child(settings)
        self.url = f"postgresql://anybody@127.0.0.1:{port}/{target['dbname']}"
        self._process: subprocess.Popen[bytes] | None = child.start(
            [Path(binary), settings], cwd=self.directory, log=self._log, stop_signal=signal.SIGKILL
        )
        self._wait()

    def close(self) -> None:
        if self._process is not None:
            child.stop(self._process, signal.SIGTERM)
            self._process = None
        self._log.close()
        child.remove(self.directory)

    def version(self) -> tuple[int, ...]:
        """As (1, 18, 0)."""
        with psycopg.connect(
            f"{self.url.rsplit('/', 1)[0]}/pgbouncer", autocommit=True, prepare_threshold=None
        ) as admin:
            row = admin.execute("SHOW VERSION").fetchone()
        assert row is not None
        return tuple(int(part) for part in str(row[0]).split()[1].split("."))

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                    said = (self.directory / "log").read_text(errors="replace")[-600:]
                    self.close()
                    raise EngineMissingError(f"pgbouncer did not start: {said or error}") from error
                time.sleep(0.01)  # a server that starts has nothing to wait on but its answers
