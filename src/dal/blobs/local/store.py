"""Blobs in a directory, safe for many processes on one machine: written aside, synced, and named by a rename.

A blob is there whole or not at all, whatever ends the process or the machine; what a killed process left unfinished is
taken away when it is a day old. Directories are 0700 and files 0600. See `tree` for where things lie, `files` for what
a blob's file holds, and `uploads` for parts.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dal.blobs.base import BINARY, BlobCapabilities, BlobInfo, Data, Method, Part, PartialUpload, Reading, SignedRequest
from dal.blobs.checks import (
    already_there,
    check_arrived,
    check_content_type,
    check_key,
    check_part,
    check_parts,
    check_prefix,
    check_presign,
    check_put,
    check_range,
    resolve_range,
)
from dal.blobs.data import SlicedBytes, blocks, put_again, until
from dal.blobs.local import faults, listing, uploads
from dal.blobs.local.errors import BACKEND, opening_error, translate, translated
from dal.blobs.local.files import Unfinished, open_blob
from dal.blobs.local.reading import FilePieces
from dal.blobs.local.tree import Tree
from dal.blobs.threads import Threads
from dal.errors import (
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from dal.limits import (
    BLOB_BLOCK_BYTES,
    BLOB_LEFTOVER_S,
    BLOB_LIST_PAGE_KEYS,
    BLOB_PIECE_BYTES,
    BLOB_THREADS,
    DEGRADED_DISK_FREE_BYTES,
    MAX_BLOB_BYTES,
    MAX_BLOB_PART_BYTES,
    MAX_BLOB_PARTS,
)
from dal.values import Clock, now

if TYPE_CHECKING:
    from dal.blobs.signing import UrlSigner

T = TypeVar("T")

_CAPABILITIES = BlobCapabilities(
    backend=BACKEND,
    shared=True,
    presign=False,
    if_absent=True,
    list_parts=True,
    equal_parts=False,
    min_part_bytes=1,
    max_part_bytes=MAX_BLOB_PART_BYTES,
    max_parts=MAX_BLOB_PARTS,
    max_bytes=MAX_BLOB_BYTES,
    hashes=True,
)


class LocalBlobStore:
    """A BlobStore on a directory.

    root    made with its parents where it is missing. Nobody else may write to it.
    signer  signs requests that `dal.blobs.asgi` serves; without one, `presign` is UnsupportedError.
    """

    def __init__(self, root: Path, *, signer: UrlSigner | None = None, clock: Clock = now) -> None:
        self._root = root
        self._signer = signer
        self._clock = clock
        self._threads = Threads(BLOB_THREADS)
        self._opened: Tree | None = None
        self.capabilities = replace(_CAPABILITIES, presign=signer is not None)

    def __repr__(self) -> str:
        return f"LocalBlobStore({str(self._root)!r})"

    async def open(self) -> None:
        if self._opened is None:
            try:
                self._opened = await self._threads.run(Tree, self._root)
            except OSError as error:
                raise opening_error(self._root, error) from error
            await self.remove_leftovers()

    async def close(self) -> None:
        await self._threads.close()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

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
        check_put(self.capabilities, key, size, content_type, checksum)
        if if_absent and await self.head(key) is not None:
            raise already_there("put", key, BACKEND)

        def finish(unfinished: Unfinished) -> BlobInfo:
            check_arrived(
                key,
                found_size=unfinished.size,
                found_checksum=unfinished.checksum,
                size=size,
                checksum=checksum,
                backend=BACKEND,
            )
            return self._place(key, unfinished, content_type, if_absent=if_absent)

        return await self._write("put", key, until(data, size), finish)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        check_key(key)
        check_range(start, end)
        with translated("get", key):
            return await self._threads.run(self._begin_reading, key, start, end)

    async def head(self, key: str) -> BlobInfo | None:
        check_key(key)
        try:
            with translated("head", key):
                return await self._threads.run(self._head, key)
        except NotFoundError:
            return None

    async def delete(self, keys: Sequence[str]) -> None:
        checked = [check_key(key) for key in keys]
        with translated("delete", f"{len(checked)} blobs"):
            await self._threads.run(self._delete, checked)

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        check_prefix(prefix)
        check_prefix(after)
        keys = listing.sorted_keys(self._tree, prefix, after)
        try:
            with translated("list", prefix):
                while page := await self._threads.run(listing.describe, self._tree, keys, BLOB_LIST_PAGE_KEYS):
                    for info in page:
                        yield info
        finally:
            await self._threads.run(keys.close)

    async def copy(self, source: str, target: str) -> BlobInfo:
        return await put_again(await self.get(source), self, target)

    async def start_parts(self, key: str, *, content_type: str = BINARY, checksum: str | None = None) -> str:  # noqa: ARG002  # it hashes itself
        check_key(key)
        check_content_type(content_type)
        with translated("start_parts", key):
            return await self._threads.run(uploads.start, self._tree, key, content_type, self._clock)

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        check_part(self.capabilities, number, size)
        await self._require_upload(key, upload_id)

        def finish(unfinished: Unfinished) -> Part:
            check_arrived(
                f"part {number} of {key}",
                found_size=unfinished.size,
                found_checksum=unfinished.checksum,
                size=size,
                checksum=None,
                backend=BACKEND,
            )
            return uploads.place_part(self._tree, upload_id, number, unfinished)

        return await self._write("put_part", key, until(data, size), finish)

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        await self._require_upload(key, upload_id)
        with translated("list_parts", key):
            return await self._threads.run(uploads.parts, self._tree, upload_id)

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        ordered = check_parts(self.capabilities, parts)
        content_type = await self._require_upload(key, upload_id)
        if if_absent and await self.head(key) is not None:
            raise already_there("complete_parts", key, BACKEND)
        content = uploads.content(self._tree, upload_id, ordered)

        async def joined() -> AsyncIterator[bytes]:
            while block := await self._threads.run(next, content, b""):
                yield block

        def finish(unfinished: Unfinished) -> BlobInfo:
            info = self._place(key, unfinished, content_type, if_absent=if_absent)
            faults.reach("upload.completed")
            uploads.abort(self._tree, upload_id)
            return info

        try:
            return await self._write("complete_parts", key, joined(), finish)
        except InvalidInputError:
            await self._require_upload(key, upload_id)  # else somebody has completed it meanwhile, and parts are gone
            raise
        finally:
            await self._threads.run(content.close)

    async def abort_parts(self, key: str, upload_id: str) -> None:
        try:
            await self._require_upload(key, upload_id)
        except NotFoundError:
            return
        with translated("abort_parts", key):
            await self._threads.run(uploads.abort, self._tree, upload_id)

    async def list_uploads(self, prefix: str = "") -> AsyncIterator[PartialUpload]:
        check_prefix(prefix)
        await self.remove_leftovers()
        with translated("list_uploads", prefix):
            for upload in await self._threads.run(uploads.uploads, self._tree, prefix):
                yield upload

    async def remove_leftovers(self, older_than_s: float = BLOB_LEFTOVER_S) -> int:
        """Takes away what processes that died had begun to write, once it is so old; how many files that were.

        `open` and `list_uploads` do it. Uploads in parts that nobody completes are not such: `abort_parts` ends them.
        """
        with translated("remove_leftovers", str(self._root)):
            return await self._threads.run(uploads.remove_leftovers, self._tree, older_than_s, self._clock)

    async def presign(
        self,
        method: Method,
        key: str,
        *,
        expires_in: float,
        content_type: str | None = None,
        size: int | None = None,
        filename: str | None = None,
        upload_id: str | None = None,
        part_number: int | None = None,
    ) -> SignedRequest:
        check_key(key)
        check_presign(method, expires_in, size, upload_id, part_number)
        if self._signer is None:
            raise UnsupportedError(
                "presign: a directory signs requests where BLOB_SIGNING_SECRET and BLOB_PUBLIC_URL are set",
                operation="blobs.presign",
                backend=BACKEND,
            )
        return self._signer.sign(
            method,
            key,
            expires_in=expires_in,
            content_type=content_type,
            size=size,
            filename=filename,
            upload_id=upload_id,
            part_number=part_number,
        )

    async def health(self) -> str | None:
        if self._opened is None:
            return f"the blob store at {self._root} is not open"
        try:
            return await self._threads.run(self._look)
        except OSError as error:
            return f"the blob store at {self._root} cannot be used: {error.strerror}"

    @property
    def _tree(self) -> Tree:
        if self._opened is None:
            raise UnavailableError(
                f"blobs: {self._root} is not open", operation="blobs", backend=BACKEND, retryable=False
            )
        return self._opened

    async def _write(self, operation: str, key: str, data: Data, finish: Callable[[Unfinished], T]) -> T:
        """Writes the data aside, and lets `finish` give it its name. Whatever goes wrong, nothing is left."""
        with translated(operation, key):
            if isinstance(data, bytes) and len(data) <= BLOB_BLOCK_BYTES:
                return await self._threads.run(self._write_at_once, data, finish)
            unfinished = Unfinished(self._tree)
            try:
                async for block in blocks(data, BLOB_BLOCK_BYTES):
                    await self._threads.run(unfinished.write, block)
                return await self._threads.run(finish, unfinished)
            finally:
                await self._threads.run(unfinished.discard)

    def _write_at_once(self, content: bytes, finish: Callable[[Unfinished], T]) -> T:
        unfinished = Unfinished(self._tree)
        try:
            unfinished.write(content)
            return finish(unfinished)
        finally:
            unfinished.discard()

    def _place(self, key: str, unfinished: Unfinished, content_type: str, *, if_absent: bool = False) -> BlobInfo:
        with self._tree.place(key, create=True) as (directory, name):
            return unfinished.place(directory, name, key, content_type=content_type, if_absent=if_absent)

    def _open_blob(self, key: str) -> tuple[int, BlobInfo]:
        with self._tree.place(key) as (directory, name):
            return open_blob(directory, name, key)

    def _begin_reading(self, key: str, start: int, end: int | None) -> Reading:
        """A reading of the range; what is small is read already, so that it takes one thread and no open file."""
        descriptor, info = self._open_blob(key)
        try:
            first, last = resolve_range(key, info.size, start, end)
            if last - first > BLOB_BLOCK_BYTES:
                reading = Reading(info, FilePieces(self._threads, descriptor, key, first, last))
                descriptor = -1
                return reading
            return Reading(info, SlicedBytes(os.pread(descriptor, last - first, first), BLOB_PIECE_BYTES))
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _head(self, key: str) -> BlobInfo:
        descriptor, info = self._open_blob(key)
        os.close(descriptor)
        return info

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with suppress(FileNotFoundError), self._tree.place(key) as (directory, name):
                os.unlink(name, dir_fd=directory)
                faults.reach("blob.deleted")
                os.fsync(directory)

    async def _require_upload(self, key: str, upload_id: str) -> str:
        """The media type of an upload that is there. NotFoundError."""
        check_key(key)
        try:
            return await self._threads.run(uploads.content_type, self._tree, key, upload_id)
        except FileNotFoundError:
            raise NotFoundError(
                f"upload in parts: none of {key} has this id: it was completed or aborted, or never was",
                operation="blobs.parts",
                backend=BACKEND,
            ) from None
        except OSError as error:
            raise translate("parts", key, error) from error

    def _look(self) -> str | None:
        status = os.fstatvfs(self._tree.root)
        if not os.path.samestat(os.fstat(self._tree.root), self._root.stat()):
            return f"the blob store at {self._root} was replaced by another directory; open it again"
        free = status.f_bavail * status.f_frsize
        if free < DEGRADED_DISK_FREE_BYTES:
            return f"the disk of the blob store at {self._root} is nearly full: {free // 2**20} MiB are free"
        return None
