"""Contents as both sides store them: many of a kibibyte, and some large ones whose place is used again."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import cache
from typing import Final

from dal.blobs.base import BlobStore
from tests.bench.data import Data
from tests.bench.measure import Call
from tests.bench.paths import Workload
from tests.bench.subject import Subject

SMALL: Final = bytes(range(256)) * 4
_SMALL_KEYS: Final = 100  # to be read
_LARGE_KEYS: Final = 2
#: Of contents: with ROUNDS of so many, 10,000 small ones.
SMALL_CALLS: Final = 2_000
ROUNDS: Final = 5


class ContentSubject(Subject):
    """One side, whose calls are named for workloads."""

    def __init__(self, name: str, large_bytes: int) -> None:
        self.name = name
        self._large = _large(large_bytes)

    async def put(self, key: str, content: bytes) -> object:
        raise NotImplementedError

    async def get(self, key: str) -> int:
        """How many bytes were read, a piece at a time."""
        raise NotImplementedError

    async def fill(self) -> None:
        """What downloads read."""
        for number in range(_SMALL_KEYS):
            await self.put(f"small-{number}", SMALL)
        await self.put(self.large_key(0), self._large)

    def large_key(self, number: int) -> str:
        return f"large-{number % _LARGE_KEYS}"

    async def upload_small(self, number: int) -> object:
        return await self.put(f"new-{number}", SMALL)

    async def download_small(self, number: int) -> object:
        return await self.get(f"small-{number % _SMALL_KEYS}")

    async def upload_large(self, number: int) -> object:
        return await self.put(self.large_key(number), self._large)

    async def download_large(self, number: int) -> object:
        return await self.get(self.large_key(0))


class OurContents(ContentSubject):
    """A blob store of the library's."""

    def __init__(self, name: str, store: BlobStore, large_bytes: int) -> None:
        super().__init__(name, large_bytes)
        self._store = store

    async def open(self) -> None:
        await self._store.open()
        await self.fill()
        for key in (*(f"small-{number}" for number in range(_SMALL_KEYS)), self.large_key(0)):
            await self.get(key)  # a cache has it then

    async def close(self) -> None:
        await self._store.close()

    async def put(self, key: str, content: bytes) -> object:
        return await self._store.put(key, content)

    async def get(self, key: str) -> int:
        async with await self._store.get(key) as reading:
            return sum([len(piece) async for piece in reading.data])


@cache
def _large(size_bytes: int) -> bytes:
    """One for all sides."""
    return SMALL * (size_bytes // len(SMALL))


def contents(what: str) -> Workload:
    """The call of this name, as `upload_small`."""

    def workload(subject: Subject, _data: Data) -> Call:
        call = getattr(subject, what)

        def run(number: int) -> Awaitable[object]:
            found: Awaitable[object] = call(number)
            return found

        return run

    return workload
