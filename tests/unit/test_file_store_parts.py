"""The file store's parts, each by itself: names, lines, journal, index, what it may hold in memory."""

from __future__ import annotations

import asyncio
import json
import os
import random
import unicodedata
from pathlib import Path

import pytest

from dal.backends.file import FileStore, index, lines
from dal.backends.file.codec import decode_changes, encode_changes, from_line, to_line
from dal.backends.file.index import Index, Place
from dal.backends.file.journal import Boundary, Journal, Record, settled_position
from dal.backends.file.layout import Layout, file_name, sharded
from dal.backends.file.lines import LineFile
from dal.backends.file.lock import FileLock
from dal.backends.file.prefilter import prefilter
from dal.backends.rows import Change, Drop, MemoryRows, encode
from dal.ops import Compare, Insert, Select
from dal.search import matches, parse_query
from dal.tables import TABLES
from dal.testing import rows

# -- names

ODD_KEYS = [
    *("c-1", "support.42", "a_b", "A", "a", "a ", " a", "a.", ".a", "..", ".", "a/b", "a\\b", "CON", "con", "nul.txt"),
    *("ünï", "u\u0308nï", "猫", "😀", "~", "a~b", "x" * 100, "x" * 101, "x" * 255, "😀" * 255, "İ", "ß", "ẞ", "\u2028"),
    *("a\nb", "a:b", "a*b", "com1", "COM1", "-", "--help", "café", "cafe\u0301", "%2e%2e", "a b", "a  b", "\x7f"),
]


def test_distinct_keys_have_distinct_names_on_any_disk() -> None:
    """Also where case or Unicode form does not count."""
    names = {unicodedata.normalize("NFD", file_name(key)).casefold() for key in ODD_KEYS}
    assert len(names) == len(set(ODD_KEYS))


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_name_is_a_short_plain_file_name(key: str) -> None:
    name = file_name(key)
    assert name.isascii()
    assert name == name.lower()
    assert len(f"{name}.jsonl.tmp") <= 140
    assert not set(name) & set('/\\:*?"<>| \0')
    assert name.strip(". ") == name or name.startswith("~")
    assert name.split(".")[0] not in ("con", "nul", "com1")
    assert Path(sharded(key, ".json")).parts[1] == f"{name}.json"


def test_a_plain_key_is_its_own_name_and_others_stay_readable() -> None:
    assert file_name("support-42.b") == "support-42.b"
    assert file_name("Ada's first chat!").startswith("ada-s-first-chat~")


# -- lines


def _write(path: Path, numbers: list[int], dice: random.Random) -> tuple[list[bytes], list[int]]:
    found = [b"%d:%b" % (n, b"x" * dice.choice((0, 1, 5, 40, 700))) for n in numbers]
    offsets = [sum(len(line) + 1 for line in found[:n]) for n in range(len(found))]
    torn = dice.choice((b"", b"torn", b"y" * dice.randrange(1, 400)))
    path.write_bytes(b"".join(line + b"\n" for line in found) + torn)
    return found, offsets


def test_lines_are_found_from_both_ends_and_from_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In files of every shape, read in chunks of every size, with and without a torn end."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(150):
        monkeypatch.setattr(lines, "_CHUNK_BYTES", dice.choice((16, 64, 300, 16384)))
        monkeypatch.setattr(lines, "_MAX_CHUNK_BYTES", dice.choice((64, 1000, 1 << 20)))
        numbers = sorted(dice.sample(range(1, 400), dice.randrange(60)))
        expected, offsets = _write(tmp_path / "lines", numbers, dice)
        end = sum(len(line) + 1 for line in expected)
        pairs = list(zip(offsets, expected, strict=True))
        with LineFile(tmp_path / "lines") as file:
            assert file.end() == end
            assert list(file.forward()) == pairs
            assert list(file.backward()) == pairs[::-1]
            for wanted in range(0, 402, 11):
                place = file.bisect(lambda line: int(line.split(b":")[0]), wanted)
                assert place == next((o for o, n in zip(offsets, numbers, strict=True) if n >= wanted), end)
                assert list(file.backward(place)) == [pair for pair in pairs if pair[0] < place][::-1]


