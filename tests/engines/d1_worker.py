"""The companion Worker on a real D1 binding: examples/d1-worker in Miniflare, which npm brings with wrangler.

`D1WorkerEngine()` starts it on a free loopback port with one database, and ends it with the tests. Tests share that
database: `clean` takes every row of theirs out of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import time
import tomllib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import httpx

from dal.config import Settings
from tests.engines import child, node
from tests.engines.d1 import TABLES
from tests.engines.postgres import START_TIMEOUT_S, EngineMissingError

SOURCE: Final = Path(__file__).parents[2] / "examples" / "d1-worker"
_BESIDE: Final = Path(__file__).parent / "worker"


class D1WorkerEngine:
    """The Worker with a database of its own. Raises EngineMissingError where it cannot start.

    has_token  False: the Worker is given no secret, as when somebody forgot it.
    """

    def __init__(self, *, has_token: bool = True) -> None:
        program, modules = node.miniflare()
        self.account, self.database = secrets.token_hex(16), str(uuid.uuid4())
        self.token = f"token-{secrets.token_hex(16)}"
        self.directory = child.private_directory("dal-d1-worker-")
        self._log: IO[bytes] = (self.directory / "log").open("ab")
        self.port = child.free_port()
        self._tables: list[str] = []
        # The engine may run as another user, who must be able to read its worker.
        for source in (SOURCE / "worker.mjs", *_BESIDE.iterdir()):
            child.give_to_child(Path(shutil.copy(source, self.directory)))
        given = {
            "modules": str(modules),
            "directory": str(self.directory),
            "port": self.port,
            "date": tomllib.loads((SOURCE / "wrangler.toml").read_text())["compatibility_date"],
            "bindings": {"DATABASE_ID": self.database, **({"TOKEN": self.token} if has_token else {})},
            "database": self.database,
        }
        self._client = httpx.Client(headers={"authorization": f"Bearer {self.token}"}, timeout=START_TIMEOUT_S)
        self._process = child.start(
            [program, self.directory / "serve.mjs", json.dumps(given)],
            cwd=self.directory,
            log=self._log,
            stop_signal=signal.SIGTERM,
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """What D1_WORKER_URL is set to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def store_url(self) -> str:
        return f"d1://{self.account}/{self.database}"

    @property
    def raw(self) -> str:
        """The one address that the Worker answers at."""
        return f"{self.url}/accounts/{self.account}/d1/database/{self.database}/raw"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs beside the URL. No API token: the Worker's own is enough."""
        return {"D1_WORKER_URL": self.url, "D1_WORKER_TOKEN": self.token}

    @property
    def settings(self) -> Settings:
        return Settings(d1_worker_url=self.url, d1_worker_token=self.token, d1_api_token=None)

    def close(self) -> None:
        child.stop(self._process, signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            # Miniflare's workerd is in the same session, and outlives a node that had to be killed.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._client.close()
        self._log.close()
        child.remove(self.directory)

    def query(self, *statements: str) -> list[list[Any]]:
        """Runs statements as one batch, past any client of ours; the rows of the last one."""
        answer = self._client.post(self.raw, json={"batch": [{"sql": sql} for sql in statements]})
        found = answer.json()
        if not found["success"]:
            raise RuntimeError(str(found["errors"]))
        rows: list[list[Any]] = found["result"][-1]["results"]["rows"]
        return rows

    def clean(self, schema: Sequence[str]) -> None:
        """The schema that these statements make, with no row in it from any test before. Always the same statements."""
        if not self._tables:
            self.query(*schema)
            self._tables = [name for (name,) in self.query(TABLES)]
        self.query("PRAGMA defer_foreign_keys = on", *(f'DELETE FROM "{name}"' for name in self._tables))

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineMissingError(f"Miniflare did not start: {self._log_tail()}")
            time.sleep(0.02)  # a server that starts has nothing to wait on but its answers

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._client.get(self.url).status_code in (401, 404)
        return False

    def _log_tail(self, size_bytes: int = 600) -> str:
        return (self.directory / "log").read_bytes()[-size_bytes:].decode(errors="replace").strip()
