"""Backups and the way back, on real engines: nothing half done is ever restored, and what is restored is compared."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import psycopg
import pytest

from dal.errors import CorruptDataError, DalError, SchemaError, UnavailableError
from dal.schema.backups import backup as module
from dal.schema.backups.backup import Backup, backup, list_backups, read_backup, restore
from dal.schema.backups.digest import TableDigest, content_digests
from dal.schema.backups.manifest import manifest_path
from dal.schema.connection import Reader
from tests.engines import postgres
from tests.schema.opened import execute, opened, rows

_MOMENT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def clock() -> datetime:
    return _MOMENT


def fill(url: str) -> None:
    ledger = "d1_migrations" if url.startswith("sqlite") else "dal_migrations"
    execute(
        url,
        'CREATE TABLE "Odd ""Name""" (id INTEGER PRIMARY KEY, body TEXT)',
        'INSERT INTO "Odd ""Name""" VALUES (1, \'one\'), (2, NULL), (3, \'日本🙂\')',
        f"CREATE TABLE {ledger} (id INTEGER PRIMARY KEY, name TEXT, applied_at TIMESTAMP)",
        f"INSERT INTO {ledger} VALUES (1, '0001_first.sql', '2026-01-01 00:00:00')",
    )


def change(url: str) -> None:
    execute(
        url,
        'DELETE FROM "Odd ""Name""" WHERE id = 1',
        "CREATE TABLE later (id INTEGER PRIMARY KEY)",
        "INSERT INTO later VALUES (1)",
    )


async def make(url: str, directory: Path, *, now: Callable[[], datetime] = clock) -> Backup:
    async with opened(url) as connection:
        return await backup(connection, directory, clock=now)


def count(url: str) -> object:
    return rows(url, 'SELECT count(*) FROM "Odd ""Name"""')[0][0]


async def test_a_backup_says_what_it_is(url: str, tmp_path: Path) -> None:
    fill(url)
    async with opened(url) as connection:
        made = await backup(connection, tmp_path / "b", clock=clock)
        assert made.manifest.tables == await content_digests(connection)
        assert (made.manifest.engine, made.manifest.place) == (connection.engine, connection.place)
        assert made.path.name == f"migration_backup_20260203_040506{connection.backup_suffix}"
    assert set(made.manifest.tables) >= {'Odd "Name"'}
    assert made.manifest.tables['Odd "Name"'].rows == 3
    assert made.manifest.ledger == ("0001_first.sql",)
    assert made.manifest.size_bytes == made.path.stat().st_size
    assert re.fullmatch(r"\d+(\.\d+)+", made.manifest.server_version)
    assert read_backup(made.path) == made
    assert read_backup(manifest_path(made.path)) == made


async def test_a_backup_is_private_and_leaves_nothing_else(url: str, tmp_path: Path) -> None:
    fill(url)
    made = await make(url, tmp_path / "above" / "backups")
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in made.path.parent.iterdir()} == {
        made.path.name: 0o600,
        "migration_backup_20260203_040506.manifest.json": 0o600,
    }


async def test_a_manifest_holds_no_password(postgres_server: postgres.PostgresServer, tmp_path: Path) -> None:
    if not postgres_server.owned:
        pytest.skip("needs the role with a password that our own server has")
    name = postgres_server.create_database().rsplit("/", 1)[1]
    url = postgres_server.url(name, user=postgres.PASSWORD_ROLE, password=postgres.PASSWORD)
    made = await make(url, tmp_path)
    assert postgres.PASSWORD not in manifest_path(made.path).read_text()
    assert made.manifest.database == name


async def test_two_backups_in_one_second_have_names_of_their_own(url: str, tmp_path: Path) -> None:
    fill(url)
    names = [(await make(url, tmp_path)).path.stem for _ in range(3)]
    stem = "migration_backup_20260203_040506"
    assert names == [stem, f"{stem}_2", f"{stem}_3"]
    assert sorted(listed.path.stem for listed in list_backups(tmp_path)) == names


async def test_a_restore_brings_everything_back_and_proves_it(url: str, tmp_path: Path) -> None:
    fill(url)
    made = await make(url, tmp_path / "backups")
    change(url)
    phases: list[str] = []
    async with opened(url) as connection:
        done = await restore(connection, made.path, on_progress=phases.append)
        assert done.ok
        assert done.differences == ()
        assert await content_digests(connection) == made.manifest.tables == done.tables
    assert count(url) == 3
    with pytest.raises(Exception, match="later"):
        rows(url, "SELECT * FROM later")
    assert phases == ["check", "keep", "load", "compare"]