# -- rows as JSON


def test_rows_survive_lines_and_journal_records() -> None:
    table = TABLES["messages"]
    content = "\u2028\u2029\u0085\n\r\x00\x1f\U0001f600"
    message = rows.message(1, 2, metadata={"a": [1e300, -0.0, None, 2**63 - 1]}, content=content, sequence_number=3)
    row = encode(table, message)  # type: ignore[arg-type]  # without a Ref
    line = to_line(table, row)
    assert line.count(b"\n") == 1
    assert from_line(table, line) == row
    changes: list[Change | Drop] = [
        Change("messages", row[0], row),
        Change("users", "x", None),
        Drop("files", "user_id", "y"),
    ]
    assert decode_changes(encode_changes(changes)) == changes


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"sequence_number": "3"},
        {"sequence_number": 3.0},
        {"sequence_number": True},
        {"created_at": "yesterday"},
        {"created_at": "2026-01-01T00:00:00"},
        {"created_at": "2026-01-01T00:00:00+02:00"},
        {"content": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_line_of_another_shape_is_refused(change: dict[str, object]) -> None:
    table = TABLES["messages"]
    row = encode(table, rows.message(1, 2, sequence_number=3))  # type: ignore[arg-type]
    value = json.loads(to_line(table, row)) | change
    with pytest.raises(ValueError, match=r"."):
        from_line(table, json.dumps(value).encode())


# -- the journal


def _journal(directory: Path) -> Journal:
    layout = Layout(directory)
    layout.prepare(create=True)
    journal = Journal(layout)
    journal.state.published = journal.recover()
    journal.seek(settled_position(layout))
    return journal


def _read(journal: Journal) -> list[bytes | int]:
    return [found.payload if isinstance(found, Record) else found.position for found in journal.read()]


@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 1_500_000, 5_000_000])
def test_a_follower_reads_every_record_once_across_segments(tmp_path: Path, size: int) -> None:
    writer, follower = _journal(tmp_path), _journal(tmp_path)
    written: list[bytes | int] = []
    for n in range(6):
        payload = b"%d" % n + b"x" * size
        writer.publish(writer.append(payload))
        written.append(payload)
        if n % 2:
            writer.rotate()
            written.append(writer.position)
    assert follower.has_news()
    assert _read(follower) == written
    assert not follower.has_news()
    assert follower.position == writer.position
    assert _read(_journal(tmp_path)) == written
    assert not [*writer.problems, *follower.problems]


def test_what_is_not_published_is_not_read_and_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    dying, writer, follower = (_journal(tmp_path) for _ in range(3))
    dying.append(b"never acknowledged, and longer than what follows")
    assert _read(follower) == []
    writer.publish(writer.append(b"next"))
    assert _read(follower) == [b"next"]
    writer.publish(writer.append(b"and next"))
    assert _read(_journal(tmp_path)) == [b"next", b"and next"]


def test_nothing_of_a_record_that_was_cut_off_is_ever_read(tmp_path: Path) -> None:
    """Not even where it holds, in just the right place, what looks like a record."""
    forger = _journal(tmp_path / "elsewhere")
    forger.publish(forger.append(b"forged"))
    (log,) = (tmp_path / "elsewhere" / "journal").glob("*.log")
    forged = log.read_bytes().rstrip(b"\0")
    dying, writer = _journal(tmp_path / "store"), _journal(tmp_path / "store")
    dying.append(b"12345" + forged)  # begins where a record with a payload of four bytes ends
    writer.publish(writer.append(b"next"))
    assert _read(_journal(tmp_path / "store")) == [b"next"]


def test_a_follower_that_is_behind_what_was_removed_is_told(tmp_path: Path) -> None:
    writer, follower = _journal(tmp_path), _journal(tmp_path)
    for _ in range(40):
        writer.publish(writer.append(b"x"))
        writer.rotate()
        writer.settle(writer.position)
        writer.retire()
    assert len(writer.segments()) < 40
    with pytest.raises(FileNotFoundError):
        list(follower.read())


