"""What an import leaves in a store, on every backend."""

from __future__ import annotations

import gzip
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dal import DataAccess, InvalidInputError, Message
from dal.importing import ImportReport, Progress, Refusal, import_file
from dal.ops import JsonValue
from tests.importing.sources import Fields, conversation, message, write


async def history(dal: DataAccess, chat_id: str) -> list[Message]:
    return [m async for m in dal.messages.iterate(chat_id)]


async def contents(dal: DataAccess, chat_id: str) -> list[str]:
    return [m.content for m in await history(dal, chat_id)]


def counts(report: ImportReport) -> dict[str, int]:
    """What a report counts, without the zeros."""
    names = ("users", "chats", "grown", "messages", "memory_items", "unchanged", "refused", "replaced")
    return {name: count for name in names if (count := getattr(report, name))}


async def test_a_conversation_becomes_a_user_a_chat_and_its_messages(dal: DataAccess, tmp_path: Path) -> None:
    path = write(
        tmp_path / "f",
        [
            conversation(
                "c/1 ",
                title="Engines",
                metadata={"lang": "en"},
                messages=[
                    message("What is it?", at="2024-03-01T09:00:01.5", metadata={"n": [1, -0.0]}),
                    message("", "assistant", at="2024-03-01T08:59:00"),
                    message("\u2028🎉\x07", "system", at=None),
                ],
            )
        ],
    )
    report = await import_file(dal, path)
    assert counts(report) == {"users": 1, "chats": 1, "messages": 3}
    user = await dal.users.get_by_clerk_id("ada")
    assert user is not None
    chat = await dal.chats.get("c/1 ")
    assert chat is not None
    assert (chat.user_id, chat.title, chat.message_count) == (user.id, "Engines", 3)
    assert chat.metadata == {"lang": "en", "import": {"source": "tests"}}
    assert chat.created_at == user.created_at == datetime(2024, 3, 1, 9, tzinfo=UTC)
    assert chat.last_message_at == chat.updated_at == datetime(2024, 3, 1, 8, 59, tzinfo=UTC)
    found = await history(dal, "c/1 ")
    assert [(m.sequence_number, m.role, m.content) for m in found] == [
        (1, "user", "What is it?"),
        (2, "assistant", ""),
        (3, "system", "\u2028🎉\x07"),
    ]
    assert [m.created_at.isoformat() for m in found] == [
        "2024-03-01T09:00:01.500000+00:00",
        "2024-03-01T08:59:00+00:00",
        "2024-03-01T08:59:00+00:00",
    ]
    assert found[0].metadata == {"n": [1, -0.0]}
    assert str(found[0].metadata) == "{'n': [1, -0.0]}"


async def test_an_imported_chat_goes_on_like_any_other(dal: DataAccess, tmp_path: Path) -> None:
    await import_file(dal, write(tmp_path / "f", [conversation("c-1", "one", "two")]))
    added = await dal.messages.add("c-1", "user", "three")
    assert added.sequence_number == 3
    assert await contents(dal, "c-1") == ["one", "two", "three"]


async def test_imported_messages_are_found_by_search(dal: DataAccess, tmp_path: Path) -> None:
    await import_file(dal, write(tmp_path / "f", [conversation("c-1", "repo-map in Café", "鶏肉が好き")]))
    for text in ("repo-map", "cafe", "肉"):
        assert len((await dal.messages.search(text)).items) == 1, text


async def test_a_second_import_changes_nothing(dal: DataAccess, tmp_path: Path) -> None:
    records: list[JsonValue | bytes] = [conversation(f"c-{n}", "one", "two", user=f"u{n % 3}") for n in range(20)]
    records += [conversation("empty"), {"user": "u1", "facts": ["likes tea"]}]
    path = write(tmp_path / "f", records)
    first = await import_file(dal, path, batch_rows=7)
    assert counts(first) == {"users": 4, "chats": 21, "messages": 40, "memory_items": 1}
    before = [await dal.chats.get(f"c-{n}") for n in range(20)], await history(dal, "c-7")
    second = await import_file(dal, path, batch_rows=100)
    assert counts(second) == {"unchanged": 22}
    assert before == ([await dal.chats.get(f"c-{n}") for n in range(20)], await history(dal, "c-7"))


