"""What each call costs on D1, as D1 itself counts it: requests, and rows read and written as they are billed.

`python -m tests.d1.costs` measures on the real engine and writes the table into docs/how-to/use-d1.md; a test compares
the two. The counts depend on the statements and the indexes alone, so they are the same on every machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple, cast

from dal import DataAccess, NewMessage, Settings
from dal.backends.d1.executor import D1Executor
from dal.backends.sql import SqlStore
from dal.factory import create_store
from dal.testing import FakeClock, rows, sequential_ids
from tests.engines.d1 import D1Database, D1Engine

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "use-d1.md"
_HEAD: Final = "| call | requests | rows read | rows written |\n| --- | --- | --- | --- |\n"
#: A chat of 1,000 messages among others, so that what is read in vain would show.
_MESSAGES: Final = 1_000
_USER: Final = rows.row_id(90_001)
_OTHER: Final = rows.row_id(90_002)
_MESSAGE: Final = rows.row_id(90_003)
_FILE: Final = rows.row_id(90_004)


class Cost(NamedTuple):
    """What a call took."""

    requests: int
    rows_read: int
    rows_written: int


async def _transaction(dal: DataAccess) -> None:
    async with dal.transaction() as tx:
        await tx.messages.add("c", "user", "both")
        await tx.memory.set(_USER, "t", "k1", "or none")


async def _iterate(dal: DataAccess) -> None:
    async for _ in dal.messages.iterate("c", batch_size=500):
        pass


def _some(count: int) -> list[NewMessage]:
    return [NewMessage("user", f"note {n}") for n in range(count)]


#: In the order in which they run: each finds what those before it have left.
CALLS: Final[dict[str, Callable[[DataAccess], Awaitable[object]]]] = {
    "users.create": lambda dal: dal.users.create(clerk_id="new", email="new@example.com"),
    "users.get": lambda dal: dal.users.get(_USER),
    "users.get_by_clerk_id": lambda dal: dal.users.get_by_clerk_id("ada"),
    "users.update": lambda dal: dal.users.update(_USER, name="Ada L."),
    "users.touch": lambda dal: dal.users.touch(_USER),
    "users.list, a page of 20": lambda dal: dal.users.list(limit=20),
    "chats.create": lambda dal: dal.chats.create("new", user_id=_USER, title="New"),
    "chats.get": lambda dal: dal.chats.get("c"),
    "chats.update": lambda dal: dal.chats.update("c", title="Changed"),
    "chats.list of a user, a page of 20": lambda dal: dal.chats.list(user_id=_USER, limit=20),
    "messages.add, 4 different words": lambda dal: dal.messages.add("c", "user", "what is it for"),
    "messages.add_many of 100": lambda dal: dal.messages.add_many("c", _some(100)),
    "messages.get": lambda dal: dal.messages.get(_MESSAGE),
    "messages.history of 20": lambda dal: dal.messages.history("c", limit=20),
    "messages.history of 20 behind 500": lambda dal: dal.messages.history("c", limit=20, offset=500),
    "messages.count": lambda dal: dal.messages.count("c"),
    "messages.iterate over 1,101": _iterate,
    "messages.flag": lambda dal: dal.messages.flag(_MESSAGE),
    "messages.search, 20 hits of 1,001": lambda dal: dal.messages.search("question", limit=20),
    "messages.search, one hit": lambda dal: dal.messages.search("needle"),
    "messages.search, no hit": lambda dal: dal.messages.search("absent"),
    "memory.set, a new item": lambda dal: dal.memory.set(_USER, "t", "new", 1),
    "memory.set, again": lambda dal: dal.memory.set(_USER, "t", "new", 2),
    "memory.set_many of 10": lambda dal: dal.memory.set_many(_USER, "more", {f"k{n}": n for n in range(10)}),
    "memory.get": lambda dal: dal.memory.get(_USER, "t", "k1"),
    "memory.list of a type with 21": lambda dal: dal.memory.list(_USER, "t"),
    "memory.delete, one item": lambda dal: dal.memory.delete(_USER, "t", "new"),
    "memory.purge_expired, none": lambda dal: dal.memory.purge_expired(),
    "files.create": lambda dal: dal.files.create(_USER, "f", storage_key="new", file_size=1),
    "files.get": lambda dal: dal.files.get(_FILE),
    "files.get_by_storage_key": lambda dal: dal.files.get_by_storage_key("s"),
    "files.update": lambda dal: dal.files.update(_FILE, status="kept"),
    "files.list of a user, 2": lambda dal: dal.files.list(user_id=_USER),
    "files.delete": lambda dal: dal.files.delete(_FILE),
    "audit.record": lambda dal: dal.audit.record("done", user_id=_USER, entity_type="chat", entity_id="c"),
    "audit.list of a user, a page of 20": lambda dal: dal.audit.list(user_id=_USER, limit=20),
    "a transaction of two writes": _transaction,
    "health": lambda dal: dal.health(),
    "chats.delete with 20 messages": lambda dal: dal.chats.delete("short"),
    "users.delete with 5 items of memory": lambda dal: dal.users.delete(_OTHER),
}


async def _prepare(dal: DataAccess) -> None:
    for number, clerk_id in enumerate(("ada", "bob")):
        await dal.users.create(clerk_id=clerk_id, id=rows.row_id(90_001 + number))
    for number in range(50):
        await dal.users.create(clerk_id=f"other {number}")
        await dal.chats.create(f"of ada {number}", user_id=_USER)
        await dal.audit.record("prepared", user_id=_USER)
    await dal.chats.create("c", user_id=_USER)
    await dal.messages.add("c", "user", "a question with a needle", id=_MESSAGE)
    await dal.messages.add_many("c", [NewMessage("user", f"question {n}") for n in range(_MESSAGES - 1)])
    await dal.chats.create("short")
    await dal.messages.add_many("short", [NewMessage("user", "one more question"), *_some(19)])
    await dal.memory.set_many(_USER, "t", {f"k{n}": n for n in range(20)})
    await dal.memory.set_many(_OTHER, "t", {f"k{n}": n for n in range(5)})
    await dal.files.create(_USER, "f", storage_key="s", file_size=1, id=_FILE)


async def measure(database: D1Database) -> dict[str, Cost]:
    """What each of CALLS takes on this database, which holds the schema and no rows."""
    store = create_store(database.url, settings=Settings(d1_api_base=database.base, d1_api_token=database.token))
    usage = cast(D1Executor, cast(SqlStore, store)._executor).transport.usage
    found: dict[str, Cost] = {}
    async with DataAccess(store, clock=FakeClock(), new_id=sequential_ids()) as dal:
        await _prepare(dal)
        for name, call in CALLS.items():
            before = Cost(usage.requests, usage.rows_read, usage.rows_written)
            await call(dal)
            after = Cost(usage.requests, usage.rows_read, usage.rows_written)
            found[name] = Cost(*(b - a for a, b in zip(before, after, strict=True)))
    return found


def table(costs: dict[str, Cost]) -> str:
    """The table of the page."""
    lines = (
        f"| {_call(name)} | {cost.requests} | {cost.rows_read:,} | {cost.rows_written:,} |\n"
        for name, cost in costs.items()
    )
    return _HEAD + "".join(lines)


def table_of(page: str) -> str:
    """The table that the page has."""
    return _HEAD + page.partition(_HEAD)[2].partition("\n\n")[0] + "\n"


def _call(name: str) -> str:
    method, _, rest = name.partition(" ")
    return f"`{method.rstrip(',')}`{',' if method.endswith(',') else ''} {rest}".strip() if "." in method else name


def main() -> None:
    engine = D1Engine()
    try:
        database = engine.create_database()
        settings = Settings(d1_api_base=database.base, d1_api_token=database.token)

        async def run() -> dict[str, Cost]:
            store = create_store(database.url, settings=settings, auto_migrate=True)
            await store.open()
            await store.close()
            return await measure(database)

        made = table(asyncio.run(run()))
    finally:
        engine.close()
    if PAGE.exists():
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(text.replace(table_of(text), made), encoding="utf-8")
    print(made)


if __name__ == "__main__":
    main()
