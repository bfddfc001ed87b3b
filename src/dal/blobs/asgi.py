"""Serves signed requests for a local blob store: a plain ASGI application for development, without dependencies.

    uvicorn --factory yourmodule:make_app          # make_app returns BlobApp(dal.files.blobs, signer, owner=dal)

GET (with one range), HEAD by a URL that is signed for GET, PUT of a blob or a part. A request whose URL is not signed,
was changed, has expired, is meant for another method, length or media type gets 403 and learns no more. Bodies stream
both ways. In production, files of people are served from S3 or R2, not from the application's own origin.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from email.utils import format_datetime
from typing import Any, Final, Protocol, TypeAlias

from dal.blobs.base import BINARY, BlobInfo, BlobStore
from dal.blobs.signing import Grant, UrlSigner, disposition
from dal.errors import (
    AlreadyExistsError,
    CorruptDataError,
    DalError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)").fullmatch
_DEFAULT_MAX_BYTES: Final = 5 * 1024**3
_STATUS: Final = {
    NotFoundError: 404,
    AlreadyExistsError: 409,
    LimitExceededError: 413,
    InvalidInputError: 400,
    CorruptDataError: 400,
}
#: For whatever people stored: a browser neither guesses at it, nor lets it act on this origin.
_GUARDED: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox",
    "cache-control": "private",
}


class Openable(Protocol):
    """What has a life between these two: a blob store, or a DataAccess."""

    async def open(self) -> object: ...

    async def close(self) -> None: ...


class BlobApp:
    """An ASGI application for the URLs of one UrlSigner. Opens and closes the store with the server's lifespan.

    max_bytes  of one request's body, where the URL names no size.
    owner      what is opened and closed instead of the store: a DataAccess whose `files.blobs` it is, and which records
               what is served as it does its own requests.
    """

    def __init__(
        self,
        store: BlobStore,
        signer: UrlSigner,
        *,
        max_bytes: int = _DEFAULT_MAX_BYTES,
        owner: Openable | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._max_bytes = max_bytes
        self._owner: Openable = store if owner is None else owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except _Gone:
                return  # there is nobody left to answer
            except _Refused as refused:
                await _say(send, refused.status, refused.headers)
            except DalError as error:
                status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 503)
                await _say(send, status, {})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._owner.open()
                except DalError as error:
                    await send({"type": "lifespan.startup.failed", "message": error.message})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._owner.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        # Mounted in another application, `root_path` says where; else the public URL does.
        root = scope.get("root_path") or self._signer.path
        key = scope["path"].removeprefix(root).lstrip("/")
        grant = self._signer.verify(key, scope["query_string"].decode("latin-1"))
        method = scope["method"]
        if grant is None or grant.method != ("GET" if method == "HEAD" else method):
            raise _Refused(403)
        if method == "PUT":
            await self._put(grant, headers, receive, send)
        else:
            await self._get(grant, headers, send, is_head=method == "HEAD")

    async def _get(self, grant: Grant, headers: Mapping[str, str], send: Send, *, is_head: bool) -> None:
        info = await self._store.head(grant.key)
        if info is None:
            raise _Refused(404)
        said = {**_GUARDED, **_about(info, grant)}
        if info.etag and headers.get("if-none-match") == f'"{info.etag}"':
            await _say(send, 304, {**said, "content-length": str(info.size)})
            return
        is_same = headers.get("if-range", f'"{info.etag}"') == f'"{info.etag}"'
        start, end = _range(headers.get("range") if is_same else None, info.size)
        is_part = (start, end) != (0, info.size)
        if is_part:
            said["content-range"] = f"bytes {start}-{end - 1}/{info.size}"
        said["content-length"] = str(end - start)
        if is_head:
            await _say(send, 206 if is_part else 200, said)
            return
        reading = await self._store.get(grant.key, start=start, end=end)
        async with reading:
            if reading.info.etag != info.etag:
                raise _Refused(503)  # replaced between the two looks
            await _begin(send, 206 if is_part else 200, said)
            async for piece in reading.data:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def _put(self, grant: Grant, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        length = headers.get("content-length")
        size = int(length) if length is not None and length.isdecimal() else None
        if grant.size is not None and size != grant.size:
            raise _Refused(403)
        content_type = headers.get("content-type")
        if grant.content_type is not None and content_type != grant.content_type:
            raise _Refused(403)
        if size is not None and size > self._max_bytes and grant.size is None:
            raise _Refused(413)
        body = _body(receive, self._max_bytes if grant.size is None else grant.size)
        if grant.upload_id is not None and grant.part_number is not None:
            if size is None:
                raise _Refused(411)
            part = await self._store.put_part(grant.key, grant.upload_id, grant.part_number, body, size=size)
            etag: str | None = part.etag
        else:
            kind = content_type or BINARY
            etag = (await self._store.put(grant.key, body, size=size, content_type=kind)).etag
        await _say(send, 200, {"etag": f'"{etag}"'})


class _Refused(Exception):  # an answer, not an error
    def __init__(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers or {}


class _Gone(Exception):
    """The client went away in the middle of its body."""


async def _body(receive: Receive, max_bytes: int) -> AsyncIterator[bytes]:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        piece = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise _Refused(413)
        if piece:
            yield piece
        more = message.get("more_body", False)


def _about(info: BlobInfo, grant: Grant) -> dict[str, str]:
    said = {
        "content-type": info.content_type or BINARY,
        "accept-ranges": "bytes",
        "last-modified": format_datetime(info.modified_at, usegmt=True),
    }
    if info.etag is not None:
        said["etag"] = f'"{info.etag}"'
    if grant.filename is not None:
        said["content-disposition"] = disposition(grant.filename)
    return said


def _range(header: str | None, size: int) -> tuple[int, int]:
    """The one range that is asked for; all where none is, or something else. _Refused(416) where there is no such."""
    found = _RANGE(header) if header else None
    if found is None or found.groups() == ("", ""):
        return 0, size
    first, last = found.groups()
    start, end = (int(first), int(last) + 1 if last else size) if first else (max(size - int(last), 0), size)
    if first and last and end <= start:
        return 0, size  # RFC 9110: an invalid range is no range
    if start >= size:
        raise _Refused(416, {"content-range": f"bytes */{size}"})
    return start, min(end, size)


async def _begin(send: Send, status: int, headers: Mapping[str, str]) -> None:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _say(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """An answer without a body."""
    await _begin(send, status, {"content-length": "0", **headers})
    await send({"type": "http.response.body"})
