"""One process of the concurrency tests: opens the store, waits for the start, works, and prints what it was told.

    python -m tests.concurrency.worker URL ROLE NAME COUNT

append       COUNT messages, one call each, four tasks at once.
many         COUNT messages in batches of four.
transaction  COUNT messages, two in each transaction, and a counter raised beside them.
read         reads the chat until it has COUNT messages; each look must be a prefix 1…n that never shrinks.

A call that timed out on a machine with too much to do is made again, as an application would, where the error says that
nothing was written.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from dal import ConflictError, DataAccess, NewMessage, Transaction, UnavailableError, create_data_access

T = TypeVar("T")

CHAT = "shared"
PAUSE_S = 0.01


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What the call gives in the end."""
    while True:
        try:
            return await call()
        except (ConflictError, UnavailableError) as error:
            if not error.retryable or error.outcome != "not_applied":
                raise
            print(f"again after {error!r}", file=sys.stderr)


async def append(dal: DataAccess, name: str, count: int) -> list[int]:
    async def some(first: int) -> list[int]:
        calls = [partial(dal.messages.add, CHAT, "user", f"{name} {place}") for place in range(first, count, 4)]
        return [(await patiently(call)).sequence_number for call in calls]

    return [number for numbers in await asyncio.gather(*(some(first) for first in range(4))) for number in numbers]


async def many(dal: DataAccess, name: str, count: int) -> list[int]:
    told: list[int] = []
    for first in range(0, count, 4):
        batch = [NewMessage("user", f"{name} {place}") for place in range(first, first + 4)]
        added = await patiently(partial(dal.messages.add_many, CHAT, batch))
        numbers = [message.sequence_number for message in added]
        assert numbers == list(range(numbers[0], numbers[0] + 4))
        told += numbers
    return told


async def transaction(dal: DataAccess, name: str, count: int) -> list[int]:
    async def two(tx: Transaction, place: int) -> list[int]:
        first = await tx.messages.add(CHAT, "user", f"{name} {place}")
        user = await tx.users.get_by_clerk_id("counter")
        assert user is not None
        done = user.profile["done"]
        assert isinstance(done, int)
        await tx.users.update(user.id, profile={"done": done + 1}, expected_version=user.version)
        second = await tx.messages.add(CHAT, "user", f"{name} {place + 1}")
        return [first.sequence_number, second.sequence_number]

    told: list[int] = []
    for place in range(0, count, 2):
        work = partial(two, place=place)
        numbers = await patiently(partial(dal.run_in_transaction, work, attempts=20))
        assert numbers[1] == numbers[0] + 1
        told += numbers
    return told


async def read(dal: DataAccess, _name: str, count: int) -> list[int]:
    seen: list[str] = []
    looks = 0
    while len(seen) < count:
        found = [message async for message in dal.messages.iterate(CHAT)]
        assert [message.sequence_number for message in found] == list(range(1, len(found) + 1))
        assert [message.id for message in found[: len(seen)]] == seen, "what was seen stays where it was"
        seen = [message.id for message in found]
        newest = await dal.messages.history(CHAT, limit=3)
        numbers = [message.sequence_number for message in newest]
        assert not numbers or numbers == list(range(numbers[0], numbers[-1] + 1))
        assert not numbers or numbers[-1] >= len(seen)
        looks += 1
        # Not a wait for anything: two readers that never rest would keep both processors from the writers they watch.
        await asyncio.sleep(PAUSE_S)
    return [looks]


async def main(url: str, role: str, name: str, count: int) -> None:
    roles = {"append": append, "many": many, "transaction": transaction, "read": read}
    async with create_data_access(url) as dal:
        await dal.chats.get(CHAT)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps(await roles[role](dal, name, count)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
