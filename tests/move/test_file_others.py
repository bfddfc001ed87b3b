"""What programs that know no library write into the files of a store in a live move is registered, and comes along."""

from __future__ import annotations

import json
import sys
from itertools import count
from pathlib import Path

import pytest

from dal.backends.file import FileStore, beside, faults
from dal.backends.file.layout import sharded
from dal.ops import Compare, Count, Delete, Insert, Select, Update
from dal.replica import Key
from dal.testing import rows
from tests.move.filing import GATES, OTHER, USER, changed, dirty, drain, edit, fill, line_of, only, opened, store

__all__ = ["store"]


async def test_a_hand_edited_document_is_an_update(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    assert await replica.rescan() == 0
    edit(only(tmp_path, f"users/*/{USER}.json"), lambda user: user.update(name="by hand"))
    assert await replica.rescan() == 1
    found = await dirty(replica)
    assert [key.id for key in found] == [USER]
    assert "by hand" in (found[Key("users", USER)].row or ())
    assert await replica.rescan() == 0
    await store.close()
    await store.open()
    assert await store.read(Count("users", (Compare("name", "=", "by hand"),))) == [(1,)]


async def test_documents_and_their_items_come_and_go(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    memory = only(tmp_path, "memory/*/*.json")

    def change(document: dict[str, object]) -> None:
        items = document["items"]
        assert isinstance(items, list)
        items[0]["value"] = ["changed"]
        items[1] = items[1] | {"id": rows.row_id(19), "key": "new"}

    edit(memory, change)
    assert await replica.rescan() == 3
    assert await changed(replica) == {
        ("user_memory", 10): False,
        ("user_memory", 11): True,
        ("user_memory", 19): False,
    }
    await drain(replica)
    written = only(tmp_path, f"users/*/{USER}.json").read_text().replace(USER, rows.row_id(9))
    place = tmp_path / "store" / "users" / sharded(rows.row_id(9), ".json")
    place.parent.mkdir(exist_ok=True)
    place.write_text(written)
    only(tmp_path, f"users/*/{OTHER}.json").unlink()
    memory.unlink()
    assert await replica.rescan() == 5
    gone = {("users", 2), ("user_memory", 10), ("user_memory", 12), ("user_memory", 19)}
    assert await changed(replica) == {("users", 9): False, **dict.fromkeys(gone, True)}
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("users", order=("id",))) == [1, 9]
    assert not await store.read(Select("user_memory"))


async def test_a_document_that_is_gone_takes_along_what_hangs_on_it(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    only(tmp_path, "chats/*/chat-1.json").unlink()
    assert await replica.rescan() == 1
    assert await changed(replica) == {("chat_sessions", 1): True, **{("messages", n): True for n in range(100, 104)}}
    await store.close()
    assert not list((tmp_path / "store" / "chats").glob("*/*")), "the lines too"


async def test_two_documents_that_exchange_a_unique_value_are_taken_in(store: FileStore, tmp_path: Path) -> None:
    replica = store.replica()
    users = [only(tmp_path, f"users/*/{user}.json") for user in (USER, OTHER)]
    for names in (("a", "b"), ("b", "a")):
        for path, name in zip(users, names, strict=True):
            edit(path, lambda user, name=name: user.update(clerk_id=name))  # type: ignore[misc]
        assert await replica.rescan() == 2
    found = await store.read(Select("users", order=("id",), columns=("clerk_id",)))
    assert found == [("b",), ("a",)]


async def test_what_the_library_wrote_since_stands_against_what_a_file_says(store: FileStore, tmp_path: Path) -> None:
    replica, memory = store.replica(), only(tmp_path, "memory/*/*.json")
    await store.commit([Update("user_memory", {"id": rows.row_id(10)}, {"value": "library"})])
    await store.commit([Delete("user_memory", (Compare("id", "=", rows.row_id(11)),))])

    def change(document: dict[str, object]) -> None:
        items = document["items"]
        assert isinstance(items, list)
        for item in items:
            item["value"] = "foreign"

    edit(memory, change)
    assert await replica.rescan() == 1
    await store.close()
    await store.open()
    found = await store.read(Select("user_memory", order=("id",), columns=("value",)))
    assert found == [("library",), ("foreign",)]


@pytest.mark.parametrize("text", ["", '{"id": "', "[]", '{"id": 1}'], ids=repr)
async def test_a_damaged_document_is_named_and_left_alone(store: FileStore, tmp_path: Path, text: str) -> None:
    replica, path = store.replica(), only(tmp_path, f"users/*/{OTHER}.json")
    whole = path.read_text()
    path.write_text(text)
    assert await replica.rescan() == 0
    assert path.read_text() == text
    assert await changed(replica) == {}
    assert any(path.name in problem for problem in await replica.obstacles())
    assert (await store.health()).status == "degraded"
    path.write_text(whole)
    assert await replica.rescan() == 0
    assert await replica.obstacles() == []


async def test_lines_appended_edited_and_removed_are_registered(store: FileStore, tmp_path: Path) -> None:
    replica, path = store.replica(), only(tmp_path, "chats/*/chat-1.jsonl")
    with path.open("a") as file:
        file.write(line_of(path, 300, sequence_number=9, content="\u2028 foreign"))
    assert await replica.rescan() == 5, "nobody knows what the other lines were"
    assert ("messages", 300) in await changed(replica)
    assert await rows.numbers(store, Select("messages", (Compare("id", "=", rows.row_id(300)),))) == [300]
    await drain(replica)
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0].replace('"content":"', '"content":"edited '), *lines[2:]]))
    assert await replica.rescan() == 5
    assert await changed(replica) == {("messages", n): n == 101 for n in (100, 101, 102, 103, 300)}
    day = next((tmp_path / "store" / "audit").glob("*.jsonl"))
    with day.open("a") as file:
        file.write(line_of(day, 90))
    assert await replica.rescan() == 3
    await store.close()
    await store.open()
    assert await rows.numbers(store, Select("messages", order=("id",))) == [100, 102, 103, 300]
    assert len(await store.read(Select("system_logs"))) == 3