async def test_the_same_file_gives_the_same_rows_whatever_the_batches(dal: DataAccess, tmp_path: Path) -> None:
    records: list[JsonValue | bytes] = [conversation(f"c-{n}", "one", user=None, started_at=None) for n in range(5)]
    path = write(tmp_path / "f", records)
    await import_file(dal, path, batch_rows=1)
    found = [await dal.chats.get(f"c-{n}") for n in range(5)], await history(dal, "c-3")
    for n in range(5):
        await dal.chats.delete(f"c-{n}")
    await import_file(dal, path)
    assert found == ([await dal.chats.get(f"c-{n}") for n in range(5)], await history(dal, "c-3"))


async def test_a_chat_that_has_grown_gets_its_new_messages(dal: DataAccess, tmp_path: Path) -> None:
    path = write(tmp_path / "f", [conversation("c-1", "one"), conversation("c-2", "a")])
    await import_file(dal, path)
    before = await dal.chats.get("c-1")
    write(path, [conversation("c-1", "one", "two", "three"), conversation("c-2", "a")])
    assert counts(await import_file(dal, path)) == {"grown": 1, "messages": 2, "unchanged": 1}
    assert [(m.sequence_number, m.content) for m in await history(dal, "c-1")] == [(1, "one"), (2, "two"), (3, "three")]
    after = await dal.chats.get("c-1")
    assert before is not None
    assert after is not None
    assert after.last_message_at == datetime(2024, 3, 1, 9, 2, tzinfo=UTC)
    assert after.version == before.version + 1
    assert counts(await import_file(dal, path)) == {"unchanged": 2}


async def test_a_chat_that_went_on_in_the_store_is_unchanged(dal: DataAccess, tmp_path: Path) -> None:
    path = write(tmp_path / "f", [conversation("c-1", "one", "two")])
    await import_file(dal, path)
    await dal.messages.add("c-1", "user", "three")
    assert counts(await import_file(dal, path)) == {"unchanged": 1}
    assert await contents(dal, "c-1") == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("texts", "differs"),
    [(("other", "two"), 1), (("one", "other", "three"), 2), (("one", "other"), 2), (("other",), 1)],
)
async def test_a_chat_that_is_stored_otherwise_is_a_conflict_and_stays(
    dal: DataAccess, tmp_path: Path, texts: tuple[str, ...], differs: int
) -> None:
    await import_file(dal, write(tmp_path / "f", [conversation("c-1", "one", "two")]))
    path = write(tmp_path / "g", [conversation("c-0", "x"), conversation("c-1", *texts), conversation("c-2", "y")])
    report = await import_file(dal, path)
    assert counts(report) == {"chats": 2, "messages": 2, "refused": 1}
    assert [(r.line, r.chat_id, r.user) for r in report.refusals] == [(2, "c-1", "ada")]
    assert f"message {differs} differs" in report.refusals[0].reason
    assert await contents(dal, "c-1") == ["one", "two"]


async def test_a_chat_twice_in_a_file_is_compared_with_what_the_first_one_wrote(
    dal: DataAccess, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "f",
        [
            conversation("c-1", "one"),
            conversation("c-1", "one"),
            conversation("c-1", "one", "two"),
            conversation("c-1", "other"),
        ],
    )
    report = await import_file(dal, path)
    assert counts(report) == {"users": 1, "chats": 1, "grown": 1, "messages": 2, "unchanged": 1, "refused": 1}
    assert report.refusals[0].line == 4
    assert await contents(dal, "c-1") == ["one", "two"]


