"""Blobs in a bucket of S3, R2 or what speaks like them.

What is not larger than a part goes in one request, the rest in parts, some at a time, so that memory stays bounded and
a failure leaves nothing: the upload in parts is aborted. The SHA-256 of a blob is kept beside it (`x-amz-meta-sha256`)
where it is known before the first byte is sent: for what goes in one request, or where the caller knows it.

All requests but one kind are the client's own (`client`): obstore, which carries whole blobs down, tells neither the
status of an answer nor its Retry-After, and lists by whole segments of a key.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element

import httpx

from dal.blobs.base import BlobCapabilities, BlobInfo, Data, Method, Part, PartialUpload, Reading, SignedRequest
from dal.blobs.checks import (
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
from dal.blobs.data import SlicedBytes, gather
from dal.blobs.s3 import documents
from dal.blobs.s3.client import S3Client
from dal.blobs.s3.credentials import Credentials
from dal.blobs.s3.errors import BACKEND
from dal.blobs.s3.reading import Download, FastSource, HttpSource, Source, fast_store
from dal.blobs.s3.sending import exactly, exactly_bytes, finish, put_data
from dal.blobs.signing import disposition
from dal.blobs.urls import Bucket
from dal.errors import (
    ConfigurationError,
    DalError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from dal.limits import (
    BLOB_PIECE_BYTES,
    HEALTH_TIMEOUT_S,
    MAX_BLOB_BYTES,
    MAX_BLOB_PART_BYTES,
    MAX_BLOB_PARTS,
    S3_DELETED_KEYS,
    S3_MAX_COPY_BYTES,
    S3_MIN_PART_BYTES,
    S3_RESENT_PART_BYTES,
)
from dal.values import Clock, now

if TYPE_CHECKING:
    from obstore.store import S3Store

_CHECKSUM: Final = "x-amz-meta-sha256"


def bucket_capabilities(bucket: Bucket) -> BlobCapabilities:
    """What a bucket of this provider can do."""
    return BlobCapabilities(
        backend=BACKEND,
        shared=True,
        presign=True,
        if_absent=True,
        list_parts=True,
        equal_parts=bucket.provider == "r2",
        min_part_bytes=S3_MIN_PART_BYTES,
        max_part_bytes=MAX_BLOB_PART_BYTES,
        max_parts=MAX_BLOB_PARTS,
        max_bytes=MAX_BLOB_BYTES,
    )


class S3BlobStore:
    """A BlobStore in a bucket.

    capabilities  of a server that can do less than its provider's own; None is what the provider can.
    clock, sleep  for tests.
    """

    def __init__(
        self,
        bucket: Bucket,
        credentials: Credentials,
        *,
        capabilities: BlobCapabilities | None = None,
        clock: Clock = now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._clock = clock
        self._sleep = sleep
        self._opened: S3Client | None = None
        self._fast: S3Store | None = None
        self._is_bucket_seen = False
        self.capabilities = bucket_capabilities(bucket) if capabilities is None else capabilities

    def __repr__(self) -> str:
        return f"S3BlobStore({self._bucket.endpoint or 'AWS'}, {self._bucket.name}/{self._bucket.prefix})"

    async def open(self) -> None:
        """Makes the client. Nothing is asked of the server: `health` tells whether it answers."""
        if self._opened is None:
            self._opened = S3Client(self._bucket, self._credentials, clock=self._clock, sleep=self._sleep)
            self._fast = fast_store(self._bucket, self._credentials)

    async def close(self) -> None:
        if self._opened is not None:
            client, self._opened, self._fast = self._opened, None, None
            await client.close()

    async def put(
        self,
        key: str,
        data: Data,
        *,
        size: int | None = None,
        content_type: str = "application/octet-stream",
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
        headers = {"content-type": content_type, _CHECKSUM: digest}
        if if_absent:
            headers["if-none-match"] = "*"
        answer = await self._client.request("put", "PUT", key, headers=headers, content=content, payload_hash=digest)
        return BlobInfo(key, len(content), self._date(answer), content_type, checksum, _etag(answer))

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
            if _is_key(info.key):  # others may keep theirs in the same place
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

    async def start_parts(
        self, key: str, *, content_type: str = "application/octet-stream", checksum: str | None = None
    ) -> str:
        """The id of a new upload in parts. `checksum`, where it is known already, is kept with the blob."""
        check_key(key)
        headers = {"content-type": check_content_type(content_type)}
        if checksum is not None:
            headers[_CHECKSUM] = checksum.removeprefix("sha256:")
        answer = await self._client.request("start_parts", "POST", key, query={"uploads": ""}, headers=headers)
        upload_id = documents.parse(answer.content, "start_parts").findtext("UploadId")
        if not upload_id:
            raise UnavailableError(
                f"start_parts: {key}: the server named no upload", backend=BACKEND, outcome="unknown"
            )
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        check_key(key)
        check_part(self.capabilities, number, size)
        _check_upload(key, upload_id)
        query = {"partNumber": str(number), "uploadId": upload_id}
        if isinstance(data, bytes) or size <= S3_RESENT_PART_BYTES:
            content: Data = exactly_bytes(await gather(data, max_bytes=size), key, number, size)
            headers: dict[str, str] = {}
        else:
            content, headers = exactly(data, key, number, size), {"content-length": str(size)}
        answer = await self._client.request("put_part", "PUT", key, query=query, headers=headers, content=content)
        return Part(number, size, _etag(answer) or "")

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        check_key(key)
        if not self.capabilities.list_parts:
            raise self._cannot("list_parts", "a list of parts")
        following = {"NextPartNumberMarker": "part-number-marker"}
        found = self._pages("list_parts", key, {"uploadId": upload_id}, "Part", following)
        return sorted([documents.part(entry) async for entry in found])

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        """Makes the blob of these parts; with `if_absent`, unless there is one. Else as the contract says."""
        check_key(key)
        ordered = check_parts(self.capabilities, parts)
        _check_upload(key, upload_id)
        answer = await self._client.request(
            "complete_parts",
            "POST",
            key,
            query={"uploadId": upload_id},
            headers={"if-none-match": "*"} if if_absent else {},
            content=documents.completion(ordered),
        )
        root = documents.parse(answer.content, "complete_parts")
        etag = root.findtext("ETag", "").strip('"') or None
        return BlobInfo(key, sum(part.size for part in ordered), self._date(answer), etag=etag)

    async def abort_parts(self, key: str, upload_id: str) -> None:
        try:
            _check_upload(check_key(key), upload_id)
            await self._client.request("abort_parts", "DELETE", key, query={"uploadId": upload_id})
        except NotFoundError:
            return

    async def list_uploads(self, prefix: str = "") -> AsyncIterator[PartialUpload]:
        check_prefix(prefix)
        if not self.capabilities.list_parts:
            raise self._cannot("list_uploads", "a list of uploads")
        query = {"uploads": "", "prefix": self._bucket.prefix + prefix}
        following = {"NextKeyMarker": "key-marker", "NextUploadIdMarker": "upload-id-marker"}
        try:
            async for entry in self._pages("list_uploads", None, query, "Upload", following):
                key = entry.findtext("Key", "").removeprefix(self._bucket.prefix)
                if _is_key(key) and key.startswith(prefix):
                    yield PartialUpload(key, entry.findtext("UploadId", ""), documents.started(entry))
        except NotFoundError:
            return  # so some servers say that there is none

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

    @property
    def _client(self) -> S3Client:
        if self._opened is None:
            raise UnavailableError(f"blobs: {self!r} is not open", backend=BACKEND)
        return self._opened

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
        source: Source = FastSource(key, found.stream(min_chunk_size=BLOB_PIECE_BYTES).__aiter__())
        return Reading(info, Download(self._client, info, source, 0, info.size))

    async def _nothing(self, key: str, start: int, end: int | None) -> Reading:
        """An empty range, if it lies in the blob."""
        info = await self.head(key)
        if info is None:
            raise NotFoundError(f"get: no blob {key}", operation="blobs.get", backend=BACKEND)
        resolve_range(key, info.size, start, end)
        return Reading(info, SlicedBytes(b"", BLOB_PIECE_BYTES))

    async def _copy_in_parts(self, info: BlobInfo, place: str, target: str) -> BlobInfo:
        upload_id = await self.start_parts(
            target, content_type=info.content_type or "application/octet-stream", checksum=info.checksum
        )
        try:
            parts = []
            for number, start in enumerate(range(0, info.size, S3_MAX_COPY_BYTES), 1):
                end = min(start + S3_MAX_COPY_BYTES, info.size)
                answer = await self._client.request(
                    "copy",
                    "PUT",
                    target,
                    query={"partNumber": str(number), "uploadId": upload_id},
                    headers={"x-amz-copy-source": place, "x-amz-copy-source-range": f"bytes={start}-{end - 1}"},
                )
                etag = documents.parse(answer.content, "copy").findtext("ETag", "").strip('"')
                parts.append(Part(number, end - start, etag))
            made = await self.complete_parts(target, upload_id, parts)
        except BaseException:
            await finish(self.abort_parts(target, upload_id))
            raise
        return info._replace(key=target, modified_at=made.modified_at, etag=made.etag)

    async def _pages(
        self, operation: str, key: str | None, query: Mapping[str, str], entry: str, following: dict[str, str]
    ) -> AsyncIterator[Element]:
        asked: dict[str, str] | None = {}
        while asked is not None:
            answer = await self._client.request(operation, "GET", key, query={**query, **asked})
            found = documents.page(documents.parse(answer.content, operation), entry, following)
            for element in found.entries:
                yield element
            asked = found.following

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
        kind, checksum = headers.get("content-type"), _checksum(headers.get(_CHECKSUM))
        return BlobInfo(key, size, self._when(headers.get("last-modified")), kind, checksum, etag)

    def _date(self, answer: httpx.Response) -> datetime:
        """The server's time of an answer: that of what was written."""
        return self._when(answer.headers.get("date"))

    def _when(self, header: str | None) -> datetime:
        return self._clock() if header is None else parsedate_to_datetime(header)

    def _cannot(self, operation: str, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{operation}: this server has no {what}", operation=f"blobs.{operation}", backend=BACKEND
        )


def _check_upload(key: str, upload_id: str) -> None:
    """A request without an id would be one for the whole blob: it would delete, or replace it. NotFoundError."""
    if not upload_id:
        raise NotFoundError(f"upload in parts: none of {key} has an empty id", operation="blobs.parts", backend=BACKEND)


def _checksum(digest: str | None) -> str | None:
    return f"sha256:{digest}" if digest else None


def _etag(answer: httpx.Response) -> str | None:
    return answer.headers.get("etag", "").strip('"') or None


def _whole_size(answer: httpx.Response) -> int:
    """The size of the blob, of which the answer may be a part."""
    ranged = answer.headers.get("content-range")
    return int(ranged.rpartition("/")[2] if ranged else answer.headers.get("content-length", "0"))


def _is_key(key: str) -> bool:
    try:
        return bool(check_key(key))
    except InvalidInputError:
        return False
