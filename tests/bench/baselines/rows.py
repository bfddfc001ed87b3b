"""Rows of the hand-written baselines: the values of one message, one memory item, and a bulk file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from dal.values import new_id

#: Turns an aware time into what the driver stores.
TimeWriter = Callable[[datetime], object]


class BulkRows(NamedTuple):
    """Rows of whole chats, ready for executemany: about a thousand messages at a time."""

    chats: list[tuple[object, ...]]
    messages: list[tuple[object, ...]]


def bulk_rows(path: Path, write_time: TimeWriter, *, messages: int = 1_000) -> Iterator[BulkRows]:
    """The rows of a file in the import format, parsed and no more: nothing is checked, nothing can be repeated."""
    rows = BulkRows([], [])
    with path.open("rb") as file:
        for line in file:
            chat = orjson.loads(line)
            chat_row = new_id()
            times = [write_time(datetime.fromisoformat(m["at"] + "Z")) for m in chat["messages"]]
            first, last, metadata = times[0], times[-1], orjson.dumps(chat["metadata"]).decode()
            rows.chats.append((chat_row, chat["chat_id"], chat["title"], metadata, len(times), first, last, last, last))
            for number, (message, at) in enumerate(zip(chat["messages"], times, strict=True), 1):
                metadata = orjson.dumps(message["metadata"]).decode()
                rows.messages.append((new_id(), chat_row, message["role"], message["content"], metadata, number, at))
            if len(rows.messages) >= messages:
                yield rows
                rows = BulkRows([], [])
    if rows.chats:
        yield rows


def sqlite_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def sqlite_now() -> str:
    return sqlite_time(datetime.now(UTC))