async def test_users_that_are_there_keep_their_ids(dal: DataAccess, tmp_path: Path) -> None:
    ada = await dal.users.create(clerk_id="ada", name="Ada")
    report = await import_file(dal, write(tmp_path / "f", [conversation("c-1", "one"), conversation("c-2", user="bo")]))
    assert counts(report) == {"users": 1, "chats": 2, "messages": 1}
    chat = await dal.chats.get("c-1")
    assert chat is not None
    assert chat.user_id == ada.id
    assert await dal.users.get(ada.id) == ada


async def test_a_user_deleted_between_two_batches_is_made_again(dal: DataAccess, tmp_path: Path) -> None:
    path = write(tmp_path / "f", [conversation(f"c-{n}", "one") for n in range(3)])
    user_ids: list[str] = []
    for _ in range(2):
        await import_file(dal, path)
        user = await dal.users.get_by_clerk_id("ada")
        assert user is not None
        user_ids.append(user.id)
        await dal.users.delete(user.id)
        await dal.chats.delete("c-1")
    assert user_ids[0] == user_ids[1]


async def test_one_bad_record_never_takes_others_with_it(dal: DataAccess, tmp_path: Path) -> None:
    bad: list[JsonValue | bytes] = [
        b"not json",
        b"[]",
        b"",
        b'{"chat_id": "nul", "messages": [{"role": "user", "content": "\\u0000"}]}',
        b'{"chat_id": "half", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"chat_id": "\\ud800", "messages": []}',
        conversation("x" * 256, "too long"),
        {"user": "ada"},
        {"nobody": 1},
        b"\xff\xfe",
    ]
    records: list[JsonValue | bytes] = []
    for n, line in enumerate(bad):
        records += [conversation(f"c-{n}", "good"), line]
    refusals: list[Refusal] = []
    report = await import_file(dal, write(tmp_path / "f", records), on_refusal=refusals.append)
    assert counts(report) == {"users": 1, "chats": 10, "messages": 10, "unchanged": 1, "refused": 8}
    assert [(r.line, r.chat_id and r.chat_id[:6]) for r in sorted(refusals)] == [
        (2, None),
        (4, None),
        (8, "nul"),
        (10, "half"),
        (12, "\\ud800"),
        (14, "xxxxxx"),
        (18, None),
        (20, None),
    ]
    assert sorted(refusals) == sorted(report.refusals)
    assert all(r.reason and "good" not in r.reason and r.json_line().endswith(b"}\n") for r in refusals)


async def test_bad_text_is_replaced_and_counted_when_asked(dal: DataAccess, tmp_path: Path) -> None:
    path = write(
        tmp_path / "f",
        [
            b'{"chat_id": "c-1", "messages": [{"role": "user", "content": "a\\u0000b\\ud800"},'
            b' {"role": "user", "content": "fine", "metadata": {"k": "\\udfff"}}]}',
        ],
    )
    report = await import_file(dal, path, on_bad_text="replace")
    assert counts(report) == {"chats": 1, "messages": 2, "replaced": 2}
    assert [(m.content, m.metadata.get("k", "")) for m in await history(dal, "c-1")] == [
        ("a\ufffdb\ufffd", ""),
        ("fine", "\ufffd"),
    ]
    assert counts(await import_file(dal, path, on_bad_text="replace")) == {"unchanged": 1, "replaced": 2}


async def test_a_file_cut_short_gives_all_that_is_whole(dal: DataAccess, tmp_path: Path) -> None:
    records: list[JsonValue | bytes] = [conversation(f"c-{n}", os.urandom(600).hex()) for n in range(400)]
    data = gzip.compress(write(tmp_path / "whole", records).read_bytes())
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    report = await import_file(dal, tmp_path / "cut")
    assert report.refused == 1
    assert 100 < report.chats < 300
    assert report.refusals[0].line == report.chats + 1
    (tmp_path / "cut").write_bytes(data)
    assert counts(await import_file(dal, tmp_path / "cut")) == {
        "chats": 400 - report.chats,
        "messages": 400 - report.chats,
        "unchanged": report.chats,
    }


