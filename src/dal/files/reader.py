"""`files.open`: the content of a file as an async reader, whole or a range of it, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from dal.blobs.base import Pieces, Reading
from dal.errors import CorruptDataError, InvalidInputError, NotFoundError
from dal.file_models import Caller
from dal.files.core import Core, Operation
from dal.files.frames import FOOTER_BYTES, Frame, covering, decompressed, read_table, table_bytes
from dal.files.keys import Place, place_of
from dal.files.rights import check_readable, find
from dal.limits import BLOB_PIECE_BYTES, MAX_INT64
from dal.models import FileRecord
from dal.values import check_int


class FileReader:
    """The content of a file, from `start` up to, not including, `end`. One pass, by one task.

    `async with` it, or await it; iterate over it for pieces of at most a few hundred KiB, or `read`. `record` is the
    file's, `size` the bytes that will come. Close it (`aclose`, or the end of `async with`) where it is not read to its
    end: that lets go of the connection and writes the access log.
    """

    def __init__(
        self,
        core: Core,
        file_id: str,
        *,
        start: int,
        end: int | None,
        verify: bool,
        by: Caller | None,
        action: str = "open",
        is_scan: bool = False,
    ) -> None:
        self._core = core
        self._asked = (file_id, start, end, verify, is_scan)
        self._operation = Operation(core, action, by, file_id)
        self._record: FileRecord | None = None
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._left = b""
        self.size = 0

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        if self._record is None:
            try:
                await self._open()
            except BaseException as error:
                self._operation.end(error)
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def record(self) -> FileRecord:
        """The file's record, once it is open."""
        if self._record is None:
            raise InvalidInputError("files.open: not open yet; write `async with dal.files.open(…) as reader`")
        return self._record

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises CorruptDataError, UnavailableError: what came before is right as far as known."""
        await self.__aenter__()
        if self._left:
            piece, self._left = self._left, b""
            return piece
        if self._pieces is None:
            raise StopAsyncIteration
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._pieces = None
            self._operation.end(None)
            raise
        except BaseException as error:
            self._pieces = None
            self._operation.end(error)
            raise

    async def read(self, n: int = -1) -> bytes:
        """The next `n` bytes, fewer at the end and b"" behind it; all that are left where n is negative."""
        check_int("n", n, -MAX_INT64, MAX_INT64)
        pieces, size = [], 0
        while n < 0 or size < n:
            try:
                piece = await self.__anext__()
            except StopAsyncIteration:
                break
            if 0 <= n < size + len(piece):
                piece, self._left = piece[: n - size], piece[n - size :]
            pieces.append(piece)
            size += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        """Lets go of everything; a second call does nothing."""
        pieces, self._pieces, self._left = self._pieces, None, b""
        if pieces is not None:
            await pieces.aclose()
        if self._record is not None:
            self._operation.end(None)

    async def _open(self) -> None:
        file_id, start, end, verify, is_scan = self._asked
        check_int("start", start, 0, MAX_INT64)
        if end is not None:
            check_int("end", end, start, MAX_INT64)
        if verify and (start or end is not None):
            raise InvalidInputError("verify: the checksum is that of the whole content; ask for no range")
        record = await find(self._core, self._operation, file_id, "read")
        if not is_scan:
            check_readable(record)
        if start > record.file_size:
            raise InvalidInputError(f"start: the file has {record.file_size} bytes, none at {start}")
        end = record.file_size if end is None else min(end, record.file_size)
        self.size = end - start
        self._operation.bytes = 0
        place = place_of(record.storage_key)
        if place.is_compressed:
            frames = [] if self.size == record.file_size else await self._table(place)
            first, last, skip = covering(frames, start, end) if frames else (0, None, 0)
            reading = await self._get(place, first, last)
            content: Pieces = decompressed(reading.data, place.blob_key)
        else:
            skip, reading = 0, await self._get(place, start, end)
            content = reading.data
            if reading.info.size != record.file_size:
                await reading.data.aclose()
                raise CorruptDataError(
                    f"files: {record.id} has {record.file_size} bytes by its row, its blob {reading.info.size}"
                )
        self._record = record
        self._pieces = self._passing(reading, content, skip, verify)

    async def _get(self, place: Place, start: int, end: int | None) -> Reading:
        try:
            return await self._core.blobs.get(place.blob_key, start=start, end=end)
        except (NotFoundError, InvalidInputError) as error:  # the range was within the file: the blob is shorter
            raise CorruptDataError(
                f"files: the bytes of {self._asked[0]} are gone, or fewer than its row says; nothing was read"
            ) from error

    async def _table(self, place: Place) -> list[Frame]:
        """The frames of a compressed blob: one look at it and one read, two where there are many."""
        info = await self._core.blobs.head(place.blob_key)
        if info is None or info.size < FOOTER_BYTES:
            raise CorruptDataError(f"files: the bytes of {self._asked[0]} are gone; nothing was read")
        tail = await (await self._get(place, max(0, info.size - BLOB_PIECE_BYTES), None)).read()
        length = table_bytes(tail[-FOOTER_BYTES:], place.blob_key)
        if length > len(tail):
            tail = await (await self._get(place, max(0, info.size - length), None)).read()
        return read_table(tail[-length:], place.blob_key)

    async def _passing(self, reading: Reading, content: Pieces, skip: int, verify: bool) -> AsyncGenerator[bytes, None]:
        """The pieces asked for, counted and, at the end, compared with what the row says."""
        digest, left = hashlib.sha256(), self.size
        async with reading, aclosing(content):
            if left:
                async for piece in content:
                    if skip >= len(piece):
                        skip -= len(piece)
                        continue
                    piece, skip = piece[skip:], 0
                    if len(piece) >= left and not verify:
                        piece = piece[:left]
                    if verify:
                        digest.update(piece)
                    left -= len(piece)
                    self._operation.bytes = (self._operation.bytes or 0) + len(piece)
                    yield piece
                    if left <= 0 and not verify:
                        break
        record = self.record
        if left != 0:
            raise CorruptDataError(f"files: {record.id} has {record.file_size} bytes by its row, its blob does not")
        if verify and record.checksum != f"sha256:{digest.hexdigest()}":
            raise CorruptDataError(f"files: {record.id} is not what was stored: its checksum is another")
