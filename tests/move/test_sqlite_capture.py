"""What other programs do to an SQLite file in their own way: REPLACE, IGNORE, no foreign keys, recursive triggers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dal.errors import DalTimeoutError
from dal.ops import Insert
from dal.replica import Key
from dal.testing import rows
from tests.move.replicas import Site, apply, entry, run_sqlite

ID = rows.row_id
Run = Callable[..., Awaitable[list[tuple[object, ...]]]]

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
_THEN = "2026-01-02T03:04:05.678901Z"
_USER = f"INSERT {{}} INTO users (id, clerk_id, created_at, updated_at) VALUES ('{{}}', '{{}}', '{_THEN}', '{_THEN}')"
_MESSAGE = (
    "INSERT {} INTO messages (doc_id, id, chat_session_id, role, content, sequence_number, created_at) "
    f"VALUES ({{}}, '{{}}', '{{}}', 'user', 'text', {{}}, '{_THEN}')"
)


@pytest.fixture(params=["plain", "recursive", "foreign keys", "both"])
def run(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Run:
    """Runs statements on the file with one way of setting up a connection."""
    settings = {
        "plain": (),
        "recursive": ("PRAGMA recursive_triggers = ON",),
        "foreign keys": ("PRAGMA foreign_keys = ON",),
        "both": ("PRAGMA recursive_triggers = ON", "PRAGMA foreign_keys = ON"),
    }[request.param]

    async def run(*statements: str) -> list[tuple[object, ...]]:
        return await asyncio.to_thread(run_sqlite, tmp_path / "0" / "dal.db", *statements, settings=settings)

    return run


async def test_the_row_that_a_replace_pushes_out_is_registered(primary: Site, run: Run) -> None:
    await primary.insert("users", rows.user(1, clerk_id="a"), rows.user(2, clerk_id="b"))
    await primary.insert("chat_sessions", rows.chat(3))
    await primary.insert("messages", rows.message(4, 3, sequence_number=1), rows.message(5, 3, sequence_number=2))
    await primary.drain()
    await run(_USER.format("OR REPLACE", ID(9), "a"), _MESSAGE.format("OR REPLACE", "NULL", ID(8), ID(3), 2))
    found = await primary.dirty()
    assert set(found) == {
        Key("users", ID(1)),
        Key("users", ID(9)),
        Key("messages", ID(5)),
        Key("messages", ID(8)),
    }
    assert (found[Key("users", ID(1))].row, found[Key("messages", ID(5))].row) == (None, None)
    await primary.drain()
    assert (await primary.replica.registered("users", [ID(1)]))[0].deleted, "the copy found out that it is gone"
    assert [one.dead for one in await primary.replica.digest("users")] == [1, 0, 0]


async def test_the_row_that_an_update_pushes_out_is_registered(primary: Site, run: Run) -> None:
    await primary.insert("users", rows.user(1, clerk_id="a"), rows.user(2, clerk_id="b"), rows.user(3, clerk_id="c"))
    await primary.drain()
    await run(f"UPDATE OR REPLACE users SET clerk_id = 'a' WHERE id = '{ID(2)}'")
    found = await primary.dirty()
    assert set(found) == {Key("users", ID(1)), Key("users", ID(2))}
    assert found[Key("users", ID(1))].row is None
    await run(f"UPDATE OR REPLACE users SET id = '{ID(3)}' WHERE id = '{ID(2)}'")
    found = await primary.dirty()
    assert found[Key("users", ID(2))].row is None
    row = found[Key("users", ID(3))].row
    assert row is not None
    assert row[1] == "a"


async def test_a_row_pushed_out_by_its_number_in_the_file_is_registered(primary: Site, run: Run) -> None:
    await primary.insert("chat_sessions", rows.chat(3))
    await primary.insert("messages", rows.message(4, 3, sequence_number=1))
    await primary.drain()
    ((number,),) = await run("SELECT doc_id FROM messages")
    await run(_MESSAGE.format("OR REPLACE", number, ID(8), ID(3), 2))
    found = await primary.dirty()
    assert set(found) == {Key("messages", ID(4)), Key("messages", ID(8))}
    assert found[Key("messages", ID(4))].row is None


async def test_a_row_replaced_under_its_own_key_is_registered_as_live(primary: Site, run: Run) -> None:
    await primary.insert("users", rows.user(1, clerk_id="a"))
    await primary.drain()
    before = (await primary.entry("users", ID(1))).version
    await run(_USER.format("OR REPLACE", ID(1), "z"))
    found = await primary.entry("users", ID(1))
    assert (found.version > before, found.state) == (True, "dirty")
    assert found.row is not None
    assert found.row[1] == "z"


async def test_the_outer_statement_does_not_decide_what_the_registry_does(primary: Site, run: Run) -> None:
    """In a trigger, SQLite lets the conflict clause of the statement that fired it win over the trigger's own."""
    await primary.insert("users", rows.user(1, clerk_id="a"), rows.user(2, clerk_id="b"))
    for clause in ("OR IGNORE", "OR REPLACE", "OR ABORT", "OR FAIL"):
        await primary.drain()
        before = (await primary.entry("users", ID(1))).version
        await run(f"UPDATE {clause} users SET name = '{clause}' WHERE id = '{ID(1)}'")
        found = await primary.entry("users", ID(1))
        assert (found.version > before, found.state) == (True, "dirty"), clause
    await primary.drain()
    await run(_USER.format("OR IGNORE", ID(2), "other"), _USER.format("OR IGNORE", ID(3), "a"))
    assert {key for key, one in (await primary.dirty()).items() if one.row is None} == set()
    await run("DELETE FROM users", _USER.format("OR IGNORE", ID(1), "a"))
    assert (await primary.entry("users", ID(1))).row is not None
    assert (await primary.entry("users", ID(1))).state == "dirty"


