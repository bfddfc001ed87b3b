"""A blob's bytes as they come from S3, gone on with where a connection breaks.

Whole blobs come through obstore where it is installed: its network loop is not Python's, which was measured to give two
to four times the bytes a second. Ranges, and what is left after a break, come through the client, which knows what each
answer means.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import httpx

from dal.blobs.base import BlobInfo
from dal.blobs.s3.client import S3Client, base_url
from dal.blobs.s3.credentials import Credentials
from dal.blobs.s3.errors import BACKEND, transport_error
from dal.blobs.urls import Bucket
from dal.errors import AlreadyExistsError, DalError, NotFoundError, UnavailableError
from dal.limits import BLOB_PIECE_BYTES, CONNECT_TIMEOUT_S, S3_ATTEMPTS, S3_TIMEOUT_S

if TYPE_CHECKING:
    from obstore.store import S3Store

_NO_END: Final = timedelta(days=7)  # obstore ends a whole download at 30 s, unless told


def fast_store(bucket: Bucket, credentials: Credentials) -> S3Store | None:
    """obstore's client of this bucket; None where obstore is not installed."""
    if importlib.util.find_spec("obstore") is None:
        return None
    from obstore.store import S3Store

    token = {} if credentials.session_token is None else {"session_token": credentials.session_token}
    base = base_url(bucket)
    return S3Store(
        bucket.name,
        endpoint=base.removesuffix(f"/{bucket.name}") if bucket.path_style else base,
        region=bucket.region,
        access_key_id=credentials.key_id,
        secret_access_key=credentials.secret_key,
        virtual_hosted_style_request=not bucket.path_style,
        client_options={
            "allow_http": (bucket.endpoint or "").startswith("http:"),
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=S3_TIMEOUT_S),
            "timeout": _NO_END,
        },
        # Tried again by the client alone: two who do it would multiply their tries.
        retry_config={"max_retries": 0},
        **token,  # type: ignore[arg-type]  # one keyword, or none
    )


class Download:
    """The Pieces of bytes `position` to `end` of a blob. Each is the blob's as it was at the beginning."""

    def __init__(self, client: S3Client, info: BlobInfo, source: Source, position: int, end: int) -> None:
        self._client = client
        self._info = info
        self._source: Source | None = source
        self._position = position
        self._end = end
        self._rest = memoryview(b"")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            whole = await self._next()
            if isinstance(whole, bytes) and len(whole) <= BLOB_PIECE_BYTES:
                return whole
            self._rest = memoryview(whole)
        piece = bytes(self._rest[:BLOB_PIECE_BYTES])
        self._rest = self._rest[BLOB_PIECE_BYTES:]
        return piece

    async def aclose(self) -> None:
        self._rest = memoryview(b"")
        self._position = self._end
        if self._source is not None:
            source, self._source = self._source, None
            await source.close()

    async def _next(self) -> bytes | memoryview:
        """What comes next, after as many breaks as tries are allowed in a row."""
        attempt = 0
        while self._position < self._end:
            try:
                if self._source is None:
                    self._source = await self._reopened()
                piece = await self._source.next()
            except _Broken as broken:
                attempt += 1
                source, self._source = self._source, None
                if source is not None:
                    await source.close()
                if attempt >= S3_ATTEMPTS:
                    raise broken.error from broken.__cause__
                await self._client.pause(attempt)
                continue
            piece = piece[: self._end - self._position]
            self._position += len(piece)
            return piece
        await self.aclose()
        raise StopAsyncIteration

    async def _reopened(self) -> Source:
        """The rest of the same blob: another one under its key is refused."""
        headers = {"range": f"bytes={self._position}-{self._end - 1}", "if-match": f'"{self._info.etag}"'}
        try:
            return HttpSource(self._info.key, await self._client.stream("get", self._info.key, headers))
        except (AlreadyExistsError, NotFoundError) as error:
            raise UnavailableError(
                f"get: {self._info.key} was replaced or deleted while it was read",
                operation="blobs.get",
                backend=BACKEND,
                retryable=False,
            ) from error


class Source:
    """One connection's bytes."""

    async def next(self) -> bytes | memoryview:
        """The next bytes. Raises _Broken where they end too early, which the caller knows and this does not."""
        raise NotImplementedError

    async def close(self) -> None:
        """Lets go of the connection."""


class HttpSource(Source):
    """The body of an answer that is being streamed."""

    def __init__(self, key: str, response: httpx.Response) -> None:
        self._key = key
        self._response = response
        self._pieces = response.aiter_raw(BLOB_PIECE_BYTES)

    async def next(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration as error:
            raise _Broken(_ended(self._key)) from error
        except httpx.TransportError as error:
            raise _Broken(transport_error("get", self._key, error, is_write=False)) from error

    async def close(self) -> None:
        await self._response.aclose()


class FastSource(Source):
    """The body of an answer that obstore streams."""

    def __init__(self, key: str, pieces: AsyncIterator[object]) -> None:
        self._key = key
        self._pieces: AsyncIterator[object] | None = pieces

    async def next(self) -> memoryview:
        from obstore.exceptions import BaseError

        assert self._pieces is not None  # noqa: S101  # closed by its owner, which asks no more
        try:
            return memoryview(await anext(self._pieces))  # type: ignore[arg-type]  # it is a buffer
        except StopAsyncIteration as error:
            raise _Broken(_ended(self._key)) from error
        except BaseError as error:
            # It names no status: the client, which asks for the rest, will.
            raise _Broken(_ended(self._key)) from error

    async def close(self) -> None:
        self._pieces = None


class _Broken(Exception):
    def __init__(self, error: DalError) -> None:
        super().__init__(str(error))
        self.error = error


def _ended(key: str) -> UnavailableError:
    return UnavailableError(f"get: {key}: the connection ended too early", operation="blobs.get", backend=BACKEND)
