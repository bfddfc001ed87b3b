"""The command line in this process, and as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dal.cli.app import app
from dal.factory import schema_connection
from dal.ops import JsonValue
from tests.cli.move_stores import _verified_once, stores, swift, verified
from tests.cli.schema_files import write_files
from tests.engines.postgres import PostgresServer
from tests.importing.sources import conversation, write
from tests.subjects import sqlite_with_schema

__all__ = ["_verified_once", "sqlite_with_schema", "stores", "swift", "verified"]

Command = Callable[..., Result]
#: JSON, to be looked into by a test that knows what it holds.
Document = dict[str, Any]
TIMEOUT_S = 60.0
#: How the names of settings begin that a test must not take from where it runs.
OUTSIDE = ("AWS_", "BLOB_", "COLUMNS", "D1_", "DAL_DEBUG", "DATA", "DB_", "FILE_", "MIGRATION_", "SQLITE_")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(OUTSIDE):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Command:
    """`run("chats", "list")`: the command in this process, standard output and error apart."""

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return command


@pytest.fixture
def spawn() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """`spawn("chats", "list")`: the command as a process."""

    def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command_line(*arguments),
            capture_output=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            check=False,
        )

    return process


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dal.cli", *arguments]


@pytest.fixture
def url(tmp_path: Path, run: Command) -> str:
    """A store with a few chats in it."""
    records: list[JsonValue | bytes] = [
        conversation("c-1", "What is a difference engine?", "A mechanical calculator.", title="Engines"),
        conversation("c-2", "鶏肉が好き", user="yuki"),
        conversation("nasty", "\x1b[31mred\x1b[0m [bold]not markup[/bold] \u202egnp.exe\x07", title="a\nb"),
        {"user": "ada", "facts": ["likes tea"], "profile": {"tone": "brief"}},
    ]
    address = f"sqlite:{tmp_path / 'test.db'}"
    result = run("import", str(write(tmp_path / "source", records)), "--url", address)
    assert result.exit_code == 0, result.output
    return address


def parsed(result: Result) -> JsonValue:
    """Standard output, which must be one JSON document and nothing else."""
    assert result.exit_code == 0, result.output
    value: JsonValue = json.loads(result.stdout)
    return value


def document(result: Result, *, code: int = 0) -> Document:
    """The same of a command that exits with `code`."""
    assert result.exit_code == code, result.output
    value: Document = json.loads(result.stdout)
    return value


def run_sql(url: str, statement: str) -> None:
    """Changes a database behind the tool's back."""

    async def work() -> None:
        async with schema_connection(url) as connection:
            await connection.run([(statement, ())])

    asyncio.run(work())


@pytest.fixture
def files(tmp_path: Path) -> str:
    """A directory of migrations that both engines take."""
    return str(write_files(tmp_path / "migrations"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database; the SQLite one is a file that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'database.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()


@pytest.fixture
def postgres_server_url(postgres_server: PostgresServer) -> str:
    """A database without a schema."""
    return postgres_server.create_database()
