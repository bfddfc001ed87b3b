"""Paging: every listing gives each row once in order, bears inserts and deletes, and refuses a foreign cursor."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import pytest

from dal import DataAccess, InvalidInputError, LimitExceededError
from dal.testing import FakeClock


class Item(Protocol):
    """What every record of a listing has, a hit's message included."""

    @property
    def id(self) -> str: ...


class Listing:
    """One listing of the API: how to make a row of it, drop one, and read a page as ids."""

    def __init__(
        self,
        make: Callable[[DataAccess, int], Awaitable[str]],
        page: Callable[..., Awaitable[tuple[list[str], str | None]]],
        drop: Callable[[DataAccess, str], Awaitable[object]] | None = None,
    ) -> None:
        self.make, self.page, self.drop = make, page, drop


def _ids(items: Sequence[Item], cursor: str | None) -> tuple[list[str], str | None]:
    return [item.id for item in items], cursor


async def _make_user(dal: DataAccess, number: int) -> str:
    return (await dal.users.create(name=str(number))).id


async def _users(dal: DataAccess, **arguments: Any) -> tuple[list[str], str | None]:
    page = await dal.users.list(**arguments)
    return _ids(page.items, page.next)


async def _make_chat(dal: DataAccess, number: int) -> str:
    return (await dal.chats.create(f"chat {number}")).id


async def _chats(dal: DataAccess, **arguments: Any) -> tuple[list[str], str | None]:
    page = await dal.chats.list(**arguments)
    return _ids(page.items, page.next)


async def _drop_chat(dal: DataAccess, identifier: str) -> None:
    for chat in (await dal.chats.list(limit=1000)).items:
        if chat.id == identifier:
            await dal.chats.delete(chat.chat_id)


async def _make_file(dal: DataAccess, number: int) -> str:
    owners = (await dal.users.list(status="owner")).items or [await dal.users.create(status="owner")]
    return (await dal.files.create(owners[0].id, "f", storage_key=str(number), file_size=number)).id


async def _files(dal: DataAccess, **arguments: Any) -> tuple[list[str], str | None]:
    page = await dal.files.list(**arguments)
    return _ids(page.items, page.next)


async def _make_event(dal: DataAccess, number: int) -> str:
    return (await dal.audit.record("a", entity_id=str(number))).id


async def _events(dal: DataAccess, **arguments: Any) -> tuple[list[str], str | None]:
    page = await dal.audit.list(**arguments)
    return _ids(page.items, page.next)


async def _make_message(dal: DataAccess, number: int) -> str:
    key = f"chat {number % 3}"
    if await dal.chats.get(key) is None:
        await dal.chats.create(key)
    return (await dal.messages.add(key, "user", f"word {number}")).id


async def _hits(dal: DataAccess, **arguments: Any) -> tuple[list[str], str | None]:
    page = await dal.messages.search("word", **arguments)
    return _ids([hit.message for hit in page.items], page.next)


LISTINGS = {
    "users": Listing(_make_user, _users, lambda dal, identifier: dal.users.delete(identifier)),
    "chats": Listing(_make_chat, _chats, _drop_chat),
    "files": Listing(_make_file, _files, lambda dal, identifier: dal.files.delete(identifier)),
    "audit": Listing(_make_event, _events),
    "search": Listing(_make_message, _hits),
}