def test_a_rotation_without_records_behind_it_is_followed(tmp_path: Path) -> None:
    writer, follower = _journal(tmp_path), _journal(tmp_path)
    writer.publish(writer.append(b"x"))
    writer.rotate()
    assert list(follower.read())[-1] == Boundary(writer.position)
    follower.publish(follower.append(b"y"))
    assert _read(writer) == [b"y"]


# -- the index


def test_the_index_finds_what_was_put_and_not_what_was_removed(tmp_path: Path) -> None:
    found = Index(tmp_path / "ids.sqlite")
    places = [Place(rows.row_id(n), rows.row_id(100 + n % 3), n) for n in range(2000)]
    odd = [Place("not a uuid", "2026-01-02", 7), Place("ffffffff-ffff-4fff-8fff-ffffffffffff", "x", 8)]
    with found.writer() as writer:
        writer.put(index.MESSAGES, [*places, *odd])
        writer.remove(index.MESSAGES, [rows.row_id(5)])
        writer.commit(10)
    found.refresh()
    assert found.settled() == 10
    assert found.find(index.MESSAGES, rows.row_id(4)) == places[4]
    assert found.find(index.MESSAGES, rows.row_id(5)) is None
    assert found.find(index.LOGS, rows.row_id(4)) is None
    assert [found.find(index.MESSAGES, place.id) for place in odd] == odd
    behind = list(found.behind(index.MESSAGES, rows.row_id(3)))
    assert behind[: len(places) - 5] == [place for place in places[4:] if place.id != rows.row_id(5)]
    found.close()


def test_an_index_change_that_was_not_committed_is_not_there(tmp_path: Path) -> None:
    found = Index(tmp_path / "ids.sqlite")
    with found.writer() as writer:
        writer.put(index.LOGS, [Place("a", "b", 0)])
    assert found.find(index.LOGS, "a") is None
    assert found.settled() == -1
    found.close()


# -- search


@pytest.mark.parametrize("seed", range(3))
def test_the_prefilter_passes_every_line_that_matches(seed: int) -> None:
    dice = random.Random(seed)
    pieces = [
        "cafe",
        "Café",
        "ＣＡＦＥ",
        "ca\u0301fe",
        "repo-map",
        "猫",
        "猫が好き",
        "ﾈｺ",
        "ネコ",
        "か\u3099",
        "が",
        "①",
        "ﬁn",
        "fin",
    ]
    pieces += [
        "İ",
        "ſet",
        "set",
        "ς",
        "σ",
        "ß",
        "ss",
        "㌔",
        "キロ",
        "\n",
        "\\",
        '"',
        "é\u0327",
        "ก็",
        "Ⅳ",
        "iv",
        "\u212a",
        "k",
    ]
    for _ in range(2000):
        text = "".join(dice.choice((piece, piece.upper(), f" {piece} ")) for piece in dice.choices(pieces, k=4))
        query = parse_query(dice.choice(pieces))
        passes = prefilter(query)
        line = json.dumps({"content": text}, ensure_ascii=False).encode()
        assert passes(line) or not matches(query, text), (query, text)


def test_the_prefilter_knows_every_character_that_becomes_another() -> None:
    """Each character of Unicode, beside others it might join with."""
    queries = [parse_query(text) for text in ("ab", "猫", "ガ", "が", "か", "10", "k", "ss", "ア")]
    tests = [(query, prefilter(query)) for query in queries]
    for code in range(0x80, 0x20000):
        character = chr(code)
        if unicodedata.category(character) in ("Cn", "Co", "Cs") or 0x3400 < code < 0x9FFF or 0xAC00 < code < 0xD7A3:
            continue
        for text in (f"{character} a{character}b", f"か{character} カ{character}猫"):
            line = json.dumps({"content": text}, ensure_ascii=False).encode()
            for query, passes in tests:
                assert passes(line) or not matches(query, text), (query.patterns, text, hex(code))


# -- locks and memory


