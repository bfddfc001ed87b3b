"""What only one engine can do to a migration: SQLite's foreign keys and writers, PostgreSQL's locks and connections."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import cast

import psycopg
import pytest

from dal import schema
from dal.errors import DalTimeoutError, SchemaError, UnavailableError
from dal.schema import Connection, Progress
from dal.schema.inspection.objects import snapshot
from tests.schema.faulty import Faulty
from tests.schema.test_apply import ALL, applied, names, write


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "shop"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
class TestSqlite:
    """What only SQLite's files can get wrong."""

    REBUILD = (
        "CREATE TABLE p2 (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x');\n"
        "INSERT INTO p2 (id) SELECT id FROM p;\nDROP TABLE p;\nALTER TABLE p2 RENAME TO p;\n"
    )
    FAMILY = (
        "CREATE TABLE p (id INTEGER PRIMARY KEY);\n"
        "CREATE TABLE k (id INTEGER PRIMARY KEY, p INTEGER NOT NULL REFERENCES p (id) ON DELETE CASCADE);\n"
        "INSERT INTO p VALUES (1), (2);\nINSERT INTO k VALUES (10, 1), (20, 2);\n"
    )

    async def test_a_rebuild_without_foreign_keys_keeps_the_children(
        self, connection: Connection, directory: Path
    ) -> None:
        files = {"0001_a.sql": self.FAMILY, "0002_b.sql": f"-- dal:foreign-keys=off\n{self.REBUILD}"}
        await schema.up(connection, write(directory, connection, files))
        assert len(await connection.fetch("SELECT id FROM k")) == 2
        assert list(await connection.fetch("PRAGMA foreign_keys")) == [(1,)]

    async def test_a_broken_reference_is_named_by_table_and_row(self, connection: Connection, directory: Path) -> None:
        broken = f"-- dal:foreign-keys=off\n{self.REBUILD}DELETE FROM p WHERE id = 2;\n"
        migrations = write(directory, connection, {"0001_a.sql": self.FAMILY, "0002_b.sql": broken})
        with pytest.raises(
            SchemaError, match=r"0002_b\.sql failed and was rolled back: .*k row 20 refers to a row of p"
        ):
            await schema.up(connection, migrations)
        assert len(await connection.fetch("SELECT id FROM p")) == 2
        assert list(await connection.fetch("PRAGMA foreign_keys")) == [(1,)]

    async def test_a_deferred_reference_is_named_too(self, connection: Connection, directory: Path) -> None:
        text = "PRAGMA defer_foreign_keys = ON;\nINSERT INTO k VALUES (30, 3);\n"
        migrations = write(directory, connection, {"0001_a.sql": self.FAMILY, "0002_b.sql": text})
        with pytest.raises(SchemaError, match="k row 30 refers to a row of p"):
            await schema.up(connection, migrations)

    async def test_an_engines_own_rollback_ends_the_file(self, connection: Connection, directory: Path) -> None:
        text = "CREATE TABLE u (id INTEGER UNIQUE ON CONFLICT ROLLBACK);\nINSERT INTO u VALUES (1), (1);\nSELECT 1;\n"
        migrations = write(directory, connection, {"0001_a.sql": text})
        with pytest.raises(SchemaError, match=r"0001_a\.sql:2 failed and was rolled back: UNIQUE"):
            await schema.up(connection, migrations)
        assert (await snapshot(connection)).tables == {}

    async def test_full_text_tables_may_use_transactions_of_their_own(
        self, connection: Connection, directory: Path
    ) -> None:
        text = (
            "CREATE VIRTUAL TABLE f USING fts5 (t);\nINSERT INTO f VALUES ('x');\n"
            "INSERT INTO f (f) VALUES ('optimize');\nCREATE VIRTUAL TABLE r USING rtree (id, a, b);\n"
        )
        await schema.up(connection, write(directory, connection, {"0001_a.sql": text}))

    async def test_the_journal_mode_is_the_applications(
        self, connection: Connection, url: str, directory: Path
    ) -> None:
        await schema.up(connection, write(directory, connection))
        assert list(await connection.fetch("PRAGMA journal_mode")) == [("delete",)]

    async def test_another_writer_is_waited_for(self, connection: Connection, url: str, directory: Path) -> None:
        writer = sqlite3.connect(url.removeprefix("sqlite://"), isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")  # without WAL, readers are kept out too
        told: list[Progress] = []

        def let_go(progress: Progress) -> None:
            told.append(progress)
            if writer.in_transaction:
                writer.execute("ROLLBACK")

        assert names(await schema.up(connection, write(directory, connection), on_progress=let_go)) == ALL
        assert told[0].phase == "waiting"
        writer.close()

    async def test_a_writer_that_never_ends_is_given_up(
        self, connection: Connection, url: str, directory: Path
    ) -> None:
        migrations = write(directory, connection)
        writer = sqlite3.connect(url.removeprefix("sqlite://"), isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(DalTimeoutError):
            await schema.up(connection, migrations, wait_s=0.1)
        writer.execute("ROLLBACK")
        writer.close()
        assert names(await schema.up(connection, migrations)) == ALL


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
class TestPostgresql:
    """What only PostgreSQL can do to a migration."""

    async def test_a_long_query_delays_the_file_and_not_the_application(
        self, connection: Connection, url: str, directory: Path
    ) -> None:
        await connection.run([("CREATE TABLE busy (id INTEGER)", ())])
        migrations = write(directory, connection, {"0001_a.sql": "ALTER TABLE busy ADD COLUMN x INTEGER;\n"})
        told: list[Progress] = []
        with psycopg.connect(url) as reader:
            reader.execute("SELECT * FROM busy")

            def let_go(progress: Progress) -> None:
                told.append(progress)
                if progress.phase == "waiting":
                    reader.rollback()

            assert names(await schema.up(connection, migrations, on_progress=let_go)) == ["0001_a.sql"]
        assert [p.phase for p in told] == ["running", "waiting", "done"]
        assert "lock" in told[1].detail

    async def test_a_lock_that_is_never_free_is_given_up(
        self, connection: Connection, url: str, directory: Path
    ) -> None:
        await connection.run([("CREATE TABLE busy (id INTEGER)", ())])
        migrations = write(directory, connection, {"0001_a.sql": "ALTER TABLE busy ADD COLUMN x INTEGER;\n"})
        with psycopg.connect(url) as reader:
            reader.execute("SELECT * FROM busy")
            with pytest.raises(
                DalTimeoutError, match=r"0001_a\.sql:1 failed and was rolled back: locks were in its way"
            ):
                await schema.up(connection, migrations, wait_s=0.1)
        assert names(await schema.up(connection, migrations)) == ["0001_a.sql"]

    async def test_the_place_in_a_statement_gives_the_line(self, connection: Connection, directory: Path) -> None:
        text = "CREATE TABLE a (id INTEGER);\nSELECT id,\n  id,\n  nothing\nFROM a;\n"
        migrations = write(directory, connection, {"0001_a.sql": text})
        with pytest.raises(SchemaError, match=r"0001_a\.sql:4 failed"):
            await schema.up(connection, migrations)

    async def test_a_connection_that_breaks_at_the_commit_is_opened_again(
        self, connection: Connection, url: str, directory: Path
    ) -> None:
        migrations = write(directory, connection)
        cut = False

        async def cut_once(text: str) -> None:
            nonlocal cut
            if "CREATE TABLE b" in text and not cut:
                cut = True
                ((pid,),) = await connection.fetch("SELECT pg_backend_pid()")
                with psycopg.connect(url, autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (pid,))

        class Unsure(Faulty):
            """Says of a lost connection what a lost COMMIT would have said."""

            async def _meet(self, text: str, call: object) -> None:
                try:
                    await super()._meet(text, call)  # type: ignore[arg-type]
                except UnavailableError as error:
                    error.outcome = "unknown"
                    raise

        unsure = cast(Connection, Unsure(connection, before=cut_once))
        assert names(await schema.up(unsure, migrations)) == ALL
        assert await applied(connection) == ALL
