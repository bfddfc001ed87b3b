"""A bounded cache on a local disk, for the contents of a blob store that is far away.

Whole blobs are kept, and ranges of them served from there. A blob's checksum is compared when it is fetched and when a
process first uses what lies in the cache; what does not fit is fetched anew. The store is asked again whether a blob is
still the same (by its tag) once that is longer ago than BLOB_CACHE_TRUST_S: so long may a reader see what another
process has replaced or deleted. The library itself never replaces a blob. A cache that cannot write costs nothing but
its use: reads then go to the store.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from dal.blobs.base import BINARY, BlobInfo, BlobStore, Data, Part, Reading
from dal.blobs.cache.entries import Entries, is_intact
from dal.blobs.cache.filling import Fill
from dal.blobs.checks import check_key, check_range, resolve_range
from dal.blobs.layer import BlobLayer
from dal.blobs.local.reading import FilePieces
from dal.blobs.threads import Threads
from dal.errors import ConfigurationError, InvalidInputError
from dal.limits import BLOB_CACHE_KNOWN, BLOB_CACHE_SHARE, BLOB_CACHE_TRUST_S, BLOB_CACHE_WHOLE_BYTES, BLOB_THREADS

_NEVER: Final = float("-inf")


class CacheStats(NamedTuple):
    """What one process had of its cache since it was opened.

    hits, misses           readings that were served from the cache (or shared a fetch), and that were not.
    cached_bytes           in the cache now, of all processes.
    """

    hits: int
    misses: int
    cached_bytes: int

    @property
    def hit_rate(self) -> float:
        """Hits of all readings, 0 to 1; 0 where there were none."""
        return self.hits / (self.hits + self.misses) if self.hits else 0.0


class Cached(BlobLayer):
    """A BlobStore whose readings are kept on a local disk. Several processes may share a directory.

    directory  made where it is missing, 0700: whoever can read it can read the blobs.
    max_bytes  in it at most. A blob larger than a quarter of that is never kept.
    """

    def __init__(
        self, inner: BlobStore, directory: Path, *, max_bytes: int, monotonic: Callable[[], float] = monotonic
    ) -> None:
        super().__init__(inner)
        self._directory = directory
        self._max_blob_bytes = max_bytes // BLOB_CACHE_SHARE
        self._monotonic = monotonic
        self._entries = Entries(directory, max_bytes)
        self._threads = Threads(BLOB_THREADS)
        self._fills: dict[str, Fill] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: By key: the tag under which a file was found whole, and when the store last said that it holds.
        self._known: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        self._hits = 0
        self._misses = 0

    async def open(self) -> None:
        await super().open()
        try:
            await self._threads.run(self._entries.open)
        except OSError as error:
            raise ConfigurationError(f"BLOB_CACHE_DIR: {self._directory}: {error.strerror}") from error

    async def close(self) -> None:
        await asyncio.sleep(0)  # a fill that is cancelled before it begins would tell nobody that it has ended
        fills = [fill.task for fill in self._fills.values()]
        for task in fills:
            task.cancel()
        if fills:
            await asyncio.wait(fills)
        await self._threads.close()
        await super().close()

    async def stats(self) -> CacheStats:
        """Hits and misses of this process, and how full the cache is."""
        return CacheStats(self._hits, self._misses, await self._threads.run(self._entries.total_bytes))

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        check_key(key)
        check_range(start, end)
        # One at a time begins: the others find what it has begun. A lock lives as long as somebody holds it or waits.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            found = await self._cached(key, start, end)
            if found is None:
                self._misses += 1
                return await self._fetched(key, start, end)
        self._hits += 1
        return found

    async def put(
        self,
        key: str,
        data: Data,
        *,
        size: int | None = None,
        content_type: str = BINARY,
        checksum: str | None = None,
        if_absent: bool = False,
    ) -> BlobInfo:
        try:
            return await super().put(
                key, data, size=size, content_type=content_type, checksum=checksum, if_absent=if_absent
            )
        finally:
            await self._forget([key])

    async def delete(self, keys: Sequence[str]) -> None:
        try:
            await super().delete(keys)
        finally:
            await self._forget(keys)

    async def copy(self, source: str, target: str) -> BlobInfo:
        try:
            return await super().copy(source, target)
        finally:
            await self._forget([target])

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        try:
            return await super().complete_parts(key, upload_id, parts, if_absent=if_absent)
        finally:
            await self._forget([key])

    async def _cached(self, key: str, start: int, end: int | None) -> Reading | None:
        """The range from the cache, or from what is on its way there; None where it is neither."""
        fill = self._fills.get(key)
        if fill is not None and not fill.is_stale and not fill.is_over:
            first, last = resolve_range(key, fill.info.size, start, end)
            # Whoever begins far behind what has come is served sooner by the store.
            if first <= fill.written + BLOB_CACHE_WHOLE_BYTES:
                return Reading(fill.info, fill.follow(first, last, self._again(key)))
        try:
            found = await self._threads.run(self._entries.find, key)
        except OSError:
            return None
        if found is None:
            return None
        held, info = found
        if not await self._holds(held.descriptor, info):
            held.close()
            await self._forget([key])
            return None
        first, last = resolve_range(key, info.size, start, end)
        return Reading(info, FilePieces(self._threads, held.take(), key, first, last))

    async def _holds(self, descriptor: int, info: BlobInfo) -> bool:
        """Whether a file is whole, and the blob as the store has it."""
        tag, asked_at = self._known.get(info.key, (None, _NEVER))
        if tag != info.etag or asked_at == _NEVER:
            if not await self._threads.run(is_intact, descriptor, info):
                return False
            asked_at = _NEVER
        if self._monotonic() - asked_at > BLOB_CACHE_TRUST_S:
            now = await self.inner.head(info.key)
            if now is None or now.size != info.size or now.etag != info.etag:
                return False
            self._note(info.key, info.etag)
        return True

    async def _fetched(self, key: str, start: int, end: int | None) -> Reading:
        """The range from the store; the whole blob goes into the cache where it was asked for, or is small."""
        is_whole = start == 0 and end is None
        reading = await self.inner.get(key, start=start, end=end)
        size = reading.info.size
        if size > self._max_blob_bytes or not (is_whole or size <= BLOB_CACHE_WHOLE_BYTES):
            return reading
        try:
            draft = await self._threads.run(self._entries.begin)
        except OSError:
            return reading
        if not is_whole:
            await reading.data.aclose()
            reading = await self.inner.get(key)
        fill = self._fills[key] = Fill(self._entries, self._threads, reading, draft)
        fill.task.add_done_callback(lambda _: self._filled(key, fill))
        first, last = resolve_range(key, size, start, end)
        return Reading(fill.info, fill.follow(first, last, self._again(key)))

    def _filled(self, key: str, fill: Fill) -> None:
        if self._fills.get(key) is fill:
            del self._fills[key]
        if fill.is_kept and not fill.is_stale:
            self._note(key, fill.info.etag)

    def _again(self, key: str) -> Callable[[int, int], asyncio.Future[Reading]]:
        return lambda start, end: asyncio.ensure_future(self.inner.get(key, start=start, end=end))

    def _note(self, key: str, etag: str | None) -> None:
        self._known[key] = etag, self._monotonic()
        self._known.move_to_end(key)
        if len(self._known) > BLOB_CACHE_KNOWN:
            self._known.popitem(last=False)

    async def _forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._known.pop(key, None)
            fill = self._fills.pop(key, None)
            if fill is not None:
                fill.is_stale = True
            try:
                await self._threads.run(self._entries.drop, check_key(key))
            except (OSError, InvalidInputError):
                continue  # what cannot be dropped is found out by its tag
