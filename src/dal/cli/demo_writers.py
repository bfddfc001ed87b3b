"""Writers for a demo of a move: instances of an application that write all the time and remember what they were told.

Each has a chat and a user of its own and makes one call after the other: messages, things remembered and changed,
things forgotten again, and now and then a look whether what it wrote last is there. Nothing is retried here: a call
that raises counts as failed. What was acknowledged is kept in a few numbers, however long they write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from dal.access import DataAccess
from dal.config import Settings
from dal.errors import DalError
from dal.factory import create_data_access

_KINDS: Final = 4  # calls of a round: two messages, one thing remembered, one forgotten or looked at
_TOPICS: Final = 5
_KEPT_PROBLEMS: Final = 5


@dataclass(slots=True)
class Ledger:
    """What one writer was told.

    messages      how many were acknowledged: their texts are `text_of(name, 1)`, `text_of(name, 2)` and so on.
    memory        what is remembered, by key; what was forgotten is not in it.
    acknowledged  calls that returned.
    failed        calls that raised, or did not find what was written before; the first few in `problems`.
    slowest_s     the longest that one call took.
    """

    name: str
    user_id: str = ""
    messages: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def fail(self, problem: str) -> None:
        self.failed += 1
        self.problems = [*self.problems, f"{self.name}: {problem}"][:_KEPT_PROBLEMS]


class Writers:
    """So many of them in this process, each with an instance that takes part in a move from one store to the other.

    name     begins the names of their chats; no chat may have them yet.
    pause_s  between two calls of a writer.
    """

    def __init__(self, source_url: str, target_url: str, count: int, *, name: str, pause_s: float) -> None:
        self.ledgers = [Ledger(f"{name}-{number + 1}") for number in range(count)]
        self._source_url = source_url
        self._settings = moving_settings(target_url)
        self._pause_s = pause_s
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._instances = AsyncExitStack()
        self._slowest_s = 0.0

    @property
    def acknowledged(self) -> int:
        return sum(ledger.acknowledged for ledger in self.ledgers)

    @property
    def failed(self) -> int:
        return sum(ledger.failed for ledger in self.ledgers)

    def slowest_s(self) -> float:
        """The longest call since this was last asked."""
        found, self._slowest_s = self._slowest_s, 0.0
        return found

    async def start(self) -> None:
        """Opens their instances, makes their users and chats, and lets them write. Raises what that raises."""
        for ledger in self.ledgers:
            opened = create_data_access(self._source_url, settings=self._settings)
            dal = await self._instances.enter_async_context(opened)
            user = await dal.users.create(name=ledger.name)
            ledger.user_id = user.id
            await dal.chats.create(ledger.name, user_id=user.id, title=f"Written during the move by {ledger.name}")
            self._tasks.append(asyncio.create_task(self._write(dal, ledger)))

    async def stop(self) -> None:
        """Lets each of them end the call that it is making."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Ends them, wherever they are."""
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._instances.aclose()

    async def _write(self, dal: DataAccess, ledger: Ledger) -> None:
        number = 0
        while not self._stop.is_set():
            started = monotonic()
            try:
                await _call(dal, ledger, number)
                ledger.acknowledged += 1
            except DalError as error:
                ledger.fail(f"{type(error).__name__}: {error.message}")
            took_s = monotonic() - started
            self._slowest_s = max(self._slowest_s, took_s)
            ledger.slowest_s = max(ledger.slowest_s, took_s)
            number += 1
            await asyncio.sleep(self._pause_s)


async def _call(dal: DataAccess, ledger: Ledger, number: int) -> None:
    """The writer's next call."""
    topic = f"topic {number // _KINDS % _TOPICS}"
    match number % _KINDS:
        case 0 | 1:
            said = ledger.messages + 1
            await dal.messages.add(ledger.name, "assistant" if number % 2 else "user", text_of(ledger.name, said))
            ledger.messages = said
        case 2:
            await dal.memory.set(ledger.user_id, "demo", topic, number)
            ledger.memory[topic] = number
        case _ if number % 3:
            await dal.memory.delete(ledger.user_id, "demo", topic)
            ledger.memory.pop(topic, None)
        case _:
            (last,) = await dal.messages.history(ledger.name, limit=1)
            if (last.sequence_number, last.content) != (ledger.messages, text_of(ledger.name, ledger.messages)):
                ledger.fail(
                    f"message {ledger.messages} was acknowledged, and message {last.sequence_number} is the last"
                )


def text_of(name: str, number: int) -> str:
    """What a writer says in its message of this number."""
    return f"{name}, message {number}: written while the store moved"


def moving_settings(target_url: str) -> Settings:
    """What the environment says, and that the store moves there: MIGRATION_ENABLE_DUAL_WRITE, MIGRATION_TARGET_URL."""
    return Settings(migration_enable_dual_write=True, migration_target_url=target_url)


async def missing(dal: DataAccess, ledgers: Sequence[Ledger]) -> list[str]:
    """What was acknowledged and is not there, is there otherwise, or came back after it was deleted; a line each."""
    found: list[str] = []
    for ledger in ledgers:
        messages = [message.content async for message in dal.messages.iterate(ledger.name)]
        expected = [text_of(ledger.name, number + 1) for number in range(ledger.messages)]
        if messages != expected and not (ledger.failed and set(expected) <= set(messages)):
            lost = len(set(expected) - set(messages))
            found.append(f"{ledger.name}: of {len(expected)} messages {lost} are missing, {len(messages)} are there")
        memory = {item.key: item.value for item in await dal.memory.list(ledger.user_id, "demo")}
        if memory != ledger.memory and not ledger.failed:
            found.append(f"{ledger.name}: {ledger.memory} was to be remembered, {memory} is")
    return found
