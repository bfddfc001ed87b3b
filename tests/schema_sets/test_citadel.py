"""The shop: the numbers of its document, the order that cannot work, and 32 indexes whose builder is killed."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest

from dal.errors import SchemaError
from dal.factory import schema_connection
from dal.schema import Progress, down, plan, read_set, up
from dal.schema.checking.verify import verify
from tests.schema_sets.conftest import MakeUrl
from tests.schema_sets.sets import CITADEL, CITADEL_BAD_ORDER, ledger, names_in, rows

#: As they stand in the document.
_TABLES_CREATED: Final = """
SELECT count(*) FROM information_schema.tables
WHERE table_schema = 'public'
AND table_name IN (
  'organizations',
  'organization_members',
  'role_permissions',
  'vendor_profiles',
  'gift_cards'
);
"""
_INDEXES_CREATED: Final = """
SELECT count(*) FROM pg_indexes
WHERE schemaname = 'public'
AND indexname LIKE 'idx_%';
"""
_FOREIGN_KEYS: Final = """
SELECT count(*) FROM information_schema.table_constraints
WHERE constraint_type = 'FOREIGN KEY'
AND table_schema = 'public';
"""
_INVALID: Final = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready)"
_INDEX_FILE: Final = "0004_add_performance_indexes.sql"


async def test_the_documents_own_queries_give_its_numbers(new_url: MakeUrl) -> None:
    url = new_url(CITADEL)
    async with schema_connection(url) as connection:
        await up(connection, read_set(CITADEL.directory, "postgresql"))
    assert rows(url, _TABLES_CREATED) == [(5,)]
    assert rows(url, _INDEXES_CREATED) == [(38,)]
    assert rows(url, _FOREIGN_KEYS) == [(54,)]
    assert set(CITADEL.expected["named_indexes"]) <= set(names_in(url).indexes)
    assert rows(url, "SELECT amname FROM pg_am JOIN pg_class c ON c.relam = pg_am.oid "
                     "WHERE relname = 'idx_products_tags_gin'") == [("gin",)]  # fmt: skip
    assert rows(url, _INVALID) == []


async def test_the_functions_and_triggers_do_what_they_are_for(new_url: MakeUrl) -> None:
    url = new_url(CITADEL)
    async with schema_connection(url) as connection:
        await up(connection, read_set(CITADEL.directory, "postgresql"))
        await connection.run([("INSERT INTO organizations (name, slug, updated_at) VALUES ('A', 'a', 'epoch')", ())])
        await connection.run([("UPDATE organizations SET name = 'B'", ())])
    assert rows(url, "SELECT updated_at > '2020-01-01' FROM organizations") == [(True,)]


async def test_the_order_of_the_document_fails_where_the_table_is_missing_and_leaves_nothing_of_it(
    tmp_path: Path, new_url: MakeUrl
) -> None:
    expected = CITADEL_BAD_ORDER.expected
    migrations = read_set(CITADEL_BAD_ORDER.copy(tmp_path), "postgresql")
    url = new_url(CITADEL_BAD_ORDER)
    async with schema_connection(url) as connection:
        await up(connection, migrations, to=expected["stays"][-1])
        before = names_in(url)
        for _ in range(2):
            with pytest.raises(SchemaError, match=expected["missing"]) as caught:
                await up(connection, migrations)
            assert expected["fails_at"] in str(caught.value)
            assert re.search(rf"{re.escape(expected['fails_at'])}:5\b", str(caught.value)), "the line is named"
            assert ledger(url) == expected["stays"]
            assert names_in(url) == before
        assert [m.name for m in (await plan(connection, migrations)).pending] == expected["files"][3:]
        await down(connection, migrations, steps=3)
    assert ledger(url) == []


# -- killed in the middle of the indexes


@contextmanager
def _runner(url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.schema_sets.runner", url, str(CITADEL.directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _run_until(process: subprocess.Popen[str], name: str, statement: int) -> None:
    """Returns when the runner has come to this statement."""
    assert process.stdout is not None
    for line in process.stdout:
        file, number, _, phase = line.split()
        if file == name and int(number) >= statement and phase != "waiting":
            return
    raise AssertionError("the runner ended before it came there")


def _wait_for_build(url: str, index: str) -> None:
    """Returns when this index is being built: it is invalid until the build ends."""
    deadline = time.monotonic() + 60
    while (index,) not in rows(url, _INVALID):
        assert time.monotonic() < deadline, f"{index} is not being built"
        time.sleep(0.01)  # nothing tells of a build but the catalogue


async def _finish(url: str) -> None:
    """Ends what the killed runner has begun."""
    _expire_lease(url)
    migrations = read_set(CITADEL.directory, "postgresql")
    async with schema_connection(url) as connection:
        await up(connection, migrations)
        assert (await verify(connection, migrations)).ok
    assert ledger(url) == CITADEL.files
    assert names_in(url) == CITADEL.names()
    assert rows(url, _INVALID) == []


@pytest.mark.parametrize("statement", [1, 12, 32])
async def test_a_runner_killed_between_the_indexes_is_gone_on_from(statement: int, new_url: MakeUrl) -> None:
    url = new_url(CITADEL)
    with _runner(url) as process:
        _run_until(process, _INDEX_FILE, statement)
        process.send_signal(signal.SIGKILL)
        process.wait()
    await _finish(url)


@pytest.mark.parametrize(
    ("table", "index"),
    [("products", "idx_products_status"), ("gift_cards", "idx_gift_cards_purchaser")],
)
async def test_an_index_whose_builder_was_killed_is_built_again(table: str, index: str, new_url: MakeUrl) -> None:
    """Another session's open transaction holds the build up, so that the kill certainly comes in the middle of it."""
    url = new_url(CITADEL)
    async with schema_connection(url) as connection:
        await up(connection, read_set(CITADEL.directory, "postgresql"), to="0003_add_vendor_management_system.sql")
    with psycopg.connect(url) as other:
        other.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
        with _runner(url) as process:
            _wait_for_build(url, index)
            process.send_signal(signal.SIGKILL)
            process.wait()
        holder = other.info.backend_pid
        rows(url, f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
                  f"WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), {holder})")  # fmt: skip
        assert rows(url, _INVALID) == [(index,)], "what a killed build leaves"
        assert _INDEX_FILE not in ledger(url)
    await _finish(url)


