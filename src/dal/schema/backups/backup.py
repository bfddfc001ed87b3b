"""Backups before a migration, and the way back, checked.

A backup is the file that the connection dumps and a manifest beside it, `migration_backup_YYYYMMDD_HHMMSS` in UTC. The
manifest is written last, by rename, so a backup that a crash cut short is known by its lack. The digests in it are of
the very moment of the dump, whoever writes meanwhile; a restore ends with comparing them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, TypeAlias

from dal.errors import CorruptDataError, SchemaError, UnavailableError
from dal.schema import ledger
from dal.schema.backups.digest import METHOD, Difference, TableDigest, compare_digests, content_digests
from dal.schema.backups.identity import database_name, is_d1, readable, server_version
from dal.schema.backups.manifest import SUFFIX, Manifest, manifest_path, read_manifest
from dal.schema.backups.new_file import settle, unwritable
from dal.schema.checking.soundness import broken_storage
from dal.schema.connection import Connection, Reader
from dal.schema.findings import Finding, errors
from dal.values import Clock, now

PREFIX: Final = "migration_backup_"
_PARTIAL: Final = ".partial"
_CHUNK_BYTES: Final = 1024 * 1024
RestorePhase: TypeAlias = Literal["check", "keep", "load", "compare"]


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup: its file, and what its manifest says.

    findings  what the engine calls broken in it, `broken-index` on SQLite: its tables are whole, and an index is not.
              Looked for when it is made, not when it is read.
    """

    path: Path
    manifest: Manifest
    findings: tuple[Finding, ...] = ()


async def backup(connection: Connection, directory: Path = Path("backups"), *, clock: Clock = now) -> Backup:
    """Copies the whole database into a new file in `directory`, which is made (0700) where it is missing.

    Broken indexes are copied as they are, and named in the `findings`: the rows are what a backup is for.
    Raises  CorruptDataError: the file is damaged beyond its indexes.  UnavailableError and others: the copy failed.
            Nothing of it is left then.
    Cost    the dump, one reading of every row for the digests, and one of the file for its checksum; on SQLite one of
            every index as well.
    """
    path, partial = await asyncio.to_thread(_reserve, directory, clock, connection.backup_suffix)
    try:
        seen: list[tuple[dict[str, TableDigest], tuple[str, ...], list[Finding]]] = []

        async def look(moment: Reader) -> None:
            names = tuple(row.name for row in (await ledger.read(moment)).applied)
            seen.append((await content_digests(moment), names, await _broken_indexes(moment)))

        created_at = clock()
        await connection.dump(path, look=look)
        ((tables, names, findings),) = seen
        size_bytes, sha256 = await asyncio.to_thread(_measure, path)
        manifest = Manifest(
            created_at=created_at,
            engine=connection.engine,
            place=connection.place,
            database=await database_name(connection),
            address=readable(connection.address),
            server_version=await server_version(connection),
            tool_version=version("dal"),
            file=path.name,
            size_bytes=size_bytes,
            sha256=sha256,
            digest_method=METHOD,
            tables=tables,
            ledger=names,
        )
        await asyncio.to_thread(_finish, partial, manifest_path(path), manifest)
    except BaseException:
        for left in (path, manifest_path(path), partial):
            with suppress(OSError):
                left.unlink(missing_ok=True)
        raise
    return Backup(path, manifest, tuple(findings))


async def _broken_indexes(reader: Reader) -> list[Finding]:
    """Of SQLite's file only: what is dumped from D1 has its indexes built anew."""
    return [] if is_d1(reader) else await broken_storage(reader)


