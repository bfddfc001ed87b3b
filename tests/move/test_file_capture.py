"""What a file store registers in a live move: of its own processes, of cascades, and of others who edit its files."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from dal import exchange
from dal.backends.file import FileStore, faults, journal
from dal.backends.file.layout import sharded
from dal.errors import CorruptDataError, DalTimeoutError, FencedError
from dal.ops import Compare, Count, Delete, Insert, Select, Update
from dal.replica import EPOCH, UNITS, Copied, Entry, Gate, Key, Replica
from dal.tables import TABLES
from dal.testing import rows
from tests.move import file_foreign

GATES = [Gate(unit, "m1", "source", "primary", 1, 2, "CAPTURE") for unit in UNITS]
USER, OTHER, CHAT = rows.row_id(1), rows.row_id(2), rows.row_id(1)
USER_71 = file_foreign.USER


async def _fill(store: FileStore) -> None:
    """Two users with memory, a chat with four messages, a file, two log entries."""
    await store.commit([Insert("users", rows.user(n)) for n in (1, 2)])
    await store.commit([Insert("user_memory", rows.memory(10 + n, 1, key=f"k{n}")) for n in range(3)])
    await store.commit([Insert("chat_sessions", rows.chat(1)), Insert("files", rows.file(50, 1))])
    for n in range(4):
        await store.commit(rows.append(100 + n, 1))
    await store.commit([Insert("system_logs", rows.log(60 + n)) for n in range(2)])


async def _opened(directory: Path, *, segment_bytes: int = journal.SEGMENT_BYTES) -> FileStore:
    store = FileStore(directory, segment_bytes=segment_bytes)
    await store.open()
    return store


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    """A store with rows in its documents and a move on; nothing has changed since."""
    store = await _opened(tmp_path / "store")
    await _fill(store)
    await store.replica().install(GATES)
    yield store
    await store.close()


async def _dirty(replica: Replica) -> dict[Key, Entry]:
    return {entry.key: entry for table in TABLES for entry in await replica.dirty(table, 10_000)}


async def _changed(replica: Replica) -> dict[tuple[str, int], bool]:
    """What is dirty, by table and number, and whether it is gone."""
    return {(key.table, int(key.id[-12:], 16)): entry.row is None for key, entry in (await _dirty(replica)).items()}


async def _drain(replica: Replica) -> None:
    found = await _dirty(replica)
    await replica.acknowledge([Copied(e.table, e.id, e.version, None if e.row is None else 7) for e in found.values()])


# -- the library's own writes


async def test_a_cascade_registers_every_child_wherever_it_lies(store: FileStore) -> None:
    await store.commit(rows.append(200, 1))  # in the journal only, the others in the file
    await store.commit([Delete("chat_sessions", (Compare("id", "=", CHAT),))])
    await store.commit([Delete("users", (Compare("id", "=", USER),))])
    assert await _changed(store.replica()) == {
        ("chat_sessions", 1): True,
        **{("messages", n): True for n in (100, 101, 102, 103, 200)},
        ("users", 1): True,
        **{("user_memory", n): True for n in (10, 11, 12)},
        ("files", 50): True,
    }


async def test_a_transaction_registers_what_it_came_to_and_an_undone_one_nothing(store: FileStore) -> None:
    async with store.transaction() as transaction:
        await transaction.commit([Insert("users", rows.user(7))])
        await transaction.commit([Update("users", {"id": USER}, {"name": "a"})])
        await transaction.commit([Update("users", {"id": USER}, {"name": "b"})])
    replica = store.replica()
    assert await _changed(replica) == {("users", 7): False, ("users", 1): False}
    await _drain(replica)
    with pytest.raises(RuntimeError):
        async with store.transaction() as transaction:
            await transaction.commit([Insert("users", rows.user(8))])
            raise RuntimeError
    assert await _changed(replica) == {}


async def test_every_open_store_registers_and_is_refused_from_the_same_moment(store: FileStore, tmp_path: Path) -> None:
    replica, other = store.replica(), await _opened(tmp_path / "store")
    await other.commit([Update("users", {"id": USER}, {"name": "other"})])
    assert await _changed(replica) == {("users", 1): False}
    assert await replica.change_gate("users", expect={"role": "primary"}, change={"role": "fenced"})
    with pytest.raises(FencedError):
        await other.commit([Update("users", {"id": USER}, {"name": "late"})])
    with pytest.raises(FencedError):
        await other.commit([Delete("users", (Compare("id", "=", rows.row_id(999)),))])
    async with other.transaction() as transaction:
        with pytest.raises(FencedError):
            await transaction.commit([Insert("users", rows.user(5))])
        await transaction.commit([Insert("system_logs", rows.log(70))])
    assert (await other.replica().gates())["users"].role == "fenced"
    assert await _changed(other.replica()) == {("users", 1): False, ("system_logs", 70): False}
    await other.close()


async def test_what_hangs_on_a_deleted_row_goes_from_a_replica_and_is_marked_there(store: FileStore) -> None:
    replica = store.replica()
    await replica.raise_versions("user_memory", [rows.row_id(10), rows.row_id(11)])
    await _drain(replica)
    await replica.change_gate("memory", expect={}, change={"role": "replica"})
    await store.commit([Delete("users", (Compare("id", "=", USER),))])
    assert await store.read(Count("user_memory")) == [(0,)]
    marked = {("user_memory", 10): True, ("user_memory", 11): True}
    assert await _changed(replica) == {("users", 1): True, ("files", 50): True, **marked}


async def test_a_delete_that_reaches_behind_a_fence_is_refused_whole(store: FileStore) -> None:
    replica = store.replica()
    await replica.change_gate("chats", expect={}, change={"role": "fenced"})
    await store.commit([Delete("users", (Compare("id", "=", OTHER),))])
    await replica.change_gate("memory", expect={}, change={"role": "fenced"})
    with pytest.raises(FencedError):
        await store.commit([Insert("users", rows.user(8)), Delete("users", (Compare("id", "=", USER),))])
    with pytest.raises(FencedError):
        async with store.transaction() as transaction:
            await transaction.commit([Delete("users", (Compare("id", "=", USER),))])
    assert await rows.numbers(store, Select("users", order=("id",))) == [1]
    assert len(await store.read(Select("user_memory"))) == 3


async def test_a_process_that_was_away_for_longer_than_the_journal_knows_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT_SEGMENTS", 0)
    one, away = await _opened(tmp_path, segment_bytes=600), await _opened(tmp_path)
    await one.replica().install(GATES)
    await one.commit([Insert("chat_sessions", rows.chat(1))])
    for n in range(2, 60):
        await one.commit(rows.append(n, 1))
    await one.replica().change_gate("files", expect={}, change={"phase": "SYNC"})
    await one.close()
    replica = away.replica()
    assert (await replica.gates())["files"].phase == "SYNC"
    assert len(await _changed(replica)) == 59
    await away.commit(rows.append(500, 1))
    newest = max((await _dirty(replica)).values(), key=lambda entry: entry.version)
    assert newest.id == rows.row_id(500)
    assert newest.version == EPOCH + 2 * 59 + 1, "the counter goes on"
    await away.close()


# -- on disk


async def test_the_registry_is_the_same_after_checkpoints_and_openings(tmp_path: Path) -> None:
    store = await _opened(tmp_path, segment_bytes=900)
    await store.replica().install(GATES)
    await _fill(store)
    for n in range(40):
        await store.commit(rows.append(1000 + n, 1))
        if n % 5 == 0:
            await _drain(store.replica())
    for _ in range(3):
        before = [await store.replica().scan(table, "", 1000) for table in TABLES]
        await store.close()
        assert {Path(name).suffix for name in os.listdir(tmp_path / "move")} == {".json", ".sqlite", ""}
        store = await _opened(tmp_path, segment_bytes=900)
        assert [await store.replica().scan(table, "", 1000) for table in TABLES] == before
        await store.commit([Update("users", {"id": OTHER}, {"name": "again"})])
    await store.close()


async def test_an_ended_move_leaves_nothing_on_disk_and_a_retired_one_refuses(tmp_path: Path) -> None:
    store = await _opened(tmp_path)
    await store.replica().install(GATES)
    await _fill(store)
    await store.close()
    assert (tmp_path / "move").is_dir()
    store = await _opened(tmp_path)
    await store.replica().change_gate("memory", expect={}, change={"role": "replica"})
    await store.replica().uninstall(keep_fence=True)
    await store.close()
    store = await _opened(tmp_path)
    with pytest.raises(FencedError):
        await store.commit([Delete("user_memory", (Compare("id", "=", rows.row_id(10)),))])
    await store.commit([Update("users", {"id": USER}, {"name": "free"})])
    assert (await store.replica().backlog())["users"].entries == 0
    await store.replica().uninstall(keep_fence=False)
    await store.close()
    assert not (tmp_path / "move").exists()


@pytest.mark.parametrize("name", ["state.json", "*.sqlite"])
@pytest.mark.parametrize("keep", [lambda data: data[:-9], lambda data: data[:9], lambda data: b"x" * len(data)])
async def test_a_damaged_registry_is_named_and_never_taken_for_an_empty_one(
    tmp_path: Path, name: str, keep: Callable[[bytes], bytes]
) -> None:
    store = await _opened(tmp_path)
    await store.replica().install(GATES)
    await _fill(store)
    await store.close()
    (path,) = (tmp_path / "move").glob(name)
    path.write_bytes(keep(path.read_bytes()))
    with pytest.raises(CorruptDataError, match=path.name):
        await FileStore(tmp_path).open()
    if name != "state.json":
        path.unlink()
        with pytest.raises(CorruptDataError, match=path.name):
            await FileStore(tmp_path).open()


# -- what others write


def _only(directory: Path, pattern: str) -> Path:
    (path,) = (directory / "store").glob(pattern)
    return path


def _edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _line(path: Path, number: int, **changes: object) -> str:
    row = json.loads(path.read_text().splitlines()[-1]) | {"id": rows.row_id(number)} | changes
    return json.dumps(row, ensure_ascii=False) + "\n"


async def test_a_hand_edited_document_is_an_update(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    assert await replica.rescan() == 0
    _edit(_only(tmp_path, f"users/*/{USER}.json"), lambda user: user.update(name="by hand"))
    assert await replica.rescan() == 1
    found = await _dirty(replica)
    assert [key.id for key in found] == [USER]
    assert "by hand" in (found[Key("users", USER)].row or ())
    assert await replica.rescan() == 0
    await store.close()
    await store.open()
    assert await store.read(Count("users", (Compare("name", "=", "by hand"),))) == [(1,)]


async def test_documents_and_their_items_come_and_go(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    memory = _only(tmp_path, "memory/*/*.json")

    def change(document: dict[str, object]) -> None:
        items = document["items"]
        assert isinstance(items, list)
        items[0]["value"] = ["changed"]
        items[1] = items[1] | {"id": rows.row_id(19), "key": "new"}

    _edit(memory, change)
    assert await replica.rescan() == 3
    assert await _changed(replica) == {
        ("user_memory", 10): False,
        ("user_memory", 11): True,
        ("user_memory", 19): False,
    }
    await _drain(replica)
    written = _only(tmp_path, f"users/*/{USER}.json").read_text().replace(USER, rows.row_id(9))
    place = tmp_path / "store" / "users" / sharded(rows.row_id(9), ".json")
    place.parent.mkdir(exist_ok=True)
    place.write_text(written)
    _only(tmp_path, f"users/*/{OTHER}.json").unlink()
    memory.unlink()
    assert await replica.rescan() == 5
    gone = {("users", 2), ("user_memory", 10), ("user_memory", 12), ("user_memory", 19)}
    assert await _changed(replica) == {("users", 9): False, **dict.fromkeys(gone, True)}
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("users", order=("id",))) == [1, 9]
    assert not await store.read(Select("user_memory"))


async def test_a_document_that_is_gone_takes_along_what_hangs_on_it(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    _only(tmp_path, "chats/*/chat-1.json").unlink()
    assert await replica.rescan() == 1
    assert await _changed(replica) == {("chat_sessions", 1): True, **{("messages", n): True for n in range(100, 104)}}
    await store.close()
    assert not list((tmp_path / "store" / "chats").glob("*/*")), "the lines too"


async def test_two_documents_that_exchange_a_unique_value_are_taken_in(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    users = [_only(tmp_path, f"users/*/{user}.json") for user in (USER, OTHER)]
    for names in (("a", "b"), ("b", "a")):
        for path, name in zip(users, names, strict=True):
            _edit(path, lambda user, name=name: user.update(clerk_id=name))  # type: ignore[misc]
        assert await replica.rescan() == 2
    found = await store.read(Select("users", order=("id",), columns=("clerk_id",)))
    assert found == [("b",), ("a",)]


async def test_what_the_library_wrote_since_stands_against_what_a_file_says(store: FileStore, tmp_path: Path) -> None:
    replica, memory = store.replica(), _only(tmp_path, "memory/*/*.json")
    await store.commit([Update("user_memory", {"id": rows.row_id(10)}, {"value": "library"})])
    await store.commit([Delete("user_memory", (Compare("id", "=", rows.row_id(11)),))])

    def change(document: dict[str, object]) -> None:
        items = document["items"]
        assert isinstance(items, list)
        for item in items:
            item["value"] = "foreign"

    _edit(memory, change)
    assert await replica.rescan() == 1
    await store.close()
    await store.open()
    found = await store.read(Select("user_memory", order=("id",), columns=("value",)))
    assert found == [("library",), ("foreign",)]


@pytest.mark.parametrize("text", ["", '{"id": "', "[]", '{"id": 1}'], ids=repr)
async def test_a_damaged_document_is_named_and_left_alone(store: FileStore, tmp_path: Path, text: str) -> None:
    replica, path = store.replica(), _only(tmp_path, f"users/*/{OTHER}.json")
    whole = path.read_text()
    path.write_text(text)
    assert await replica.rescan() == 0
    assert path.read_text() == text
    assert await _changed(replica) == {}
    assert any(path.name in problem for problem in await replica.obstacles())
    assert (await store.health()).status == "degraded"
    path.write_text(whole)
    assert await replica.rescan() == 0
    assert await replica.obstacles() == []


async def test_lines_appended_edited_and_removed_are_registered(store: FileStore, tmp_path: Path) -> None:
    replica, path = store.replica(), _only(tmp_path, "chats/*/chat-1.jsonl")
    with path.open("a") as file:
        file.write(_line(path, 300, sequence_number=9, content="\u2028 foreign"))
    assert await replica.rescan() == 5, "nobody knows what the other lines were"
    assert ("messages", 300) in await _changed(replica)
    assert await rows.numbers(store, Select("messages", (Compare("id", "=", rows.row_id(300)),))) == [300]
    await _drain(replica)
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0].replace('"content":"', '"content":"edited '), *lines[2:]]))
    assert await replica.rescan() == 5
    assert await _changed(replica) == {("messages", n): n == 101 for n in (100, 101, 102, 103, 300)}
    day = next((tmp_path / "store" / "audit").glob("*.jsonl"))
    with day.open("a") as file:
        file.write(_line(day, 90))
    assert await replica.rescan() == 3
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("messages", order=("id",))) == [100, 102, 103, 300]
    assert len(await store.read(Select("system_logs"))) == 3


async def test_a_line_that_cannot_be_is_named_and_its_neighbours_are_taken_in(store: FileStore, tmp_path: Path) -> None:
    replica, path = store.replica(), _only(tmp_path, "chats/*/chat-1.jsonl")
    last = path.read_text().splitlines()[-1]
    with path.open("a") as file:
        file.write("no json\n")
        file.write(_line(path, 300, sequence_number=4))
    with path.open("a") as file:
        file.write(json.dumps(json.loads(last) | {"id": rows.row_id(301), "sequence_number": 9}) + "\n")
    await replica.rescan()
    found = await _changed(replica)
    assert ("messages", 301) in found
    assert ("messages", 300) not in found
    assert any("chat-1.jsonl" in problem and "taken" in problem for problem in await replica.obstacles())


async def test_what_was_changed_while_nobody_had_the_store_open_is_registered(store: FileStore, tmp_path: Path) -> None:
    await store.replica().raise_versions("users", [USER, OTHER])
    await _drain(store.replica())
    lines = _only(tmp_path, "chats/*/chat-1.jsonl")
    await store.close()
    _edit(_only(tmp_path, f"users/*/{USER}.json"), lambda user: user.update(name="meanwhile"))
    _only(tmp_path, f"users/*/{OTHER}.json").unlink()
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[1:]))
    await store.open()
    await store.close()  # another process may have come and gone without a look
    await store.open()
    replica = store.replica()
    assert await replica.rescan() == 6
    expected = {("messages", n): n == 100 for n in range(100, 104)}
    assert await _changed(replica) == {("users", 1): False, ("users", 2): True, **expected}
    assert await replica.rescan() == 0


@pytest.mark.parametrize("point", ["", "checkpoint.aside", "checkpoint.planned", "checkpoint.synced"])
async def test_what_others_write_while_a_checkpoint_writes_the_same_files_comes_along(
    store: FileStore, tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, chat = _only(tmp_path, "memory/*/*.json"), _only(tmp_path, "chats/*/chat-1.jsonl")
    day = next((tmp_path / "store" / "audit").glob("*.jsonl"))
    written: list[str] = []

    def write(reached: str = "") -> None:
        if reached != point or written:
            return
        written.append(reached)
        _edit(memory, lambda document: document["items"][0].update(value="foreign"))  # type: ignore[index]
        for path, changes in ((chat, {"sequence_number": 8}), (day, dict[str, int]())):
            line = _line(path, 300, **changes)
            with path.open("a") as file:
                file.write(line)

    write()  # before the checkpoint, or else in it
    await store.commit([Update("user_memory", {"id": rows.row_id(12)}, {"value": "library"})])
    await store.commit([Update("messages", {"id": rows.row_id(100)}, {"content": "library"})])
    await store.commit([Insert("system_logs", rows.log(70))])
    monkeypatch.setattr(faults, "hook", write)
    await store.close()
    assert written
    monkeypatch.setattr(faults, "hook", None)
    await store.open()
    replica = store.replica()
    await replica.rescan()
    values = await store.read(Select("user_memory", order=("id",), columns=("value",)))
    assert (values[0], values[2]) == (("foreign",), ("library",))
    own = {("user_memory", 12), ("messages", 100), ("system_logs", 70)}
    assert own | {("user_memory", 10), ("messages", 300), ("system_logs", 300)} <= (await _changed(replica)).keys()
    assert await rows.numbers(store, Select("messages", order=("id",))) == [100, 101, 102, 103, 300]
    assert await rows.numbers(store, Select("system_logs", order=("id",))) == [60, 61, 70, 300]
    assert not (tmp_path / "store" / "quarantine").exists()


async def test_a_row_that_both_have_written_is_the_librarys_and_the_others_is_kept_aside(
    store: FileStore, tmp_path: Path
) -> None:
    path = _only(tmp_path, f"users/*/{USER}.json")
    await store.commit([Update("users", {"id": USER}, {"name": "library"})])
    _edit(path, lambda user: user.update(name="foreign"))
    await store.close()
    assert "library" in path.read_text()
    (kept,) = (tmp_path / "store" / "quarantine").iterdir()
    assert "foreign" in kept.read_text()
    await store.open()
    assert any(kept.name in str(problem) for problem in [(await store.health()).parts["problems"]])


# -- the fence against others

_FOREIGN = """
import sys
file = open(sys.argv[1], "a")
print("open", flush=True)
for line in sys.stdin:
    try:
        if line.startswith("open "):
            open(line[5:].strip(), "a").close()
        else:
            file.write(line)
            file.flush()
        print("done", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@contextmanager
def _foreign(path: Path) -> Iterator[Callable[[str], str]]:
    """A program that has the file open and writes what it is told, or opens what it is told."""
    command = [sys.executable, "-c", _FOREIGN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        assert stdout.readline() == "open\n"

        def tell(line: str) -> str:
            stdin.write(line)
            stdin.flush()
            return stdout.readline().strip()

        yield tell
        stdin.close()


async def test_behind_the_fence_nobody_opens_a_file_and_an_open_one_is_still_looked_at(
    store: FileStore, tmp_path: Path
) -> None:
    replica, path = store.replica(), _only(tmp_path, "chats/*/chat-1.jsonl")
    before = await rows.everything(store)
    line = _line(path, 300, sequence_number=9)
    with _foreign(path) as tell:
        assert await replica.change_gate("chats", expect={"role": "primary"}, change={"role": "fenced"})
        assert await rows.everything(store) == before, "the library reads on"
        for name in (path, path.with_name("new.jsonl"), tmp_path / "store" / "chats" / "zz"):
            assert tell(f"open {name}\n") == "NotADirectoryError"
        assert tell(line) == "done"
        assert await replica.rescan() == 5
        assert await replica.rescan() == 0
    assert ("messages", 300) in await _changed(replica)
    assert (await _dirty(replica))[Key("messages", rows.row_id(300))].row is not None
    await store.close()
    await store.open()  # a fence outlives its process
    assert (tmp_path / "store" / "chats").is_file()
    assert len(await store.read(Select("messages"))) == 5
    assert await replica.change_gate("chats", expect={"role": "fenced"}, change={"role": "primary", "epoch": 1})
    assert not (tmp_path / "store" / "fenced").exists()
    await store.commit(rows.append(400, 1))
    await store.close()
    assert rows.row_id(400) in path.read_text()


async def test_a_replica_behind_the_fence_takes_copies_and_gives_them_back_in_place(
    store: FileStore, tmp_path: Path
) -> None:
    replica, other = store.replica(), await _opened(tmp_path / "store")
    for role in ("fenced", "replica"):
        await replica.change_gate("users", expect={}, change={"role": role})
    (row,) = [entry.row for entry in await replica.entries("users", [USER])]
    assert row is not None
    changed = (*row[:3], "copied", *row[4:])
    await replica.apply([Entry("users", USER, 2 * EPOCH + 1, changed)])
    assert await other.read(Count("users", (Compare("name", "=", "copied"),))) == [(1,)]
    await store.close()
    await other.close()
    assert "copied" in _only(tmp_path, f"fenced/users/*/{USER}.json").read_text()
    await store.open()
    await store.replica().uninstall(keep_fence=False)
    assert "copied" in _only(tmp_path, f"users/*/{USER}.json").read_text()


async def test_without_one_step_for_it_the_directory_changes_places_all_the_same(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    replica, before = store.replica(), await rows.everything(store)
    await replica.change_gate("chats", expect={}, change={"role": "fenced"})
    assert (tmp_path / "store" / "chats").is_file()
    assert await rows.everything(store) == before
    await replica.change_gate("chats", expect={}, change={"role": "primary"})
    assert (tmp_path / "store" / "chats").is_dir()
    assert await rows.everything(store) == before


async def test_a_fence_that_is_refused_leaves_the_directory_where_it_is(store: FileStore, tmp_path: Path) -> None:
    assert not await store.replica().change_gate("chats", expect={"epoch": 5}, change={"role": "fenced"})
    assert (tmp_path / "store" / "chats").is_dir()


async def test_a_move_that_begins_takes_what_the_library_has_not_written_down_yet_for_its_own(tmp_path: Path) -> None:
    for _ in range(2):  # a second move knows nothing from the first
        store = await _opened(tmp_path / "store")
        if not await store.read(Count("users")):
            await _fill(store)
        await store.close()
        await store.open()  # everything is in documents
        await store.commit([Update("users", {"id": USER}, {"name": "newer"})])
        await store.commit([Insert("users", rows.user(7)), Delete("users", (Compare("id", "=", OTHER),))])
        before = await rows.everything(store)
        await store.replica().install(GATES)
        assert await rows.everything(store) == before
        assert await _changed(store.replica()) == {}
        await store.replica().uninstall(keep_fence=False)
        await store.commit([Insert("users", rows.user(2)), Delete("users", (Compare("id", "=", rows.row_id(7)),))])
        await store.commit([Update("users", {"id": USER}, {"name": "between"})])
        await store.close()


async def test_what_others_changed_before_a_move_is_taken_in_as_it_begins(tmp_path: Path) -> None:
    store = await _opened(tmp_path / "store")
    await _fill(store)
    await store.close()
    await store.open()
    _edit(_only(tmp_path, f"users/*/{USER}.json"), lambda user: user.update(name="by hand"))
    _only(tmp_path, f"users/*/{OTHER}.json").unlink()
    await store.replica().install(GATES)
    assert await _changed(store.replica()) == {("users", 1): False, ("users", 2): True}
    await store.close()


async def test_a_program_that_writes_files_beside_the_library_loses_nothing_until_it_is_refused(tmp_path: Path) -> None:
    """The library's checkpoints go on meanwhile, over other rows of the same files too."""
    directory = tmp_path / "store"
    store = await _opened(directory, segment_bytes=20_000)
    await store.commit([Insert("users", rows.user(n)) for n in (1, USER_71)])
    await store.commit([Insert("user_memory", rows.memory(n, USER_71, key=f"k{n}")) for n in (73, 74)])
    await store.commit([Insert("chat_sessions", rows.chat(n)) for n in (1, 72)])
    await store.commit(rows.append(79, 72))
    replica = store.replica()
    await replica.install(GATES)
    command = [sys.executable, "-m", "tests.move.file_foreign", str(directory)]
    copied: dict[Key, Entry] = {}

    async def look() -> None:
        await replica.rescan()
        found = await _dirty(replica)
        copied.update(found)
        await replica.acknowledge([Copied(e.table, e.id, e.version, 7) for e in found.values()])

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:  # noqa: ASYNC220  # it ends by itself
        stdout = program.stdout
        assert stdout is not None
        assert await asyncio.to_thread(stdout.readline) == "ready\n"
        reading = asyncio.create_task(asyncio.to_thread(stdout.readlines))
        for number in range(300):
            await store.commit(rows.append(1000 + number, 1))
            await store.commit([Update("user_memory", {"id": rows.row_id(74)}, {"value": number})])
            await store.commit([Insert("system_logs", rows.log(5000 + number))])
            if number % 50 == 0:
                await look()
        for unit in ("users", "memory", "chats"):
            while not await _fence(replica, unit):
                pass
        told = [line.rstrip("\n").split(" ", 2) for line in await reading]
    await look()
    assert told[-1][0] == "refused"
    acknowledged = {Key(table, row_id): mark for table, row_id, mark in told[:-1]}
    assert len(acknowledged) > 3
    wrong = {
        key: mark for key, mark in acknowledged.items() if key not in copied or mark not in (copied[key].row or ())
    }
    assert not wrong, "what its last write said is what was to be copied last"
    assert (await rows.everything(store))["user_memory"][1][4] == 299, "and nothing of the library's was undone"
    assert not (directory / "quarantine").exists(), "nor was anything in the way of anything"
    await store.close()


async def test_a_target_takes_nothing_of_programs_that_write_its_files(tmp_path: Path) -> None:
    """Not before the switch, and what they write after it is registered."""
    store = await _opened(tmp_path / "store")
    replica = store.replica()
    await replica.install([gate._replace(side="target", role="replica", epoch=0) for gate in GATES])
    user = tuple(rows.user(1)[name] for name in TABLES["users"].names)
    await replica.apply([Entry("users", USER, EPOCH + 1, user)])
    await store.close()
    await store.open()
    path = tmp_path / "store" / "users" / "c4" / f"{USER}.json"
    for write in (lambda: path.write_text("{}"), lambda: path.parent.mkdir(parents=True)):
        with pytest.raises(NotADirectoryError):
            write()
    assert (await rows.everything(store))["users"][0][0] == USER
    assert await replica.change_gate("users", expect={"role": "replica"}, change={"role": "primary", "epoch": 2})
    path = _only(tmp_path, f"users/*/{USER}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "by hand"}))
    assert await replica.rescan() == 1
    (entry,) = (await _dirty(replica)).values()
    assert entry.row is not None
    assert ("by hand" in entry.row, entry.version > 2 * EPOCH) == (True, True)
    await store.close()


async def _fence(replica: Replica, unit: str) -> bool:
    try:
        return await replica.change_gate(unit, expect={"role": "primary"}, change={"role": "fenced"})
    except DalTimeoutError:
        return False  # a checkpoint was under way


async def test_an_entry_that_the_journal_has_overtaken_is_no_work_left(store: FileStore) -> None:
    replica = store.replica()
    await store.commit([Update("users", {"id": USER}, {"name": "first"})])
    await store.close()
    await store.open()  # the entry is in the registry's file now, still dirty
    await store.commit([Update("users", {"id": USER}, {"name": "second"})])
    (entry,) = (await _dirty(replica)).values()
    await replica.acknowledge([Copied("users", USER, entry.version, 7)])
    assert await replica.tables_with("dirty") == frozenset()
    assert await replica.tables_with("copied") == {"users"}
