"""Exports of other systems, small ones made here: what each becomes, and what is kept of it."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dal import DataAccess, InvalidInputError, Message, create_data_access
from dal.importing import Format, ImportReport, import_file
from dal.importing.formats.times import export_time
from dal.ops import JsonValue

Fields = dict[str, JsonValue]


def node(
    id: str, parent: str | None, role: str, *parts: JsonValue, at: JsonValue = 1704067200, **more: JsonValue
) -> Fields:
    content: Fields = {"content_type": "text", "parts": list(parts)}
    message: Fields = {"id": id, "author": {"role": role}, "create_time": at, "content": content, **more}
    return {"id": id, "parent": parent, "children": [], "message": message}


def chatgpt(*nodes: Fields, **more: JsonValue) -> Fields:
    mapping: Fields = {str(node["id"]): node for node in nodes}
    return {"conversation_id": "gpt-1", "title": "T", "create_time": 1704067200, "mapping": mapping, **more}


def claude(*messages: Fields, **more: JsonValue) -> Fields:
    chat: Fields = {"uuid": "cl-1", "name": "T", "created_at": "2025-01-01T00:00:00.5Z", "account": {"uuid": "acc"}}
    return {**chat, "chat_messages": list(messages), **more}


def said(uuid: str, sender: str, text: str, **more: JsonValue) -> Fields:
    blocks: list[JsonValue] = [{"type": "text", "text": text, "citations": []}]
    return {
        "uuid": uuid, "sender": sender, "text": "", "content": blocks, "created_at": "2025-01-01T00:00:01Z", **more
    }  # fmt: skip


def openwebui(**more: JsonValue) -> Fields:
    messages: Fields = {
        "m1": {"id": "m1", "parentId": None, "role": "user", "content": "hi", "timestamp": 1744577557},
        "m2": {
            "id": "m2",
            "parentId": "m1",
            "role": "assistant",
            "content": "a",
            "timestamp": 1744577558,
            "model": "x",
        },
        "m3": {"id": "m3", "parentId": "m1", "role": "assistant", "content": "b", "timestamp": 1744577559},
    }
    return {"title": "T", "timestamp": 1744577557127, "history": {"messages": messages, "currentId": "m3"}, **more}


def langchain(kind: str, content: JsonValue, **more: JsonValue) -> Fields:
    return {"type": kind, "data": {"content": content, "type": kind, "additional_kwargs": {}, "name": None, **more}}


def dialogue(id: int, *texts: str) -> Fields:
    speakers: list[JsonValue] = ["AA", "AB"]
    utterances: list[JsonValue] = [
        {
            "utterance_id": n,
            "interlocutor_id": speakers[n % 2],
            "text": text,
            "timestamp": f"2022-08-06T14:51:{n:02d}.36",
        }
        for n, text in enumerate(texts)
    ]
    return {"dialogue_id": id, "interlocutors": speakers, "utterances": utterances}


def table(path: Path, *rows: tuple[str, JsonValue]) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE message_store (id INTEGER PRIMARY KEY, session_id TEXT, message TEXT)")
        database.executemany(
            "INSERT INTO message_store (session_id, message) VALUES (?, ?)", [(s, json.dumps(m)) for s, m in rows]
        )
        database.commit()
    return path


def write(path: Path, value: JsonValue) -> Path:
    data = json.dumps(value, indent=1).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


async def load(path: Path, format: Format = "auto", *, user: str | None = None) -> ImportReport:
    async with create_data_access(f"sqlite:{path.parent / 'store.db'}") as dal:
        return await import_file(dal, path, format=format, user=user)


def opened(path: Path) -> DataAccess:
    return create_data_access(f"sqlite:{path / 'store.db'}")


async def messages(path: Path, chat_id: str) -> list[Message]:
    async with opened(path) as dal:
        return [message async for message in dal.messages.iterate(chat_id)]


async def shown(path: Path, chat_id: str) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in await messages(path, chat_id)]


async def test_a_chatgpt_chat_is_its_open_branch_and_others_are_chats_of_their_own(tmp_path: Path) -> None:
    export = chatgpt(
        {"id": "root", "parent": None, "children": [], "message": None},
        node("s", "root", "system", "", weight=0.0, at=None),
        node("q", "s", "user", "hello", at=1704067300.25),
        node("old", "q", "assistant", "first answer", at=1704067301),
        node("new", "q", "assistant", "better answer", at=1704067299, metadata={"model_slug": "m"}),
        current_node="new",
    )
    report = await load(write(tmp_path / "conversations.json", [export]), user="ada")
    assert (report.chats, report.messages, report.users, report.refused) == (2, 3, 1, 0)
    found = await messages(tmp_path, "gpt-1")
    assert [(m.role, m.content) for m in found] == [("user", "hello"), ("assistant", "better answer")]
    assert found[0].created_at == datetime(2024, 1, 1, 0, 1, 40, 250_000, tzinfo=UTC)
    assert found[1].created_at < found[0].created_at  # the order of the tree counts, whatever the times say
    assert found[1].metadata == {"export": {"id": "new", "metadata": {"model_slug": "m"}}}
    async with opened(tmp_path) as dal:
        branch = await dal.chats.get("gpt-1/old")
        user = await dal.users.get_by_clerk_id("ada")
    assert branch is not None
    assert user is not None
    assert branch.metadata["branch"] == {"of": "gpt-1", "behind": "q"}
    assert branch.user_id == user.id
    assert branch.created_at == datetime(2024, 1, 1, 0, 1, 41, tzinfo=UTC)
    assert await shown(tmp_path, "gpt-1/old") == [("assistant", "first answer")]


async def test_what_chatgpt_says_beyond_text_is_kept_beside_it(tmp_path: Path) -> None:
    image: Fields = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://f"}
    export = chatgpt(
        node("a", None, "user", image, "what is this?"), node("b", "a", "assistant", ""), node("c", "b", "tool")
    )
    nodes = export["mapping"]
    assert isinstance(nodes, dict)
    contents: dict[str, Fields] = {
        "b": {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "hmm"}]},
        "c": {"content_type": "code", "language": "python", "text": "1+1"},
    }
    for id, content in contents.items():
        nodes[id]["message"]["content"] = content  # type: ignore[index,call-overload]
    await load(write(tmp_path / "c.json", export), "chatgpt")
    found = await messages(tmp_path, "gpt-1")
    assert [(m.role, m.content) for m in found] == [("user", "what is this?"), ("assistant", "hmm"), ("tool", "1+1")]
    assert found[0].metadata["export"]["content"]["parts"][0] == image  # type: ignore[index,call-overload]
    assert found[2].metadata["export"]["content"]["language"] == "python"  # type: ignore[index,call-overload]


async def test_a_claude_chat_belongs_to_its_account_and_keeps_its_thoughts(tmp_path: Path) -> None:
    answer = said("b", "assistant", "Hello!", attachments=[{"file_name": "f", "extracted_content": "x"}])
    assert isinstance(answer["content"], list)
    answer["content"].insert(0, {"type": "thinking", "thinking": "greet"})
    export = claude(said("a", "human", "hi"), answer)
    path = write(tmp_path / "c.json.gz", [export, claude(uuid="empty")])
    report = await load(path, user="somebody else")
    assert (report.chats, report.messages, report.refused) == (2, 2, 0)
    found = await messages(tmp_path, "cl-1")
    assert [(m.role, m.content) for m in found] == [("user", "hi"), ("assistant", "Hello!")]
    assert found[0].metadata == {"export": {"uuid": "a"}}
    kept = found[1].metadata["export"]
    assert isinstance(kept, dict)
    assert kept["content"] == answer["content"]
    assert kept["attachments"] == answer["attachments"]
    async with opened(tmp_path) as dal:
        chat, owner = await dal.chats.get("cl-1"), await dal.users.get_by_clerk_id("acc")
    assert chat is not None
    assert owner is not None
    assert chat.user_id == owner.id
    assert chat.created_at == datetime(2025, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)


async def test_a_claude_chat_that_was_written_anew_in_places_has_branches(tmp_path: Path) -> None:
    parents = (("a", "0000"), ("b", "a"), ("c", "a"))
    export = claude(*(said(id, "human", id, parent_message_uuid=parent) for id, parent in parents))
    await load(write(tmp_path / "c.json", [export]))
    assert await shown(tmp_path, "cl-1") == [("user", "a"), ("user", "c")]
    assert await shown(tmp_path, "cl-1/b") == [("user", "b")]


@pytest.mark.parametrize("is_wrapped", [True, False])
async def test_an_open_webui_chat_is_its_open_branch_in_both_forms(tmp_path: Path, is_wrapped: bool) -> None:
    chat = openwebui()
    exported: JsonValue = (
        [{"id": "ow", "user_id": "u", "title": "T", "chat": chat, "created_at": 1}] if is_wrapped else chat
    )
    await load(write(tmp_path / "ow.json", exported))
    assert await shown(tmp_path, "ow") == [("user", "hi"), ("assistant", "b")]
    assert await shown(tmp_path, "ow/m2") == [("assistant", "a")]
    async with opened(tmp_path) as dal:
        found = await dal.chats.get("ow")
    assert found is not None
    second = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert found.created_at == (second if is_wrapped else datetime(2025, 4, 13, 20, 52, 37, 127_000, tzinfo=UTC))
    assert (found.user_id is not None) == is_wrapped


async def test_an_open_webui_chat_without_a_tree_is_its_list(tmp_path: Path) -> None:
    listed: list[JsonValue] = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    await load(write(tmp_path / "ow.json", {"id": "c", "title": "T", "messages": listed}), "openwebui")
    assert await shown(tmp_path, "c") == [("user", "one"), ("assistant", "two")]


async def test_a_langchain_file_is_a_session_called_after_it(tmp_path: Path) -> None:
    calls: list[JsonValue] = [{"name": "weather", "args": {}, "id": "1"}]
    blocks: list[JsonValue] = [{"type": "text", "text": "one"}, "two", {"type": "image_url", "image_url": "data:"}]
    session: list[JsonValue] = [
        langchain("system", "be kind"),
        langchain("human", blocks),
        langchain("ai", "", tool_calls=calls),
        langchain("tool", "18C", tool_call_id="1"),
        langchain("chat", "hey", role="critic"),
    ]
    path = write(tmp_path / "s-1.json", session)
    await load(path)
    found = await messages(tmp_path, "s-1")
    assert [(m.role, m.content) for m in found] == [
        ("system", "be kind"), ("user", "one\n\ntwo"), ("assistant", ""), ("tool", "18C"), ("critic", "hey")
    ]  # fmt: skip
    assert found[2].metadata["export"] == {"tool_calls": calls}
    assert found[1].metadata["export"] == {"content": blocks}
    assert found[0].created_at == datetime.fromtimestamp(int(path.stat().st_mtime), UTC)


async def test_a_langchain_table_gives_its_sessions_each_in_its_order(tmp_path: Path) -> None:
    rows: list[tuple[str, JsonValue]] = [("s-1", langchain("human", "a")), ("s-2", langchain("human", "b"))]
    rows += [("s-1", langchain("ai", "c")), ("s-3", "torn"), ("s-3", langchain("ai", "d"))]
    report = await load(table(tmp_path / "history.db", *rows))
    assert (report.chats, report.messages, report.refused) == (2, 3, 1)
    assert report.refusals[0].reason.startswith("message 4: expected a JSON object")
    assert await shown(tmp_path, "s-1") == [("user", "a"), ("assistant", "c")]


async def test_a_directory_of_dialogues_is_imported_as_one_and_names_the_file_of_what_it_refuses(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "dialogues"
    directory.mkdir()
    write(directory / "1.json", dialogue(1, "a", "b", "c"))
    write(directory / "2.json", {"dialogue_id": 2, "utterances": [{"text": 7, "interlocutor_id": "AA"}]})
    write(directory / "3.json", dialogue(3, "d"))
    write(directory / "who.json", {"AA": {"interlocutor_id": "AA", "persona": ["reads"], "age": 7}})
    (directory / "notes.txt").write_text("not an export")
    report = await load(directory)
    assert (report.chats, report.messages, report.users, report.refused) == (2, 4, 1, 1)
    assert report.refusals[0].file == str(directory / "2.json")
    found = await messages(tmp_path, "1")
    assert [(m.role, m.content) for m in found] == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert [m.metadata for m in found] == [{"speaker": "AA"}, {"speaker": "AB"}, {"speaker": "AA"}]
    async with opened(tmp_path) as dal:
        user = await dal.users.get_by_clerk_id("AA")
        assert user is not None
        assert await dal.memory.get(user.id, "persona", "0001") == "reads"
    assert (await load(directory)).unchanged == 3


@pytest.mark.parametrize(
    "value",
    [
        [chatgpt(node("a", None, "user", "x"), node("b", "a", "user", "y", "z"), node("c", "a", "user", "w"))],
        [claude(said("a", "human", "x"))],
        openwebui(),
        [langchain("human", "x")],
        dialogue(1, "x"),
    ],
    ids=["chatgpt", "claude", "openwebui", "langchain", "dialogue"],
)
async def test_a_second_import_of_an_export_changes_nothing(tmp_path: Path, value: JsonValue) -> None:
    path = write(tmp_path / "e.json", value)
    first = await load(path)
    assert first.chats
    again = await load(path)
    assert (again.chats, again.messages, again.users, again.unchanged) == (0, 0, 0, first.chats)


async def test_an_export_that_has_grown_brings_its_new_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", [claude(said("a", "human", "x"))])
    await load(path)
    write(path, [claude(said("a", "human", "x"), said("b", "assistant", "y"))])
    assert (await load(path)).grown == 1


async def test_a_damaged_conversation_is_refused_and_the_others_are_imported(tmp_path: Path) -> None:
    path = write(
        tmp_path / "e.json",
        [claude(uuid=7), claude({"sender": "human"}, {"uuid": 1}), claude(said("a", "human", "\0"))],
    )
    path.write_bytes(path.read_bytes()[:-1] + b', {"uuid": "torn", "chat_me')
    good = claude(said("a", "human", "x"), uuid="good")
    path.write_bytes(path.read_bytes().replace(b"[", b"[" + json.dumps(good).encode() + b",", 1))
    report = await load(path)
    assert report.chats == 1
    assert [refusal.line for refusal in report.refusals] == [2, 3, 4, 5]
    assert report.refusals[0].reason == "uuid: expected text, found int"
    assert report.refusals[1].reason == "chat_messages[1].sender: expected text, found null"


async def test_lone_surrogates_and_nul_of_an_export_are_replaced_when_that_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", [claude(said("a", "human", "x\ud800y\0z"))])
    assert (await load(path)).refused == 1
    async with opened(tmp_path) as dal:
        assert (await import_file(dal, path, on_bad_text="replace")).replaced > 0
    assert await shown(tmp_path, "cl-1") == [("user", "x\ufffdy\ufffdz")]


async def test_a_database_that_is_none_of_langchain_is_not_taken(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE t (a)")
    with pytest.raises(InvalidInputError, match="message_store"):
        await load(tmp_path / "other.db")
    with pytest.raises(InvalidInputError, match="message_store"):
        await load(tmp_path / "other.db", "langchain-sqlite")


async def test_what_is_not_certain_is_taken_for_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", [{"title": "x", "chat_messages": [{"text": "y"}]}])
    report = await load(path)
    assert (report.chats, report.refused > 0) == (0, True)
    report = await load(path, "claude")
    assert [refusal.reason for refusal in report.refusals] == ["chat_messages[0].sender: expected text, found null"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1750537482.970556, "2025-06-21T20:24:42.970556"),
        (1744577557127, "2025-04-13T20:52:37.127000"),
        (0, "1970-01-01T00:00:00"),
        (-1.5, "1969-12-31T23:59:58.500000"),
        (1e300, 1e300),
        (True, True),
        (None, None),
        ("2024-03-13T14:48:37.115821Z", "2024-03-13T14:48:37.115821"),
        ("2024-03-13T14:48:37+09:00", "2024-03-13T14:48:37+09:00"),
    ],
)
def test_times_of_exports_are_instants_in_utc_or_stay_as_they_are(value: JsonValue, expected: JsonValue) -> None:
    assert export_time(value) == expected
