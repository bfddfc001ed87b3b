"""Ids that follow from the source, so that a second import writes the same rows and changes nothing.

They are UUIDs of version 8 (RFC 9562: the layout is the maker's). Those of chats and messages begin with the time the
conversation began, in milliseconds, as version 7 does, so that rows written together lie together in an index; the
rest is a hash. The messages of a chat count up from its hash, which makes an id cost one text formatting.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final

_NAMESPACE: Final = b"dal.importing"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LAST_GROUP: Final = 1 << 48


def user_id(user_key: str) -> str:
    """The id of a user the import has to create."""
    return _uuid(_hash("user", user_key))


def memory_item_id(user_key: str, memory_type: str, key: str) -> str:
    return _uuid(_hash("memory", user_key, memory_type, key))


def chat_session_id(chat_id: str, began: datetime | None) -> str:
    """The id of a chat. `began` is the source's own time, or None where it has none; never a guess."""
    return _uuid(_hash("chat", chat_id), began)


def message_ids(chat_id: str, began: datetime | None, first: int) -> Iterator[str]:
    """The ids of the messages number `first`, `first` + 1, … of a chat, without end."""
    base = _uuid(_hash("messages", chat_id), began)
    head, tail = base[:24], int(base[24:], 16)
    number = first
    while True:
        yield f"{head}{(tail + number) % _LAST_GROUP:012x}"
        number += 1


def _hash(*parts: str) -> int:
    digest = blake2b(digest_size=16, person=_NAMESPACE)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "big")


def _uuid(bits: int, began: datetime | None = None) -> str:
    if began is not None:
        milliseconds = max((began - _EPOCH) // _MILLISECOND, 0)
        bits = milliseconds << 80 | bits & ((1 << 80) - 1)
    bits = bits & ~(0xF << 76) | 0x8 << 76  # version
    bits = bits & ~(0x3 << 62) | 0x2 << 62  # variant
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
