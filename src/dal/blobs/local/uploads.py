"""Uploads in parts in a directory each: parts are files of their own, so that any process goes on where one died.

Every function waits for the disk: call it in a thread. FileNotFoundError where the upload is not there.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from dal.blobs.base import BlobInfo, Part, PartialUpload
from dal.blobs.local import faults
from dal.blobs.local.files import Unfinished, open_blob
from dal.blobs.local.tree import Tree
from dal.errors import InvalidInputError
from dal.limits import BLOB_BLOCK_BYTES
from dal.values import Clock

_ABOUT: Final = "upload"
_IS_ID: Final = re.compile("[0-9a-f]{32}").fullmatch
_IS_PART: Final = re.compile("[0-9]{5}").fullmatch
_READING: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def start(tree: Tree, key: str, content_type: str, clock: Clock) -> str:
    """A new upload's id. Its directory appears with what it says of itself in it."""
    upload_id = secrets.token_hex(16)
    os.mkdir(upload_id, 0o700, dir_fd=tree.unfinished)
    about = {"key": key, "content_type": content_type, "started_at": clock().isoformat()}
    directory = os.open(upload_id, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=tree.unfinished)
    try:
        file = os.open(_ABOUT, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        with os.fdopen(file, "wb") as stream:
            stream.write(json.dumps(about).encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.fsync(directory)
    finally:
        os.close(directory)
    faults.reach("upload.starting")
    os.rename(upload_id, upload_id, src_dir_fd=tree.unfinished, dst_dir_fd=tree.uploads)
    os.fsync(tree.uploads)
    return upload_id


def content_type(tree: Tree, key: str, upload_id: str) -> str:
    """What the blob will be; FileNotFoundError where this upload is not there, or is another key's."""
    about = _about(tree, upload_id)
    if about["key"] != key:
        raise FileNotFoundError(upload_id)
    return about["content_type"]


def place_part(tree: Tree, upload_id: str, number: int, unfinished: Unfinished) -> Part:
    """Makes a written file the part of that number, in the place of one that was there."""
    with tree.upload(upload_id) as directory:
        return _part(number, unfinished.place(directory, f"{number:05}", f"part {number}", content_type=""))


def parts(tree: Tree, upload_id: str) -> list[Part]:
    """The parts that arrived, by number."""
    found = []
    with tree.upload(upload_id) as directory:
        for name in sorted(filter(_IS_PART, os.listdir(directory))):
            descriptor, info = open_blob(directory, name, f"part {int(name)}")
            os.close(descriptor)
            found.append(_part(int(name), info))
    return found


def content(tree: Tree, upload_id: str, chosen: Sequence[Part]) -> Generator[bytes, None, None]:
    """What the parts hold, one after another, in blocks. InvalidInputError: a part is not there as it is named."""
    with tree.upload(upload_id) as directory:
        for part in chosen:
            yield from _blocks(directory, part)


def abort(tree: Tree, upload_id: str) -> None:
    """Forgets an upload: its directory goes at once, as a whole, and then what is in it."""
    with suppress(FileNotFoundError):
        os.rename(upload_id, upload_id, src_dir_fd=tree.uploads, dst_dir_fd=tree.unfinished)
        os.fsync(tree.uploads)
        faults.reach("upload.forgotten")
        remove_directory(upload_id, tree.unfinished)


def uploads(tree: Tree, prefix: str) -> Iterator[PartialUpload]:
    """Uploads whose keys begin so, in no order."""
    for upload_id in filter(_IS_ID, os.listdir(tree.uploads)):
        with suppress(FileNotFoundError):
            about = _about(tree, upload_id)
            if about["key"].startswith(prefix):
                yield PartialUpload(about["key"], upload_id, datetime.fromisoformat(about["started_at"]))


def remove_leftovers(tree: Tree, older_than_s: float, clock: Clock) -> int:
    """Takes away what processes that died were writing; how many files and directories that were."""
    removed = 0
    oldest = clock().timestamp() - older_than_s
    for name in os.listdir(tree.unfinished):
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=tree.unfinished, follow_symlinks=False)
            if status.st_mtime < oldest:
                if stat.S_ISDIR(status.st_mode):
                    remove_directory(name, tree.unfinished)
                else:
                    os.unlink(name, dir_fd=tree.unfinished)
                removed += 1
    return removed


def remove_directory(name: str, above: int) -> None:
    """A directory of files, with them."""
    with suppress(FileNotFoundError):
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            for file in os.listdir(directory):
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=directory)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=above)


def _about(tree: Tree, upload_id: str) -> dict[str, str]:
    if not _IS_ID(upload_id):
        raise FileNotFoundError(upload_id)
    with tree.upload(upload_id) as directory:
        descriptor = os.open(_ABOUT, _READING, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as stream:
            about: dict[str, str] = json.loads(stream.read())
    return about


def _blocks(directory: int, part: Part) -> Iterator[bytes]:
    try:
        descriptor, info = open_blob(directory, f"{part.number:05}", f"part {part.number}")
    except FileNotFoundError:
        raise InvalidInputError(f"complete: part {part.number} did not arrive") from None
    try:
        if _part(part.number, info) != part:
            raise InvalidInputError(f"complete: part {part.number} did not arrive as it is named here; list the parts")
        position = 0
        while block := os.pread(descriptor, min(BLOB_BLOCK_BYTES, part.size - position), position):
            yield block
            position += len(block)
    finally:
        os.close(descriptor)


def _part(number: int, info: BlobInfo) -> Part:
    return Part(number, info.size, (info.checksum or "").removeprefix("sha256:"))