async def test_a_line_that_cannot_be_is_named_and_its_neighbours_are_taken_in(store: FileStore, tmp_path: Path) -> None:
    replica, path = store.replica(), only(tmp_path, "chats/*/chat-1.jsonl")
    last = path.read_text().splitlines()[-1]
    with path.open("a") as file:
        file.write("no json\n")
        file.write(line_of(path, 300, sequence_number=4))
    with path.open("a") as file:
        file.write(json.dumps(json.loads(last) | {"id": rows.row_id(301), "sequence_number": 9}) + "\n")
    await replica.rescan()
    found = await changed(replica)
    assert ("messages", 301) in found
    assert ("messages", 300) not in found
    assert any("chat-1.jsonl" in problem and "taken" in problem for problem in await replica.obstacles())


async def test_what_was_changed_while_nobody_had_the_store_open_is_registered(store: FileStore, tmp_path: Path) -> None:
    await store.replica().raise_versions("users", [USER, OTHER])
    await drain(store.replica())
    lines = only(tmp_path, "chats/*/chat-1.jsonl")
    await store.close()
    edit(only(tmp_path, f"users/*/{USER}.json"), lambda user: user.update(name="meanwhile"))
    only(tmp_path, f"users/*/{OTHER}.json").unlink()
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[1:]))
    await store.open()
    await store.close()  # another process may have come and gone without a look
    await store.open()
    replica = store.replica()
    assert await replica.rescan() == 6
    expected = {("messages", n): n == 100 for n in range(100, 104)}
    assert await changed(replica) == {("users", 1): False, ("users", 2): True, **expected}
    assert await replica.rescan() == 0


#: Where the checkpoint has looked at a file a last time, and where the file has taken its place.
_AT_LAST = [
    pytest.param(point, number, marks=pytest.mark.skipif(sys.platform != "linux", reason="exchanges no names"))
    for point in ("beside.looked", "beside.exchanged")
    for number in (1, 2)
]


