"""Text known to break things, in every place that takes text: refused by the one rule, or back exactly as it went in.

The strings are read in place from the project's shared data; the ones of the conformance kit run everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dal import DataAccess, InvalidInputError, NewMessage
from dal.testing.nasty import DOCUMENTS, NUMBERS, TEXTS, same
from tests.subjects import on_every_backend

_PLACE = Path(__file__).parents[3] / "shared" / "data" / "nasty" / "nasty.json"

pytestmark = on_every_backend


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Every nasty string there is, each once."""
    if not _PLACE.exists():
        pytest.skip("the shared data with the nasty strings is not beside this checkout")
    found = [entry["text"] for entry in json.loads(_PLACE.read_text("utf-8"))]
    assert len(found) >= 590
    return list(dict.fromkeys([*found, *TEXTS.values()]))


def storable(text: str, *, key: bool = False) -> bool:
    """The one rule, said again from api.md: no U+0000, no lone surrogate; keys have 1 to 255 characters."""
    fine = "\0" not in text and not any(0xD800 <= ord(char) <= 0xDFFF for char in text)
    return fine and (not key or 1 <= len(text) <= 255)


async def accepted(texts: list[str], write: Callable[[str], Awaitable[object]], *, key: bool = False) -> list[str]:
    """The texts that were written; all others were refused as the rule says."""
    written = []
    for text in texts:
        if storable(text, key=key):
            await write(text)
            written.append(text)
        else:
            with pytest.raises(InvalidInputError):
                await write(text)
    assert len(texts) > len(written) > 0.9 * len(texts)
    return written


async def test_as_content(dal: DataAccess, texts: list[str]) -> None:
    await dal.chats.create("c")
    written = await accepted(texts, lambda text: dal.messages.add("c", "user", text))
    assert [message.content async for message in dal.messages.iterate("c")] == written
    assert [message.content for message in await dal.messages.history("c", limit=1000)] == written


async def test_as_metadata_value_and_key(dal: DataAccess, texts: list[str]) -> None:
    await dal.chats.create("c")
    fine = [text for text in texts if storable(text)]
    for text in texts:
        if not storable(text):
            for metadata in ({"a": text}, {text: 1}, {"a": [{text: [text]}]}):
                with pytest.raises(InvalidInputError):
                    await dal.messages.add("c", "user", "x", metadata=metadata)  # type: ignore[arg-type]
    documents: list[dict[str, Any]] = [{"value": text, text: {"list": [text, {text: text}]}} for text in fine]
    await dal.messages.add_many("c", [NewMessage("user", "x", metadata=document) for document in documents])
    assert [message.metadata async for message in dal.messages.iterate("c")] == documents
    whole: dict[str, Any] = {text: number for number, text in enumerate(fine)}
    await dal.chats.update("c", metadata=whole)
    chat = await dal.chats.get("c")
    assert chat is not None
    assert chat.metadata == whole


async def test_as_chat_id(dal: DataAccess, texts: list[str]) -> None:
    written = await accepted(texts, lambda text: dal.chats.create(text, title=text), key=True)
    for text in written:
        chat = await dal.chats.get(text)
        assert chat is not None
        assert (chat.chat_id, chat.title) == (text, text)
    for text in written[::7]:
        added = await dal.messages.add(text, "user", text)
        assert await dal.messages.history(text) == [added]
        assert added.chat_id == text
    assert sorted(chat.chat_id for chat in (await dal.chats.list(limit=1000)).items) == sorted(written)


async def test_as_clerk_id(dal: DataAccess, texts: list[str]) -> None:
    written = await accepted(texts, lambda text: dal.users.create(clerk_id=text, name=text), key=True)
    for text in written:
        user = await dal.users.get_by_clerk_id(text)
        assert user is not None
        assert (user.clerk_id, user.name) == (text, text)


async def test_as_memory_key(dal: DataAccess, texts: list[str]) -> None:
    user = await dal.users.create()
    written = await accepted(texts, lambda text: dal.memory.set(user.id, "t", text, {text: text}), key=True)
    found = await dal.memory.list(user.id, "t")
    assert [item.key for item in found] == sorted(written)
    assert all(item.value == {item.key: item.key} for item in found)
    for text in written[::11]:
        assert await dal.memory.get(user.id, "t", text) == {text: text}
        assert await dal.memory.delete(user.id, "t", text) == 1
        assert await dal.memory.get(user.id, "t", text) is None


async def test_as_storage_key_and_audit_fields(dal: DataAccess, texts: list[str]) -> None:
    user = await dal.users.create()
    fine = [text for text in texts if storable(text, key=True)][::5]
    for text in fine:
        await dal.files.create(user.id, text, storage_key=text, file_size=1)
        await dal.audit.record(text, entity_id=text, message=text, context={text: text})
    for text in fine:
        file = await dal.files.get_by_storage_key(text)
        assert file is not None
        assert file.filename == text
        (event,) = (await dal.audit.list(entity_id=text)).items
        assert (event.action, event.message, event.context) == (text, text, {text: text})


async def test_as_search_text(dal: DataAccess, texts: list[str]) -> None:
    """Any text may be searched for; what holds a word finds the message that is that text."""
    await dal.chats.create("c")
    fine = [text for text in texts if storable(text) and len(text) <= 1000]
    await dal.messages.add_many("c", [NewMessage("user", text) for text in fine])
    for text in fine:
        page = await dal.messages.search(text, limit=1000)
        if any(char.isalnum() for char in text):
            assert text in [hit.message.content for hit in page.items]


async def test_json_documents(dal: DataAccess, texts: list[str]) -> None:
    """Every string that is JSON, as the document it stands for, with the documents and numbers of the kit."""
    user = await dal.users.create()
    documents: list[Any] = [*DOCUMENTS.values(), *NUMBERS.values()]
    for text in texts:
        try:
            documents.append(json.loads(text))
        except (ValueError, RecursionError):
            continue
    assert len(documents) > 50
    kept = 0
    for document in documents:
        try:
            item = await dal.memory.set(user.id, "t", "k", document)
        except InvalidInputError:
            assert await dal.memory.get(user.id, "t", "k", default="none") == "none"
            continue
        kept += 1
        assert same(item.value, document)
        assert same(await dal.memory.get(user.id, "t", "k"), document)
        await dal.memory.delete(user.id, "t", "k")
    assert kept > 45
