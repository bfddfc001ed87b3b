"""`dal search rebuild` and `dal search drop`, on every engine that keeps an index."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dal import ConflictError, DataAccess, UnsupportedError, create_data_access
from dal.access import Transaction
from dal.factory import schema_connection
from dal.schema.search_index import drop_search_index, make_search_index
from dal.store import SearchIndex
from tests.cli.conftest import Command, document, run_sql
from tests.engines.d1 import D1Engine
from tests.engines.postgres import PostgresServer
from tests.importing.sources import conversation, write


@pytest.fixture(params=["sqlite", "d1", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a store with two messages in it."""
    if request.param == "sqlite":
        url = f"sqlite:{tmp_path / 'test.db'}"
    elif request.param == "d1":
        engine: D1Engine = request.getfixturevalue("d1_engine")
        database = engine.create_database()
        for name, value in database.environment.items():
            monkeypatch.setenv(name, value)
        url = database.url
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create_database()
    assert run("schema", "up", "--url", url).exit_code == 0
    load(run, tmp_path / "first", url, "c-1", "What is a difference engine?", "A mechanical calculator.")
    return url


def load(run: Command, directory: Path, url: str, chat: str, *texts: str) -> None:
    result = run("import", str(write(directory, [conversation(chat, *texts)])), "--url", url)
    assert result.exit_code == 0, result.output


def found(run: Command, url: str, text: str) -> list[str]:
    items = document(run("search", "--url", url, "--json", "--", text))["items"]
    return [hit["message"]["content"] for hit in items]


def tables(url: str) -> list[str]:
    async def work() -> list[str]:
        async with schema_connection(url) as connection:
            catalogue = "sqlite_master" if connection.engine == "sqlite" else "pg_class"
            column = "name" if connection.engine == "sqlite" else "relname::text"
            rows = await connection.fetch(f"SELECT {column} FROM {catalogue} WHERE {column} LIKE 'message_search%'")
            return [str(row[0]) for row in rows]

    return asyncio.run(work())


def assert_sound(run: Command, url: str, *, pending: list[str]) -> None:
    """The ledger says what the database holds."""
    assert document(run("schema", "status", "--url", url, "--json"))["pending"] == pending
    for command in ("verify", "drift"):
        result = run("schema", command, "--url", url)
        assert result.exit_code == 0, result.output


def test_a_dropped_index_leaves_nothing_behind_and_comes_back_whole(run: Command, place: str, tmp_path: Path) -> None:
    result = run("search", "drop", "--url", place, "--yes")
    assert result.exit_code == 0, result.output
    assert "search index dropped" in result.stderr
    assert tables(place) == []
    assert_sound(run, place, pending=["0002_search.sql"])
    refused = run("search", "engine", "--url", place)
    assert refused.exit_code == 1
    assert "`dal search rebuild`" in refused.stderr
    load(run, tmp_path / "second", place, "c-2", "An analytical engine.", "Gone soon.")

    async def delete() -> None:
        async with create_data_access(place) as dal:
            await dal.chats.create("c-3")
            await dal.messages.add("c-3", "user", "No engine at all.")
            assert await dal.chats.delete("c-3")

    asyncio.run(delete())
    assert "there is no search index" in run("search", "drop", "--url", place, "--yes").stderr

    result = run("search", "rebuild", "--url", place)
    assert result.exit_code == 0, result.output
    assert "4 messages indexed" in result.stderr
    assert sorted(found(run, place, "engine")) == ["An analytical engine.", "What is a difference engine?"]
    assert_sound(run, place, pending=[])


def test_an_index_that_is_there_is_built_anew(run: Command, place: str) -> None:
    stray = {
        "sqlite": "UPDATE message_search SET terms = 'stray'",
        "d1": "UPDATE message_search SET terms = 'stray'",
        "postgresql": "UPDATE message_search SET terms = 'stray'::tsvector",
    }
    run_sql(place, stray[place.partition(":")[0]])
    assert found(run, place, "engine") == []
    assert "0 messages indexed" in run("search", "rebuild", "--only-missing", "--url", place).stderr
    result = run("search", "rebuild", "--url", place)
    assert "2 messages indexed" in result.stderr, result.output
    assert found(run, place, "engine") == ["What is a difference engine?"]
    assert_sound(run, place, pending=[])


