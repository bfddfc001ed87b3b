"""The store over a legacy directory: read like any other, and written to by the programs that its files belong to.

Opening it looks at the files. What it shows is its image, kept in `.dal-move/` in the directory; that can be removed
while no move is on, and is made anew from the files.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final, NoReturn, cast

from dal.errors import ConfigurationError, DalTimeoutError, UnavailableError, UnsupportedError
from dal.legacy.book import Book
from dal.legacy.directories import DIRECTORIES
from dal.legacy.replica import LegacyReplica
from dal.legacy.scanning import Scanner
from dal.limits import LOCK_TIMEOUT_S
from dal.ops import Op, Query, Receipt, Row
from dal.replica import Movable, Replica
from dal.store import Capabilities, ReadCommit, Store, StoreHealth

#: The directory beside the files that holds what is known of them.
BESIDE: Final = ".dal-move"
_BACKEND: Final = "legacy"
_PAUSE_S: Final = 0.005


class LegacyStore:
    """A legacy directory.

    root   the directory that holds `data/chat_sessions`, `data/memory`, `chat_history` and `conversations`.
    image  the store that keeps their rows, not yet opened; it can take part in a move.
    """

    def __init__(self, root: Path, image: Store) -> None:
        self._root = root.absolute()
        self._image = image
        self._book: Book | None = None
        self._replica: LegacyReplica | None = None
        self._scanner: Scanner | None = None
        self._opening = asyncio.Lock()
        self._looking = asyncio.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return replace(self._image.capabilities, backend=_BACKEND)

    async def open(self) -> None:
        async with self._opening:
            if self._book is not None:
                return
            book = await asyncio.to_thread(self._prepare)
            try:
                await self._image.open()
                self._scanner = Scanner(self._root, self._image, book)
                image = cast(Movable, self._image).replica()
                self._replica = LegacyReplica(self._root, image, self._scanner, self._turn)
                with suppress(DalTimeoutError):  # somebody else is looking: what he finds is read like what we found
                    await self._replica.look()
            except BaseException:
                await self._image.close()
                await asyncio.to_thread(book.close)
                raise
            self._book = book

    def _prepare(self) -> Book:
        if not any(d.place(self._root).exists() for d in DIRECTORIES):
            names = ", ".join(directory.name for directory in DIRECTORIES)
            raise ConfigurationError(
                f"{self._root}: no legacy directory; it has none of {names}", operation="open", backend=_BACKEND
            )
        try:
            (self._root / BESIDE).mkdir(mode=0o700, exist_ok=True)
            return Book(self._root / BESIDE / "files.db")
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(
                f"{self._root / BESIDE}: cannot be opened: {error}", operation="open", backend=_BACKEND
            ) from error

    async def close(self) -> None:
        async with self._opening:
            book, self._book, self._replica = self._book, None, None
            if book is not None:
                async with self._looking:
                    await self._image.close()
                    await asyncio.to_thread(book.close)

    async def read(self, query: Query) -> list[Row]:
        return await self._image.read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self._refuse(f"commit of {len(ops)} operations")

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        self._refuse("transaction")

    async def health(self) -> StoreHealth:
        health = await self._image.health()
        damaged = [] if self._scanner is None else list(self._scanner.problems.values())
        if health.status == "down" or not damaged:
            return health
        return StoreHealth(status="degraded", parts={**health.parts, "damaged": list(damaged)})

    def replica(self) -> Replica:
        """The moves' side of this store."""
        if self._replica is None:
            raise UnavailableError(
                "replica: the store is not open; open it first", operation="replica", backend=_BACKEND, retryable=False
            )
        return cast(Replica, self._replica)

    def _refuse(self, operation: str) -> NoReturn:
        raise UnsupportedError(
            f"{operation}: {self._root} is written by the programs that its files belong to, not through the library; "
            "move it to a store of the library",
            operation=operation,
            backend=_BACKEND,
        )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The right to look at the files and to move directories, among all processes."""
        async with self._looking:
            descriptor = os.open(self._root / BESIDE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                give_up = monotonic() + LOCK_TIMEOUT_S
                while not _locked(descriptor):
                    if monotonic() > give_up:
                        raise DalTimeoutError(
                            f"{self._root}: another process has been looking at the files for {LOCK_TIMEOUT_S:g} s; "
                            "try again",
                            operation="rescan",
                            backend=_BACKEND,
                        )
                    await asyncio.sleep(_PAUSE_S)
                yield
            finally:
                os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
