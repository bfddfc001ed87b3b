"""What a blob store is: bytes under keys, written whole or in parts, read in ranges, listed in order.

A key is 1..1024 bytes of `a-z A-Z 0-9 / . _ -`, without empty, `.` or `..` segments: the library makes keys, people's
file names never become one. A blob is written whole or not at all, and replaced as a whole. Data is bytes or an async
iterator of them, taken as it comes: memory is bounded whatever the size. Errors are those of `dal.errors`:

    NotFoundError       no blob, or no upload in parts, has this name.
    AlreadyExistsError  `if_absent` was asked, and the key is taken.
    CorruptDataError    what arrived is not what the checksum or the size says; nothing was stored.
    UnavailableError    no answer, or the server asks to come back later (retryable); the store is not open (not so).
    UnsupportedError    this blob store cannot do that; `capabilities` says so before.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

Data: TypeAlias = bytes | AsyncIterable[bytes]
Method = Literal["GET", "PUT"]
#: The media type of what says nothing of itself.
BINARY: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobCapabilities:
    """What a blob store can do, and its limits, as data. Sizes are bytes.

    backend         its name, as errors carry it: `file`, `s3`, `memory`.
    shared          several processes see the same blobs.
    presign         `presign` gives URLs that anybody may use until they expire.
    if_absent       `put` and `complete_parts` can refuse to replace a blob.
    list_parts      `list_parts` and `list_uploads` know what arrived; else the caller must keep the answers.
    equal_parts     all parts but the last must have one size (R2).
    min_part_bytes  every part but the last has at least so many; 1 for no limit.
    hashes          it tells the SHA-256 of every blob itself, also of one made of parts.
    max_part_bytes, max_parts, max_bytes  of one part, of one upload in parts, of one blob.
    """

    backend: str
    shared: bool
    presign: bool
    if_absent: bool
    list_parts: bool
    equal_parts: bool
    min_part_bytes: int
    max_part_bytes: int
    max_parts: int
    max_bytes: int
    hashes: bool = False


class BlobInfo(NamedTuple):
    """What is known of a blob. `checksum` is `sha256:…` where the store keeps it, else None; times are UTC."""

    key: str
    size: int
    modified_at: datetime
    content_type: str | None = None
    checksum: str | None = None
    etag: str | None = None


class Part(NamedTuple):
    """One part of an upload: its number from 1, its bytes, and the tag by which it is named at the end."""

    number: int
    size: int
    etag: str


class PartialUpload(NamedTuple):
    """An upload in parts that is neither complete nor aborted."""

    key: str
    upload_id: str
    started_at: datetime


class SignedRequest(NamedTuple):
    """A request that is allowed by its URL alone until `expires_at`. Its headers are to be sent as they are."""

    method: Method
    url: str
    headers: Mapping[str, str]
    expires_at: datetime


class Pieces(Protocol):
    """Bytes as they come: an async iterator that lets go of its file or connection at its end, or by `aclose`."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


class Reading(NamedTuple):
    """A blob opened for reading: what it is (the whole blob, whatever the range), and its bytes in pieces.

    Pieces are of at most a few hundred KiB. `data` must be read to its end or closed: `async with reading:` does.
    What fails on the way is raised by the iterator, as an error of `dal.errors`; bytes that came are right.
    """

    info: BlobInfo
    data: Pieces

    async def __aenter__(self) -> Reading:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.data.aclose()

    async def read(self) -> bytes:
        """All of it at once, for what is known to be small."""
        async with self:
            return b"".join([piece async for piece in self.data])


class BlobStore(Protocol):
    """Bytes under keys. Safe for concurrent use by many tasks of one event loop."""

    @property
    def capabilities(self) -> BlobCapabilities: ...

    async def open(self) -> None:
        """Makes the store ready; a second call does nothing."""

    async def close(self) -> None:
        """Lets go of everything; a second call does nothing."""

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
        """Stores a blob, durable on return. What is told of it has its checksum, also where `head` knows none.

        size       bytes, where they are known: another length is refused (CorruptDataError).
        checksum   `sha256:…` of what is coming, where it is known: other bytes are refused.
        if_absent  AlreadyExistsError where the key is taken. UnsupportedError: see `capabilities.if_absent`.
        """

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Reading:
        """Bytes `start` up to, not including, `end`; None, or an end beyond it, is the blob's own.

        What is replaced or deleted while it is read is read on as it was, or UnavailableError says that it is gone.
        Raises  NotFoundError: no such blob.  InvalidInputError: `end` before `start`, or `start` beyond the blob.
        """

    async def head(self, key: str) -> BlobInfo | None:
        """What is known of a blob, or None."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes blobs; one that is not there is no error."""

    def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[BlobInfo]:
        """Blobs whose keys begin with `prefix` and come after `after`, in the order of their keys' bytes."""

    async def copy(self, source: str, target: str) -> BlobInfo:
        """Copies a blob within the store, on the server where it can."""

    # -- uploads in parts

    async def start_parts(self, key: str, *, content_type: str = BINARY, checksum: str | None = None) -> str:
        """The id of a new upload in parts.

        checksum  `sha256:…` of the whole, where it is known: a store that does not hash the whole itself keeps it with
                  the blob, and believes it. Whoever gives it sees to it that it is right, before completing.
        """

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        """Stores one part, in any order, from any process; the same number again replaces it."""

    async def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        """The parts that arrived, by number. UnsupportedError: see `capabilities.list_parts`."""

    async def complete_parts(
        self, key: str, upload_id: str, parts: Sequence[Part], *, if_absent: bool = False
    ) -> BlobInfo:
        """Makes the blob of these parts.

        if_absent  AlreadyExistsError where the key is taken; the upload is there still.
        Raises     NotFoundError: the upload is not there: completed, aborted or expired.  InvalidInputError: parts that
                   did not arrive, or that the store's rules forbid.
        """

    async def abort_parts(self, key: str, upload_id: str) -> None:
        """Forgets an upload and its parts; one that is not there is no error."""

    def list_uploads(self, prefix: str = "") -> AsyncIterator[PartialUpload]:
        """Uploads in parts that are neither complete nor aborted. UnsupportedError: see `capabilities.list_parts`."""

    # -- requests signed for others

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
        """A request that is allowed without credentials for `expires_in` seconds (1..604800).

        PUT    with `size` and `content_type` where given: a request with others is refused. With `upload_id` and
               `part_number` it stores a part.
        GET    with `filename`, the answer offers itself as a download of this name.
        Raises UnsupportedError: see `capabilities.presign`.
        """

    async def health(self) -> str | None:
        """None, or a sentence about what is wrong. Never raises."""