def test_a_table_that_was_dropped_by_hand_is_made_again(run: Command, place: str) -> None:
    run_sql(place, "DROP TABLE message_search")
    assert run("search", "engine", "--url", place).exit_code == 1
    result = run("search", "rebuild", "--url", place)
    assert "2 messages indexed" in result.stderr, result.output
    assert found(run, place, "engine") == ["What is a difference engine?"]
    assert_sound(run, place, pending=[])


async def test_an_open_store_goes_on_when_the_index_goes_and_comes(place: str) -> None:
    """A service need not be stopped for an export."""

    async def take_out(*, make: bool) -> None:
        async with schema_connection(place) as connection:
            assert await (make_search_index if make else drop_search_index)(connection)

    async def add_more(tx: Transaction) -> None:
        await tx.messages.add("c-1", "user", "An engine in a transaction.")

    async with create_data_access(place) as dal, create_data_access(place) as other:
        await take_out(make=False)
        await dal.messages.add("c-1", "user", "An engine without an index.")
        with pytest.raises(ConflictError, match="search index"):
            async with other.transaction() as tx:
                await add_more(tx)
        await other.run_in_transaction(add_more)
        with pytest.raises(UnsupportedError, match="dal search rebuild"):
            await dal.messages.search("engine")
        assert await dal.messages.count("c-1") == 4

        await take_out(make=True)
        assert (await dal.messages.search("engine")).items == []
        await dal.messages.add("c-1", "user", "An engine again.")
        assert len((await dal.messages.search("engine")).items) == 1
        assert isinstance(dal.store, SearchIndex)
        assert await dal.store.index_pending() == 4
        assert len((await dal.messages.search("engine")).items) == 4


async def test_a_search_that_is_under_way_says_that_the_index_is_gone(place: str) -> None:
    async with create_data_access(place) as dal:
        async with schema_connection(place) as connection:
            await drop_search_index(connection)
        with pytest.raises(UnsupportedError, match="dal search rebuild"):
            await dal.messages.search("engine")


def test_dropping_is_never_done_unasked(run: Command, place: str) -> None:
    """As by somebody who looked for the word."""
    result = run("search", "drop", "--url", place)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert found(run, place, "engine")


def test_the_words_themselves_can_be_searched(run: Command, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'test.db'}"
    load(run, tmp_path / "first", url, "c-1", "Please rebuild it.", "Then drop it.")
    for text, content in (("rebuild", "Please rebuild it."), ("drop", "Then drop it.")):
        for arguments in (("--url", url, "--json", "--", text), ("--url", url, "--json", text)):
            items = json.loads(run("search", *arguments).stdout)["items"]
            assert [hit["message"]["content"] for hit in items] == [content]
    assert run("search", "rebuild", "chats", "--url", url).exit_code == 2


@pytest.mark.parametrize("arguments", [["rebuild"], ["drop", "--yes"]])
def test_a_store_without_an_index_needs_none(run: Command, tmp_path: Path, arguments: list[str]) -> None:
    url = f"file:{tmp_path / 'data'}"
    load(run, tmp_path / "first", url, "c-1", "What is a difference engine?")
    result = run("search", *arguments, "--url", url)
    assert "without" in result.stderr
    assert found(run, url, "engine")


def test_an_index_is_not_made_in_what_is_no_store(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    for arguments in (["rebuild"], ["drop", "--yes"]):
        result = run("search", *arguments, "--url", f"sqlite:{path}")
        assert result.exit_code == 1
        assert "dal schema up" in result.stderr
    assert path.stat().st_size == 0


async def test_a_rebuild_beside_writers_misses_nothing(
    place: str, spawn: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    async def write_until(done: asyncio.Event, dal: DataAccess) -> int:
        written = 0
        while not done.is_set():
            await dal.messages.add("c-1", "user", f"engine number {written}")
            written += 1
        return written

    done = asyncio.Event()
    async with create_data_access(place) as dal:
        writers = [asyncio.create_task(write_until(done, dal)) for _ in range(2)]
        for _ in range(2):
            result = await asyncio.to_thread(spawn, "search", "rebuild", "--url", place)
            assert result.returncode == 0, result.stderr
        done.set()
        written = sum(await asyncio.gather(*writers))
        page = await dal.messages.search("engine", limit=1000)
        found_now = len(page.items)
        while page.next is not None:
            page = await dal.messages.search("engine", limit=1000, after=page.next)
            found_now += len(page.items)
        assert found_now == written + 1
