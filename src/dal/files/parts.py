"""Uploads in parts: begun, sent in any order by any process, gone on with after a crash, completed or aborted.

What of it arrived is known by the blob store, where that can tell (`capabilities.list_parts`), and by one row a part.
Where the whole size is known its room is reserved at the start; else each part reserves its own before it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from dal.blobs.base import BINARY, Part, SignedRequest
from dal.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from dal.file_models import Caller, MultipartUpload, UploadPart
from dal.file_tables import MULTIPART_PARTS
from dal.files.core import Core, Operation
from dal.files.entering import NewFile
from dal.files.incoming import Content, Incoming
from dal.files.names import display_name
from dal.files.reservations import Reservations, UploadRow, no_upload
from dal.files.rights import check_owner
from dal.files.sniffing import check_declared, essence_of
from dal.files.storing import unseen_key
from dal.limits import FILE_COMMIT_TRIES, FILE_PART_BYTES, FILE_UPLOAD_LIFE_S, MAX_INT32, MAX_INT64, MAX_KEY_CHARS
from dal.models import build
from dal.ops import Compare, Guard, JsonValue, Op, Select, Update, Value
from dal.repositories.base import known_id, whole_row
from dal.values import check_int, check_object, check_text, seconds_of

#: The tag of a part that has room but did not arrive yet.
_PENDING: Final = "-"


class _Known(NamedTuple):
    """A part's row."""

    id: str
    size: int
    etag: str
    version: int


