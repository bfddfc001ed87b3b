"""`dal.messages.search`: one meaning, on every backend and through every layer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dal import DataAccess, InvalidInputError, Message
from dal.testing import FakeClock

# What is found by a query in a text, and what is not: the table of meanings.
FINDS = [
    ("English words", "The difference engine", ["difference", "engine", "the engine", "engine difference"]),
    ("case", "Difference ENGINE", ["difference", "DIFFERENCE", "engine"]),
    ("German sharp s", "Straße", ["straße", "STRASSE", "strasse"]),
    ("Latin accents", "Café Zürich naïve Ærø", ["cafe", "café", "CAFE\u0301", "zurich", "naive"]),
    ("decomposed text", "Cafe\u0301", ["cafe", "caf\u00e9"]),
    ("width", "Ｆｕｌｌ １２３ ｶﾀｶﾅ", ["full", "123", "カタカナ", "タカ"]),
    ("Japanese", "階差機関とは何ですか", ["階差", "機関", "差機", "階", "か", "とは 機関", "階差機関とは何ですか"]),
    ("Chinese", "今天天气很好。", ["天气", "天天气", "好", "今天 很好"]),
    ("Thai", "สวัสดีครับ", ["สวัสดี", "ครับ", "ส"]),
    ("Korean", "안녕하세요 세계", ["안녕하세요", "세계", "세계 안녕하세요"]),
    ("Cyrillic and Greek", "Привет ΟΔΥΣΣΕΥΣ", ["привет", "ПРИВЕТ", "οδυσσευς"]),
    ("Arabic and Hebrew", "مرحبا שלום", ["مرحبا", "שלום"]),
    ("code identifiers", "see repo-map, snake_case and a.b.c()", ["repo-map", "repo", "map", "snake_case", "a.b.c"]),
    ("addresses", "mail user@example.com now", ["user@example.com", "example", "user", "example.com"]),
    ("numbers", "version 3.11.7 of 2026-01-02", ["3.11.7", "3.11", "2026-01-02", "2026"]),
    ("mixed scripts", "PythonでデータベースをBackup", ["python", "データベース", "backup", "で"]),
    ("punctuation around words", '"quoted" (bracketed) <tagged>', ["quoted", "bracketed", "tagged", "'quoted'"]),
]
MISSES = [
    ("whole words in scripts with spaces", "foobar engineering", ["foo", "bar", "engine", "engineer"]),
    ("every word must occur", "difference engine", ["difference motor", "engine x"]),
    ("parts must be neighbours", "the map of the repo, case snake", ["repo-map", "snake_case"]),
    ("Korean words are whole", "안녕하세요", ["안녕"]),
    ("characters in another order", "階差機関", ["差階", "関機"]),
    ("an address is not another", "user@example.org", ["user@example.com"]),
    ("texts without a word", "engine ... !?", ["", " ", "...", "!?", "\n\t", "\u2028", "💥", "%", "*"]),
]
# Plain text, whatever it looks like: each finds the message that holds its words and can't fail.
QUERIES = [
    ('"engine"', True),
    ("'engine'", True),
    ("engine*", True),
    ("-engine", True),
    ("+engine", True),
    ("^engine", True),
    ("content:engine", False),
    ("engine OR motor", False),
    ("engine AND the", False),
    ("NOT engine", False),
    ("NEAR(engine the)", False),
    ("engine & the", True),
    ("engine | the", True),
    ("!engine", True),
    ("engine:*", True),
    ("engine <-> the", True),
    ("'; DROP TABLE messages; --", False),
    ("engine'; --", True),
    ("%engine%", True),
    ("engine\\", True),
    ("(engine", True),
    ('"engine', True),
    ("{engine}", True),
    ("$1 engine", False),
    ("? engine", True),
    ("%s engine", False),
    ("\x01engine\x7f", True),
]


@pytest.fixture(autouse=True)
async def chat(dal: DataAccess) -> None:
    await dal.chats.create("c")


async def contents(dal: DataAccess, text: str, **arguments: object) -> list[str]:
    page = await dal.messages.search(text, **arguments)  # type: ignore[arg-type]
    assert page.next is None
    return [hit.message.content for hit in page.items]


@pytest.mark.parametrize(("text", "queries"), [case[1:] for case in FINDS], ids=[case[0] for case in FINDS])
async def test_a_search_finds(dal: DataAccess, text: str, queries: list[str]) -> None:
    await dal.messages.add("c", "user", text)
    await dal.messages.add("c", "user", "something else altogether: nothing in common")
    for query in queries:
        assert await contents(dal, query) == [text], query


@pytest.mark.parametrize(("text", "queries"), [case[1:] for case in MISSES], ids=[case[0] for case in MISSES])
async def test_a_search_does_not_find(dal: DataAccess, text: str, queries: list[str]) -> None:
    await dal.messages.add("c", "user", text)
    for query in queries:
        assert await contents(dal, query) == [], query


async def test_a_query_is_plain_text(dal: DataAccess) -> None:
    await dal.messages.add("c", "user", "the engine")
    for query, hit in QUERIES:
        assert await contents(dal, query) == (["the engine"] if hit else []), query


async def test_a_hit_is_the_message_and_a_piece_of_it(dal: DataAccess) -> None:
    text = "x " * 2000 + "the difference engine" + " y" * 2000
    message = await dal.messages.add("c", "user", text, metadata={"a": 1}, token_count=3)
    page = await dal.messages.search("difference")
    assert [hit.message for hit in page.items] == [message]
    assert "difference" in page.items[0].snippet
    assert len(page.items[0].snippet) <= 160
    message = await dal.messages.flag(message.id)
    assert (await dal.messages.search("difference")).items[0].message == message


async def test_hits_come_newest_first(dal: DataAccess, clock: FakeClock) -> None:
    await dal.chats.create("d")
    added = []
    for number in range(6):
        clock.advance(1)
        added.append(await dal.messages.add("cd"[number % 2], "user", f"word {number}"))
    late = await dal.messages.add("c", "user", "word of long ago", created_at=clock.now - timedelta(days=1))
    found = [hit.message for hit in (await dal.messages.search("word")).items]
    assert found == [*added[::-1], late]


async def test_filters_by_user_and_chat(dal: DataAccess) -> None:
    ada, bob = await dal.users.create(), await dal.users.create()
    for key, owner in (("a1", ada), ("a2", ada), ("b1", bob)):
        await dal.chats.create(key, user_id=owner.id)
        await dal.messages.add(key, "user", f"word in {key}")
    await dal.messages.add("c", "user", "word in c")

    async def chats(**filters: object) -> list[str]:
        return sorted(text.removeprefix("word in ") for text in await contents(dal, "word", **filters))

    assert await chats() == ["a1", "a2", "b1", "c"]
    assert await chats(user_id=ada.id) == ["a1", "a2"]
    assert await chats(chat_id="b1") == ["b1"]
    assert await chats(user_id=ada.id, chat_id="a2") == ["a2"]
    assert await chats(user_id=ada.id, chat_id="b1") == []
    assert await chats(chat_id="no such chat") == []
    assert await chats(user_id="01900000-0000-7000-8000-00000000dead") == []
    assert await chats(user_id="not a uuid") == []
    await dal.chats.update("c", user_id=bob.id)
    assert await chats(user_id=bob.id) == ["b1", "c"]


async def test_what_was_deleted_is_not_found(dal: DataAccess) -> None:
    user = await dal.users.create()
    await dal.chats.create("mine", user_id=user.id)
    await dal.messages.add("mine", "user", "word")
    await dal.messages.add("c", "user", "word too")
    await dal.chats.delete("c")
    assert await contents(dal, "word") == ["word"]
    await dal.users.delete(user.id)
    assert await contents(dal, "word") == ["word"], "a chat outlives its user"
    assert await contents(dal, "word", user_id=user.id) == []
    await dal.chats.delete("mine")
    assert await contents(dal, "word") == []
    await dal.chats.create("c")
    assert await contents(dal, "word") == []


async def test_a_refused_or_rolled_back_message_is_not_found(dal: DataAccess) -> None:
    taken: Message = await dal.messages.add("c", "user", "first")
    with pytest.raises(Exception, match="id"):
        await dal.messages.add("c", "user", "phantom", id=taken.id)
    with pytest.raises(ZeroDivisionError):
        async with dal.transaction() as tx:
            await tx.messages.add("c", "user", "phantom")
            assert len((await tx.messages.search("phantom")).items) == 1
            raise ZeroDivisionError
    assert await contents(dal, "phantom") == []


async def test_a_long_message_is_found_by_its_last_word(dal: DataAccess) -> None:
    words = " ".join(f"w{n}" for n in range(25_000))  # more than are indexed one by one
    await dal.messages.add("c", "user", words + " needle")
    assert len(await contents(dal, "needle")) == 1
    assert len(await contents(dal, "w24999 w0 needle")) == 1
    assert await contents(dal, "haystack") == []


async def test_a_long_word_is_found_whole_and_not_by_its_beginning(dal: DataAccess) -> None:
    word = "abcdefghij" * 20
    await dal.messages.add("c", "user", word)
    assert await contents(dal, word) == [word]
    assert await contents(dal, word[:-1]) == []
    assert await contents(dal, word[:64]) == []


async def test_a_query_has_a_length(dal: DataAccess) -> None:
    assert await contents(dal, "w " * 500) == []
    with pytest.raises(InvalidInputError, match="text"):
        await dal.messages.search("w " * 501)
    for wrong in ("\0", "\ud800", None, 5):
        with pytest.raises(InvalidInputError, match="text"):
            await dal.messages.search(wrong)  # type: ignore[arg-type]
