"""Bytes into the blob store: under a key of their own each time, compressed where that pays, and away again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from dal.errors import DalError, InvalidInputError
from dal.files.archives import check_content
from dal.files.core import Core
from dal.files.frames import compressed, pays
from dal.files.incoming import Incoming
from dal.files.keys import COMPRESSED, PLAIN, SHARED
from dal.files.sniffing import essence_of, is_allowed, type_of


class Stored(NamedTuple):
    """Content that lies in the blob store.

    size, checksum  of the content; `stored_size` is what its blob takes.
    is_shared       other files of the same content may point to it.
    """

    blob_key: str
    size: int
    checksum: str
    stored_size: int
    is_shared: bool = False


def check_type(core: Core, declared: str | None, incoming: Incoming, filename: str) -> str:
    """The type to store, allowed and borne out by the content. Raises InvalidInputError."""
    is_empty = not incoming.head
    mime_type = type_of(declared, incoming.found, filename, is_empty=is_empty)
    if not is_allowed(mime_type, incoming.found, core.options.allowed_types, is_empty=is_empty):
        raise InvalidInputError(
            f"mime_type: {mime_type.partition(';')[0]} is not allowed here; allowed are "
            f"{', '.join(core.options.allowed_types)}, and the content has to show it"
        )
    return mime_type


def check_passed(incoming: Incoming) -> None:
    """What only the whole content tells. Raises InvalidInputError."""
    check_content(incoming.found, incoming.head, incoming.tail, incoming.passed)


async def put(core: Core, key: str, incoming: Incoming, mime_type: str) -> Stored:
    """Stores the content under that key; its ending says whether it is compressed.

    The checksum is the blob's own where the blob is the content: hashing takes as long as writing, and once is enough.
    """
    if key.endswith(COMPRESSED):
        await incoming.hash_here()
        with incoming.told():
            info = await core.blobs.put(key, compressed(incoming.stream()), content_type="application/zstd")
    else:
        checksum = incoming.checksum if incoming.whole is not None and incoming.knows_checksum else None
        with incoming.told():
            info = await core.blobs.put(
                key,
                incoming.stream() if incoming.whole is None else incoming.whole,
                size=incoming.size,
                content_type=essence_of(mime_type),
                checksum=checksum,
            )
        incoming.tell_checksum(info.checksum)
    return Stored(key, incoming.passed, incoming.checksum, info.size, key.startswith(SHARED))


def new_key(core: Core, incoming: Incoming, mime_type: str) -> str:
    """A key that never was, for this content."""
    ending = COMPRESSED if core.options.compress and pays(mime_type, incoming.head) else ""
    return f"{unseen_key(core)}{ending}"


def unseen_key(core: Core) -> str:
    """A key that never was, for content that nobody has seen yet: it is stored as it comes."""
    return f"{SHARED if core.options.deduplicate else PLAIN}{core.new_id()}"


async def discard(core: Core, *keys: str) -> None:
    """Removes bytes that nothing points to. Where that fails, the sweeper will."""
    with contextlib.suppress(DalError):
        await core.blobs.delete(keys)


async def passing(core: Core, key: str) -> AsyncGenerator[bytes, None]:
    """The bytes of a blob, which is let go of however the reading ends."""
    reading = await core.blobs.get(key)
    async with aclosing(reading.data):
        async for piece in reading.data:
            yield piece