class Parts:
    """Begins uploads in parts, takes their parts, and tells of them."""

    def __init__(self, core: Core, reservations: Reservations) -> None:
        self._core = core
        self._reservations = reservations

    async def start(
        self,
        user_id: str,
        filename: str,
        *,
        mime_type: str | None,
        total_size: int | None,
        part_size: int | None,
        metadata: dict[str, JsonValue] | None,
        checksum: str | None,
        by: Caller | None,
    ) -> MultipartUpload:
        """See `Files.start_upload`."""
        async with self._core.operation("start_upload", by) as operation:
            blobs = self._core.blobs
            owner = operation.owner = self._core.owner(user_id)
            check_owner(by, owner)
            declared = check_declared(mime_type)
            if total_size is not None:
                check_announced(self._core, "total_size", total_size)
            part_size = self._part_size(total_size, part_size)
            operation.file_id = self._core.new_id()
            new = NewFile(
                operation.file_id,
                owner,
                display_name(filename),
                declared or BINARY,
                check_object("metadata", metadata),
            )
            key = unseen_key(self._core)
            session: dict[str, JsonValue] = {"kind": "parts", "checksum": check_checksum(checksum)}
            session["upload"] = await blobs.start_parts(key, content_type=essence_of(declared or BINARY))
            try:
                row = await self._reservations.begin(
                    new,
                    key,
                    total_size or 0,
                    status="active",
                    total_size=total_size,
                    part_size=part_size,
                    session=session,
                    expires_in_s=FILE_UPLOAD_LIFE_S,
                    also=(operation.entry(),),
                )
            except BaseException:
                await blobs.abort_parts(key, str(session["upload"]))
                raise
            operation.is_logged = True
            return record_of_upload(row)

    async def upload_part(
        self, upload_id: str, part_number: int, data: Content, *, size: int | None, by: Caller | None
    ) -> UploadPart:
        """See `Files.upload_part`."""
        async with self._core.operation("upload_part", by) as operation:
            row = await active(self._core, self._reservations, operation, upload_id, "parts")
            check_int("part_number", part_number, 1, self._core.blobs.capabilities.max_parts)
            incoming = await Incoming.of(data, max_bytes=self._core.blobs.capabilities.max_part_bytes)
            try:
                size = self._size_of(row, part_number, incoming.size if incoming.size is not None else size)
                known = await self._reserve(row, part_number, size)
                content = incoming.whole if incoming.whole is not None else incoming.stream()
                with incoming.told():
                    part = await self._core.blobs.put_part(
                        row.storage_key, str(row.session["upload"]), part_number, content, size=size
                    )
            finally:
                operation.bytes = incoming.passed
                await incoming.close()
            return await self._note(operation, row, part, incoming.checksum, known)

    async def presign(
        self, upload_id: str, part_number: int, *, size: int | None, expires_in: float | timedelta, by: Caller | None
    ) -> SignedRequest:
        """See `Files.presign_part`."""
        async with self._core.operation("presign_part", by) as operation:
            row = await active(self._core, self._reservations, operation, upload_id, "parts")
            check_int("part_number", part_number, 1, self._core.blobs.capabilities.max_parts)
            size = self._size_of(row, part_number, size)
            request = await self._core.blobs.presign(
                "PUT",
                row.storage_key,
                expires_in=seconds_of("expires_in", expires_in),
                size=size,
                upload_id=str(row.session["upload"]),
                part_number=part_number,
            )
            await self._reserve(row, part_number, size)
            return request

    async def abort(self, upload_id: str, *, by: Caller | None) -> bool:
        """See `Files.abort_upload`."""
        async with self._core.operation("abort_upload", by) as operation:
            try:
                row = await active(self._core, self._reservations, operation, upload_id)
            except NotFoundError as error:
                operation.end(error)
                return False
            if not await self._reservations.release(row, "aborted", operation.entry()):
                return False
            operation.is_logged = True
            await forget(self._core, row)
            return True

    async def list(self, upload_id: str, *, by: Caller | None) -> list[UploadPart]:
        """See `Files.list_parts`."""
        async with self._core.operation("list_parts", by) as operation:
            row = await active(self._core, self._reservations, operation, upload_id, "parts")
            rows = await self._rows(row.id)
            if not self._core.blobs.capabilities.list_parts:
                return [part for part in rows.values() if part.etag != _PENDING]
            now = self._core.now()
            arrived = await self._core.blobs.list_parts(row.storage_key, str(row.session["upload"]))
            return [
                rows[part.number]
                if part.number in rows and rows[part.number].etag == part.etag
                else UploadPart(part_number=part.number, size=part.size, etag=part.etag, created_at=now)
                for part in arrived
            ]

    async def arrived(self, row: UploadRow, tags: Mapping[int, str]) -> Sequence[Part]:
        """The parts of which the blob is to be made. Raises InvalidInputError: some are missing.

        tags  what the blob store answered to signed parts, by number, for one that does not list parts.
        """
        if self._core.blobs.capabilities.list_parts:
            parts = await self._core.blobs.list_parts(row.storage_key, str(row.session["upload"]))
        else:
            rows = await self._rows(row.id)
            known = {p.part_number: Part(p.part_number, p.size, p.etag) for p in rows.values()}
            for number, etag in tags.items():
                size = known[number].size if number in known else self._size_of(row, number, None)
                known[number] = Part(number, size, etag)
            parts = [part for _, part in sorted(known.items()) if part.etag != _PENDING]
        if row.total_size is not None and row.part_size is not None:
            count = _count(row.total_size, row.part_size)
            missing = set(range(1, count + 1)) - {part.number for part in parts}
            if missing:
                raise InvalidInputError(
                    f"files: {len(missing)} of {count} parts are missing, the first is number {min(missing)}"
                )
        if not parts:
            raise InvalidInputError("files: no part has arrived; send one, of 0 bytes for an empty file")
        return parts

    # -- sizes and room

    def _part_size(self, total: int | None, wanted: int | None) -> int | None:
        """The size of every part but the last; None where parts may have any."""
        can = self._core.blobs.capabilities
        if wanted is None:
            if total is None and not can.equal_parts:
                return None
            least = FILE_PART_BYTES if total is None else -(-total // can.max_parts)
            return min(max(FILE_PART_BYTES, can.min_part_bytes, least), can.max_part_bytes)
        check_int("part_size", wanted, can.min_part_bytes, can.max_part_bytes)
        if total is not None and _count(total, wanted) > can.max_parts:
            raise LimitExceededError(f"part_size: {total} bytes would be more than {can.max_parts} parts of {wanted}")
        return wanted

    def _size_of(self, row: UploadRow, number: int, size: int | None) -> int:
        """The size of this part. Raises InvalidInputError: it cannot be, or nobody knows."""
        if size is not None:
            check_int("size", size, 0, self._core.blobs.capabilities.max_part_bytes)
        if row.total_size is not None and row.part_size is not None:
            count = _count(row.total_size, row.part_size)
            if number > count:
                raise InvalidInputError(f"part_number: {number}, the upload has {count} parts")
            expected = row.part_size if number < count else row.total_size - (count - 1) * row.part_size
            if size is not None and size != expected:
                raise InvalidInputError(f"part {number}: found {size} bytes, it has to have {expected}")
            return expected
        if size is None:
            raise InvalidInputError("size: how many bytes the part has must be known before it is sent; give it")
        if row.part_size is not None and size > row.part_size:
            raise InvalidInputError(f"part {number}: found {size} bytes, at most {row.part_size} in this upload")
        return size

    async def _reserve(self, row: UploadRow, number: int, size: int) -> _Known | None:
        """Room for a part of an upload of unknown size, taken once however often the part is sent; its row."""
        known = await self._known(row.id, number)
        if row.total_size is not None or (known is not None and known.size >= size):
            return known
        more = size - (0 if known is None else known.size)
        if row.reserved_bytes + more > self._core.options.max_file_bytes:
            raise LimitExceededError(f"files: more than the {self._core.options.max_file_bytes} bytes a file may have")
        await self._reservations.add(row, more)
        try:
            if known is None:
                await self._core.store.commit((self._insert(row.id, Part(number, size, _PENDING), None),))
            else:
                guard = Guard("multipart_parts", {"id": known.id}, {"version": known.version})
                await self._core.store.commit(
                    (guard, Update("multipart_parts", {"id": known.id}, {"size": size}, {"version": 1}))
                )
        except (AlreadyExistsError, ConflictError):
            pass  # the same part is being sent twice at once: its room is taken twice, until the upload ends
        return await self._known(row.id, number)

    # -- rows of parts

    async def _note(
        self, operation: Operation, row: UploadRow, part: Part, checksum: str, known: _Known | None
    ) -> UploadPart:
        """Writes down that a part arrived, in one commit with the log."""
        operation.metadata["part"] = part.number
        for _ in range(FILE_COMMIT_TRIES):
            is_new = known is None or known.etag == _PENDING
            ops: list[Op] = [Guard("multipart_uploads", {"id": row.id}, {"status": "active"})]
            if known is None:
                ops.append(self._insert(row.id, part, checksum))
            else:
                values: dict[str, Value] = {"size": part.size, "etag": part.etag, "checksum": checksum}
                ops.append(Guard("multipart_parts", {"id": known.id}, {"version": known.version}))
                ops.append(Update("multipart_parts", {"id": known.id}, values, {"version": 1}))
            now = self._core.now()
            add = {"parts_uploaded": int(is_new), "version": 1}
            ops += [Update("multipart_uploads", {"id": row.id}, {"updated_at": now}, add), operation.entry()]
            try:
                await self._core.store.commit(ops)
            except (AlreadyExistsError, ConflictError) as error:
                last = error
                found = await self._reservations.find(row.id)
                if found is None or found.status != "active":
                    raise no_upload(row.id) from error
                known = await self._known(row.id, part.number)
                continue
            operation.is_logged = True
            return UploadPart(
                part_number=part.number, size=part.size, etag=part.etag, checksum=checksum, created_at=now
            )
        raise last

    def _insert(self, upload_id: str, part: Part, checksum: str | None) -> Op:
        return whole_row(
            MULTIPART_PARTS,
            {
                "id": self._core.new_id(),
                "upload_id": upload_id,
                "part_number": part.number,
                "size": part.size,
                "etag": part.etag,
                "checksum": checksum,
                "created_at": self._core.now(),
                "version": 1,
            },
        )

    async def _known(self, upload_id: str, number: int) -> _Known | None:
        where = (Compare("upload_id", "=", upload_id), Compare("part_number", "=", number))
        rows = await self._core.store.read(
            Select("multipart_parts", where, limit=1, columns=("id", "size", "etag", "version"))
        )
        return _Known(*rows[0]) if rows else None  # type: ignore[arg-type]  # the columns' kinds

    async def _rows(self, upload_id: str) -> dict[int, UploadPart]:
        columns = ("part_number", "size", "etag", "checksum", "created_at")
        where = (Compare("upload_id", "=", upload_id),)
        rows = await self._core.store.read(Select("multipart_parts", where, ("part_number",), columns=columns))
        return {row[0]: build(UploadPart, zip(columns, row, strict=True)) for row in rows}  # type: ignore[misc]


async def active(
    core: Core, reservations: Reservations, operation: Operation, upload_id: str, kind: str | None = None
) -> UploadRow:
    """The row of an upload under way, for a caller whose it is.

    Raises NotFoundError: none under way; AccessDeniedError: for a caller, the same, and somebody else's.
    """
    _ = core.blobs
    key = known_id("upload_id", upload_id)
    row = None if key is None else await reservations.find(key)
    is_there = row is not None and row.status == "active" and row.values["expires_at"] > core.now()  # type: ignore[operator]
    by = operation.by
    if row is not None:
        operation.file_id = row.new.id
        operation.metadata["upload"] = row.id
    if by is not None and (row is None or by.user_id != row.new.user_id):
        raise AccessDeniedError("files: there is no such upload, or it is somebody else's")
    if row is None or not is_there:
        raise no_upload(upload_id)
    operation.owner = row.new.user_id
    if kind is not None and row.session.get("kind") != kind:
        raise InvalidInputError("files: this upload is one signed request, not parts; send it, then complete_upload")
    return row


async def forget(core: Core, row: UploadRow) -> None:
    """Removes what an ended upload left in the blob store."""
    if row.session.get("kind") == "parts":
        await core.blobs.abort_parts(row.storage_key, str(row.session["upload"]))
    await core.blobs.delete((row.storage_key,))


def record_of_upload(row: UploadRow) -> MultipartUpload:
    """The record that callers get of an upload."""
    values = {**row.values, "upload_id": row.id}
    return build(MultipartUpload, {name: values[name] for name in MultipartUpload.model_fields})


def check_announced(core: Core, name: str, size: int) -> None:
    """The size of a file that is to come. Raises InvalidInputError, LimitExceededError."""
    check_int(name, size, 0, MAX_INT64)
    most = min(core.options.max_file_bytes, core.blobs.capabilities.max_bytes)
    if size > most:
        raise LimitExceededError(f"{name}: {size} bytes, at most {most} allowed")


def check_checksum(checksum: str | None) -> str | None:
    """`sha256:` and 64 hexadecimal digits, or None."""
    if checksum is None:
        return None
    digits = checksum.removeprefix("sha256:") if isinstance(checksum, str) else ""
    if len(digits) != 64 or set(digits) - set("0123456789abcdef") or digits == checksum:
        raise InvalidInputError("checksum: expected 'sha256:' and 64 hexadecimal digits, in lower case")
    return checksum


def check_etags(etags: Mapping[int, str] | None) -> dict[int, str]:
    """The tags of signed parts, by number."""
    return {
        check_int("etags", number, 1, MAX_INT32): check_text("etags", etag, max_chars=MAX_KEY_CHARS).strip('"')
        for number, etag in (etags or {}).items()
    }


def _count(total: int, part_size: int) -> int:
    return max(1, -(-total // part_size))