async def test_a_session_that_outlives_its_killed_runner_is_waited_for(new_url: MakeUrl) -> None:
    """The server does not notice that a client died while it builds; its build ends before the next runner begins."""
    url = new_url(CITADEL)
    migrations = read_set(CITADEL.directory, "postgresql")
    is_waiting = asyncio.Event()
    async with schema_connection(url) as connection:
        await up(connection, migrations, to="0003_add_vendor_management_system.sql")
        with psycopg.connect(url) as other:
            other.execute(b"LOCK TABLE orders IN ROW EXCLUSIVE MODE")
            with _runner(url) as process:
                _wait_for_build(url, "idx_orders_user_status_created")
                process.send_signal(signal.SIGKILL)
                process.wait()
            _expire_lease(url)

            def watch(progress: Progress) -> None:
                assert progress.phase == "waiting" or not other.info.transaction_status
                is_waiting.set()

            going_on = asyncio.create_task(up(connection, migrations, on_progress=watch))
            waiting = asyncio.create_task(is_waiting.wait())
            await asyncio.wait({going_on, waiting}, return_when=asyncio.FIRST_COMPLETED)
            assert waiting.done(), going_on
            other.rollback()
            await going_on
    await _finish(url)


def _expire_lease(url: str) -> None:
    """The time passes for which a runner that has gone keeps others away."""
    rows(url, "UPDATE dal_migration_lock SET expires_at = now() RETURNING id")
