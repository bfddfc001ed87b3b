"""Where the bytes of a file lie: what its `storage_key` says.

    files/<uuid>               as they are
    files/<uuid>.zst           compressed, in frames of zstd with a table of them (dal.files.frames)
    shared/<uuid>@<file id>    shared with other files of the same content; counted in `file_contents`
    shared/<uuid>.zst@<file id>
    uploads/<uuid>             sent by somebody with a signed request, and not yet looked at

Every attempt to store something makes a key of its own, so bytes are never replaced under a row. Other keys are those
of files that an application registered itself (`files.create`): their bytes can be read, and are never removed.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

PLAIN: Final = "files/"
SHARED: Final = "shared/"
STAGED: Final = "uploads/"
COMPRESSED: Final = ".zst"
#: Keys of what a move of contents itself leaves in a blob store while it works; they are nobody's contents.
MOVER: Final = "_dal/"
#: Of notes on uploads in parts that a move has under way (dal.files_move.resuming).
MOVER_UPLOADS: Final = f"{MOVER}uploads/"

_UUID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OWN: Final = re.compile(rf"(?:files/{_UUID}(?:\.zst)?|shared/{_UUID}(?:\.zst)?@{_UUID})").fullmatch
_BLOB: Final = re.compile(rf"(?:files|shared|uploads)/{_UUID}(?:\.zst)?").fullmatch


class Place(NamedTuple):
    """A parsed `storage_key`.

    blob_key  the key in the blob store.
    is_own    this library wrote the bytes: it counts them, and removes them.
    """

    blob_key: str
    is_own: bool
    is_shared: bool
    is_compressed: bool


def place_of(storage_key: str) -> Place:
    """What the key says. Never fails: any text can be the key of a registered file."""
    if not _OWN(storage_key):
        return Place(storage_key, False, False, False)
    blob_key, at, _ = storage_key.partition("@")
    return Place(blob_key, True, bool(at), blob_key.endswith(COMPRESSED))


def mover_note(key: str) -> str:
    """Where a move notes how far it has come with the blob of this key."""
    return f"{MOVER_UPLOADS}{hashlib.sha256(key.encode()).hexdigest()}"


def is_own_blob(key: str) -> bool:
    """Whether a key of the blob store is one that this library makes."""
    return _BLOB(key) is not None
