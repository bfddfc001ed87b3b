"""Cloudflare's own tool on a local D1 database: what it does there is what our ledger has to agree with.

Each Wrangler is a project of its own in a directory: one database, one directory of migrations. It runs offline, says
nothing to anybody, and reads nothing of the user's settings. Between two commands nothing holds the database's file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from tests.engines.node import wrangler

#: As in wrangler's configuration; it appears nowhere else.
_DATABASE: Final = "00000000-0000-4000-8000-00000000d1d1"
_TIMEOUT_S: Final = 120


class WranglerError(Exception):
    """A command that failed, with what wrangler wrote."""


class Wrangler:
    """A project whose database `DB` takes its migrations from a directory. Raises EngineMissingError."""

    def __init__(self, directory: Path, migrations: Path) -> None:
        self._command = wrangler()
        self._directory = directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self.use(migrations)

    def copy(self, to: Path) -> Wrangler:
        """Another project with the same database, as it is now, and the same migrations."""
        shutil.copytree(self._directory, to)
        return Wrangler(to, self._migrations)

    def use(self, migrations: Path) -> None:
        """From now on the migrations are those of this directory."""
        self._migrations = migrations
        database = {"binding": "DB", "database_name": "app", "database_id": _DATABASE}
        settings = {
            "name": "app",
            "compatibility_date": "2025-01-01",
            "d1_databases": [{**database, "migrations_dir": str(migrations)}],
        }
        (self._directory / "wrangler.json").write_text(json.dumps(settings))

    def apply(self) -> str:
        """Applies everything that is pending; what wrangler wrote."""
        return self._d1("migrations", "apply", "DB", "--local")

    def pending(self) -> list[str]:
        """The files that wrangler would apply, in its order."""
        return re.findall(r"\d{4}_\w+\.sql", self._d1("migrations", "list", "DB", "--local"))

    def values(self, script: Path) -> list[object]:
        """The first value that each statement of a script answers."""
        found = json.loads(self._d1("execute", "DB", "--local", "--json", "--file", str(script)))
        return [next(iter(one["results"][0].values()), None) for one in found]

    def execute(self, sql: str) -> None:
        """Runs a statement; the database is there afterwards."""
        self._d1("execute", "DB", "--local", "--command", sql)

    def export(self, path: Path) -> str:
        """The database as SQL, which is also written to this file."""
        self._d1("export", "DB", "--local", "--output", str(path))
        return path.read_text("utf-8")

    @property
    def database(self) -> Path:
        """The file that holds the database: one of SQLite's, beside one that lists them all."""
        files = self._directory.glob(".wrangler/state/v3/d1/miniflare-D1DatabaseObject/*.sqlite")
        (file,) = (path for path in files if path.stem != "metadata")
        return file

    def _d1(self, *arguments: str) -> str:
        process = subprocess.Popen(
            [*self._command, "d1", *arguments],
            cwd=self._directory,
            env=_environment(self._directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=_TIMEOUT_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # workerd too, which wrangler has started
            process.communicate()
            raise
        if process.returncode:
            raise WranglerError(f"wrangler d1 {' '.join(arguments)}: {output}{errors}")
        return output


def dry_run(worker: Path, directory: Path) -> str:
    """What wrangler says of a Worker that it would deploy. Raises EngineMissingError, and WranglerError."""
    copy = shutil.copytree(worker, directory / worker.name)
    done = subprocess.run(
        [*wrangler(), "deploy", "--dry-run", "--outdir", str(directory / "out")],
        cwd=copy,
        env=_environment(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        raise WranglerError(f"wrangler deploy --dry-run: {done.stdout}{done.stderr}")
    return done.stdout


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "CI": "1",
        "NO_COLOR": "1",
        "WRANGLER_SEND_METRICS": "false",
        "WRANGLER_HIDE_BANNER": "true",  # with the banner it would ask for newer versions of itself
        "CLOUDFLARE_CF_FETCH_ENABLED": "false",
        "CLOUDFLARE_LOAD_DEV_VARS_FROM_DOT_ENV": "false",
    }