async def test_a_restore_can_be_taken_back(url: str, tmp_path: Path) -> None:
    fill(url)
    made = await make(url, tmp_path)
    change(url)
    async with opened(url) as connection:
        done = await restore(connection, made.path)
        assert done.kept is not None
        again = await restore(connection, done.kept.path, keep_present=False)
    assert again.ok
    assert again.kept is None
    assert count(url) == 2
    assert rows(url, "SELECT id FROM later") == [(1,)]


async def test_an_empty_database_is_not_kept(url: str, tmp_path: Path) -> None:
    made = await make(url, tmp_path)
    async with opened(url) as connection:
        assert (await restore(connection, made.path)).kept is None


async def test_a_backup_made_while_others_write_is_of_one_moment(url: str, tmp_path: Path) -> None:
    fill(url)
    if url.startswith("sqlite"):
        execute(url, "PRAGMA journal_mode = WAL")  # in which the library itself works; else readers and writers wait
    execute(url, "CREATE TABLE one (id INTEGER PRIMARY KEY)", "CREATE TABLE two (id INTEGER PRIMARY KEY)")
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            begin = "BEGIN IMMEDIATE" if url.startswith("sqlite") else "BEGIN"
            pair = [f"INSERT INTO {table} VALUES ({number})" for table in ("one", "two")]
            execute(url, begin, *pair, "COMMIT")
            begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        begun.wait(60)
        made = await make(url, tmp_path)
    finally:
        stop.set()
        thread.join(60)
    assert made.manifest.tables["one"].rows == made.manifest.tables["two"].rows > 0
    async with opened(url) as connection:
        assert (await restore(connection, made.path, keep_present=False)).ok


# What is refused ------------------------------------------------------------------------------------------------------


async def refused(url: str, path: Path, error: type[DalError], match: str) -> None:
    """The restore is refused, and the database is as it was."""
    async with opened(url) as connection:
        before = await content_digests(connection)
        with pytest.raises(error, match=match):
            await restore(connection, path)
        assert await content_digests(connection) == before


async def test_a_backup_without_manifest_was_not_finished(url: str, tmp_path: Path) -> None:
    fill(url)
    made = await make(url, tmp_path)
    manifest_path(made.path).unlink()
    await refused(url, made.path, SchemaError, "has no manifest: it was not finished")
    ((listed),) = list_backups(tmp_path)
    assert (listed.path, listed.manifest) == (made.path, None)
    assert "not finished" in listed.problem


async def test_a_backup_that_is_not_there_is_said(url: str, tmp_path: Path) -> None:
    await refused(url, tmp_path / "no.db", SchemaError, "is not there")
    made = await make(url, tmp_path)
    made.path.unlink()
    await refused(url, made.path, SchemaError, "is not there")


async def test_a_truncated_file_is_refused(url: str, tmp_path: Path) -> None:
    fill(url)
    made = await make(url, tmp_path)
    os.truncate(made.path, made.manifest.size_bytes - 100)
    await refused(url, made.path, CorruptDataError, r"has \d+ bytes, and had \d+")
    assert "bytes" in list_backups(tmp_path)[0].problem


async def test_a_changed_byte_is_found(url: str, tmp_path: Path) -> None:
    fill(url)
    made = await make(url, tmp_path)
    content = bytearray(made.path.read_bytes())
    content[-1] ^= 1
    made.path.write_bytes(content)
    await refused(url, made.path, CorruptDataError, "SHA-256")


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b'"rows": 3', b'"rows": 4'),
        lambda text: text.replace(b'"format": 1', b'"format": 2'),
        lambda text: text[: len(text) // 2],
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"{}",
        lambda _: b"\xff\xfe",
    ],
)
async def test_an_edited_manifest_is_refused(tmp_path: Path, edit: Callable[[bytes], bytes]) -> None:
    url = f"sqlite:{tmp_path}/dal.db"
    fill(url)
    made = await make(url, tmp_path)
    manifest = manifest_path(made.path)
    manifest.write_bytes(edit(manifest.read_bytes()))
    await refused(url, made.path, CorruptDataError, "edited or damaged")


async def test_a_manifest_of_a_later_format_is_left_to_a_later_version(tmp_path: Path) -> None:
    from dal.schema.backups import manifest as manifests

    url = f"sqlite:{tmp_path}/dal.db"
    made = await make(url, tmp_path)
    path = manifest_path(made.path)
    document = orjson.loads(path.read_bytes())
    document.update({"format": 2, "novelty": 1})
    document.pop("manifest_sha256")
    path.write_bytes(orjson.dumps({**document, "manifest_sha256": manifests._checksum(document)}))
    await refused(url, made.path, SchemaError, "has format 2; this version reads 1")


