"""`dal.users`: every method and argument, on every backend and through every layer."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from dal import AlreadyExistsError, ConflictError, DataAccess, InvalidInputError, NotFoundError, User
from dal.testing import FakeClock

UNKNOWN = "01900000-0000-7000-8000-00000000dead"


async def test_create_without_arguments_gives_an_active_user_with_nothing_known(
    dal: DataAccess, clock: FakeClock
) -> None:
    user = await dal.users.create()
    assert user == User(id=user.id, created_at=clock.now, updated_at=clock.now, version=1)
    assert user.status == "active"
    assert user.profile == {}
    assert user.preferences == {}
    assert user.last_active_at is None
    assert await dal.users.get(user.id) == user


async def test_create_keeps_every_argument(dal: DataAccess) -> None:
    given = str(uuid4())
    user = await dal.users.create(
        id=given,
        clerk_id="clerk-1",
        email="ada@example.com",
        name="Ada",
        profile={"langs": ["en", "fr"]},
        preferences={"theme": None},
        status="invited",
    )
    assert user.model_dump(include={"id", "clerk_id", "email", "name", "profile", "preferences", "status"}) == {
        "id": given,
        "clerk_id": "clerk-1",
        "email": "ada@example.com",
        "name": "Ada",
        "profile": {"langs": ["en", "fr"]},
        "preferences": {"theme": None},
        "status": "invited",
    }
    assert await dal.users.get(given) == user
    assert await dal.users.get_by_clerk_id("clerk-1") == user


async def test_get_of_an_unknown_user_is_none(dal: DataAccess) -> None:
    await dal.users.create(clerk_id="someone")
    assert await dal.users.get(UNKNOWN) is None
    assert await dal.users.get("not a uuid") is None
    assert await dal.users.get("") is None
    assert await dal.users.get_by_clerk_id("someone else") is None


async def test_get_knows_an_id_in_capitals(dal: DataAccess) -> None:
    user = await dal.users.create()
    assert await dal.users.get(user.id.upper()) == user


async def test_a_clerk_id_is_unique(dal: DataAccess) -> None:
    first = await dal.users.create(clerk_id="c", name="first")
    with pytest.raises(AlreadyExistsError):
        await dal.users.create(clerk_id="c", name="second")
    assert await dal.users.get_by_clerk_id("c") == first
    assert len((await dal.users.list()).items) == 1


async def test_emails_names_and_missing_clerk_ids_are_not_unique(dal: DataAccess) -> None:
    for _ in range(2):
        await dal.users.create(email="e", name="n")
    assert len((await dal.users.list(email="e")).items) == 2


async def test_create_with_an_id_again_gives_the_stored_user_and_refuses_another(
    dal: DataAccess, clock: FakeClock
) -> None:
    given = str(uuid4())
    first = await dal.users.create(id=given, name="Ada", clerk_id="c")
    clock.advance(5)
    assert await dal.users.create(id=given, name="Ada", clerk_id="c") == first
    with pytest.raises(AlreadyExistsError):
        await dal.users.create(id=given, name="Eve", clerk_id="c")
    assert await dal.users.get(given) == first


async def test_update_changes_what_it_names_and_nothing_else(dal: DataAccess, clock: FakeClock) -> None:
    user = await dal.users.create(clerk_id="c", email="e", name="n", profile={"a": 1}, preferences={"b": 2})
    created = clock.now
    clock.advance(7)
    updated = await dal.users.update(user.id, name="new", profile={"c": [3]})
    expected = {"name": "new", "profile": {"c": [3]}, "updated_at": clock.now, "version": 2}
    assert updated == user.model_copy(update=expected)
    assert updated.created_at == created
    assert await dal.users.get(user.id) == updated


async def test_update_changes_every_field_that_may_change(dal: DataAccess, clock: FakeClock) -> None:
    user = await dal.users.create()
    changes: dict[str, Any] = {
        "clerk_id": "c",
        "email": "e",
        "name": "n",
        "profile": {"a": 1},
        "preferences": {"b": 2},
        "status": "closed",
        "last_active_at": clock.now,
    }
    updated = await dal.users.update(user.id, **changes)
    assert updated.model_dump(include=set(changes)) == changes
    cleared = await dal.users.update(user.id, clerk_id=None, email=None, name=None, last_active_at=None)
    assert (cleared.clerk_id, cleared.email, cleared.name, cleared.last_active_at) == (None, None, None, None)
    assert await dal.users.get_by_clerk_id("c") is None
    assert cleared.version == 3


@pytest.mark.parametrize("field", ["id", "created_at", "updated_at", "version", "no_such_field", "password"])
async def test_update_refuses_what_may_not_change(dal: DataAccess, field: str) -> None:
    user = await dal.users.create()
    changes: dict[str, Any] = {field: "x"}
    with pytest.raises(InvalidInputError, match=field):
        await dal.users.update(user.id, **changes)
    assert await dal.users.get(user.id) == user


async def test_update_of_an_unknown_user_is_not_found(dal: DataAccess) -> None:
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(NotFoundError):
            await dal.users.update(unknown, name="x")
        with pytest.raises(NotFoundError):
            await dal.users.update(unknown, name="x", expected_version=1)
        with pytest.raises(NotFoundError):
            await dal.users.update(unknown)


async def test_update_at_the_expected_version_passes_and_at_another_conflicts(dal: DataAccess) -> None:
    user = await dal.users.create(name="v1")
    second = await dal.users.update(user.id, name="v2", expected_version=1)
    assert second.version == 2
    for stale in (1, 3):
        with pytest.raises(ConflictError) as caught:
            await dal.users.update(user.id, name="lost", expected_version=stale)
        assert not caught.value.retryable
        assert caught.value.outcome == "not_applied"
        assert "2" in str(caught.value)
    assert await dal.users.get(user.id) == second


async def test_update_without_changes_changes_nothing(dal: DataAccess, clock: FakeClock) -> None:
    user = await dal.users.create()
    clock.advance(1)
    assert await dal.users.update(user.id) == user
    assert await dal.users.update(user.id, expected_version=1) == user
    with pytest.raises(ConflictError):
        await dal.users.update(user.id, expected_version=2)


async def test_update_to_a_taken_clerk_id_is_refused(dal: DataAccess) -> None:
    await dal.users.create(clerk_id="taken")
    user = await dal.users.create(clerk_id="mine")
    with pytest.raises(AlreadyExistsError):
        await dal.users.update(user.id, clerk_id="taken")
    assert await dal.users.get(user.id) == user


async def test_touch_sets_the_time_of_the_last_activity(dal: DataAccess, clock: FakeClock) -> None:
    user = await dal.users.create()
    clock.advance(60)
    await dal.users.touch(user.id)
    touched = await dal.users.get(user.id)
    assert touched is not None
    assert touched.last_active_at == clock.now
    assert touched.version == 2
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(NotFoundError):
            await dal.users.touch(unknown)


async def test_delete_says_whether_the_user_was_there(dal: DataAccess) -> None:
    user, other = await dal.users.create(clerk_id="c"), await dal.users.create()
    assert await dal.users.delete(user.id) is True
    assert await dal.users.delete(user.id) is False
    assert await dal.users.delete("not a uuid") is False
    assert await dal.users.get(user.id) is None
    assert await dal.users.get_by_clerk_id("c") is None
    assert await dal.users.get(other.id) == other
    await dal.users.create(clerk_id="c")


async def test_delete_takes_memory_and_files_along_and_leaves_chats_and_the_trail(dal: DataAccess) -> None:
    ada, bob = await dal.users.create(name="Ada"), await dal.users.create(name="Bob")
    for user in (ada, bob):
        await dal.memory.set(user.id, "fact", "k", user.name)
        await dal.files.create(user.id, "f", storage_key=f"key-{user.name}", file_size=1)
        await dal.chats.create(f"chat-{user.name}", user_id=user.id)
        await dal.messages.add(f"chat-{user.name}", "user", "hello")
        await dal.audit.record("login", user_id=user.id)
    await dal.users.delete(ada.id)
    assert await dal.memory.list(ada.id) == []
    assert await dal.files.get_by_storage_key("key-Ada") is None
    assert (await dal.files.list(user_id=ada.id)).items == []
    chat = await dal.chats.get("chat-Ada")
    assert chat is not None
    assert chat.user_id is None
    assert chat.message_count == 1
    assert [m.content for m in await dal.messages.history("chat-Ada")] == ["hello"]
    assert (await dal.chats.list(user_id=ada.id)).items == []
    assert len((await dal.audit.list(user_id=ada.id)).items) == 1
    assert [item.value for item in await dal.memory.list(bob.id)] == ["Bob"]
    assert await dal.files.get_by_storage_key("key-Bob") is not None
    assert [c.chat_id for c in (await dal.chats.list(user_id=bob.id)).items] == ["chat-Bob"]


async def test_list_is_newest_first_and_filtered(dal: DataAccess, clock: FakeClock) -> None:
    users = []
    for number in range(6):
        clock.advance(number % 2)  # neighbours tie
        users.append(
            await dal.users.create(
                name=str(number), email="odd" if number % 2 else "even", status="active" if number < 4 else "closed"
            )
        )
    assert (await dal.users.list()).items == users[::-1]
    assert (await dal.users.list(email="odd")).items == users[1::2][::-1]
    assert (await dal.users.list(status="closed")).items == [users[5], users[4]]
    assert (await dal.users.list(status="closed", email="odd")).items == [users[5]]
    assert (await dal.users.list(status="no such status")).items == []
    assert (await dal.users.list(limit=2)).items == [users[5], users[4]]
