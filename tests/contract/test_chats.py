"""`dal.chats`: every method and argument, on every backend and through every layer."""

from __future__ import annotations

from typing import Any

import pytest

from dal import (
    AlreadyExistsError,
    ChatSession,
    ConflictError,
    DataAccess,
    InvalidInputError,
    MissingReferenceError,
    NotFoundError,
)
from dal.testing import FakeClock

UNKNOWN = "01900000-0000-7000-8000-00000000dead"


async def test_create_with_a_key_alone_gives_an_empty_active_chat(dal: DataAccess, clock: FakeClock) -> None:
    chat = await dal.chats.create("c-1")
    assert chat == ChatSession(
        id=chat.id,
        chat_id="c-1",
        user_id=None,
        title=None,
        profile="general",
        metadata={},
        status="active",
        message_count=0,
        created_at=clock.now,
        updated_at=clock.now,
        last_message_at=None,
        version=1,
    )
    assert await dal.chats.get("c-1") == chat


async def test_create_keeps_every_argument(dal: DataAccess) -> None:
    user = await dal.users.create()
    chat = await dal.chats.create("c", user_id=user.id, title="T", profile="coder", metadata={"a": [None]})
    assert (chat.user_id, chat.title, chat.profile, chat.metadata) == (user.id, "T", "coder", {"a": [None]})
    assert await dal.chats.get("c") == chat


async def test_a_chat_id_is_unique(dal: DataAccess) -> None:
    first = await dal.chats.create("c", title="first")
    with pytest.raises(AlreadyExistsError):
        await dal.chats.create("c", title="second")
    with pytest.raises(AlreadyExistsError):
        await dal.chats.create("c", title="first")
    assert await dal.chats.get("c") == first


async def test_create_for_an_unknown_user_is_refused(dal: DataAccess) -> None:
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(MissingReferenceError):
            await dal.chats.create("c", user_id=unknown)
    assert await dal.chats.get("c") is None


async def test_get_of_an_unknown_chat_is_none(dal: DataAccess) -> None:
    assert await dal.chats.get("c") is None


async def test_update_changes_what_it_names_and_nothing_else(dal: DataAccess, clock: FakeClock) -> None:
    user = await dal.users.create()
    chat = await dal.chats.create("c", title="old", metadata={"a": 1})
    clock.advance(3)
    updated = await dal.chats.update("c", title="new")
    assert updated == chat.model_copy(update={"title": "new", "updated_at": clock.now, "version": 2})
    everything: dict[str, Any] = {
        "user_id": user.id,
        "title": None,
        "profile": "p",
        "metadata": {"b": {}},
        "status": "archived",
    }
    updated = await dal.chats.update("c", **everything)
    assert updated.model_dump(include=set(everything)) == everything
    assert updated.version == 3
    assert await dal.chats.get("c") == updated
    assert (await dal.chats.update("c", user_id=None)).user_id is None


@pytest.mark.parametrize(
    "field", ["id", "message_count", "version", "created_at", "last_message_at", "last_activity_at", "nope"]
)
async def test_update_refuses_what_may_not_change(dal: DataAccess, field: str) -> None:
    chat = await dal.chats.create("c")
    changes: dict[str, Any] = {field: "x"}
    with pytest.raises(InvalidInputError, match=field):
        await dal.chats.update("c", **changes)
    assert await dal.chats.get("c") == chat


async def test_update_of_an_unknown_chat_is_not_found(dal: DataAccess) -> None:
    with pytest.raises(NotFoundError):
        await dal.chats.update("c", title="x")
    with pytest.raises(NotFoundError):
        await dal.chats.update("c", title="x", expected_version=1)


async def test_update_to_an_unknown_user_is_refused(dal: DataAccess) -> None:
    chat = await dal.chats.create("c")
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(MissingReferenceError):
            await dal.chats.update("c", user_id=unknown)
    assert await dal.chats.get("c") == chat


async def test_a_version_grows_with_every_change_and_is_the_lock(dal: DataAccess) -> None:
    chat = await dal.chats.create("c")
    assert (await dal.chats.update("c", title="a", expected_version=chat.version)).version == 2
    with pytest.raises(ConflictError):
        await dal.chats.update("c", title="b", expected_version=chat.version)
    await dal.messages.add("c", "user", "a message is a change of its chat")
    with pytest.raises(ConflictError):
        await dal.chats.update("c", title="b", expected_version=2)
    assert (await dal.chats.update("c", title="b", expected_version=3)).version == 4


async def test_delete_takes_the_messages_along(dal: DataAccess) -> None:
    await dal.chats.create("c")
    await dal.chats.create("other")
    message = await dal.messages.add("c", "user", "hello")
    kept = await dal.messages.add("other", "user", "hello")
    assert await dal.chats.delete("c") is True
    assert await dal.chats.delete("c") is False
    assert await dal.chats.get("c") is None
    assert await dal.messages.get(message.id) is None
    assert await dal.messages.get(kept.id) == kept
    with pytest.raises(MissingReferenceError):
        await dal.messages.history("c")
    again = await dal.chats.create("c")
    assert again.message_count == 0
    assert await dal.messages.history("c") == []
    assert (await dal.messages.add("c", "user", "first again")).sequence_number == 1


async def test_a_message_changes_its_chats_count_and_times(dal: DataAccess, clock: FakeClock) -> None:
    chat = await dal.chats.create("c")
    clock.advance(10)
    await dal.messages.add("c", "user", "1")
    found = await dal.chats.get("c")
    assert found == chat.model_copy(
        update={"message_count": 1, "updated_at": clock.now, "last_message_at": clock.now, "version": 2}
    )


async def test_list_is_by_latest_activity(dal: DataAccess, clock: FakeClock) -> None:
    for name in ("a", "b", "c", "d"):
        clock.advance(1)
        await dal.chats.create(name)
    clock.advance(1)
    await dal.messages.add("b", "user", "now the latest")
    clock.advance(1)
    await dal.chats.update("a", title="a change of title is no activity")
    assert [chat.chat_id for chat in (await dal.chats.list()).items] == ["b", "d", "c", "a"]


async def test_list_filters_by_user_status_and_profile(dal: DataAccess) -> None:
    ada, bob = await dal.users.create(), await dal.users.create()
    for number in range(8):
        await dal.chats.create(
            f"c{number}", user_id=(ada if number % 2 else bob).id, profile="x" if number % 4 < 2 else "y"
        )
    await dal.chats.update("c1", status="archived")

    async def keys(**filters: str) -> list[str]:
        page = await dal.chats.list(**filters)  # type: ignore[arg-type]
        assert page.next is None
        return sorted(chat.chat_id for chat in page.items)

    assert await keys(user_id=ada.id) == ["c1", "c3", "c5", "c7"]
    assert await keys(profile="y") == ["c2", "c3", "c6", "c7"]
    assert await keys(status="archived") == ["c1"]
    assert await keys(user_id=ada.id, profile="x", status="active") == ["c5"]
    assert await keys(user_id=UNKNOWN) == []
    assert await keys(user_id="not a uuid") == []
    assert len(await keys()) == 8