async def test_a_renamed_file_is_not_taken_for_another(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/dal.db"
    made = await make(url, tmp_path)
    made.path.rename(tmp_path / "mine.db")
    manifest_path(made.path).rename(tmp_path / "mine.manifest.json")
    await refused(url, tmp_path / "mine.db", CorruptDataError, "is the manifest of migration_backup")


async def test_another_engines_backup_is_refused(postgres_url: str, tmp_path: Path) -> None:
    made = await make(f"sqlite:{tmp_path}/dal.db", tmp_path)
    await refused(postgres_url, made.path, SchemaError, "is a backup of sqlite; .* is postgresql")


async def test_another_databases_backup_is_taken_only_when_told(
    url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fill(url)
    made = await make(url, tmp_path)
    if url.startswith("sqlite"):
        other = f"sqlite:{tmp_path}/other.db"
    else:
        other = request.getfixturevalue("postgres_server").create_database()
    await refused(other, made.path, SchemaError, r"is a backup of database .*say that another database is meant")
    async with opened(other) as connection:
        assert (await restore(connection, made.path, other_database=True)).ok
    assert count(other) == 3


async def test_pages_of_another_size_go_into_a_file_that_is_in_use(tmp_path: Path) -> None:
    source, target = f"sqlite:{tmp_path}/one/same.db", f"sqlite:{tmp_path}/two/same.db"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with closing(sqlite3.connect(tmp_path / "one" / "same.db")) as db:
        db.execute("PRAGMA page_size = 1024")
        db.execute("CREATE TABLE t (a)")
    execute(target, "PRAGMA journal_mode = WAL", "CREATE TABLE other (a)")
    made = await make(source, tmp_path)
    async with opened(target) as connection:
        assert (await restore(connection, made.path)).ok
        assert await connection.fetch("SELECT count(*) FROM t") == [(0,)]
    assert rows(target, "PRAGMA journal_mode") == [("wal",)]


async def test_a_write_after_the_restore_shows_as_a_difference(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(url)
    made = await make(url, tmp_path)

    async def late(reader: Reader) -> dict[str, TableDigest]:
        change(url)
        return await content_digests(reader)

    async with opened(url) as connection:
        monkeypatch.setattr(module, "content_digests", late)
        done = await restore(connection, made.path, keep_present=False)
    assert not done.ok
    assert [str(difference) for difference in done.differences] == [
        'Odd "Name": 2 rows instead of 3',
        "later: unexpected, 1 rows",
    ]


# What fails -----------------------------------------------------------------------------------------------------------


async def test_a_directory_that_cannot_be_made_is_said(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError, match="no backup was made"):
        await make(url, tmp_path / "file")
    with pytest.raises(UnavailableError, match="no backup was made"):
        await make(url, tmp_path / "file" / "below")


async def test_a_backup_that_fails_leaves_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(url)

    async def broken(_reader: Reader) -> object:
        raise UnavailableError("gone")

    monkeypatch.setattr(module, "content_digests", broken)
    with pytest.raises(UnavailableError, match="gone"):
        await make(url, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


def killed(url: str, directory: Path, when: str) -> None:
    """A process that makes a backup and is killed at the call of a function of the module."""
    script = f"""
import asyncio, os, signal
from pathlib import Path
from dal.factory import schema_connection
from dal.schema.backups import backup as module
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
module.{when} = kill
async def main():
    async with schema_connection({url!r}) as connection:
        await module.backup(connection, Path({str(directory)!r}))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["content_digests", "_measure", "_finish"])
async def test_a_backup_that_was_killed_is_never_restored(url: str, tmp_path: Path, when: str) -> None:
    fill(url)
    killed(url, tmp_path / "backups", when)
    (listed,) = list_backups(tmp_path / "backups")
    assert listed.manifest is None
    assert "not finished" in listed.problem
    await refused(url, listed.path, SchemaError, "not finished")
    assert (await make(url, tmp_path / "backups", now=lambda: _MOMENT + timedelta(days=999))).path.exists()


async def test_connections_that_are_open_survive_a_restore(url: str, tmp_path: Path) -> None:
    fill(url)
    made = await make(url, tmp_path)
    change(url)
    if url.startswith("sqlite"):
        other: sqlite3.Connection | psycopg.Connection = sqlite3.connect(url.removeprefix("sqlite://"))
    else:
        other = psycopg.connect(url, autocommit=True)
    try:
        assert other.execute('SELECT count(*) FROM "Odd ""Name"""').fetchone() == (2,)
        async with opened(url) as connection:
            assert (await restore(connection, made.path)).ok
        assert other.execute('SELECT count(*) FROM "Odd ""Name"""').fetchone() == (3,)
    finally:
        other.close()
