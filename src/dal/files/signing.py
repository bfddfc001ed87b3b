"""Signed requests: content goes straight between a client and the blob store, for a while and for one purpose.

Whoever has one needs no other right until it expires: not even a deletion takes it back at once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from dal.blobs.base import BINARY, SignedRequest
from dal.errors import UnsupportedError
from dal.file_models import Caller, MultipartUpload
from dal.files.core import Core
from dal.files.entering import NewFile
from dal.files.keys import STAGED, place_of
from dal.files.names import display_name
from dal.files.parts import check_announced, check_checksum, record_of_upload
from dal.files.reservations import Reservations
from dal.files.rights import check_owner, check_readable, find
from dal.files.sniffing import check_declared, essence_of
from dal.limits import FILE_GRACE_S
from dal.ops import JsonValue
from dal.values import check_object, seconds_of


class SignedUpload(NamedTuple):
    """A request that stores one file's content, and the upload that `complete_upload` makes the file of."""

    upload: MultipartUpload
    request: SignedRequest


class Signing:
    """Signs requests for contents."""

    def __init__(self, core: Core, reservations: Reservations) -> None:
        self._core = core
        self._reservations = reservations

    async def get(self, file_id: str, *, expires_in: float | timedelta, by: Caller | None) -> SignedRequest:
        """See `Files.presign_get`."""
        async with self._core.operation("presign_get", by, file_id) as operation:
            blobs = self._core.blobs
            record = await find(self._core, operation, file_id, "read")
            check_readable(record)
            place = place_of(record.storage_key)
            if place.is_compressed:
                raise UnsupportedError("files: its content is stored compressed and can only be read by `files.open`")
            request = await blobs.presign(
                "GET", place.blob_key, expires_in=seconds_of("expires_in", expires_in), filename=record.filename
            )
            operation.metadata["expires_at"] = request.expires_at.isoformat()
            return request

    async def put(
        self,
        user_id: str,
        filename: str,
        *,
        size: int,
        mime_type: str | None,
        checksum: str | None,
        metadata: dict[str, JsonValue] | None,
        expires_in: float | timedelta,
        by: Caller | None,
    ) -> SignedUpload:
        """See `Files.presign_put`."""
        async with self._core.operation("presign_put", by) as operation:
            core, blobs = self._core, self._core.blobs
            owner = operation.owner = core.owner(user_id)
            check_owner(by, owner)
            check_announced(core, "size", size)
            declared = check_declared(mime_type)
            operation.file_id = core.new_id()
            name, document = display_name(filename), check_object("metadata", metadata)
            new = NewFile(operation.file_id, owner, name, declared or BINARY, document)
            key = f"{STAGED}{core.new_id()}"
            life_s = seconds_of("expires_in", expires_in)
            request = await blobs.presign(
                "PUT", key, expires_in=life_s, size=size, content_type=essence_of(declared or BINARY)
            )
            operation.metadata["expires_at"] = request.expires_at.isoformat()
            row = await self._reservations.begin(
                new,
                key,
                size,
                status="active",
                total_size=size,
                session={"kind": "put", "checksum": check_checksum(checksum)},
                expires_in_s=life_s + FILE_GRACE_S,
                also=(operation.entry(),),
            )
            operation.is_logged = True
            return SignedUpload(record_of_upload(row), request)
