"""The fence of a file store, against programs that know no library."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dal import exchange
from dal.backends.file import FileStore
from dal.ops import Compare, Count, Insert, Select, Update
from dal.replica import EPOCH, Copied, Entry, Key
from dal.tables import TABLES
from dal.testing import rows
from tests.move.filing import GATES, USER, USER_71, changed, dirty, fence, line_of, only, opened, store

__all__ = ["store"]

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
    replica, path = store.replica(), only(tmp_path, "chats/*/chat-1.jsonl")
    before = await rows.everything(store)
    line = line_of(path, 300, sequence_number=9)
    with _foreign(path) as tell:
        assert await replica.change_gate("chats", expect={"role": "primary"}, change={"role": "fenced"})
        assert await rows.everything(store) == before, "the library reads on"
        for name in (path, path.with_name("new.jsonl"), tmp_path / "store" / "chats" / "zz"):
            assert tell(f"open {name}\n") == "NotADirectoryError"
        assert tell(line) == "done"
        assert await replica.rescan() == 5
        assert await replica.rescan() == 0
    assert ("messages", 300) in await changed(replica)
    assert (await dirty(replica))[Key("messages", rows.row_id(300))].row is not None
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
    replica, other = store.replica(), await opened(tmp_path / "store")
    for role in ("fenced", "replica"):
        await replica.change_gate("users", expect={}, change={"role": role})
    (row,) = [entry.row for entry in await replica.entries("users", [USER])]
    assert row is not None
    changed = (*row[:3], "copied", *row[4:])
    await replica.apply([Entry("users", USER, 2 * EPOCH + 1, changed)])
    assert await other.read(Count("users", (Compare("name", "=", "copied"),))) == [(1,)]
    await store.close()
    await other.close()
    assert "copied" in only(tmp_path, f"fenced/users/*/{USER}.json").read_text()
    await store.open()
    await store.replica().uninstall(keep_fence=False)
    assert "copied" in only(tmp_path, f"users/*/{USER}.json").read_text()


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


async def test_a_program_that_writes_files_beside_the_library_loses_nothing_until_it_is_refused(tmp_path: Path) -> None:
    """The library's checkpoints go on meanwhile, over other rows of the same files too."""
    directory = tmp_path / "store"
    store = await opened(directory, segment_bytes=20_000)
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
        found = await dirty(replica)
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
            while not await fence(replica, unit):
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
    store = await opened(tmp_path / "store")
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
    path = only(tmp_path, f"users/*/{USER}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "by hand"}))
    assert await replica.rescan() == 1
    (entry,) = (await dirty(replica)).values()
    assert entry.row is not None
    assert ("by hand" in entry.row, entry.version > 2 * EPOCH) == (True, True)
    await store.close()
