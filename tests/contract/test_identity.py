"""One scripted scenario gives equal results on every backend, ids, times, cursors and refusals included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from dal import DalError, DataAccess, NewMessage, Page
from dal.factory import create_store
from dal.testing import FakeClock, rows, sequential_ids
from tests.subjects import BACKENDS, LAYERS, url_of, wrap


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return (type(value).__name__, value.model_dump())
    return [_plain(item) for item in value] if isinstance(value, list) else value


async def scenario(dal: DataAccess, clock: FakeClock) -> list[object]:
    """Everything the API gave back, in order; refusals by their class."""
    told: list[object] = []

    async def tell(call: Callable[[], Awaitable[object]]) -> object:
        clock.advance(0.25)
        try:
            result = await call()
        except DalError as error:
            told.append((type(error).__name__, error.retryable, error.outcome, error.operation))
            return None
        told.append(_plain(result))
        return result

    ada = await dal.users.create(clerk_id="ada", email="ada@example.com", profile={"n": [1, 1.0, -0.0, 1e300]})
    for n in range(7):
        await tell(lambda n=n: dal.users.create(clerk_id=f"u{n // 2}", status=("active", "closed")[n % 2]))  # type: ignore[misc]
    await tell(lambda: dal.users.update(ada.id, name="Ada", expected_version=1))
    await tell(lambda: dal.users.update(ada.id, name="Eve", expected_version=1))
    await tell(lambda: dal.users.touch(ada.id))
    for n, key in enumerate(("a", "A", "a ", "é", "e\u0301", "\U0001f600", "../x", "a")):
        await tell(lambda n=n, key=key: dal.chats.create(key, user_id=ada.id if n % 2 else None, title=key))  # type: ignore[misc]
    for n in range(12):
        key = ("a", "A", "no such chat")[n % 3]
        text = f"word {n} 階差機関 repo-map café"
        await tell(lambda key=key, text=text, n=n: dal.messages.add(key, "user", text, token_count=n))  # type: ignore[misc]
    batch = [NewMessage("assistant", f"line {n}\u2028", {"k": {"deep": [n]}}) for n in range(5)]
    await tell(lambda: dal.messages.add_many("a", batch))
    await tell(lambda: dal.messages.add("a", "user", "late", expected_sequence=3))
    await tell(lambda: dal.messages.history("a", limit=3, offset=2))
    await tell(lambda: dal.messages.history("nope"))
    for text in ("word", "階差", "repo-map", "CAFE", "差階", '"word', ""):
        page: object = await tell(lambda text=text: dal.messages.search(text, limit=3))  # type: ignore[misc]
        while isinstance(page, Page) and page.next is not None:
            after = page.next
            page = await tell(lambda text=text, after=after: dal.messages.search(text, limit=3, after=after))  # type: ignore[misc]
    for key, value in (("k", [None, 1]), ("K", {"": -0.0}), ("k", "again"), ("\n", 5e-324)):
        await tell(lambda key=key, value=value: dal.memory.set(ada.id, "t", key, value, ttl=2))  # type: ignore[misc]
    await tell(lambda: dal.memory.list(ada.id))
    clock.advance(2)
    await tell(lambda: dal.memory.list(ada.id))
    await tell(lambda: dal.memory.set(ada.id, "t", "k", 1))
    await tell(lambda: dal.memory.purge_expired())
    for n in range(4):
        await tell(lambda n=n: dal.files.create(ada.id, "f", storage_key=f"s{n // 2}", file_size=n))  # type: ignore[misc]
        await tell(lambda n=n: dal.audit.record("act", user_id=ada.id, context={"n": n}, ip_address=f"192.0.2.{n}"))  # type: ignore[misc]
    page = await tell(lambda: dal.audit.list(user_id=ada.id, limit=3))
    await tell(lambda: dal.users.list(after=page.next if isinstance(page, Page) else "no page"))
    await tell(lambda: dal.chats.delete("A"))
    await tell(lambda: dal.users.delete(ada.id))
    await tell(lambda: dal.chats.list(limit=3))
    await tell(lambda: dal.messages.add("a", "user", "\0"))
    told.append(await rows.everything(dal.store))
    return told


@pytest.fixture
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    return {backend: url_of(backend, request, tmp_path) for backend in BACKENDS}


async def test_every_backend_gives_the_same(urls: dict[str, str]) -> None:
    told: dict[str, list[object]] = {}
    for backend, url in urls.items():
        for layers in ((), LAYERS):
            if layers and backend in ("postgresql", "d1"):
                continue  # one database, one run
            store = create_store(url if not layers else f"{url}2" if backend != "memory" else url)
            clock = FakeClock()
            async with DataAccess(wrap(store, layers), clock=clock, new_id=sequential_ids()) as dal:
                told[f"{backend} {layers}"] = await scenario(dal, clock)
    expected = told["memory ()"]
    assert len(expected) > 60
    for name, found in told.items():
        for step, (one, other) in enumerate(zip(expected, found, strict=True)):
            assert repr(other) == repr(one), f"{name}, step {step}"
