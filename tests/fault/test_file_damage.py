"""Files that something else has torn, truncated, changed or put there: named, left alone, and nothing else lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dal.backends.file import FileStore
from dal.errors import ConfigurationError, CorruptDataError, SchemaError
from dal.ops import Compare, Count, Insert, JsonValue, Ref, Select, Update
from dal.store import StoreHealth
from dal.testing import rows

IN_CHAT = (Compare("chat_session_id", "=", Ref("chat_sessions", {"chat_id": "chat-1"}, "id")),)
HISTORY = Select("messages", IN_CHAT, ("-sequence_number",), limit=10, columns=("sequence_number",))


async def _opened(directory: Path) -> FileStore:
    store = FileStore(directory)
    await store.open()
    return store


async def _fill(directory: Path) -> None:
    """Two users with memory, two chats with four messages each, a file, two log entries: all in documents."""
    store = await _opened(directory)
    await store.commit([Insert("users", rows.user(n)) for n in (1, 2)])
    await store.commit([Insert("user_memory", rows.memory(10 + n, n)) for n in (1, 2)])
    await store.commit([Insert("chat_sessions", rows.chat(n)) for n in (1, 2)])
    for n in range(8):
        await store.commit(rows.append(100 + n, 1 + n % 2))
    await store.commit([Insert("files", rows.file(50, 1)), Insert("system_logs", rows.log(60))])
    await store.commit([Insert("system_logs", rows.log(61))])
    await store.close()


def _problems(health: StoreHealth) -> list[str]:
    problems: JsonValue = health.parts["problems"]
    assert isinstance(problems, list)
    return [str(problem) for problem in problems]


def _only(directory: Path, pattern: str) -> Path:
    (path,) = directory.glob(pattern)
    return path


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_by_other_json(path: Path) -> None:
    path.write_text('{"shopping": ["milk"]}')


def _drop_a_column(path: Path) -> None:
    document = json.loads(path.read_text())
    del (document["items"][0] if "items" in document else document)["version"]
    path.write_text(json.dumps(document))


DAMAGES = (_cut_in_half, _empty, _replace_by_other_json, _drop_a_column)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize(
    ("pattern", "asked", "refused"),
    [
        (f"users/*/{rows.row_id(1)}.json", Select("users", (Compare("id", "=", rows.row_id(1)),)), "users"),
        ("chats/*/chat-1.json", Select("chat_sessions", (Compare("chat_id", "=", "chat-1"),)), "chat_sessions"),
        (
            f"memory/*/{rows.row_id(1)}.json",
            Select("user_memory", (Compare("user_id", "=", rows.row_id(1)),)),
            "memory",
        ),
        (f"files/*/{rows.row_id(50)}.json", Select("files", (Compare("id", "=", rows.row_id(50)),)), "files"),
    ],
    ids=("user", "chat", "memory", "file"),
)
async def test_a_damaged_document_is_named_and_never_taken_for_absent(
    tmp_path: Path, pattern: str, asked: Select, refused: str, damage: Callable[[Path], None]
) -> None:
    await _fill(tmp_path)
    path = _only(tmp_path, pattern)
    damage(path)
    before = path.read_bytes()
    store = await _opened(tmp_path)
    health = await store.health()
    assert health.status == "degraded"
    assert [problem for problem in _problems(health) if path.relative_to(tmp_path).as_posix() in problem]
    with pytest.raises(CorruptDataError, match=path.name):
        await store.read(asked)
    if refused == "chat_sessions":
        with pytest.raises(CorruptDataError):
            await store.commit([Insert("chat_sessions", rows.chat(9, chat_id="chat-1"))])
        with pytest.raises(CorruptDataError):
            await store.read(Select("messages", (Compare("id", "=", rows.row_id(100)),)))
    # The neighbours are whole, and can be written.
    assert await rows.numbers(store, Select("users", (Compare("id", "=", rows.row_id(2)),))) == [2]
    await store.commit(rows.append(900, 2))
    assert await store.read(Count("messages", (Compare("chat_session_id", "=", rows.row_id(2)),))) == [(5,)]
    await store.close()
    assert path.read_bytes() == before, "what is damaged is left as it is"


async def test_a_restored_document_is_as_good_as_before(tmp_path: Path) -> None:
    await _fill(tmp_path)
    path = _only(tmp_path, "chats/*/chat-1.json")
    whole = path.read_bytes()
    _cut_in_half(path)
    store = await _opened(tmp_path)
    await store.close()
    path.write_bytes(whole)
    store = await _opened(tmp_path)
    assert (await store.health()).status == "ok"
    assert await store.read(HISTORY) == [(4,), (3,), (2,), (1,)]
    await store.close()


async def test_a_torn_last_line_is_named_and_the_lines_before_it_are_read(tmp_path: Path) -> None:
    await _fill(tmp_path)
    path = _only(tmp_path, "chats/*/chat-1.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    store = await _opened(tmp_path)
    health = await store.health()
    assert health.status == "degraded"
    assert any("chat-1.jsonl" in problem and "torn last line" in problem for problem in _problems(health))
    assert await store.read(HISTORY) == [(3,), (2,), (1,)]
    await store.commit(rows.append(900, 1))
    assert await store.read(HISTORY) == [(5,), (3,), (2,), (1,)]
    await store.close()
    # The new message begins a line of its own, and what was torn is kept elsewhere.
    assert all(json.loads(line) for line in path.read_bytes().split(b"\n") if line)
    assert _only(tmp_path, "quarantine/*chat-1.jsonl*").read_bytes()
    store = await _opened(tmp_path)
    assert await store.read(HISTORY) == [(5,), (3,), (2,), (1,)]
    assert any("quarantine/" in problem for problem in _problems(await store.health()))
    await store.close()


@pytest.mark.parametrize("garbage", [b"\x00" * 40, b"not json", b'{"id": 1}', b'["a"]'], ids=repr)
async def test_a_damaged_line_is_passed_over_and_named(tmp_path: Path, garbage: bytes) -> None:
    await _fill(tmp_path)
    path = _only(tmp_path, "chats/*/chat-1.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[1] = garbage
    path.write_bytes(b"\n".join(lines))
    store = await _opened(tmp_path)
    assert await store.read(HISTORY) == [(4,), (3,), (1,)]
    health = await store.health()
    assert health.status == "degraded"
    assert any("chat-1.jsonl" in problem for problem in _problems(health))
    # Changing a neighbour writes the file anew; the damaged line is not lost with it.
    await store.commit([Update("messages", {"id": rows.row_id(100)}, {"abuse_flagged": True}, {"version": 1})])
    await store.close()
    assert garbage in path.read_bytes()
    store = await _opened(tmp_path)
    assert await store.read(HISTORY) == [(4,), (3,), (1,)]
    await store.close()


async def test_files_changed_while_the_store_was_closed_are_read_as_they_are(tmp_path: Path) -> None:
    await _fill(tmp_path)
    path = _only(tmp_path, "chats/*/chat-1.jsonl")
    moved = path.read_bytes().replace(rows.row_id(100).encode(), rows.row_id(777).encode())
    path.write_bytes(moved)
    store = await _opened(tmp_path)
    assert await rows.numbers(store, Select("messages", (Compare("id", "=", rows.row_id(777)),))) == [777]
    assert await rows.numbers(store, Select("messages", (Compare("id", "=", rows.row_id(100)),))) == []
    await store.close()


async def test_without_its_cache_a_store_is_the_same(tmp_path: Path) -> None:
    await _fill(tmp_path)
    store = await _opened(tmp_path)
    before = await rows.everything(store)
    await store.close()
    for spoil in (_remove_cache, _empty_cache, _garble_cache, _garble_pages):
        spoil(tmp_path)
        store = await _opened(tmp_path)
        assert await rows.everything(store) == before
        assert await rows.numbers(store, Select("messages", (Compare("id", "=", rows.row_id(103)),))) == [103]
        assert (await store.health()).status == "ok"
        await store.close()


def _remove_cache(directory: Path) -> None:
    shutil.rmtree(directory / "cache")


def _empty_cache(directory: Path) -> None:
    for path in (directory / "cache").iterdir():
        path.unlink()


def _garble_pages(directory: Path) -> None:
    """A database by its header, and nothing sensible behind it."""
    path = directory / "cache" / "ids.sqlite"
    path.write_bytes(path.read_bytes()[:100] + b"\xa5" * 8092)


def _garble_cache(directory: Path) -> None:
    _empty_cache(directory)
    (directory / "cache" / "ids.sqlite").write_bytes(b"this is no database, whatever its name says" * 50)


# -- the journal


async def _journalled(directory: Path) -> None:
    """Ten users, one record each, in the journal only: as if the process had died."""
    store = await _opened(directory / "alive")
    for n in range(10):
        await store.commit([Insert("users", rows.user(n))])
    shutil.copytree(directory / "alive", directory / "dead")
    await store.close()


def _records(path: Path) -> list[bytes]:
    return path.read_bytes().rstrip(b"\0").splitlines(keepends=True)


@pytest.mark.parametrize("cut", [1, 2, 17, 18, 19, 100, -1])
async def test_a_torn_last_record_that_was_not_acknowledged_is_cut_off_and_reported(tmp_path: Path, cut: int) -> None:
    await _journalled(tmp_path)
    log = _only(tmp_path, "dead/journal/*.log")
    records = _records(log)
    torn = records[-1][:cut]
    log.write_bytes(b"".join(records[:-1]) + torn + b"\0" * 500)
    state = tmp_path / "dead" / "journal" / "state"
    state.write_bytes(b"\0" * 4096)  # the machine died before it was written: nothing says what was acknowledged
    store = await _opened(tmp_path / "dead")
    assert await rows.numbers(store, Select("users", order=("id",))) == list(range(9))
    health = await store.health()
    assert health.status == "ok", "nothing that was acknowledged is lost"
    assert str(len(torn)) in str(health.parts["recovered"])
    await store.commit([Insert("users", rows.user(9))])
    await store.close()
    store = await _opened(tmp_path / "dead")
    assert await store.read(Count("users")) == [(10,)]
    await store.close()


@pytest.mark.parametrize("place", [0, 4, 8])
async def test_a_damaged_record_in_the_middle_is_named_with_its_place_and_the_others_are_kept(
    tmp_path: Path, place: int
) -> None:
    await _journalled(tmp_path)
    log = _only(tmp_path, "dead/journal/*.log")
    records = _records(log)
    offset = sum(map(len, records[:place]))
    records[place] = records[place].replace(b"active", b"ACTIVE")
    log.write_bytes(b"".join(records))
    store = await _opened(tmp_path / "dead")
    assert await rows.numbers(store, Select("users", order=("id",))) == [n for n in range(10) if n != place]
    health = await store.health()
    assert health.status == "degraded"
    assert any(f"journal/{log.name}: the record at byte {offset} " in problem for problem in _problems(health))
    await store.close()
    kept = _only(tmp_path, "dead/quarantine/*.log")
    assert b"ACTIVE" in kept.read_bytes(), "the segment is kept for whoever wants to look"
    store = await _opened(tmp_path / "dead")
    assert (await store.health()).status == "degraded"
    await store.close()


async def test_an_acknowledged_last_record_that_is_damaged_is_not_taken_for_unfinished(tmp_path: Path) -> None:
    await _journalled(tmp_path)
    log = _only(tmp_path, "dead/journal/*.log")
    log.write_bytes(b"".join(_records(log)).replace(rows.row_id(9).encode(), rows.row_id(8).encode()))
    store = await _opened(tmp_path / "dead")
    assert await store.read(Count("users")) == [(9,)]
    assert (await store.health()).status == "degraded"
    await store.close()


async def test_a_journal_that_is_gone_is_an_error(tmp_path: Path) -> None:
    await _fill(tmp_path)
    settled = json.loads((tmp_path / "journal" / "settled.json").read_text())["position"]
    assert settled > 0
    for log in (tmp_path / "journal").glob("*.log"):
        log.unlink()
    (tmp_path / "journal" / f"{settled * 2:016x}.log").write_bytes(b"")
    with pytest.raises(CorruptDataError, match="journal"):
        await FileStore(tmp_path).open()


# -- whole directories


@pytest.mark.parametrize("text", ["", "{", "[]", '{"target": 9e9}', '{"target": 9999999999, "files": [1]}'])
@pytest.mark.parametrize("name", ["checkpoint.json", "settled.json"])
async def test_a_damaged_file_beside_the_journal_is_named(tmp_path: Path, name: str, text: str) -> None:
    await _fill(tmp_path)
    (tmp_path / "journal" / name).write_text(text)
    with pytest.raises(CorruptDataError, match=name):
        await _opened(tmp_path)
    assert (tmp_path / "journal" / name).read_text() == text


async def test_a_directory_of_something_else_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(ConfigurationError, match=r"holiday\.jpg"):
        await FileStore(tmp_path).open()
    assert _names(tmp_path) == ["holiday.jpg"], "nothing was written"


async def test_a_newer_layout_is_refused_and_left_alone(tmp_path: Path) -> None:
    await _fill(tmp_path)
    (tmp_path / "dal.json").write_text('{"layout": 3}')
    for upgrade in (False, True):
        with pytest.raises(SchemaError, match="layout 3"):
            await FileStore(tmp_path, upgrade=upgrade).open()


async def test_an_older_layout_is_brought_up_only_when_asked_to(tmp_path: Path) -> None:
    await _fill(tmp_path)
    marker = tmp_path / "dal.json"
    marker.write_text('{"layout": 1}')
    with pytest.raises(SchemaError, match=r"has layout 1, this library writes 2; .* run `dal schema up"):
        await FileStore(tmp_path).open()
    assert marker.read_text() == '{"layout": 1}'
    store = FileStore(tmp_path, upgrade=True)
    await store.open()
    await store.commit([Insert("pricing_tiers", rows.whole("pricing_tiers", 1))])
    await store.close()
    store = await _opened(tmp_path)
    assert await store.read(Count("pricing_tiers")) == [(1,)]
    await store.close()


@pytest.mark.parametrize("marker", ["", "{", "[]", '{"layout": "1"}'])
async def test_a_damaged_marker_is_named(tmp_path: Path, marker: str) -> None:
    await _fill(tmp_path)
    (tmp_path / "dal.json").write_text(marker)
    with pytest.raises(ConfigurationError, match=r"dal\.json"):
        await FileStore(tmp_path).open()


async def test_without_create_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="dal schema up"):
        await FileStore(tmp_path / "new", create=False).open()
    assert _names(tmp_path) == []


async def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        await FileStore(tmp_path / "file").open()


async def test_strange_files_among_the_documents_do_no_harm(tmp_path: Path) -> None:
    await _fill(tmp_path)
    for name in ("users/README", "chats/.DS_Store", "users/zz/x.json", "audit/notes.txt", "journal/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("hello")
    store = await _opened(tmp_path)
    health = await store.health()
    assert _problems(health) == ["users/zz/x.json: not whole JSON"]
    assert await store.read(Count("users")) == [(2,)]
    await store.close()
    assert (tmp_path / "users/README").read_text() == "hello"


async def test_a_copied_document_is_named_and_the_original_stays(tmp_path: Path) -> None:
    await _fill(tmp_path)
    path = _only(tmp_path, "chats/*/chat-1.json")
    shutil.copy(path, path.with_name("chat-1 (copy).json"))
    store = await _opened(tmp_path)
    assert any("chat-1 (copy).json" in problem for problem in _problems(await store.health()))
    assert await store.read(HISTORY) == [(4,), (3,), (2,), (1,)]
    await store.close()