async def pages(dal: DataAccess, listing: Listing, limit: int) -> list[list[str]]:
    """Every page of a listing, from the first."""
    found, after = [], None
    while True:
        ids, after = await listing.page(dal, limit=limit, after=after)
        found.append(ids)
        assert len(found) < 100, "pages that never end"
        if after is None:
            return found


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_pages_give_every_row_once_newest_first(dal: DataAccess, clock: FakeClock, name: str) -> None:
    made = []
    for number in range(11):
        clock.advance(number % 3 // 2)  # most neighbours tie
        made.append(await LISTINGS[name].make(dal, number))
    whole, after = await LISTINGS[name].page(dal, limit=1000)
    assert after is None
    assert sorted(whole) == sorted(made)
    if name != "search":  # messages of one moment are ordered by their number in their chats
        assert whole == made[::-1]
    for limit in (1, 2, 5, 10, 11, 12):
        found = await pages(dal, LISTINGS[name], limit)
        assert [row for page in found for row in page] == whole
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert len(found) == -(-11 // limit), "no empty page at the end"


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_an_empty_listing_is_one_empty_page(dal: DataAccess, name: str) -> None:
    assert await LISTINGS[name].page(dal) == ([], None)


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_inserts_and_deletes_between_pages_move_nothing(dal: DataAccess, clock: FakeClock, name: str) -> None:
    listing = LISTINGS[name]
    made = []
    for number in range(9):
        clock.advance(1)
        made.append(await listing.make(dal, number))
    first, after = await listing.page(dal, limit=3)
    assert first == made[:5:-1]
    clock.advance(1)
    await listing.make(dal, 100)
    gone = set()
    if listing.drop is not None:
        gone = {made[6], made[7], made[4]}  # the row the cursor stands on, one before it, one behind it
        for identifier in gone:
            await listing.drop(dal, identifier)
    rest: list[str] = []
    while after is not None:
        ids, after = await listing.page(dal, limit=3, after=after)
        rest += ids
        assert len(rest) < 100, "pages that never end"
    assert rest == [identifier for identifier in made[5::-1] if identifier not in gone]


async def _cursor(dal: DataAccess, name: str, **arguments: Any) -> str:
    for number in range(3):
        await LISTINGS[name].make(dal, number)
    _, cursor = await LISTINGS[name].page(dal, limit=1, **arguments)
    assert cursor is not None
    return cursor


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_a_cursor_of_another_listing_is_refused(dal: DataAccess, name: str) -> None:
    cursor = await _cursor(dal, name)
    for other in LISTINGS:
        if other != name:
            with pytest.raises(InvalidInputError, match="after"):
                await LISTINGS[other].page(dal, after=cursor)


async def test_a_cursor_of_the_same_listing_with_other_filters_is_refused(dal: DataAccess) -> None:
    user = await dal.users.create(status="owner")
    cursor = await _cursor(dal, "users", status="active")
    others: list[dict[str, Any]] = [{}, {"status": "owner"}, {"status": "active", "email": "e"}, {"email": "active"}]
    for filters in others:
        with pytest.raises(InvalidInputError, match="after"):
            await dal.users.list(after=cursor, **filters)
    cursor = await _cursor(dal, "files", user_id=user.id)
    others = [{}, {"status": "active"}, {"user_id": user.id, "status": "active"}]
    for filters in others:
        with pytest.raises(InvalidInputError, match="after"):
            await dal.files.list(after=cursor, **filters)
    cursor = await _cursor(dal, "search")
    for text in ("wor", "word word2", "other"):
        with pytest.raises(InvalidInputError, match="after"):
            await dal.messages.search(text, after=cursor)
    with pytest.raises(InvalidInputError, match="after"):
        await dal.messages.search("word", chat_id="chat 1", after=cursor)
    cursor = await _cursor(dal, "audit", action="a")
    with pytest.raises(InvalidInputError, match="after"):
        await dal.audit.list(level="info", after=cursor)


async def test_a_cursor_serves_any_page_size_and_any_number_of_times(dal: DataAccess) -> None:
    cursor = await _cursor(dal, "users")
    whole, _ = await _users(dal)
    for limit in (1, 2, 50, 1):
        assert (await _users(dal, after=cursor, limit=limit))[0] == whole[1 : 1 + limit]


GARBAGE: list[object] = [
    *("", "garbage", "é", "\0", "\ud800", "====", "null", "' OR 1=1 --", "A" * 100_000, 17, b"bytes"),
    *(base64.urlsafe_b64encode(text).decode() for text in (b"[]", b"{}", b'"abc"', b"[" * 10_000)),
]


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_what_is_no_cursor_is_refused(dal: DataAccess, name: str) -> None:
    for garbage in GARBAGE:
        with pytest.raises(InvalidInputError, match="after"):
            await LISTINGS[name].page(dal, after=garbage)


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_a_cursor_with_anything_beside_it_is_refused(dal: DataAccess, name: str) -> None:
    cursor = await _cursor(dal, name)
    for changed in (
        *(cursor + junk for junk in ("!!", "=", "==", " ", "\n", "\0", "é", "A", "AAAA")),
        *("!" + cursor, f"{cursor[:5]}.{cursor[5:]}", cursor[:-1], cursor[:-4]),
    ):
        with pytest.raises(InvalidInputError, match="after"):
            await LISTINGS[name].page(dal, after=changed)
    await LISTINGS[name].page(dal, after=cursor)


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_a_cursor_that_was_tampered_with_is_refused_or_only_moves_the_place(dal: DataAccess, name: str) -> None:
    cursor = await _cursor(dal, name)
    whole, _ = await LISTINGS[name].page(dal)
    for place in range(0, len(cursor), 3):
        forged = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        try:
            ids, _ = await LISTINGS[name].page(dal, after=forged)
        except InvalidInputError:
            continue
        assert set(ids) <= set(whole)


@pytest.mark.parametrize("name", list(LISTINGS))
async def test_a_page_size_out_of_bounds_is_refused(dal: DataAccess, name: str) -> None:
    for wrong in (0, -1, True, "10", 1.0, None):
        with pytest.raises(InvalidInputError, match="limit"):
            await LISTINGS[name].page(dal, limit=wrong)
    with pytest.raises(LimitExceededError, match="limit"):
        await LISTINGS[name].page(dal, limit=1001)
    assert (await LISTINGS[name].page(dal, limit=1000)) == ([], None)