async def test_a_lock_is_held_by_one_and_waited_for_by_others(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.try_acquire()
    assert not other.try_acquire()
    with pytest.raises(TimeoutError):
        await other.acquire(0.01)
    waiting = asyncio.create_task(other.acquire(10))
    await asyncio.sleep(0)
    one.release()
    await waiting
    assert not one.try_acquire()
    other.close()
    assert one.try_acquire(), "closing lets go"
    one.close()


async def test_memory_grows_with_chats_and_not_with_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows held in memory after opening, counted: the same for 20 messages as for 400."""
    held: dict[int, int] = {}
    original = MemoryRows.__init__
    for messages in (20, 400):
        store = FileStore(tmp_path / str(messages), segment_bytes=20_000)
        await store.open()
        await store.commit([Insert("chat_sessions", rows.chat(1)), Insert("users", rows.user(1))])
        for n in range(2, 2 + messages):
            await store.commit([*rows.append(n, 1), Insert("system_logs", rows.log(n))])
        await store.close()
        made: list[MemoryRows] = []

        def counted(self: MemoryRows, *args: object, made: list[MemoryRows] = made, **kwargs: object) -> None:
            original(self, *args, **kwargs)  # type: ignore[arg-type]
            made.append(self)

        monkeypatch.setattr(MemoryRows, "__init__", counted)
        await store.open()
        held[messages] = sum(len(table) for table in made)
        of_chat = (Compare("chat_session_id", "=", rows.row_id(1)),)
        newest = await store.read(Select("messages", of_chat, ("-sequence_number",), limit=1, columns=("id",)))
        assert newest == [(rows.row_id(1 + messages),)]
        assert await rows.numbers(store, Select("messages", (Compare("id", "=", rows.row_id(2)),))) == [2]
        assert sum(len(table) for table in made) == held[messages], "reading holds nothing either"
        await store.close()
        monkeypatch.undo()
    assert held == {20: 2, 400: 2}


async def test_the_newest_messages_cost_the_same_however_long_the_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes read, counted: of a chat of 50 messages and of one of 5,000."""
    read: dict[int, int] = {}
    original = os.pread
    for messages in (50, 5_000):
        store = FileStore(tmp_path / str(messages))
        await store.open()
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        await store.commit([op for n in range(2, 2 + messages) for op in rows.append(n, 1)])
        await store.close()
        await store.open()
        total = 0

        def counted(descriptor: int, size: int, offset: int, /) -> bytes:
            nonlocal total
            data = original(descriptor, size, offset)
            total += len(data)
            return data

        monkeypatch.setattr(os, "pread", counted)
        of_chat = (Compare("chat_session_id", "=", rows.row_id(1)),)
        newest = await store.read(Select("messages", of_chat, ("-sequence_number",), limit=20, columns=("id",)))
        read[messages] = total
        assert [rows.number_of(row[0]) for row in newest] == list(range(1 + messages, messages - 19, -1))
        total = 0
        middle = (*of_chat, Compare("sequence_number", "<", messages // 2))
        found = await store.read(Select("messages", middle, ("-sequence_number",), limit=1, columns=("id",)))
        assert [rows.number_of(row[0]) for row in found] == [messages // 2]
        assert total < 300_000, "a place in the middle is found without reading what is before it"
        monkeypatch.undo()
        await store.close()
    assert read[5_000] <= 2 * read[50]


# -- the audit trail by id


async def test_log_entries_are_read_page_after_page_by_id_whatever_happens_to_their_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    await store.open()
    numbers = list(range(100, 160))
    random.Random(7).shuffle(numbers)
    await store.commit([Insert("system_logs", rows.log(number)) for number in numbers])
    await store.close()
    await store.open()
    (day,) = (tmp_path / "audit").glob("*.jsonl")
    found: list[int] = []
    while page := await rows.numbers(store, Select("system_logs", order=("id",), after=_place(found), limit=7)):
        found += page
        lines = day.read_bytes().splitlines(keepends=True)
        day.write_bytes(b"".join(reversed(lines)))  # where the last page was read to means nothing any more
    assert found == sorted(numbers)
    assert not (await store.health()).parts["problems"]
    await store.close()


def _place(found: list[int]) -> tuple[str, ...] | None:
    return (rows.row_id(found[-1]),) if found else None
