"""A program to be killed: appends to a SQLite store without end and prints what was acknowledged.

    python -m tests.fault.sqlite_writer PATH TASKS

Each task has a chat of its own and writes in turn a message alone, and two in a transaction. A line `chat number` on
standard output says that the message with this number was acknowledged, and so was every one before it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dal.access import DataAccess
from dal.backends.sqlite import sqlite_store
from dal.errors import AlreadyExistsError
from dal.layers.group import GroupCommit


async def append(dal: DataAccess, chat: str) -> None:
    try:
        await dal.chats.create(chat)
    except AlreadyExistsError:
        assert await dal.chats.get(chat) is not None
    while True:
        message = await dal.messages.add(chat, "user", "alone " * 20)
        _acknowledge(chat, message.sequence_number)
        async with dal.transaction() as tx:
            await tx.messages.add(chat, "user", "the first of two")
            message = await tx.messages.add(chat, "assistant", "the second of two")
        _acknowledge(chat, message.sequence_number)


def _acknowledge(chat: str, number: int) -> None:
    sys.stdout.write(f"{chat} {number}\n")
    sys.stdout.flush()


async def main(path: Path, tasks: int) -> None:
    async with DataAccess(GroupCommit(sqlite_store(path))) as dal:
        await asyncio.gather(*(append(dal, f"chat-{i}") for i in range(tasks)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
