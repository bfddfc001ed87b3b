"""Blobs in a bucket of S3, R2 or what speaks like them.

What is not larger than a part goes in one request, the rest in parts, some at a time, so that memory stays bounded and
a failure leaves nothing: the upload in parts is aborted. The SHA-256 of a blob is kept beside it (`x-amz-meta-sha256`)
where it is known before the first byte is sent: for what goes in one request, or where the caller knows it.

All requests but one kind are the client's own (`client`): obstore, which carries whole blobs down, tells neither the
status of an answer nor its Retry-After, and lists by whole segments of a key.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx

from dal.blobs.base import BINARY, BlobInfo, Data, Method, Part, Reading, SignedRequest
from dal.blobs.checks import (
    already_there,
    check_content_type,
    check_key,
    check_part,
    check_prefix,
    check_presign,
    check_put,
    check_range,
    resolve_range,
)
from dal.blobs.data import SlicedBytes
from dal.blobs.s3 import documents
from dal.blobs.s3.errors import BACKEND
from dal.blobs.s3.reading import Download, FastSource, HttpSource, Source
from dal.blobs.s3.sending import put_data
from dal.blobs.s3.uploads import CHECKSUM, S3Uploads, etag_of, is_key
from dal.blobs.signing import disposition
from dal.errors import (
    ConfigurationError,
    DalError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from dal.limits import (
    BLOB_BLOCK_BYTES,
    BLOB_PIECE_BYTES,
    HEALTH_TIMEOUT_S,
    S3_DELETED_KEYS,
    S3_MAX_COPY_BYTES,
)

if TYPE_CHECKING:
    from obstore.store import S3Store


class S3BlobStore(S3Uploads):
    """A BlobStore in a bucket.

    capabilities  of a server that can do less than its provider's own; None is what the provider can.
    clock, sleep  for tests.
    """

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
        if if_absent and not self.capabilities.if_absent:
            raise self._cannot("put", "if_absent")
        return await put_data(
            self, key, data, size=size, content_type=content_type, checksum=checksum, if_absent=if_absent
        )

    async def put_whole(
        self, key: str, content: bytes, *, content_type: str, checksum: str, if_absent: bool
    ) -> BlobInfo:
        """One request for all of it; what it holds was checked."""
        digest = checksum.removeprefix("sha256:")
        headers = {"content-type": content_type, CHECKSUM: digest}
        if if_absent:
            headers["if-none-match"] = "*"
        answer = await self._client.request("put", "PUT", key, headers=headers, content=content, payload_hash=digest)
        return BlobInfo(key, len(content), self._date(answer), content_type, checksum, etag_of(answer))

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        check_key(key)
        check_range(start, end)
        if start == 0 and end is None and self._fast is not None:
            found = await self._get_fast(self._fast, key)
            if found is not None:
                return found
        if start == end:
            return await self._nothing(key, start, end)
        headers = {} if start == 0 and end is None else {"range": f"bytes={start}-{'' if end is None else end - 1}"}
        try:
            answer = await self._client.stream("get", key, headers)
        except InvalidInputError:  # no byte at `start`: which may be the end of the blob
            return await self._nothing(key, start, end)
        source = HttpSource(key, answer)
        try:
            info = self._info(key, answer.headers, size=_whole_size(answer))
            # A server that knows no ranges begins at the beginning.
            sent = start if "content-range" in answer.headers else 0
            first, last = resolve_range(key, info.size, start, end)
            if sent != first:
                raise UnsupportedError(
                    f"get: {key}: the server knows no ranges", operation="blobs.get", backend=BACKEND
                )
        except BaseException:
            await source.close()
            raise
        return Reading(info, Download(self._client, info, source, first, last))

    async def head(self, key: str) -> BlobInfo | None:
        check_key(key)
        try:
            answer = await self._client.request("head", "HEAD", key)
        except NotFoundError:
            await self._see_bucket()
            return None
        return self._info(key, answer.headers, size=int(answer.headers.get("content-length", "0")))

    async def delete(self, keys: Sequence[str]) -> None:
        names = [self._bucket.prefix + check_key(key) for key in keys]
        for start in range(0, len(names), S3_DELETED_KEYS):
            body = documents.deletion(names[start : start + S3_DELETED_KEYS])
            md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()  # the API asks for it
            answer = await self._client.request(
                "delete", "POST", None, query={"delete": ""}, headers={"content-md5": md5}, content=body
            )
            for name, code in documents.not_deleted(documents.parse(answer.content, "delete")):
                raise UnavailableError(
                    f"delete: {name.removeprefix(self._bucket.prefix)}: the server answered {code}",
                    operation="blobs.delete",
                    backend=BACKEND,
                    outcome="unknown",
                )

    async def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        check_prefix(prefix)
        check_prefix(after)
        query = {"list-type": "2", "prefix": self._bucket.prefix + prefix, "encoding-type": "url"}
        if after:
            query["start-after"] = self._bucket.prefix + after
        async for entry in self._pages(
            "list", None, query, "Contents", {"NextContinuationToken": "continuation-token"}
        ):
            info = documents.blob(entry, self._bucket.prefix)
            if is_key(info.key):  # others may keep theirs in the same place
                yield info

    async def copy(self, source: str, target: str) -> BlobInfo:
        check_key(target)
        info = await self.head(source)
        if info is None:
            raise NotFoundError(f"copy: no blob {source}", operation="blobs.copy", backend=BACKEND)
        place = f"/{self._bucket.name}/{self._bucket.prefix}{source}"
        if info.size > S3_MAX_COPY_BYTES:
            return await self._copy_in_parts(info, place, target)
        answer = await self._client.request("copy", "PUT", target, headers={"x-amz-copy-source": place})
        root = documents.parse(answer.content, "copy")
        return info._replace(
            key=target, modified_at=self._date(answer), etag=root.findtext("ETag", "").strip('"') or None
        )

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        if if_absent and await self.head(key) is not None:  # not every server looks at the condition here
            raise already_there("complete_parts", key, BACKEND)
        return await super().complete_parts(key, upload_id, parts, if_absent=if_absent)

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
        headers: dict[str, str] = {}
        if method == "PUT" and content_type is not None:
            headers["content-type"] = check_content_type(content_type)
        if size is not None:
            headers["content-length"] = str(size)
        query: dict[str, str] = {}
        if filename is not None and method == "GET":
            query["response-content-disposition"] = disposition(filename)
        if upload_id is not None and part_number is not None:
            check_part(self.capabilities, part_number, size or 0)
            query |= {"partNumber": str(part_number), "uploadId": upload_id}
        seconds = math.ceil(expires_in)
        url = self._client.presign(method, key, query, headers, seconds)
        return SignedRequest(method, url, headers, self._clock() + timedelta(seconds=seconds))

    async def health(self) -> str | None:
        try:
            await self._client.request("health", "HEAD", None, timeout_s=HEALTH_TIMEOUT_S, attempts=1)
        except DalError as error:
            return error.message
        return None

    async def _get_fast(self, fast: S3Store, key: str) -> Reading | None:
        """The blob through obstore; None where that fails, whose errors tell no status: the client's will."""
        from obstore import get_async
        from obstore.exceptions import BaseError

        try:
            found = await get_async(fast, self._bucket.prefix + key)
        except (BaseError, FileNotFoundError):
            return None
        meta, attributes = found.meta, found.attributes
        info = BlobInfo(
            key,
            meta["size"],
            meta["last_modified"],
            attributes.get("Content-Type"),
            _checksum(attributes.get("sha256")),
            (meta["e_tag"] or "").strip('"') or None,
        )
        source: Source = FastSource(key, found.stream(min_chunk_size=BLOB_BLOCK_BYTES).__aiter__())
        return Reading(info, Download(self._client, info, source, 0, info.size))

    async def _nothing(self, key: str, start: int, end: int | None) -> Reading:
        """An empty range, if it lies in the blob."""
        info = await self.head(key)
        if info is None:
            raise NotFoundError(f"get: no blob {key}", operation="blobs.get", backend=BACKEND)
        resolve_range(key, info.size, start, end)
        return Reading(info, SlicedBytes(b"", BLOB_PIECE_BYTES))

    async def _see_bucket(self) -> None:
        """Once: that there is a bucket, which a HEAD of a blob leaves open. ConfigurationError where there is none."""
        if not self._is_bucket_seen:
            try:
                await self._client.request("head", "HEAD", None)
            except NotFoundError as error:
                raise ConfigurationError(
                    f"head: there is no bucket {self._bucket.name}; look at BLOB_URL",
                    operation="blobs.head",
                    backend=BACKEND,
                ) from error
            self._is_bucket_seen = True

    def _info(self, key: str, headers: httpx.Headers, *, size: int) -> BlobInfo:
        etag = headers.get("etag", "").strip('"') or None
        kind, checksum = headers.get("content-type"), _checksum(headers.get(CHECKSUM))
        return BlobInfo(key, size, self._when(headers.get("last-modified")), kind, checksum, etag)


def _checksum(digest: str | None) -> str | None:
    return f"sha256:{digest}" if digest else None


def _whole_size(answer: httpx.Response) -> int:
    """The size of the blob, of which the answer may be a part."""
    ranged = answer.headers.get("content-range")
    return int(ranged.rpartition("/")[2] if ranged else answer.headers.get("content-length", "0"))
