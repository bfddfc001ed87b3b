"""Bytes without a row, and rows without bytes: both stores side by side, in the order of their keys.

Bytes are orphans where no file, no shared content and no upload under way has their key, and they are older than
FILE_GRACE_S: a row follows its bytes within seconds. A row whose bytes are gone is looked at twice and reported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from dal.blobs.base import BlobInfo, PartialUpload
from dal.errors import DalError
from dal.files.core import Core, Operation
from dal.files.keys import PLAIN, SHARED, STAGED, is_own_blob, mover_note
from dal.files.tally import Tally
from dal.limits import FILE_GRACE_S, FILE_SWEEP_ROWS, FILE_UPLOAD_LIFE_S
from dal.ops import Compare, Select

#: Uploads that still write, or wait for more.
UNDER_WAY: Final = ("active", "storing")


class Orphans:
    """Finds and removes what one store has and the other does not."""

    def __init__(self, core: Core, tally: Tally) -> None:
        self._core = core
        self._tally = tally
        self._before = core.now() - timedelta(seconds=FILE_GRACE_S)

    async def sweep(self) -> None:
        """All prefixes of this library's keys, one after another.

        It begins with a line in the access log: a store that takes no writes any more, because a live move has switched
        to another, refuses it (FencedError), and what its rows do not know is left alone.
        """
        if not self._tally.dry_run:
            await self._core.store.commit((Operation(self._core, "sweep", None).entry(),))
        await self._compare(PLAIN, "files", "storage_key")
        await self._compare(SHARED, "file_contents", "blob_key")
        await self._compare(STAGED, None, "")
        await self._abort_parts()

    async def _compare(self, prefix: str, table: str | None, column: str) -> None:
        after = prefix
        async for blobs in self._pages(prefix):
            last = blobs[-1].key
            there = {blob.key: blob for blob in blobs}
            if table is not None:
                async for key, row_id in self._rows(table, column, after, Compare(column, "<=", last)):
                    if there.pop(key, None) is None:
                        await self._missing(table, key, row_id)
            orphans = [blob for blob in there.values() if blob.modified_at < self._before and is_own_blob(blob.key)]
            await self._remove(orphans)
            after = last
        if table is not None:
            end = f"{prefix[:-1]}0"  # the character behind "/"
            async for key, row_id in self._rows(table, column, after, Compare(column, "<", end)):
                await self._missing(table, key, row_id)

    async def _pages(self, prefix: str) -> AsyncIterator[list[BlobInfo]]:
        page: list[BlobInfo] = []
        async for blob in self._core.blobs.list(prefix):
            page.append(blob)
            if len(page) == FILE_SWEEP_ROWS:
                yield page
                page = []
        if page:
            yield page

    async def _rows(self, table: str, column: str, after: str, end: Compare) -> AsyncIterator[tuple[str, str]]:
        async for page in self._core.pages(table, (column, "id"), column, Compare(column, ">", after), end):
            for row in page:
                yield str(row[column]), str(row["id"])

    async def _remove(self, blobs: list[BlobInfo]) -> None:
        """Removes those that no upload under way is about to make a file of."""
        if not blobs:
            return
        keys = tuple(blob.key for blob in blobs)
        where = (Compare("storage_key", "in", keys), Compare("status", "in", UNDER_WAY))
        rows = await self._core.store.read(Select("multipart_uploads", where, columns=("storage_key",)))
        awaited = {key for (key,) in rows}
        orphans = [blob for blob in blobs if blob.key not in awaited]
        try:
            if orphans and not self._tally.dry_run:
                await self._core.blobs.delete([blob.key for blob in orphans])
        except DalError as error:
            self._tally.failed(f"{len(orphans)} orphans from {orphans[0].key} on", error)
            return
        self._tally.counts["orphan_blobs"] += len(orphans)
        self._tally.counts["orphan_bytes"] += sum(blob.size for blob in orphans)

    async def _missing(self, table: str, key: str, row_id: str) -> None:
        """A row whose bytes the listing did not show: they may have come since, or the row may be gone."""
        column = "storage_key" if table == "files" else "blob_key"
        if await self._core.blobs.head(key) is not None:
            return
        if not await self._core.store.read(Select(table, (Compare("id", "=", row_id), Compare(column, "=", key)))):
            return
        if table == "files":
            self._tally.is_missing(row_id)
            return
        async for _, file_id in self._rows("files", "storage_key", f"{key}@", Compare("storage_key", "<", f"{key}A")):
            self._tally.is_missing(file_id)

    async def _is_movers(self, key: str) -> bool:
        """Whether a move of contents has this upload under way, and has gone on with it within FILE_UPLOAD_LIFE_S."""
        note = await self._core.blobs.head(mover_note(key))
        return note is not None and note.modified_at > self._core.now() - timedelta(seconds=FILE_UPLOAD_LIFE_S)

    async def _abort_parts(self) -> None:
        """Aborts uploads in parts that no row knows, where the blob store can tell of them."""
        if not self._core.blobs.capabilities.list_parts:
            return
        found: list[PartialUpload] = []
        try:
            for prefix in (PLAIN, SHARED):
                async with aclosing(self._core.blobs.list_uploads(prefix)) as uploads:  # type: ignore[type-var]  # a generator
                    found += [u async for u in uploads if u.started_at < self._before]
        except DalError as error:  # as of a server that lacks what its provider's own has
            self._tally.failed("uploads in parts that no row knows", error)
        for upload in found:
            where = (Compare("storage_key", "=", upload.key), Compare("status", "in", UNDER_WAY))
            if await self._core.store.read(Select("multipart_uploads", where, limit=1, columns=("id",))):
                continue
            if await self._is_movers(upload.key):
                continue
            try:
                if not self._tally.dry_run:
                    await self._core.blobs.abort_parts(upload.key, upload.upload_id)
                self._tally.counts["orphan_uploads"] += 1
            except DalError as error:
                self._tally.failed(f"the upload in parts of {upload.key}", error)
