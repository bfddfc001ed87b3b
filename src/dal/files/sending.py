"""What `dal.files` offers of contents that do not come whole: signed requests, and uploads in parts."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import timedelta

from dal.blobs.base import SignedRequest
from dal.file_models import Caller, MultipartUpload, UploadPart
from dal.files.completing import Completing
from dal.files.incoming import Content
from dal.files.parts import Parts
from dal.files.signing import SignedUpload, Signing
from dal.models import FileRecord, Page
from dal.ops import JsonValue
from dal.repositories.multipart_uploads import MultipartUploads


class Sending:
    """Signs requests, and takes files in parts."""

    _completing: Completing
    _parts: Parts
    _signing: Signing
    _uploads: MultipartUploads

    async def presign_get(
        self, file_id: str, *, expires_in: float | timedelta, by: Caller | None = None
    ) -> SignedRequest:
        """A request that gives the content to whoever has it, for `expires_in` seconds (1..604800), or a timedelta.

        The answer offers itself as a download of the file's name. Raises as `open`; UnsupportedError: the blob store
        cannot sign, or the content is compressed.
        """
        return await self._signing.get(file_id, expires_in=expires_in, by=by)

    async def presign_put(
        self,
        user_id: str,
        filename: str,
        *,
        size: int,
        mime_type: str | None = None,
        checksum: str | None = None,
        metadata: dict[str, JsonValue] | None = None,
        expires_in: float | timedelta,
        by: Caller | None = None,
    ) -> SignedUpload:
        """A request by which somebody stores exactly `size` bytes, and the upload that becomes the file: room is
        reserved now; after the bytes were sent, `complete_upload` looks at them and makes the file.

        Raises as `upload`; UnsupportedError: the blob store cannot sign.
        """
        return await self._signing.put(
            user_id,
            filename,
            size=size,
            mime_type=mime_type,
            checksum=checksum,
            metadata=metadata,
            expires_in=expires_in,
            by=by,
        )

    async def start_upload(
        self,
        user_id: str,
        filename: str,
        *,
        mime_type: str | None = None,
        total_size: int | None = None,
        part_size: int | None = None,
        metadata: dict[str, JsonValue] | None = None,
        checksum: str | None = None,
        by: Caller | None = None,
    ) -> MultipartUpload:
        """A new upload in parts, to be completed within a day.

        total_size  bytes, reserved now; None: each part reserves its own.
        part_size   of every part but the last; None chooses (`part_size` of the answer; None there: any size).
        checksum    `sha256:…` of the whole, compared at the end.
        Raises      as `upload`.
        """
        return await self._parts.start(
            user_id,
            filename,
            mime_type=mime_type,
            total_size=total_size,
            part_size=part_size,
            metadata=metadata,
            checksum=checksum,
            by=by,
        )

    async def upload_part(
        self, upload_id: str, part_number: int, data: Content, *, size: int | None = None, by: Caller | None = None
    ) -> UploadPart:
        """Stores one part: any order, any process, at once or after a crash; the same number again replaces it.

        part_number  from 1.
        size         bytes, where `data` is an iterator of more than 1 MiB and the upload does not say.
        Raises       NotFoundError: no such upload under way. InvalidInputError: a size that cannot be.
        """
        return await self._parts.upload_part(upload_id, part_number, data, size=size, by=by)

    async def presign_part(
        self,
        upload_id: str,
        part_number: int,
        *,
        expires_in: float | timedelta,
        size: int | None = None,
        by: Caller | None = None,
    ) -> SignedRequest:
        """A request by which somebody sends one part. size: bytes, where the upload does not say."""
        return await self._parts.presign(upload_id, part_number, size=size, expires_in=expires_in, by=by)

    async def complete_upload(
        self,
        upload_id: str,
        *,
        checksum: str | None = None,
        etags: Mapping[int, str] | None = None,
        by: Caller | None = None,
    ) -> FileRecord:
        """The file of what was sent, in parts or by a signed request. A repeat gives the same file.

        etags   by part number, the `ETag` headers that answered signed parts: needed where the blob store does not list
                parts (`capabilities.list_parts`).
        The content is read back once for its type and SHA-256: constant memory, and the time of one download. It is not
        compressed; with `deduplicate` equal content that is there takes its place.
        Raises  NotFoundError: no such upload, or nothing was sent. InvalidInputError: parts are missing (send them).
                InvalidInputError, CorruptDataError: not what was announced or is allowed; the upload is then over and
                nothing of it kept.
        """
        return await self._completing.complete(upload_id, checksum=checksum, etags=etags, by=by)

    async def abort_upload(self, upload_id: str, *, by: Caller | None = None) -> bool:
        """Gives an upload up, its room and its parts: True if it was under way."""
        return await self._parts.abort(upload_id, by=by)

    async def list_uploads(
        self, *, user_id: str | None = None, status: str = "active", limit: int = 50, after: str | None = None
    ) -> Page[MultipartUpload]:
        """A page of uploads in parts and by signed requests, newest first. limit: 1..1000."""
        return await self._uploads.list(user_id=user_id, status=status, limit=limit, after=after)

    async def list_parts(self, upload_id: str, *, by: Caller | None = None) -> builtins.list[UploadPart]:
        """The parts that arrived, by number: what to go on from."""
        return await self._parts.list(upload_id, by=by)
