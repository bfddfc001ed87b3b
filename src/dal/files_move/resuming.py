"""Large blobs on their way in parts, noted in the target, so that a move that was killed goes on behind what arrived.

A note says what the source held when the upload began, and of each part its SHA-256 and the tag that the target gave
it. It stands before the upload is begun and goes when that is over, so nothing is left of which nobody knows.

The checksum of the whole does not follow from those of its parts. Where the target tells it of what it has stored, and
it is known before what it should be, the source is read on from there. Else it is read from its beginning, and a part
counts as sent where the target has it as it is noted, and the source still gives its bytes; so what was read wrong once
is sent again. What has arrived is neither sent again nor held up by the throttle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, cast

import orjson

from dal.blobs.base import BlobInfo, BlobStore, Part
from dal.blobs.data import blocks, sha256
from dal.errors import AlreadyExistsError, CorruptDataError, InvalidInputError, NotFoundError, UnavailableError
from dal.files.keys import MOVER_UPLOADS, mover_note
from dal.files_move.side_by_side import side_by_side
from dal.files_move.throttle import OnBytes, Throttle
from dal.limits import CONTENTS_NOTE_S, S3_PART_BYTES

_MIB: Final = 1024 * 1024
#: What changes when a blob is replaced: its size, time and tag.
Version: TypeAlias = tuple[int, str, str | None]


class Sent(NamedTuple):
    """A part as the target named it, and the SHA-256 of its bytes in hexadecimal."""

    part: Part
    digest: str


@dataclass(slots=True, kw_only=True)
class Note:
    """What is remembered of one upload. `upload_id` is None until one is known to have begun."""

    key: str
    version: Version
    part_bytes: int
    upload_id: str | None = None
    sent: dict[int, Sent] = field(default_factory=dict)

    def dump(self) -> bytes:
        parts = [[*sent.part, sent.digest] for sent in self.sent.values()]
        return orjson.dumps([self.key, self.version, self.part_bytes, self.upload_id, parts])

    @classmethod
    def load(cls, data: bytes) -> Note:
        """Raises ValueError: it is none."""
        key, version, part_bytes, upload_id, parts = orjson.loads(data)
        sent = {number: Sent(Part(number, size, etag), digest) for number, size, etag, digest in parts}
        return cls(key=key, version=tuple(version), part_bytes=part_bytes, upload_id=upload_id, sent=sent)


async def abandon_uploads(target: BlobStore) -> None:
    """Aborts every upload that moves into this store have begun and not ended."""
    for key in [info.key async for info in target.list(MOVER_UPLOADS)]:
        await _abandon(target, key, await _read(target, key))


class Sending:
    """One upload of what the source holds now, gone on with where there is one.

    on_bytes  is told of each part when the target has it.
    Raises    UnavailableError: the target did not answer, or has forgotten the upload; the next try goes on, or begins
              anew.
    """

    def __init__(self, target: BlobStore, info: BlobInfo, throttle: Throttle, on_bytes: OnBytes) -> None:
        self._target = target
        self._throttle = throttle
        self._on_bytes = on_bytes
        self._place = mover_note(info.key)
        smallest = -(-info.size // target.capabilities.max_parts)
        self.part_bytes = max(S3_PART_BYTES, -(-smallest // _MIB) * _MIB)
        self._note = Note(key=info.key, version=version_of(info), part_bytes=self.part_bytes)
        self._arrived: dict[int, Sent] = {}
        self._upload_id = ""
        self._noting = asyncio.Lock()
        self._noted_at = -inf

    async def begin(self, content_type: str, checksum: str | None) -> int:
        """How many bytes from the beginning on have arrived."""
        found = await _read(self._target, self._place)
        if found is not None and (found.key, found.version, found.part_bytes) == self._same:
            arrived = await self._what_arrived(found)
            if arrived is not None:
                self._upload_id = self._note.upload_id = cast(str, found.upload_id)
                self._arrived, self._note.sent = arrived, dict(arrived)
                return self._arrived_bytes()
        await _abandon(self._target, self._place, found)
        await self._write()
        self._upload_id = await self._target.start_parts(self._note.key, content_type=content_type, checksum=checksum)
        self._note.upload_id = self._upload_id
        if not self._target.capabilities.list_parts:  # then nothing else would ever tell of it
            await self._write()
        return 0

    async def send(self, pieces: AsyncIterable[bytes], start: int, *, if_absent: bool) -> BlobInfo:
        """Sends what comes and has not arrived yet; the target's word on the whole.

        pieces  from byte `start` on, which parts that have arrived end before. A CorruptDataError that they end with
                ends the upload too, so that nothing is stored.
        Raises  AlreadyExistsError: `if_absent`, and the target has a blob under its key.
        """
        number = start // self.part_bytes
        if start:
            self._on_bytes(start, is_there=True)
        try:
            async with (
                aclosing(cast(Any, blocks(pieces, self.part_bytes))) as every,
                side_by_side(self._throttle.parts) as go,
            ):
                async for block in every:
                    number += 1
                    await go(partial(self._part, number, block))
        except CorruptDataError:
            await self._abandon()
            raise
        return await self._complete(if_absent=if_absent)

    async def _part(self, number: int, block: bytes) -> None:
        """Sends a part, unless it has arrived before."""
        digest = await sha256(block)
        before = self._arrived.get(number)
        is_there = before is not None and (before.part.size, before.digest) == (len(block), digest)
        if not is_there:
            await self._throttle.passed(len(block))
            try:
                part = await self._target.put_part(self._note.key, self._upload_id, number, block, size=len(block))
            except NotFoundError as error:
                await self._forgotten(error)
            self._note.sent[number] = Sent(part, digest)
            async with self._noting:
                if monotonic() - self._noted_at >= CONTENTS_NOTE_S:
                    await self._write()
        self._on_bytes(len(block), is_there=is_there)

    async def _complete(self, *, if_absent: bool) -> BlobInfo:
        parts = [sent.part for sent in self._note.sent.values()]
        try:
            stored = await self._target.complete_parts(self._note.key, self._upload_id, parts, if_absent=if_absent)
        except AlreadyExistsError:
            await self._abandon()
            raise
        except (NotFoundError, InvalidInputError) as error:
            await self._forgotten(error)
        await self._target.delete([self._place])
        return stored

    async def _abandon(self) -> None:
        await _abandon(self._target, self._place, self._note)

    @property
    def _same(self) -> tuple[str, Version, int]:
        return self._note.key, self._note.version, self._note.part_bytes

    def _arrived_bytes(self) -> int:
        number = 0
        while (sent := self._arrived.get(number + 1)) is not None and sent.part.size == self.part_bytes:
            number += 1
        return number * self.part_bytes

    async def _what_arrived(self, found: Note) -> dict[int, Sent] | None:
        """The parts that the target has as they are noted; None where it has no such upload (any more)."""
        if found.upload_id is None:
            return None
        if not self._target.capabilities.list_parts:
            return found.sent  # completing tells what is not there
        try:
            listed = set(await self._target.list_parts(found.key, found.upload_id))
        except NotFoundError:
            return None
        return {number: sent for number, sent in found.sent.items() if sent.part in listed}

    async def _write(self) -> None:
        self._noted_at = monotonic()
        await self._target.put(self._place, self._note.dump(), content_type="application/json")

    async def _forgotten(self, error: Exception) -> NoReturn:
        """The target has no such upload any more, or other parts: it expired, was swept, or was completed unheard."""
        await self._abandon()
        if await self._target.head(self._note.key) is not None:
            raise AlreadyExistsError(f"{self._note.key} is there already", operation="files.move") from error
        raise UnavailableError(
            f"{self._note.key}: the target knows nothing of what was sent; it is sent again", operation="files.move"
        ) from error


def version_of(info: BlobInfo) -> Version:
    return info.size, info.modified_at.isoformat(), info.etag


async def _read(target: BlobStore, place: str) -> Note | None:
    """The note that lies there; None where there is none, or nothing that can be read."""
    try:
        return Note.load(await (await target.get(place)).read())
    except (NotFoundError, ValueError, TypeError):
        return None


async def _abandon(target: BlobStore, place: str, note: Note | None) -> None:
    """Aborts the upload of a note, and then takes the note away, so that being killed in between does no harm."""
    if note is not None and note.upload_id is not None:
        await target.abort_parts(note.key, note.upload_id)
    elif note is not None and target.capabilities.list_parts:  # killed before its id was noted
        async with aclosing(cast(Any, target.list_uploads(note.key))) as uploads:
            begun = [upload async for upload in uploads]
        for upload in begun:
            if upload.key == note.key:
                await target.abort_parts(upload.key, upload.upload_id)
    if note is not None:
        await target.delete([place])