async def test_a_conversation_larger_than_a_batch_is_written_whole(dal: DataAccess, tmp_path: Path) -> None:
    texts = [f"m{n}" for n in range(50)]
    messages: list[JsonValue] = [message(text) for text in texts]
    path = write(tmp_path / "f", [conversation("c-0", "x"), conversation(messages=messages), conversation("c-2", "y")])
    assert counts(await import_file(dal, path, batch_rows=10)) == {"users": 1, "chats": 3, "messages": 52}
    assert await contents(dal, "c-1") == texts


async def test_a_conversation_larger_than_a_commit_is_written_whole(dal: DataAccess, tmp_path: Path) -> None:
    count = dal.capabilities.max_batch_ops + 10
    messages: list[JsonValue] = [message(f"m{n}") for n in range(count)]
    path = write(tmp_path / "f", [conversation(messages=messages)])
    assert counts(await import_file(dal, path)) == {"users": 1, "chats": 1, "messages": count}
    assert await dal.messages.count("c-1") == count
    assert [m.content for m in await dal.messages.history("c-1", limit=1)] == [f"m{count - 1}"]
    assert counts(await import_file(dal, path)) == {"unchanged": 1}


async def test_user_memory_becomes_items(dal: DataAccess, tmp_path: Path) -> None:
    ada: Fields = {"user": "ada", "facts": ["one", "two"], "profile": {"age": "20-29", "n": 1}}
    path = write(tmp_path / "f", [ada, {"user": "bo", "facts": []}])
    assert counts(await import_file(dal, path)) == {"users": 2, "memory_items": 4}
    user = await dal.users.get_by_clerk_id("ada")
    assert user is not None
    assert {(i.memory_type, i.key): i.value for i in await dal.memory.list(user.id)} == {
        ("facts", "0001"): "one",
        ("facts", "0002"): "two",
        ("profile", "age"): "20-29",
        ("profile", "n"): 1,
    }
    assert counts(await import_file(dal, path)) == {"unchanged": 2}
    write(path, [{**ada, "facts": ["one", "two", "three"]}])
    assert counts(await import_file(dal, path)) == {"memory_items": 1}
    changes: list[Fields] = [{"profile": {"n": True}}, {"profile": {"n": 1.0}}, {"facts": ["other", "x", "y", "z"]}]
    for changed in changes:
        write(path, [{"user": "ada", **changed}])
        assert counts(await import_file(dal, path)) == {"refused": 1}
    assert len(await dal.memory.list(user.id)) == 5


async def test_the_format_can_be_forced(dal: DataAccess, tmp_path: Path) -> None:
    path = write(tmp_path / "f", [conversation("c-1", "one")])
    report = await import_file(dal, path, format="memory")
    assert counts(report) == {"users": 1, "memory_items": 4}
    report = await import_file(dal, write(tmp_path / "f", [{"user": "ada"}]), format="conversations")
    assert report.refusals[0].reason == "chat_id: missing"


async def test_progress_reaches_the_end(dal: DataAccess, tmp_path: Path) -> None:
    seen: list[Progress] = []
    path = write(tmp_path / "f", [conversation(f"c-{n}", "one") for n in range(30)])
    await import_file(dal, path, batch_rows=10, on_progress=seen.append)
    loads = [p for p in seen if p.phase == "load"]
    assert len(loads) >= 5
    assert [p.messages for p in loads] == sorted(p.messages for p in loads)
    assert loads[-1].messages == loads[-1].chats == 30
    assert loads[-1].read_bytes == loads[-1].size_bytes == path.stat().st_size


@pytest.mark.parametrize("batch_rows", [0, 15_001])
async def test_batches_have_limits(dal: DataAccess, tmp_path: Path, batch_rows: int) -> None:
    with pytest.raises(InvalidInputError, match="batch_rows"):
        await import_file(dal, tmp_path / "f", batch_rows=batch_rows)


async def test_a_directory_without_exports_is_refused(dal: DataAccess, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"without \.json files"):
        await import_file(dal, tmp_path)