def _reserve(directory: Path, clock: Clock, suffix: str) -> tuple[Path, Path]:
    """A name that is nobody's, and the manifest to be, whose making takes the name before anybody else."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = f"{PREFIX}{clock():%Y%m%d_%H%M%S}"
        number = 1
        while True:
            path = directory / f"{stem}{'' if number == 1 else f'_{number}'}{suffix}"
            partial = manifest_path(path).with_name(manifest_path(path).name + _PARTIAL)
            number += 1
            with suppress(FileExistsError):
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                if not path.exists() and not manifest_path(path).exists():
                    return path, partial
                partial.unlink()
    except OSError as error:
        raise unwritable(directory, error) from error


def _measure(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def _finish(partial: Path, final: Path, manifest: Manifest) -> None:
    """On the disk, then under its name, then the name on the disk."""
    try:
        partial.write_bytes(manifest.to_bytes())
        settle(partial)
        partial.rename(final)
        settle(final)
    except OSError as error:
        raise unwritable(final, error) from error


# Finding backups ------------------------------------------------------------------------------------------------------


def read_backup(path: Path) -> Backup:
    """The backup at this path (of its file, or of its manifest). Its file is not read.

    Raises  SchemaError: not there, or not finished.  CorruptDataError: damaged.
    """
    if path.name.endswith(SUFFIX):
        manifest = _manifest_at(path, path)
        path = path.with_name(manifest.file)
    else:
        manifest = _manifest_at(manifest_path(path), path)
    if manifest.file != path.name:
        raise CorruptDataError(
            f"{manifest_path(path)} is the manifest of {manifest.file}, not of {path.name}", operation="restore"
        )
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise SchemaError(f"{path} is not there; only its manifest is", operation="restore") from error
    if size_bytes != manifest.size_bytes:
        raise CorruptDataError(
            f"{path} has {size_bytes} bytes, and had {manifest.size_bytes} when it was made (nothing was restored)",
            operation="restore",
        )
    return Backup(path, manifest)


def _manifest_at(manifest: Path, asked: Path) -> Manifest:
    if not manifest.exists():
        found = "has no manifest: it was not finished" if asked.exists() else "is not there"
        raise SchemaError(f"{asked} {found} (nothing was restored)", operation="restore")
    return read_manifest(manifest)


@dataclass(frozen=True, slots=True)
class Listed:
    """A backup as it lies in a directory. `problem` says why it cannot be restored; empty where nothing is seen."""

    path: Path
    manifest: Manifest | None
    problem: str = ""


def list_backups(directory: Path) -> list[Listed]:
    """The backups in a directory, newest first, unfinished ones included. Files are not read, only their sizes."""
    if not directory.is_dir():
        return []
    names = sorted((path for path in directory.iterdir() if path.name.startswith(PREFIX)), reverse=True)
    found = {}
    for path in names:
        stem = path.name.partition(".")[0]
        if stem not in found or path.name.endswith(SUFFIX):
            found[stem] = path
    return [_listed(path) for path in found.values()]


def _listed(path: Path) -> Listed:
    try:
        known = read_backup(path)
    except (SchemaError, CorruptDataError) as error:
        return Listed(path, None, error.message.removesuffix(" (nothing was restored)"))
    return Listed(known.path, known.manifest)


# The way back ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did.

    tables       every table of the backup, with its content then.
    differences  tables whose content is not that of the backup; none: the database is what it was.
    findings     what the engine calls broken in it now, as an index that was broken when the backup was made.
    kept         the backup of the state that was overwritten; None where there was none to keep.
    """

    backup: Backup
    tables: dict[str, TableDigest]
    differences: tuple[Difference, ...]
    kept: Backup | None
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.differences and not errors(self.findings)


async def restore(
    connection: Connection,
    path: Path,
    *,
    other_database: bool = False,
    keep_present: bool = True,
    on_progress: Callable[[RestorePhase], None] | None = None,
    clock: Clock = now,
) -> Restored:
    """Makes the database what it was when the backup was made, and compares every table with the backup's digests.

    other_database  also a backup of a database of another name is taken.
    keep_present    the present state is backed up first, beside the backup, so that a restore can be taken back; not
                    where the database holds no table. A database too damaged for that needs False.
    Raises          SchemaError: the backup is unfinished, or of another engine or database.  CorruptDataError: it is
                    damaged. In both cases nothing has changed. Others: what `load` raises.
    Writers         stop them: what they write is lost, and what they write between load and comparison shows as a
                    difference. Open connections are safe.
    """
    tell = on_progress or (lambda _phase: None)
    tell("check")
    found = read_backup(path)
    await _check(connection, found, other_database=other_database)
    kept = None
    if keep_present and (await ledger.read(connection)).tables:
        tell("keep")
        kept = await _keep(connection, found.path.parent, clock)
    tell("load")
    await connection.load(found.path)
    tell("compare")
    differences = compare_digests(found.manifest.tables, await content_digests(connection))
    return Restored(
        backup=found,
        tables=found.manifest.tables,
        differences=tuple(differences),
        kept=kept,
        findings=tuple(await _broken_indexes(connection)),
    )


async def _keep(connection: Connection, directory: Path, clock: Clock) -> Backup:
    try:
        return await backup(connection, directory, clock=clock)
    except (CorruptDataError, UnavailableError) as error:
        raise type(error)(
            f"{error.message}; the present state could not be kept, so nothing was restored "
            "(to restore all the same, ask for it without keeping the present)",
            operation="restore",
            backend=error.backend,
            retryable=error.retryable,
        ) from error


async def _check(connection: Connection, found: Backup, *, other_database: bool) -> None:
    manifest = found.manifest
    if (manifest.engine, manifest.place) != (connection.engine, connection.place):
        raise SchemaError(
            f"{found.path} is a backup of {manifest.place}; {connection.address} is {connection.place} "
            "(nothing was restored)",
            operation="restore",
        )
    name = await database_name(connection)
    if name != manifest.database and not other_database:
        raise SchemaError(
            f"{found.path} is a backup of database {manifest.database!r}; {connection.address} is {name!r} (nothing "
            "was restored; to restore it there, say that another database is meant)",
            operation="restore",
        )
    if manifest.digest_method != METHOD:
        raise SchemaError(
            f"{found.path} was made by dal {manifest.tool_version}, whose digests this version cannot compare",
            operation="restore",
        )
    _, sha256 = await asyncio.to_thread(_measure, found.path)
    if sha256 != manifest.sha256:
        raise CorruptDataError(
            f"{found.path} is not what was written: its SHA-256 differs from its manifest's (nothing was restored)",
            operation="restore",
        )
