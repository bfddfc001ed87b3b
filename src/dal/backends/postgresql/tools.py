"""PostgreSQL's own programs: where they are, and how they are told whom to connect to.

pg_dump refuses a server newer than itself, and what a much newer one writes an old server may not read; so the oldest
set that is not older than the server is taken. Everything about the connection goes through the environment, the
password included: a command line is for all to see.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import pq

from dal.backends.postgresql.errors import BACKEND
from dal.errors import ConfigurationError

_NAMES: Final = ("pg_dump", "pg_restore", "psql")
#: Packages of Debian, of the PostgreSQL project for RPM systems, of Homebrew.
_INSTALLED: Final = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
)
_VERSION: Final = re.compile(r"\(PostgreSQL\)\D*(\d+)")
#: Debian's chooser of versions, which would choose again by its own lights each time it runs.
_WRAPPER: Final = "pg_wrapper"
#: Of libpq's secrets, those that no environment variable can carry.
_UNSPEAKABLE: Final = ("sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret")
_PATIENCE_S: Final = 10.0


class Tools(NamedTuple):
    """One version's programs."""

    major: int
    pg_dump: Path
    pg_restore: Path
    psql: Path


def find_tools(server_version: int) -> Tools:
    """Those that fit a server of this version (150013 for 15.13). Raises ConfigurationError, saying what to install."""
    wanted = server_version // 10000
    found = [tools for directory in _directories() if (tools := _tools_in(directory)) is not None]
    fitting = [tools for tools in found if tools.major >= wanted]
    if fitting:
        return min(fitting, key=lambda tools: tools.major)
    seen = ", ".join(str(major) for major in sorted({tools.major for tools in found})) or "none"
    raise ConfigurationError(
        f"a backup of this server takes pg_dump, pg_restore and psql of PostgreSQL {wanted} or later (found: {seen}); "
        f"install postgresql-client-{wanted}, or put the programs on PATH",
        operation="backup",
        backend=BACKEND,
    )


def environment(connection: psycopg.AsyncConnection[Any]) -> dict[str, str]:
    """What makes libpq in a child connect as this connection did, to the host it found. Holds the password."""
    info = connection.info
    given = info.get_parameters()
    for name in _UNSPEAKABLE:
        if given.get(name):
            raise ConfigurationError(
                f"{name} cannot be handed to pg_dump out of sight; use a key without a passphrase, or a password",
                operation="backup",
                backend=BACKEND,
            )
    given |= {"host": info.host, "port": str(info.port), "user": info.user, "dbname": info.dbname}
    if "hostaddr" in given:
        given["hostaddr"] = info.hostaddr
    if info.password:
        given["password"] = info.password
    variables = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
    # A service's settings would win over variables; they are among `given` already.
    found = {name: value for name, value in os.environ.items() if name not in ("PGSERVICE", "PSQLRC", "PSQL_HISTORY")}
    for name, value in given.items():
        variable = variables.get(name)
        if variable and name != "service":
            found[variable.decode()] = str(value)
    return found


def _directories() -> Iterator[Path]:
    for root, pattern in _INSTALLED:
        yield from sorted(Path(root).glob(pattern))
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if directory:
            yield Path(directory)
    config = shutil.which("pg_config")
    if config and Path(config).resolve().name != _WRAPPER:
        yield Path(_output(config, "--bindir").strip() or os.curdir)


def _tools_in(directory: Path) -> Tools | None:
    paths = [directory / name for name in _NAMES]
    if not all(os.access(path, os.X_OK) and path.resolve().name != _WRAPPER for path in paths):
        return None
    version = _VERSION.search(_output(paths[0], "--version"))
    return Tools(int(version[1]), *paths) if version else None


def _output(program: str | Path, argument: str) -> str:
    try:
        done = subprocess.run([program, argument], capture_output=True, text=True, timeout=_PATIENCE_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
