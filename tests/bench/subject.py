"""What stands on either side of a comparison: the library, and code written by hand that does the same job.

Each subject works on its own copy of the data. A baseline does what it is compared in, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dal import DataAccess
from dal.importing import import_file
from dal.ops import JsonValue
from tests.bench.data import MEMORY_TYPE


class Subject:
    """One side. Every call returns when its work is done, a write when it is durable.

    requests  how many requests its server has been sent, where it speaks to one that counts them.
    """

    name: str
    requests: Callable[[], int] | None = None

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def settled(self) -> None:
        """Waits for what calls that returned have left to be done behind them: nothing, mostly."""

    async def get_chat(self, chat_id: str) -> object:
        raise NotImplementedError

    async def create_chat(self, chat_id: str) -> object:
        raise NotImplementedError

    async def list_chats(self, limit: int) -> Sequence[object]:
        """The first page: those with the latest activity."""
        raise NotImplementedError

    async def get_message(self, message_id: str) -> object:
        raise NotImplementedError

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        """The newest messages."""
        raise NotImplementedError

    async def append(self, chat_id: str, role: str, content: str) -> int:
        """The sequence number of the new message."""
        raise NotImplementedError

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        raise NotImplementedError

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        raise NotImplementedError

    async def search(self, text: str) -> int:
        """How many messages with these words were found, of the newest twenty."""
        raise NotImplementedError

    async def bulk(self, path: Path) -> int:
        """How many messages a file in the import format brought."""
        raise NotImplementedError


class Ours(Subject):
    """The library with every layer an application has: typed records in and out, checks at the boundary."""

    def __init__(self, dal: DataAccess, name: str = "dal") -> None:
        self.dal = dal
        self.name = name

    async def open(self) -> None:
        await self.dal.open()

    async def close(self) -> None:
        await self.dal.close()

    async def get_chat(self, chat_id: str) -> object:
        return await self.dal.chats.get(chat_id)

    async def create_chat(self, chat_id: str) -> object:
        return await self.dal.chats.create(chat_id, title="Engines")

    async def list_chats(self, limit: int) -> Sequence[object]:
        return (await self.dal.chats.list(limit=limit)).items

    async def get_message(self, message_id: str) -> object:
        return await self.dal.messages.get(message_id)

    async def history(self, chat_id: str, limit: int) -> Sequence[object]:
        return await self.dal.messages.history(chat_id, limit=limit)

    async def append(self, chat_id: str, role: str, content: str) -> int:
        return (await self.dal.messages.add(chat_id, role, content)).sequence_number

    async def memory_set(self, user_id: str, key: str, value: JsonValue) -> object:
        return await self.dal.memory.set(user_id, MEMORY_TYPE, key, value)

    async def memory_get(self, user_id: str, key: str) -> JsonValue:
        return await self.dal.memory.get(user_id, MEMORY_TYPE, key)

    async def search(self, text: str) -> int:
        return len((await self.dal.messages.search(text)).items)

    async def bulk(self, path: Path) -> int:
        return (await import_file(self.dal, path)).messages