@pytest.mark.parametrize("clause", ["", "OR IGNORE", "OR REPLACE", "OR FAIL", "OR ROLLBACK"])
async def test_no_conflict_clause_gets_past_a_fence(replica: Site, run: Run, clause: str) -> None:
    await apply(replica, entry("users", rows.user(1, clerk_id="a")))
    before = await replica.entry("users", ID(1))
    for statement in (
        _USER.format(clause, ID(2), "a"),
        _USER.format(clause, ID(1), "b"),
        f"UPDATE {clause} users SET name = 'x'",
        "DELETE FROM users",
    ):
        with pytest.raises(sqlite3.Error):
            await run(statement)
    assert await replica.entry("users", ID(1)) == before
    assert len(await replica.rows("users")) == 1


async def test_a_fence_gives_up_soon_where_a_writer_stays(primary: Site, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "0" / "dal.db", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(DalTimeoutError, match=r"0\.3 s") as caught:
            await primary.replica.change_gate("users", expect={}, change={"role": "fenced"})
        assert caught.value.retryable
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    assert (await primary.replica.gates())["users"].role == "primary"
    await primary.store.commit([Insert("users", rows.user(1))])


async def test_a_transaction_of_this_process_holds_a_fence_up_no_longer(primary: Site) -> None:
    async with primary.store.transaction() as session:
        await session.commit([Insert("users", rows.user(1))])
        with pytest.raises(DalTimeoutError) as caught:
            await primary.replica.change_gate("users", expect={}, change={"role": "fenced"})
        assert "held the database for 0.3 s" in str(caught.value.__cause__)
    assert await primary.replica.change_gate("users", expect={}, change={"role": "fenced"})
    assert set(await primary.dirty()) == {Key("users", ID(1))}


async def test_somebodys_own_trigger_is_an_obstacle(site: Site) -> None:
    await site.raw("CREATE TRIGGER mine AFTER INSERT ON users BEGIN SELECT 1; END")
    await site.install("primary")
    (found,) = await site.replica.obstacles()
    assert "trigger mine on users" in found
