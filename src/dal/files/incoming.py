"""Content on its way in: its first bytes to be looked at, its length and SHA-256 counted as it passes, its last kept.

Bytes, a path, or an async iterator of bytes. What is small is gathered at once; everything else passes in pieces, and
memory is bounded whatever the size.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeAlias

from dal.errors import InvalidInputError, LimitExceededError
from dal.files.sniffing import sniff
from dal.limits import BLOB_PIECE_BYTES, FILE_HASH_BYTES, FILE_HEAD_BYTES, FILE_SMALL_BYTES, FILE_TAIL_BYTES

Content: TypeAlias = "bytes | os.PathLike[str] | AsyncIterable[bytes]"


class Incoming:
    """One content, to be read once.

    whole     all of it, where it was given as bytes or is small.
    size      bytes, where they are known before it has passed.
    head      its first bytes, at most FILE_HEAD_BYTES.
    passed    bytes so far; `tail` and, where `knows_checksum`, `checksum` are those of what has passed.
    allow     asked before a piece passes, with the bytes so far, where somebody wants to be.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], *, max_bytes: int, size: int | None, whole: bytes | None, is_hashed: bool
    ) -> None:
        self.whole = whole
        self.size = size
        self.head = b""
        self.passed = 0
        self.allow: Callable[[int], Awaitable[None]] | None = None
        self._failure: Exception | None = None
        self._max_bytes = max_bytes
        self._pieces = pieces
        self._begun: list[bytes] = []
        self._hash = hashlib.sha256() if is_hashed else None
        self._told_checksum: str | None = None
        self._tail = b""

    @classmethod
    async def of(cls, data: Content, *, max_bytes: int, is_hashed: bool = True) -> Incoming:
        """The content, its head already read. Raises InvalidInputError, LimitExceededError.

        is_hashed  count the SHA-256 here; else the blob store will tell it, or `hash_here` is called.
        """
        if isinstance(data, bytes):
            _check_size(len(data), max_bytes)
            incoming = cls(_none(), max_bytes=max_bytes, size=len(data), whole=data, is_hashed=is_hashed)
            incoming.head, incoming.passed, incoming._tail = data[:FILE_HEAD_BYTES], len(data), data[-FILE_TAIL_BYTES:]
            await incoming._add(data)
            return incoming
        if isinstance(data, os.PathLike):
            size, pieces = await _of_file(Path(data), max_bytes)
            incoming = cls(pieces, max_bytes=max_bytes, size=size, whole=None, is_hashed=is_hashed)
        elif isinstance(data, AsyncIterable):
            incoming = cls(aiter(data), max_bytes=max_bytes, size=None, whole=None, is_hashed=is_hashed)
        else:
            raise InvalidInputError(
                f"data: expected bytes, a path (os.PathLike) or an async iterator of bytes, found {type(data).__name__}"
            )
        await incoming._begin()
        return incoming

    @cached_property
    def found(self) -> str | None:
        """The type that the head shows."""
        return sniff(self.head)

    @property
    def knows_checksum(self) -> bool:
        return self._hash is not None or self._told_checksum is not None

    @property
    def checksum(self) -> str:
        if self._told_checksum is not None:
            return self._told_checksum
        assert self._hash is not None  # noqa: S101  # `knows_checksum` says so
        return f"sha256:{self._hash.hexdigest()}"

    async def hash_here(self) -> None:
        """Has the SHA-256 counted here after all, where nobody has told it. Before content in pieces passes."""
        if not self.knows_checksum:
            self._hash = hashlib.sha256()
            await self._add(self.whole or b"")

    def tell_checksum(self, checksum: str | None) -> None:
        """What the blob store says of all that has passed."""
        assert checksum is not None  # noqa: S101  # `BlobStore.put` promises it
        self._told_checksum = checksum

    @property
    def tail(self) -> bytes:
        return self._tail[-FILE_TAIL_BYTES:]

    @contextmanager
    def told(self) -> Iterator[None]:
        """What reads the content meets its errors as they are, not as whoever was reading made of them."""
        try:
            yield
        except Exception as error:
            if self._failure is not None and self._failure is not error:
                raise self._failure from None
            raise

    async def stream(self) -> AsyncIterator[bytes]:
        """The content, counted and hashed as it passes. Raises LimitExceededError; InvalidInputError: a file whose size
        changed meanwhile; whatever the caller's iterator raises."""
        try:
            async for piece in self._stream():
                yield piece
        except Exception as error:
            self._failure = error
            raise

    async def _stream(self) -> AsyncIterator[bytes]:
        if self.whole is not None:
            for piece in _sliced(self.whole):
                yield piece
            return
        for piece in self._begun:
            yield await self._seen(piece)
        self._begun = []
        async for piece in self._pieces:
            for part in _sliced(_checked(piece)):
                yield await self._seen(part)
        if self.size is not None and self.passed != self.size:
            raise InvalidInputError(f"data: the file had {self.size} bytes and then {self.passed}; it is being written")

    async def close(self) -> None:
        """Lets go of a file that was not read to its end."""
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    async def _begin(self) -> None:
        """Reads the head; and everything, where it ends within FILE_SMALL_BYTES."""
        size = 0
        async for piece in self._pieces:
            self._begun.extend(_sliced(_checked(piece)))
            size += len(piece)
            if size > FILE_SMALL_BYTES or (self.size is not None and self.size > FILE_SMALL_BYTES):
                self.head = b"".join(self._begun)[:FILE_HEAD_BYTES]
                return
        whole = b"".join(self._begun)
        _check_size(len(whole), self._max_bytes)
        self._begun = []
        self.whole, self.size, self.passed = whole, len(whole), len(whole)
        self.head, self._tail = whole[:FILE_HEAD_BYTES], whole[-FILE_TAIL_BYTES:]
        await self._add(whole)

    async def _seen(self, piece: bytes) -> bytes:
        self.passed += len(piece)
        _check_size(self.passed, self._max_bytes)
        if self.allow is not None:
            await self.allow(self.passed)
        self._tail = (self._tail + piece)[-FILE_TAIL_BYTES:] if len(piece) < FILE_TAIL_BYTES else piece
        await self._add(piece)
        return piece

    async def _add(self, piece: bytes) -> None:
        if self._hash is None:
            return
        if len(piece) < FILE_HASH_BYTES:
            self._hash.update(piece)
        else:
            await asyncio.to_thread(self._hash.update, piece)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise LimitExceededError(f"data: more than the {max_bytes} bytes that a file may have")


def _checked(piece: object) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    raise InvalidInputError(f"data: the iterator gave {type(piece).__name__}, not bytes")


def _sliced(piece: bytes) -> Iterator[bytes]:
    if len(piece) <= BLOB_PIECE_BYTES:
        if piece:
            yield piece
        return
    view = memoryview(piece)
    for start in range(0, len(piece), BLOB_PIECE_BYTES):
        yield bytes(view[start : start + BLOB_PIECE_BYTES])


async def _of_file(path: Path, max_bytes: int) -> tuple[int, AsyncIterator[bytes]]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise InvalidInputError(f"data: cannot read the file: {error.strerror}") from error
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        file.close()
    _check_size(size, max_bytes)
    return size, _read(file)


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, BLOB_PIECE_BYTES):
            yield piece


async def _none() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece
