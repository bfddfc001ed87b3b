"""What a plan sees of two stores before a move, and that it touches neither."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dal.factory import create_store
from dal.limits import D1_MAX_VALUE_BYTES, PLAN_SAMPLE_ROWS
from dal.move.inspecting import Reading
from dal.move.mover import begin
from dal.move.obstacles import Obstacle
from dal.move.operating import sides_of
from dal.move.planning import Plan, plan
from dal.ops import Insert
from dal.replica import UNITS
from dal.store import Store
from dal.testing import rows
from tests.move.pairs import COUNTS, seed
from tests.move.replicas import run_sqlite

ALL = tuple(UNITS)
NUL, LONG = "'a' || char(0) || 'b'", "'" + "x" * 300 + "'"


@pytest_asyncio.fixture
async def source(tmp_path: Path, sqlite_with_schema: Path) -> AsyncIterator[Store]:
    """A SQLite store with rows of every table, at `source.db`."""
    async for store in _opened(sqlite_with_schema, tmp_path / "source.db"):
        await seed(store)
        yield store


@pytest_asyncio.fixture
async def target(tmp_path: Path, sqlite_with_schema: Path) -> AsyncIterator[Store]:
    """An empty one, at `target.db`."""
    async for store in _opened(sqlite_with_schema, tmp_path / "target.db"):
        yield store


async def _opened(template: Path, path: Path) -> AsyncIterator[Store]:
    shutil.copy(template, path)
    store = create_store(f"sqlite:{path}", auto_migrate=False)
    await store.open()
    yield store
    await store.close()


def change(tmp_path: Path, statement: str) -> None:
    """Changes the source as a program would that cares for nothing."""
    run_sqlite(tmp_path / "source.db", statement, settings=("PRAGMA foreign_keys = OFF",))


async def plan_for(source: Store, backend: str, target: Store | None = None, *, quick: bool = False) -> Plan:
    return await plan(source, target, ALL, target_backend=backend, quick=quick)


def only(made: Plan) -> Obstacle:
    (obstacle,) = made.obstacles
    return obstacle


async def test_a_sound_store_has_nothing_in_its_way(source: Store, target: Store) -> None:
    read: list[Reading] = []
    made = await plan(source, target, ALL, target_backend="sqlite", on_reading=read.append)
    assert made.obstacles == []
    assert made.rows == COUNTS
    assert made.read == made.total_rows == sum(COUNTS.values())
    assert {reading.table: reading.rows for reading in read} == {name: count for name, count in COUNTS.items() if count}
    assert made.source is not None
    assert made.source.rows_s > 0
    assert made.target is not None
    assert made.target.latency_ms > 0
    assert made.total_bytes > 1000


async def test_a_plan_changes_neither_store(source: Store, target: Store, tmp_path: Path) -> None:
    def state() -> list[object]:
        schema = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
        found = [run_sqlite(tmp_path / name, schema) for name in ("source.db", "target.db")]
        return [found, hashlib.sha256((tmp_path / "target.db").read_bytes()).digest()]

    before = state()
    await plan_for(source, "postgresql", target)
    assert state() == before


@pytest.mark.parametrize(
    ("table", "statement", "kind", "says"),
    [
        ("messages", f"UPDATE messages SET content = {NUL}", "value", "messages.content: text with U+0000"),
        ("users", 'UPDATE users SET profile = \'{"a":"\\u0000"}\'', "value", "users.profile: text with U+0000"),
        ("chat_sessions", f"UPDATE chat_sessions SET title = {LONG}", "value", "chat_sessions.title: text or a docum"),
        ("messages", "UPDATE messages SET token_count = 1 << 40", "value", "messages.token_count: numbers out of"),
        ("messages", "UPDATE messages SET token_count = 'many'", "value", "messages.token_count: not what the col"),
        ("users", "UPDATE users SET status = ''", "value", "users.status: text that is too short"),
        (
            "user_memory",
            "UPDATE user_memory SET value = '{broken'",
            "unreadable",
            "user_memory: rows that cannot be read",
        ),
        ("files", "UPDATE files SET created_at = 'yesterday'", "unreadable", "files: rows that cannot be read"),
        (
            "messages",
            "UPDATE messages SET content = CAST(x'c328' AS TEXT)",
            "unreadable",
            "messages: rows that cannot be",
        ),
        ("system_logs", "UPDATE system_logs SET ip_address = '1.2.3'", "value", "system_logs.ip_address: not what"),
        ("users", "UPDATE users SET id = 'AAAAAAAA-0000-7000-8000-00000000000A'", "value", "users.id: not written as"),
        ("files", "UPDATE files SET id = 'file-1'", "value", "files.id: not what the column"),
        ("user_memory", "UPDATE user_memory SET user_id = lower(id)", "orphan", "user_memory.user_id: rows that refer"),
    ],
)
async def test_what_others_left_in_a_row_is_found_and_named(
    source: Store, tmp_path: Path, table: str, statement: str, kind: str, says: str
) -> None:
    ((row_id,),) = run_sqlite(tmp_path / "source.db", f"SELECT id FROM {table} ORDER BY id LIMIT 1 OFFSET 2")
    change(tmp_path, f"{statement} WHERE id = '{row_id}'")
    made = await plan_for(source, "postgresql")
    found = [obstacle for obstacle in made.obstacles if obstacle.text.startswith(says)]
    assert len(found) == 1, made.obstacles
    assert (found[0].kind, found[0].table, found[0].rows) == (kind, table, 1)
    assert found[0].may_be_allowed is (kind == "orphan")
    new_id = row_id if "SET id" not in statement else found[0].samples[0]
    assert found[0].samples == [new_id]
    assert made.read >= made.total_rows - 1


async def test_many_rows_of_one_kind_are_one_obstacle(source: Store, tmp_path: Path) -> None:
    change(tmp_path, f"UPDATE messages SET content = {NUL}")
    found = only(await plan_for(source, "postgresql"))
    assert found.rows == COUNTS["messages"]
    assert len(found.samples) == 5


async def test_a_value_that_the_target_keeps_all_the_same_may_be_allowed(source: Store, tmp_path: Path) -> None:
    change(tmp_path, f"UPDATE messages SET content = {NUL}")
    assert only(await plan_for(source, "sqlite")).may_be_allowed
    assert not only(await plan_for(source, "postgresql")).may_be_allowed


async def test_a_text_that_is_too_long_is_only_worth_a_note_where_nothing_limits_it(
    source: Store, tmp_path: Path
) -> None:
    change(tmp_path, f"UPDATE chat_sessions SET title = {LONG}")
    made = await plan_for(source, "sqlite")
    assert made.obstacles == []
    assert any("chat_sessions.title" in note for note in made.notes)


async def test_a_row_too_large_for_d1_is_found(source: Store) -> None:
    await source.commit([Insert("users", rows.user(900, name="n", profile={"p": "x" * D1_MAX_VALUE_BYTES}))])
    assert (await plan_for(source, "sqlite")).obstacles == []
    found = only(await plan_for(source, "d1"))
    assert (found.kind, found.table, found.samples) == ("too_large", "users", [rows.row_id(900)])


async def test_a_target_with_rows_is_in_the_way(source: Store, target: Store) -> None:
    await target.commit([Insert("users", rows.user(900))])
    found = only(await plan_for(source, "sqlite", target))
    assert (found.kind, found.rows) == ("occupied", 1)
    assert found.may_be_allowed


async def test_a_move_that_is_on_is_no_obstacle_to_itself(source: Store, target: Store) -> None:
    await begin(sides_of(source, target), ALL)
    made = await plan_for(source, "sqlite", target)
    assert made.is_resumed
    assert made.obstacles == []


@pytest.mark.parametrize("end", ["source", "target"])
async def test_a_store_in_another_move_is_in_the_way_for_good(
    source: Store, target: Store, tmp_path: Path, sqlite_with_schema: Path, end: str
) -> None:
    async for third in _opened(sqlite_with_schema, tmp_path / "third.db"):
        if end == "source":
            await begin(sides_of(source, third), ALL)
        else:
            await begin(sides_of(target, third), ALL)
        found = only(await plan_for(source, "sqlite", target))
        assert found.kind == "other_move"
        assert not found.may_be_allowed


async def test_a_foreign_trigger_is_in_the_way(source: Store, target: Store, tmp_path: Path) -> None:
    change(tmp_path, "CREATE TRIGGER theirs AFTER INSERT ON users BEGIN SELECT 1; END")
    found = only(await plan_for(source, "sqlite", target))
    assert found.kind == "store"
    assert "theirs" in found.text


async def test_a_disk_without_room_is_in_the_way(source: Store, target: Store) -> None:
    made = await plan(source, target, ALL, target_backend="sqlite", target_free_bytes=1000, source_free_bytes=10**9)
    found = only(made)
    assert found.kind == "space"
    assert not found.may_be_allowed


async def test_a_quick_plan_reads_a_sample(tmp_path: Path, sqlite_with_schema: Path) -> None:
    many = 3 * PLAN_SAMPLE_ROWS
    async for store in _opened(sqlite_with_schema, tmp_path / "many.db"):
        await store.commit([Insert("users", rows.user(n)) for n in range(1, many + 1)])
        made = await plan_for(store, "postgresql", quick=True)
        assert made.rows["users"] == many
        assert 0 < made.read <= PLAN_SAMPLE_ROWS
        whole = await plan_for(store, "postgresql")
        assert whole.read == many
        assert made.bytes["users"] == pytest.approx(whole.bytes["users"], rel=0.2)


async def test_a_store_that_cannot_be_moved_is_counted_all_the_same() -> None:
    store = create_store("memory://")
    await store.open()
    await store.commit([Insert("users", rows.user(1))])
    made = await plan_for(store, "sqlite")
    assert made.total_rows == 1
    assert only(made).kind == "store"
    await store.close()


async def test_writers_do_not_disturb_a_plan(source: Store) -> None:
    async def write() -> None:
        for n in range(1000, 1060):
            await source.commit([Insert("users", rows.user(n)), Insert("user_memory", rows.memory(n, n))])

    writing = asyncio.create_task(write())
    while not writing.done():
        assert (await plan_for(source, "postgresql")).obstacles == []
    await writing
