"""Backups of PostgreSQL: pg_dump's custom format of one exported snapshot, and the way back in one transaction.

The way back is `pg_restore` writing a script into one `psql` that has emptied the database first; COMMIT is sent only
when pg_restore has read the whole file and psql has refused nothing. Until then others see the database as it was, or
wait. Who cancels ends the programs, and with them whatever they had begun.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg

from dal.backends.postgresql.clearing import clearing, extensions_of, without_present
from dal.backends.postgresql.errors import BACKEND
from dal.backends.postgresql.refusals import read_refusal
from dal.backends.postgresql.schema_connection import PostgresSchemaConnection, connect
from dal.backends.postgresql.tools import Tools, environment, find_tools
from dal.errors import CorruptDataError, DalError, DalTimeoutError, SchemaError, UnavailableError
from dal.limits import LOCK_TIMEOUT_S
from dal.schema.backups.new_file import make, settle
from dal.schema.connection import Reader

_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_LOCK_TIMEOUT_MS: Final = int(LOCK_TIMEOUT_S * 1000)
_PREAMBLE: Final = (
    f"BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}; "
    "SET LOCAL client_min_messages = warning;\n"
)
#: The preamble of a script of PostgreSQL 17 and later, which servers before it refuse.
_TOO_NEW: Final = b"SET transaction_timeout = 0;\n"
_TOO_NEW_SINCE: Final = 17
#: What psql says when it has run all that came before; only then is COMMIT sent.
_DONE: Final = b"\n\\echo done\n"
_HEAD_BYTES: Final = 4096
_CHUNK_BYTES: Final = 1 << 18
#: psql's answer when the connection broke, in contrast to a statement that was refused.
_CONNECTION_LOST: Final = 2
_SQLSTATE: Final = re.compile(r"^[^\n]*?\b[^\W\d]+:\s+([0-9A-Z]{5}): (.*)$", re.MULTILINE)
_BUSY: Final = frozenset({"55P03", "40P01"})
_WORDS_CHARS: Final = 600


async def dump(
    connection: PostgresSchemaConnection, path: Path, *, look: Callable[[Reader], Awaitable[None]] | None = None
) -> None:
    """Writes the database to a new file, mode 0600, on the disk on return.

    look    called with a Reader of the very snapshot that pg_dump works from, while it works.
    Raises  ConfigurationError: no pg_dump that fits the server.  UnavailableError: pg_dump failed; its words are there.
    """
    connection.require_direct("make a backup")
    tools = await asyncio.to_thread(find_tools, connection.driver.info.server_version)
    variables = environment(connection.driver)
    # pg_dump takes the file as it finds it, mode included; it could not write its offsets to a standard output.
    make(path, backend=BACKEND)
    try:
        async with _moment(connection) as (reader, snapshot):
            command: list[str | Path] = [tools.pg_dump, "--format=custom", "--no-password", f"--snapshot={snapshot}"]
            command += ["--no-subscriptions", f"--lock-wait-timeout={_LOCK_TIMEOUT_MS}", f"--file={path}"]
            async with _child(command, variables) as child:
                said = asyncio.ensure_future(_read(child.stderr))
                try:
                    if look is not None:
                        await look(reader)
                    words = await said
                finally:
                    said.cancel()
                if await child.wait() != 0:
                    raise UnavailableError(
                        f"{connection.address}: no backup was made: {_last(words)}", operation="backup", backend=BACKEND
                    )
        await asyncio.to_thread(settle, path, backend=BACKEND)
    except BaseException:
        _remove(path)
        raise


async def load(connection: PostgresSchemaConnection, path: Path) -> None:
    """Makes the database what `dump` wrote, in one transaction.

    The format has checksums for rows only: a byte changed in its table of contents may go unnoticed here. Whoever keeps
    backups keeps a checksum of the file, and compares it first.
    Raises  CorruptDataError: the file is damaged.  DalTimeoutError: somebody held a table for too long.  SchemaError:
            the server refused it.  In all of these nothing has changed.  UnavailableError: see its `outcome`.
    """
    connection.require_direct("restore a backup")
    server_version = connection.driver.info.server_version
    tools = await asyncio.to_thread(find_tools, server_version)
    variables = environment(connection.driver)
    listing = await _whole(tools, path, ["--list"])
    await _whole(tools, path, [], keep=False)
    extensions = extensions_of(listing)
    driver = connection.driver
    try:
        wanted = await without_present(driver, listing, extensions)
    except psycopg.Error as error:
        raise read_refusal(error) from error
    start = (_PREAMBLE + clearing(driver, extensions)).encode()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="dal-", suffix=".list") as chosen:
        chosen.write(wanted)
        chosen.flush()
        await _bring_back(connection, tools, path, Path(chosen.name), start, variables)


async def _bring_back(
    connection: PostgresSchemaConnection,
    tools: Tools,
    path: Path,
    chosen: Path,
    start: bytes,
    variables: dict[str, str],
) -> None:
    writing: list[str | Path] = [tools.psql, "--no-psqlrc", "--quiet", "--no-password", "--file=-"]
    writing += ["--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose", f"--output={os.devnull}"]
    reading: list[str | Path] = [tools.pg_restore, "--exit-on-error", "--file=-", f"--use-list={chosen}", path]
    too_new = tools.major >= _TOO_NEW_SINCE > connection.driver.info.server_version // 10000
    sent = False
    async with (
        _child(writing, variables, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE) as psql,
        _child(reading, variables, stdout=asyncio.subprocess.PIPE) as restore,
    ):
        said = asyncio.ensure_future(_read(psql.stderr))
        complained = asyncio.ensure_future(_read(restore.stderr))
        try:
            if await _pour(start, restore, psql, without=_TOO_NEW if too_new else b""):
                if await restore.wait() != 0:
                    raise _damaged(path, await complained)
                sent = await _finish(psql)
            found = await psql.wait()
            if found != 0 or not sent:
                raise _failure(connection.address, found, await said, sent=sent)
        finally:
            said.cancel()
            complained.cancel()


async def _pour(
    start: bytes, source: asyncio.subprocess.Process, target: asyncio.subprocess.Process, *, without: bytes
) -> bool:
    """Hands on all that pg_restore writes. False when psql ended before."""
    assert source.stdout is not None  # noqa: S101  # both were asked for
    assert target.stdin is not None  # noqa: S101
    try:
        target.stdin.write(start)
        await target.stdin.drain()
        head = b""
        while len(head) < _HEAD_BYTES and (chunk := await source.stdout.read(_HEAD_BYTES)):
            head += chunk
        target.stdin.write(head.replace(without, b"", 1) if without else head)
        while chunk := await source.stdout.read(_CHUNK_BYTES):
            target.stdin.write(chunk)
            await target.stdin.drain()
    except ConnectionError:
        return False
    return True


async def _finish(psql: asyncio.subprocess.Process) -> bool:
    """Sends COMMIT when psql has run everything. False when it ended before."""
    assert psql.stdin is not None  # noqa: S101  # both were asked for
    assert psql.stdout is not None  # noqa: S101
    with suppress(ConnectionError):
        psql.stdin.write(_DONE)
        await psql.stdin.drain()
    if not await psql.stdout.readline():
        return False
    with suppress(ConnectionError):
        psql.stdin.write(b"COMMIT;\n")
        psql.stdin.close()
    return True


@asynccontextmanager
async def _moment(connection: PostgresSchemaConnection) -> AsyncIterator[tuple[Reader, str]]:
    """A connection of its own that sees one moment, and the name by which others can see it."""
    reader = await connect(connection.neighbour())
    try:
        try:
            await reader.driver.execute(_BEGIN)
        except psycopg.Error as error:
            raise read_refusal(error) from error
        ((snapshot,),) = await reader.fetch("SELECT pg_export_snapshot()")
        yield reader, str(snapshot)
    finally:
        await reader.close()


@asynccontextmanager
async def _child(
    command: Sequence[str | Path], variables: dict[str, str], *, stdin: int | None = None, stdout: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that does not outlive the block."""
    child = await asyncio.create_subprocess_exec(
        *[str(part) for part in command],
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.DEVNULL if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE,
        env=variables,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
        # Python 3.11 tells of an end only when the pipes are at theirs, and stops reading one that nobody empties.
        while child.stdout is not None and await child.stdout.read(_CHUNK_BYTES):
            pass
        await child.wait()


async def _whole(tools: Tools, path: Path, arguments: Sequence[str], *, keep: bool = True) -> str:
    """What pg_restore says of the file. Raises CorruptDataError where it cannot read it to its end."""
    command: list[str | Path] = [tools.pg_restore, *(arguments or ["--file=-"]), path]
    async with _child(command, dict(os.environ), stdout=asyncio.subprocess.PIPE if keep else None) as child:
        said, words = await child.communicate()
        if child.returncode != 0:
            raise _damaged(path, words.decode(errors="replace"))
    return (said or b"").decode(errors="replace")


async def _read(stream: asyncio.StreamReader | None) -> str:
    return "" if stream is None else (await stream.read()).decode(errors="replace")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _failure(address: str, status: int, words: str, *, sent: bool) -> DalError:
    details: dict[str, Any] = {"operation": "restore", "backend": BACKEND}
    if status == _CONNECTION_LOST:
        return UnavailableError(
            f"{address}: the connection was lost while restoring",
            **details,
            outcome="unknown" if sent else "not_applied",
        )
    code, told = [("", _last(words)), *_SQLSTATE.findall(words)][-1]
    if code in _BUSY:
        return DalTimeoutError(f"{address}: a table is in use; nothing was restored: {told}", **details)
    return SchemaError(f"{address}: nothing was restored: {told}", **details)


def _damaged(path: Path, words: str) -> CorruptDataError:
    return CorruptDataError(
        f"{path} cannot be read as a backup; nothing was restored: {_last(words)}", operation="restore", backend=BACKEND
    )


def _last(words: str) -> str:
    return " ".join(words.split())[-_WORDS_CHARS:] or "it did not say why"