@pytest.mark.parametrize(
    ("point", "number"),
    [("", 1), ("checkpoint.aside", 1), ("checkpoint.planned", 1), ("checkpoint.synced", 1), *_AT_LAST],
)
async def test_what_others_write_while_a_checkpoint_writes_the_same_files_comes_along(
    store: FileStore, tmp_path: Path, point: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When that point is reached for so many times."""
    memory, chat = only(tmp_path, "memory/*/*.json"), only(tmp_path, "chats/*/chat-1.jsonl")
    day = next((tmp_path / "store" / "audit").glob("*.jsonl"))
    written: list[str] = []

    def write(reached: str = "") -> None:
        written.extend([reached] if reached == point else [])
        if reached != point or len(written) != number:
            return
        edit(memory, lambda document: document["items"][0].update(value="foreign"))  # type: ignore[index]
        for path, changes in ((chat, {"sequence_number": 8}), (day, dict[str, int]())):
            line = line_of(path, 300, **changes)
            with path.open("a") as file:
                file.write(line)

    write()  # before the checkpoint, or else in it
    await store.commit([Update("user_memory", {"id": rows.row_id(12)}, {"value": "library"})])
    await store.commit([Update("messages", {"id": rows.row_id(100)}, {"content": "library"})])
    await store.commit([Insert("system_logs", rows.log(70))])
    monkeypatch.setattr(faults, "hook", write)
    await store.close()
    assert len(written) >= number
    monkeypatch.setattr(faults, "hook", None)
    await store.open()
    replica = store.replica()
    await replica.rescan()
    values = await store.read(Select("user_memory", order=("id",), columns=("value",)))
    assert (values[0], values[2]) == (("foreign",), ("library",))
    own = {("user_memory", 12), ("messages", 100), ("system_logs", 70)}
    assert own | {("user_memory", 10), ("messages", 300), ("system_logs", 300)} <= (await changed(replica)).keys()
    assert await rows.numbers(store, Select("messages", order=("id",))) == [100, 101, 102, 103, 300]
    assert await rows.numbers(store, Select("system_logs", order=("id",))) == [60, 61, 70, 300]
    assert not (tmp_path / "store" / "quarantine").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="exchanges no names")
@pytest.mark.parametrize("is_renamed", [False, True])
async def test_a_document_that_others_write_faster_and_faster_still_comes_along(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_renamed: bool
) -> None:
    """They are there between the last look and the exchange, and again before what came out is looked at."""
    memory = only(tmp_path, "memory/*/*.json")
    before = json.loads(memory.read_text())
    edits = {"beside.looked": "first", "beside.exchanged": "second"}

    def write(reached: str) -> None:
        if (value := edits.pop(reached, None)) is not None:
            aside = memory.with_name("aside")
            items = [before["items"][0] | {"value": value}, *before["items"][1:]]
            aside.write_text(json.dumps(before | {"items": items}))
            if is_renamed:
                aside.rename(memory)
            else:
                memory.write_text(aside.read_text())

    await store.commit([Update("user_memory", {"id": rows.row_id(12)}, {"value": "library"})])
    monkeypatch.setattr(faults, "hook", write)
    await store.close()
    monkeypatch.setattr(faults, "hook", None)
    assert not edits
    assert not [path for path in memory.parent.iterdir() if path not in (memory, memory.with_name("aside"))]
    memory.with_name("aside").unlink(missing_ok=True)
    await store.open()
    await store.replica().rescan()
    values = await store.read(Select("user_memory", order=("id",), columns=("value",)))
    assert (values[0], values[2]) == (("second",), ("library",))


async def test_a_file_system_that_numbers_files_anew_when_they_are_renamed_takes_documents_all_the_same(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, numbers, identity = only(tmp_path, "memory/*/*.json"), count(1), beside._identity

    def renumbered(path: Path) -> beside._Identity | None:
        found = identity(path)
        return None if found is None else found._replace(inode=next(numbers))

    monkeypatch.setattr(beside, "_identity", renumbered)
    await store.commit([Update("user_memory", {"id": rows.row_id(12)}, {"value": "library"})])
    await store.close()
    assert next(numbers) > 20
    assert "library" in memory.read_text()
    assert [*memory.parent.iterdir()] == [memory]


@pytest.mark.parametrize("is_looked_at", [False, True], ids=["", "looked at before"])
async def test_a_row_that_both_have_written_is_the_librarys_and_the_others_is_kept_aside(
    store: FileStore, tmp_path: Path, *, is_looked_at: bool
) -> None:
    path = only(tmp_path, f"users/*/{USER}.json")
    await store.commit([Update("users", {"id": USER}, {"name": "library"})])
    edit(path, lambda user: user.update(name="foreign"))
    if is_looked_at:
        assert await store.replica().rescan() == 0
    await store.close()
    assert "library" in path.read_text()
    (kept,) = (tmp_path / "store" / "quarantine").iterdir()
    assert "foreign" in kept.read_text()
    await store.open()
    assert any(kept.name in str(problem) for problem in [(await store.health()).parts["problems"]])


async def test_a_move_that_begins_takes_what_the_library_has_not_written_down_yet_for_its_own(tmp_path: Path) -> None:
    for _ in range(2):  # a second move knows nothing from the first
        store = await opened(tmp_path / "store")
        if not await store.read(Count("users")):
            await fill(store)
        await store.close()
        await store.open()  # everything is in documents
        await store.commit([Update("users", {"id": USER}, {"name": "newer"})])
        await store.commit([Insert("users", rows.user(7)), Delete("users", (Compare("id", "=", OTHER),))])
        before = await rows.everything(store)
        await store.replica().install(GATES)
        assert await rows.everything(store) == before
        assert await changed(store.replica()) == {}
        await store.replica().uninstall(keep_fence=False)
        await store.commit([Insert("users", rows.user(2)), Delete("users", (Compare("id", "=", rows.row_id(7)),))])
        await store.commit([Update("users", {"id": USER}, {"name": "between"})])
        await store.close()


async def test_what_others_changed_before_a_move_is_taken_in_as_it_begins(tmp_path: Path) -> None:
    store = await opened(tmp_path / "store")
    await fill(store)
    await store.close()
    await store.open()
    edit(only(tmp_path, f"users/*/{USER}.json"), lambda user: user.update(name="by hand"))
    only(tmp_path, f"users/*/{OTHER}.json").unlink()
    await store.replica().install(GATES)
    assert await changed(store.replica()) == {("users", 1): False, ("users", 2): True}
    await store.close()
