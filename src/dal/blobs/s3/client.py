"""Signed requests to one bucket, tried again where that can help: the only place that does so, for every request.

A request is sent S3_ATTEMPTS times at most, with exponential waits and jitter, or as long as a Retry-After asks, up to
S3_MAX_PAUSE_S. A body that comes as a stream is sent once.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import httpx

from dal.blobs.data import sha256
from dal.blobs.s3.credentials import Credentials
from dal.blobs.s3.errors import answer_error, code_of, may_pass, retry_after_s, transport_error
from dal.blobs.s3.signature import UNSIGNED_PAYLOAD, encode_query, presign_url, sign_headers
from dal.blobs.urls import Bucket
from dal.errors import DalError
from dal.limits import (
    BLOB_BLOCK_BYTES,
    CONNECT_TIMEOUT_S,
    POOL_WAIT_TIMEOUT_S,
    S3_ATTEMPTS,
    S3_BUSY_WAIT_S,
    S3_CONNECTIONS,
    S3_FIRST_WAIT_S,
    S3_MAX_PAUSE_S,
    S3_MAX_WAIT_S,
    S3_TIMEOUT_S,
)
from dal.values import Clock

_NOTHING: Final = hashlib.sha256(b"").hexdigest()
_TIMEOUT: Final = httpx.Timeout(S3_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=POOL_WAIT_TIMEOUT_S)
_LIMITS: Final = httpx.Limits(max_connections=S3_CONNECTIONS, max_keepalive_connections=S3_CONNECTIONS)


class S3Client:
    """The bucket's address, its access key, and connections. Keys are the store's; the prefix goes before them."""

    def __init__(
        self, bucket: Bucket, credentials: Credentials, *, clock: Clock, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._clock = clock
        self._sleep = sleep
        self.base = base_url(bucket)
        self._http = httpx.AsyncClient(timeout=_TIMEOUT, limits=_LIMITS, headers={"accept-encoding": "identity"})

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    def url(self, key: str | None) -> str:
        """Where a blob is; None is the bucket."""
        return self.base if key is None else f"{self.base}/{self._bucket.prefix}{key}"

    async def request(
        self,
        operation: str,
        method: str,
        key: str | None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] = b"",
        payload_hash: str | None = None,
        timeout_s: float | None = None,
        attempts: int = S3_ATTEMPTS,
    ) -> httpx.Response:
        """The answer, read whole, where it is a success.

        headers       names in lower case; all are signed.
        payload_hash  the content's SHA-256 in hexadecimal, where it is known already.
        Raises        what `dal.blobs.s3.errors` makes of other answers, once no further try can help. An error whose
                      earlier tries had an unknown outcome has one too.
        """
        if not isinstance(content, bytes):
            payload_hash, attempts = UNSIGNED_PAYLOAD, 1
        elif payload_hash is None:
            payload_hash = await sha256(content) if content else _NOTHING
        call = _Call(operation, method, key, query or {}, headers or {}, content, payload_hash, timeout_s)
        return await self._try(call, attempts)

    async def stream(self, operation: str, key: str, headers: Mapping[str, str]) -> httpx.Response:
        """The answer to a GET, where it is a success; its body is still to be read, and the answer to be closed."""
        call = _Call(operation, "GET", key, {}, headers, b"", _NOTHING, None, is_streamed=True)
        return await self._try(call, S3_ATTEMPTS)

    def presign(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], expires_s: int
    ) -> str:
        """The URL of a request that anybody may send."""
        return presign_url(
            self._credentials, self._bucket.region, method, self.url(key), query, headers, expires_s, self._clock()
        )

    async def pause(self, attempt: int, asked_s: float | None = None) -> None:
        """Waits before the next try: as long as was asked, else with exponential backoff and full jitter."""
        backoff = min(S3_FIRST_WAIT_S * 2.0 ** (attempt - 1), S3_MAX_WAIT_S)
        await self._sleep(random.uniform(0, backoff) if asked_s is None else asked_s)  # noqa: S311  # no secret

    async def _try(self, call: _Call, attempts: int) -> httpx.Response:
        is_unknown = False
        for attempt in range(1, attempts + 1):
            try:
                return await self._send(call)
            except _Failed as failed:
                is_unknown = is_unknown or failed.error.outcome == "unknown"
                wait_s = failed.asked_s
                if not failed.may_pass or attempt == attempts or (wait_s is not None and wait_s > S3_MAX_PAUSE_S):
                    if is_unknown:
                        failed.error.outcome = "unknown"
                    raise failed.error from failed.__cause__
            await self.pause(attempt, wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send(self, call: _Call) -> httpx.Response:
        """One try. Raises _Failed."""
        url = self.url(call.key) + (f"?{encode_query(call.query)}" if call.query else "")
        # What is written at once lies in the connection's buffer a second time.
        content, headers = call.content, call.headers
        if isinstance(content, bytes) and len(content) > BLOB_BLOCK_BYTES:
            headers = {**headers, "content-length": str(len(content))}
            content = _sliced(content)
        signed = sign_headers(
            self._credentials,
            self._bucket.region,
            call.method,
            url,
            headers,
            call.payload_hash,
            self._clock(),
        )
        request = self._http.build_request(
            call.method,
            url,
            headers=signed,
            content=content or None,
            timeout=_TIMEOUT if call.timeout_s is None else call.timeout_s,
        )
        try:
            response = await self._http.send(request, stream=call.is_streamed)
            if response.is_success:
                return response
            body = await response.aread()
        except httpx.TransportError as error:
            failure = transport_error(call.operation, call.subject, error, is_write=call.is_write)
            raise _Failed(failure, may_pass=True) from error
        status, code = response.status_code, code_of(body)
        asked_s = retry_after_s(response.headers, self._clock)
        if asked_s is None and status == httpx.codes.TOO_MANY_REQUESTS:
            asked_s = S3_BUSY_WAIT_S
        failure = answer_error(call.operation, call.subject, status, code, is_write=call.is_write)
        raise _Failed(failure, may_pass=may_pass(status, code), asked_s=asked_s)


class _Call(NamedTuple):
    operation: str
    method: str
    key: str | None
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes | AsyncIterable[bytes]
    payload_hash: str
    timeout_s: float | None
    is_streamed: bool = False

    @property
    def subject(self) -> str:
        return "the bucket" if self.key is None else self.key

    @property
    def is_write(self) -> bool:
        return self.method in ("PUT", "POST", "DELETE")


class _Failed(Exception):
    """One try that failed: what it means, whether another can help, and the pause that was asked for."""

    def __init__(self, error: DalError, *, may_pass: bool, asked_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.may_pass = may_pass
        self.asked_s = asked_s


def base_url(bucket: Bucket) -> str:
    """The address of the bucket itself."""
    endpoint = bucket.endpoint or f"https://s3.{bucket.region}.amazonaws.com"
    if bucket.path_style:
        return f"{endpoint}/{bucket.name}"
    scheme, _, host = endpoint.partition("://")
    return f"{scheme}://{bucket.name}.{host}"


async def _sliced(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), BLOB_BLOCK_BYTES):
        yield content[start : start + BLOB_BLOCK_BYTES]
