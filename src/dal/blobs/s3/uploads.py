"""Uploads in parts to a bucket, and what every call to it needs: the client, pages of listings, the server's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element

import httpx

from dal.blobs.base import BINARY, BlobCapabilities, BlobInfo, Data, Part, PartialUpload
from dal.blobs.checks import check_content_type, check_key, check_part, check_parts, check_prefix
from dal.blobs.data import gather
from dal.blobs.s3 import documents
from dal.blobs.s3.client import S3Client
from dal.blobs.s3.credentials import Credentials
from dal.blobs.s3.errors import BACKEND
from dal.blobs.s3.reading import fast_store
from dal.blobs.s3.sending import exactly, exactly_bytes, finish
from dal.blobs.urls import Bucket
from dal.errors import InvalidInputError, NotFoundError, UnavailableError, UnsupportedError
from dal.limits import (
    MAX_BLOB_BYTES,
    MAX_BLOB_PART_BYTES,
    MAX_BLOB_PARTS,
    S3_MAX_COPY_BYTES,
    S3_MIN_PART_BYTES,
    S3_RESENT_PART_BYTES,
)
from dal.values import Clock, now

if TYPE_CHECKING:
    from obstore.store import S3Store

#: Where a blob's SHA-256 is kept, in hexadecimal.
CHECKSUM: Final = "x-amz-meta-sha256"


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


class S3Uploads:
    """The part of an S3BlobStore that knows nothing of whole blobs; see there for its arguments."""

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

    async def start_parts(self, key: str, *, content_type: str = BINARY, checksum: str | None = None) -> str:
        """The id of a new upload in parts. `checksum`, where it is known already, is kept with the blob."""
        check_key(key)
        headers = {"content-type": check_content_type(content_type)}
        if checksum is not None:
            headers[CHECKSUM] = checksum.removeprefix("sha256:")
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
        return Part(number, size, etag_of(answer) or "")

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
                if is_key(key) and key.startswith(prefix):
                    yield PartialUpload(key, entry.findtext("UploadId", ""), documents.started(entry))
        except NotFoundError:
            return  # so some servers say that there is none

    @property
    def _client(self) -> S3Client:
        if self._opened is None:
            raise UnavailableError(f"blobs: {self!r} is not open", operation="blobs", backend=BACKEND, retryable=False)
        return self._opened

    async def _copy_in_parts(self, info: BlobInfo, place: str, target: str) -> BlobInfo:
        upload_id = await self.start_parts(target, content_type=info.content_type or BINARY, checksum=info.checksum)
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


def etag_of(answer: httpx.Response) -> str | None:
    """The tag of what was written, or read."""
    return answer.headers.get("etag", "").strip('"') or None


def is_key(key: str) -> bool:
    """Whether the library made it: others may keep theirs in the same bucket."""
    try:
        return bool(check_key(key))
    except InvalidInputError:
        return False
