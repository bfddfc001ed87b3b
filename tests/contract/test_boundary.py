"""One rule for text and JSON on every backend: a refusal names the field and writes nothing."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from dal import DataAccess, InvalidInputError, LimitExceededError, NewMessage
from dal.limits import MAX_TEXT_BYTES
from dal.testing import rows
from dal.testing.nasty import nested

Call = Callable[[DataAccess, object], Awaitable[object]]

USER, CHAT = rows.row_id(900), "known"


def _call(name: str, field: str, /, **fixed: object) -> Call:
    """A method of the API with one argument left open."""
    repository, method = name.split(".")

    async def call(dal: DataAccess, value: object) -> object:
        result = await getattr(getattr(dal, repository), method)(**{**fixed, field: value})
        return getattr(result, field, result)

    return call


_FILE = {"user_id": USER, "filename": "f", "storage_key": "s", "file_size": 1}
_ITEM = {"user_id": USER, "memory_type": "t", "key": "k", "value": 1}

#: Text fields: how to write one, and the shortest and longest it takes.
TEXT_FIELDS: dict[str, tuple[Call, int, int | None]] = {
    "users.clerk_id": (_call("users.create", "clerk_id"), 1, 255),
    "users.email": (_call("users.create", "email"), 0, 255),
    "users.name": (_call("users.create", "name"), 0, 255),
    "users.status": (_call("users.create", "status"), 1, 50),
    "users.update name": (_call("users.update", "name", user_id=USER), 0, 255),
    "chats.chat_id": (_call("chats.create", "chat_id"), 1, 255),
    "chats.title": (_call("chats.create", "title", chat_id="titled"), 0, 255),
    "chats.profile": (_call("chats.create", "profile", chat_id="profiled"), 1, 50),
    "chats.update status": (_call("chats.update", "status", chat_id=CHAT), 1, 50),
    "messages.role": (_call("messages.add", "role", chat_id=CHAT, content="x"), 1, 50),
    "messages.content": (_call("messages.add", "content", chat_id=CHAT, role="user"), 0, None),
    "memory.memory_type": (_call("memory.set", "memory_type", **(_ITEM | {"memory_type": ""})), 1, 100),
    "memory.key": (_call("memory.set", "key", **_ITEM), 1, 255),
    "files.filename": (_call("files.create", "filename", **_FILE), 1, 255),
    "files.storage_key": (_call("files.create", "storage_key", **_FILE), 1, 255),
    "files.mime_type": (_call("files.create", "mime_type", **(_FILE | {"storage_key": "s2"})), 1, 255),
    "files.checksum": (_call("files.create", "checksum", **(_FILE | {"storage_key": "s3"})), 0, 255),
    "audit.action": (_call("audit.record", "action"), 1, 255),
    "audit.user_id": (_call("audit.record", "user_id", action="a"), 0, 255),
    "audit.level": (_call("audit.record", "level", action="a"), 1, 20),
    "audit.message": (_call("audit.record", "message", action="a"), 0, None),
    "audit.user_agent": (_call("audit.record", "user_agent", action="a"), 0, None),
}
JSON_FIELDS: dict[str, Call] = {
    "users.profile": _call("users.create", "profile"),
    "users.preferences": _call("users.create", "preferences"),
    "users.update profile": _call("users.update", "profile", user_id=USER),
    "chats.metadata": _call("chats.create", "metadata", chat_id="c"),
    "chats.update metadata": _call("chats.update", "metadata", chat_id=CHAT),
    "messages.metadata": _call("messages.add", "metadata", chat_id=CHAT, role="user", content="x"),
    "memory.value": _call("memory.set", "value", **_ITEM),
    "files.metadata": _call("files.create", "metadata", **_FILE),
    "audit.context": _call("audit.record", "context", action="a"),
}
#: What no store keeps, and why.
BAD_TEXTS = {
    "U+0000": "a\0b",
    "U+0000 alone": "\0",
    "lone high surrogate": "a\ud83d",
    "lone low surrogate": "\ude00a",
    "swapped surrogates": "\ude00\ud83d",
    "not text": 5,
    "bytes": b"abc",
    "a list": ["abc"],
}
BAD_DOCUMENTS: dict[str, object] = {
    "NaN": {"a": float("nan")},
    "infinity": {"a": [float("inf")]},
    "minus infinity": {"a": {"b": float("-inf")}},
    "U+0000 in text": {"a": "\0"},
    "U+0000 in a key": {"a\0": 1},
    "lone surrogate in text": {"a": ["\ud800"]},
    "lone surrogate in a key": {"\udfff": 1},
    "more than 64 bits": {"a": 2**63},
    "less than 64 bits": {"a": -(2**63) - 1},
    "a huge integer": {"a": 10**5000},
    "a number as key": {1: "a"},
    "None as key": {None: "a"},
    "a tuple": {"a": (1, 2)},
    "a set": {"a": {1}},
    "bytes": {"a": b"x"},
    "a time": {"a": datetime(2026, 1, 1, tzinfo=UTC)},
    "an object": {"a": object()},
    "too deep": {"a": nested(100)},
}


@pytest.fixture(autouse=True)
async def known(dal: DataAccess) -> None:
    await dal.users.create(id=USER)
    await dal.chats.create(CHAT)


async def everything(dal: DataAccess) -> object:
    return await rows.everything(dal.store)


@pytest.mark.parametrize("bad", list(BAD_TEXTS))
async def test_bad_text_is_refused_everywhere(dal: DataAccess, bad: str) -> None:
    before = await everything(dal)
    for name, (call, _, _) in TEXT_FIELDS.items():
        with pytest.raises(InvalidInputError, match=name.split()[-1].split(".")[-1]) as caught:
            await call(dal, BAD_TEXTS[bad])
        assert isinstance(caught.value, ValueError)
        assert caught.value.outcome == "not_applied"
        assert not caught.value.retryable
    assert await everything(dal) == before


async def test_a_text_has_the_length_its_field_allows(dal: DataAccess) -> None:
    for name, (call, shortest, longest) in TEXT_FIELDS.items():
        before = await everything(dal)
        if shortest:
            with pytest.raises(InvalidInputError):
                await call(dal, "")
        if longest is not None:
            with pytest.raises(LimitExceededError):
                await call(dal, "x" * (longest + 1))
            with pytest.raises(LimitExceededError):
                await call(dal, "\U0001f600" * (longest + 1))
        assert await everything(dal) == before, name
        length = 300 if longest is None else longest
        assert await call(dal, "\U0001f600" * length) is not None, name


async def test_content_has_a_largest_size(dal: DataAccess) -> None:
    with pytest.raises(LimitExceededError, match="content"):
        await dal.messages.add(CHAT, "user", "x" * (MAX_TEXT_BYTES + 1))
    with pytest.raises(LimitExceededError, match="content"):
        await dal.messages.add(CHAT, "user", "\u3042" * (MAX_TEXT_BYTES // 3 + 1))
    assert await dal.messages.count(CHAT) == 0


@pytest.mark.parametrize("bad", list(BAD_DOCUMENTS))
async def test_a_bad_document_is_refused_everywhere(dal: DataAccess, bad: str) -> None:
    before = await everything(dal)
    for name, call in JSON_FIELDS.items():
        with pytest.raises(InvalidInputError, match=name.split()[-1].split(".")[-1]):
            await call(dal, BAD_DOCUMENTS[bad])
    assert await everything(dal) == before


@pytest.mark.parametrize("value", [[], "text", 1, True], ids=repr)
async def test_a_document_that_must_be_an_object_is_one(dal: DataAccess, value: object) -> None:
    for name, call in JSON_FIELDS.items():
        if name != "memory.value":
            with pytest.raises(InvalidInputError):
                await call(dal, value)


@pytest.mark.parametrize("bad", list(BAD_TEXTS))
async def test_bad_text_to_look_for_is_refused_too(dal: DataAccess, bad: str) -> None:
    value = BAD_TEXTS[bad]
    calls: list[Call] = [
        _call("users.get_by_clerk_id", "clerk_id"),
        _call("users.list", "status"),
        _call("users.list", "email"),
        _call("chats.get", "chat_id"),
        _call("chats.delete", "chat_id"),
        _call("chats.list", "profile"),
        _call("chats.update", "chat_id", title="t"),
        _call("messages.history", "chat_id"),
        _call("messages.count", "chat_id"),
        _call("messages.add", "chat_id", role="user", content="x"),
        _call("messages.search", "text"),
        _call("messages.search", "chat_id", text="x"),
        _call("memory.get", "key", user_id=USER, memory_type="t"),
        _call("memory.get", "memory_type", user_id=USER, key="k"),
        _call("memory.list", "memory_type", user_id=USER),
        _call("memory.delete", "memory_type", user_id=USER),
        _call("memory.delete", "key", user_id=USER, memory_type="t"),
        _call("files.get_by_storage_key", "storage_key"),
        _call("files.list", "status"),
        _call("audit.list", "action"),
        _call("audit.list", "user_id"),
    ]
    before = await everything(dal)
    for call in calls:
        with pytest.raises(InvalidInputError):
            await call(dal, value)
    assert await everything(dal) == before


@pytest.mark.parametrize("bad", [5, b"x", None, ["x"]], ids=repr)
async def test_an_id_that_is_no_text_is_refused(dal: DataAccess, bad: object) -> None:
    for call in (
        _call("users.get", "user_id"),
        _call("users.delete", "user_id"),
        _call("users.touch", "user_id"),
        _call("users.update", "user_id", name="x"),
        _call("messages.get", "message_id"),
        _call("messages.flag", "message_id"),
        _call("memory.set", "user_id", memory_type="t", key="k", value=1),
        _call("memory.list", "user_id"),
        _call("files.get", "file_id"),
        _call("files.delete", "file_id"),
    ):
        with pytest.raises(InvalidInputError):
            await call(dal, bad)


@pytest.mark.parametrize("bad", ["", "not a uuid", "01900000000070008000000000000001", "\0", 5], ids=repr)
async def test_an_id_of_the_callers_own_is_a_uuid(dal: DataAccess, bad: str) -> None:
    before = await everything(dal)
    with pytest.raises(InvalidInputError, match="id"):
        await dal.users.create(id=bad)
    with pytest.raises(InvalidInputError, match="id"):
        await dal.messages.add(CHAT, "user", "x", id=bad)
    with pytest.raises(InvalidInputError, match="id"):
        await dal.messages.add_many(CHAT, [NewMessage("user", "x", id=bad)])
    with pytest.raises(InvalidInputError, match="id"):
        await dal.files.create(USER, "f", storage_key="s", file_size=1, id=bad)
    assert await everything(dal) == before


@pytest.mark.parametrize("bad", [-1, 2**31, True, 1.0, "1"], ids=repr)
async def test_a_token_count_is_a_small_number(dal: DataAccess, bad: int) -> None:
    with pytest.raises(InvalidInputError, match="token_count"):
        await dal.messages.add(CHAT, "user", "x", token_count=bad)
    assert (await dal.messages.add(CHAT, "user", "x", token_count=2**31 - 1)).token_count == 2**31 - 1


async def test_a_time_without_a_zone_is_refused(dal: DataAccess) -> None:
    naive = datetime(2026, 1, 1)
    with pytest.raises(InvalidInputError, match="created_at"):
        await dal.messages.add(CHAT, "user", "x", created_at=naive)
    with pytest.raises(InvalidInputError, match="last_active_at"):
        await dal.users.update(USER, last_active_at=naive)
    assert await dal.messages.count(CHAT) == 0


async def test_subclasses_of_plain_types_are_taken_by_their_plain_value(dal: DataAccess) -> None:
    class Role(enum.StrEnum):
        USER = "user"

    document = OrderedDict(b=1, a=[enum.IntEnum("N", "ONE").ONE])  # type: ignore[attr-defined]  # made on the fly
    message = await dal.messages.add(CHAT, Role.USER, "x", metadata=dict(document))  # type: ignore[arg-type]
    assert await dal.messages.get(message.id) == message
    assert type(message.role) is str
    assert message.metadata == {"b": 1, "a": [1]}


async def test_a_record_shares_nothing_with_what_the_caller_handed_in(dal: DataAccess) -> None:
    metadata: dict[str, object] = {"a": [1]}
    message = await dal.messages.add(CHAT, "user", "x", metadata=metadata)  # type: ignore[arg-type]
    metadata["a"] = "changed"
    assert message.metadata == {"a": [1]}
    message.metadata["a"] = "changed too"
    stored = await dal.messages.get(message.id)
    assert stored is not None
    assert stored.metadata == {"a": [1]}


async def test_no_refusal_shows_what_was_written(dal: DataAccess) -> None:
    secret = "correct horse battery staple"
    for name, (call, _, _) in TEXT_FIELDS.items():
        with pytest.raises(InvalidInputError) as caught:
            await call(dal, secret + "\0")
        assert secret not in str(caught.value), name
    for name, json_call in JSON_FIELDS.items():
        with pytest.raises(InvalidInputError) as caught:
            await json_call(dal, {"a": secret, "b": float("nan")})
        assert secret not in str(caught.value), name
