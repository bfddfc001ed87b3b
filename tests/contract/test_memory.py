"""`dal.memory`: values under a user, a type and a key, and their expiry under a clock the test owns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from dal import (
    ConflictError,
    DataAccess,
    InvalidInputError,
    LimitExceededError,
    MemoryItem,
    MissingReferenceError,
    User,
)
from dal.ops import JsonValue
from dal.testing import FakeClock

UNKNOWN = "01900000-0000-7000-8000-00000000dead"


@pytest.fixture
async def ada(dal: DataAccess) -> User:
    return await dal.users.create(name="Ada")


async def test_set_gives_the_item_as_stored(dal: DataAccess, ada: User, clock: FakeClock) -> None:
    item = await dal.memory.set(ada.id, "preferences", "tone", "brief")
    assert item == MemoryItem(
        id=item.id,
        user_id=ada.id,
        memory_type="preferences",
        key="tone",
        value="brief",
        expires_at=None,
        created_at=clock.now,
        updated_at=clock.now,
        version=1,
    )
    assert await dal.memory.get(ada.id, "preferences", "tone") == "brief"
    assert await dal.memory.get_item(ada.id, "preferences", "tone") == item


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "", "text", [], [1, [2]], {}, {"a": {"b": None}}])
async def test_any_json_value_may_be_remembered(dal: DataAccess, ada: User, value: JsonValue) -> None:
    assert (await dal.memory.set(ada.id, "t", "k", value)).value == value
    found = await dal.memory.get(ada.id, "t", "k", default="default")
    assert found == value
    assert type(found) is type(value)


async def test_get_of_what_is_not_there_is_the_default(dal: DataAccess, ada: User) -> None:
    await dal.memory.set(ada.id, "t", "k", 1)
    for place in ((ada.id, "t", "other"), (ada.id, "other", "k"), (UNKNOWN, "t", "k"), ("not a uuid", "t", "k")):
        assert await dal.memory.get(*place) is None
        assert await dal.memory.get(*place, default={"a": 1}) == {"a": 1}
        assert await dal.memory.get_item(*place) is None


async def test_set_again_replaces_value_and_expiry_and_keeps_the_item(
    dal: DataAccess, ada: User, clock: FakeClock
) -> None:
    first = await dal.memory.set(ada.id, "t", "k", 1, ttl=100)
    clock.advance(5)
    second = await dal.memory.set(ada.id, "t", "k", {"new": True})
    assert second == first.model_copy(
        update={"value": {"new": True}, "expires_at": None, "updated_at": clock.now, "version": 2}
    )
    assert await dal.memory.list(ada.id) == [second]


async def test_users_types_and_keys_are_apart(dal: DataAccess, ada: User) -> None:
    bob = await dal.users.create()
    places = [(user.id, kind, key) for user in (ada, bob) for kind in ("a", "A", "a ") for key in ("k", "K", "k ")]
    for number, place in enumerate(places):
        await dal.memory.set(*place, number)
    assert [await dal.memory.get(*place) for place in places] == list(range(len(places)))


async def test_set_for_an_unknown_user_is_refused(dal: DataAccess) -> None:
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(MissingReferenceError):
            await dal.memory.set(unknown, "t", "k", 1)
        with pytest.raises(MissingReferenceError):
            await dal.memory.set_many(unknown, "t", {"k": 1})


async def test_set_at_the_expected_version_passes_and_at_another_conflicts(dal: DataAccess, ada: User) -> None:
    with pytest.raises(ConflictError):
        await dal.memory.set(ada.id, "t", "k", "first", expected_version=1)
    assert await dal.memory.get_item(ada.id, "t", "k") is None
    await dal.memory.set(ada.id, "t", "k", "v1")
    assert (await dal.memory.set(ada.id, "t", "k", "v2", expected_version=1)).version == 2
    for stale in (1, 3):
        with pytest.raises(ConflictError) as caught:
            await dal.memory.set(ada.id, "t", "k", "lost", expected_version=stale)
        assert not caught.value.retryable
    assert await dal.memory.get(ada.id, "t", "k") == "v2"


async def test_set_many_is_one_write(dal: DataAccess, ada: User, clock: FakeClock) -> None:
    await dal.memory.set(ada.id, "t", "b", "old", ttl=60)
    items = await dal.memory.set_many(ada.id, "t", {"c": 3, "a": [1], "b": None})
    assert [(item.key, item.value, item.version, item.expires_at) for item in items] == [
        ("c", 3, 1, None),
        ("a", [1], 1, None),
        ("b", None, 2, None),
    ]
    assert await dal.memory.list(ada.id, "t") == sorted(items, key=lambda item: item.key)
    assert await dal.memory.set_many(ada.id, "t", {}) == []
    with pytest.raises(LimitExceededError, match="items: found 10001, at most 10000 allowed"):
        await dal.memory.set_many(ada.id, "t", {f"k{n}": n for n in range(10_001)})
    for wrong in ([{"k": 1}], [("k", 1)], [None], None, "k", ("k", 1)):
        with pytest.raises(InvalidInputError, match="items: expected a mapping"):
            await dal.memory.set_many(ada.id, "t", wrong)  # type: ignore[arg-type]
    for key in (None, 1, ("k", 1)):
        with pytest.raises(InvalidInputError, match="key"):
            await dal.memory.set_many(ada.id, "t", {"k": 1, key: 2})  # type: ignore[dict-item]
    assert await dal.memory.get_item(ada.id, "t", "k") is None
    with pytest.raises(InvalidInputError):
        await dal.memory.set_many(ada.id, "t", {"new": 1, "bad": float("nan")})
    assert await dal.memory.get(ada.id, "t", "new") is None


async def test_list_gives_one_type_or_all_ordered_by_type_and_key(dal: DataAccess, ada: User) -> None:
    bob = await dal.users.create()
    await dal.memory.set(bob.id, "a", "1", "of Bob")
    for kind, key in (("b", "2"), ("a", "z"), ("a", "B"), ("b", "10"), ("a", "é"), ("a", "a")):
        await dal.memory.set(ada.id, kind, key, 0)
    found = [(item.memory_type, item.key) for item in await dal.memory.list(ada.id)]
    assert found == [("a", "B"), ("a", "a"), ("a", "z"), ("a", "é"), ("b", "10"), ("b", "2")]
    assert [item.key for item in await dal.memory.list(ada.id, "b")] == ["10", "2"]
    assert await dal.memory.list(ada.id, "c") == []
    assert await dal.memory.list(UNKNOWN) == []
    assert await dal.memory.list("not a uuid") == []


async def test_delete_counts_what_was_there(dal: DataAccess, ada: User) -> None:
    for kind, key in (("a", "1"), ("a", "2"), ("a", "3"), ("b", "1")):
        await dal.memory.set(ada.id, kind, key, 0)
    assert await dal.memory.delete(ada.id, "a", "1") == 1
    assert await dal.memory.delete(ada.id, "a", "1") == 0
    assert await dal.memory.delete(ada.id, "a") == 2
    assert await dal.memory.delete(ada.id, "a") == 0
    assert await dal.memory.delete(UNKNOWN, "b") == 0
    assert await dal.memory.delete("not a uuid", "b") == 0
    assert [item.memory_type for item in await dal.memory.list(ada.id)] == ["b"]


# -- expiry


@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)], ids=str)
async def test_an_item_lives_until_its_ttl_is_over(
    dal: DataAccess, ada: User, clock: FakeClock, ttl: float | timedelta
) -> None:
    item = await dal.memory.set(ada.id, "t", "k", "v", ttl=ttl)
    assert item.expires_at == clock.now + timedelta(seconds=60)
    clock.advance(59.999999)
    assert await dal.memory.get(ada.id, "t", "k") == "v"
    clock.advance(0.000001)
    assert await dal.memory.get(ada.id, "t", "k") is None


async def test_an_item_lives_until_its_moment(dal: DataAccess, ada: User, clock: FakeClock) -> None:
    moment = (clock.now + timedelta(seconds=10)).astimezone(timezone(timedelta(hours=-5)))
    item = await dal.memory.set(ada.id, "t", "k", "v", expires_at=moment)
    assert item.expires_at == moment
    assert item.expires_at is not None
    assert item.expires_at.tzinfo is UTC
    clock.advance(10)
    assert await dal.memory.get_item(ada.id, "t", "k") is None


async def test_an_item_may_be_born_expired(dal: DataAccess, ada: User, clock: FakeClock) -> None:
    await dal.memory.set(ada.id, "t", "k", "v", expires_at=clock.now)
    assert await dal.memory.get(ada.id, "t", "k") is None
    assert await dal.memory.list(ada.id) == []


@pytest.mark.parametrize("purged", [False, True])
async def test_an_expired_item_is_gone_whether_purged_or_not(
    dal: DataAccess, ada: User, clock: FakeClock, purged: bool
) -> None:
    old = await dal.memory.set(ada.id, "t", "k", "old", ttl=10)
    await dal.memory.set(ada.id, "t", "gone too", "old", ttl=10)
    kept = await dal.memory.set(ada.id, "t", "stays", "kept", ttl=1000)
    clock.advance(10)
    if purged:
        assert await dal.memory.purge_expired() == 2
    assert await dal.memory.get(ada.id, "t", "k", default="default") == "default"
    assert await dal.memory.get_item(ada.id, "t", "k") is None
    assert await dal.memory.list(ada.id) == [kept]
    assert await dal.memory.list(ada.id, "t") == [kept]
    assert await dal.memory.delete(ada.id, "t", "k") == 0
    with pytest.raises(ConflictError):
        await dal.memory.set(ada.id, "t", "k", "lost", expected_version=1)
    again = await dal.memory.set(ada.id, "t", "k", "new")
    assert again.id != old.id
    assert (again.version, again.created_at, again.expires_at) == (1, clock.now, None)
    (many,) = await dal.memory.set_many(ada.id, "t", {"gone too": 1})
    assert (many.version, many.created_at) == (1, clock.now)
    assert await dal.memory.delete(ada.id, "t") == 3


async def test_an_item_set_again_before_it_expires_is_the_same_item(
    dal: DataAccess, ada: User, clock: FakeClock
) -> None:
    first = await dal.memory.set(ada.id, "t", "k", 1, ttl=10)
    clock.advance(9)
    second = await dal.memory.set(ada.id, "t", "k", 2, ttl=10, expected_version=1)
    assert (second.id, second.version) == (first.id, 2)
    clock.advance(9)
    assert await dal.memory.get(ada.id, "t", "k") == 2


async def test_purge_removes_the_oldest_first_and_changes_nothing_visible(
    dal: DataAccess, ada: User, clock: FakeClock
) -> None:
    for number in range(10):
        await dal.memory.set(ada.id, "t", f"k{number}", number, ttl=10 + number)
    await dal.memory.set(ada.id, "t", "for ever", 0)
    assert await dal.memory.purge_expired() == 0
    clock.advance(16)
    before = await dal.memory.list(ada.id)
    assert [item.key for item in before] == ["for ever", "k7", "k8", "k9"]
    assert [await dal.memory.purge_expired(limit=5), await dal.memory.purge_expired(limit=5)] == [5, 2]
    assert await dal.memory.purge_expired() == 0
    assert await dal.memory.list(ada.id) == before
    for wrong in (0, -1, 10_001):
        with pytest.raises(InvalidInputError, match="limit"):
            await dal.memory.purge_expired(limit=wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": timedelta(0)},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": 1e300},
        {"ttl": "60"},
        {"ttl": True},
        {"ttl": 1, "expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"expires_at": datetime(2030, 1, 1)},
        {"expires_at": "2030-01-01"},
        {"expected_version": 0},
        {"expected_version": "1"},
    ],
    ids=str,
)
async def test_set_refuses_an_expiry_or_version_that_means_nothing(
    dal: DataAccess, ada: User, arguments: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError):
        await dal.memory.set(ada.id, "t", "k", 1, **arguments)  # type: ignore[arg-type]
    assert await dal.memory.list(ada.id) == []
