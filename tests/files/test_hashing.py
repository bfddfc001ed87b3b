"""Uploaded content is hashed once, by whoever sees it first whole: SHA-256 takes as long as writing it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from dal.files.incoming import Content
from dal.limits import FILE_SMALL_BYTES
from tests.files.conftest import Opened
from tests.files.test_upload import checksum, content, pieces

_sha256 = hashlib.sha256


class Counted:
    """SHA-256 that counts the bytes it is given, of whoever asks."""

    hashed_bytes = 0
    _lock = threading.Lock()

    def __init__(self, data: bytes = b"", *, usedforsecurity: bool = True) -> None:
        self._hash = _sha256(usedforsecurity=usedforsecurity)
        self.digest, self.hexdigest = self._hash.digest, self._hash.hexdigest
        self.update(data)

    def update(self, data: bytes) -> None:
        with self._lock:
            Counted.hashed_bytes += len(data)
        self._hash.update(data)


@pytest.mark.parametrize("options", [{}, {"compress": True}, {"deduplicate": True}], ids=["plain", "zstd", "shared"])
async def test_content_is_hashed_once(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    dal = await opened(**options)
    ada = await dal.users.create()
    path = tmp_path / "given"
    for size in (FILE_SMALL_BYTES // 2, 3 * FILE_SMALL_BYTES):
        for number, kind in enumerate(("path", "pieces", "bytes")):
            data = bytes([number]) + content(size)
            path.write_bytes(data)
            given: dict[str, Content] = {"path": path, "pieces": pieces(data), "bytes": data}
            with monkeypatch.context() as patched:
                patched.setattr(hashlib, "sha256", Counted)
                Counted.hashed_bytes = 0
                file = await dal.files.upload(ada.id, "a.bin", given[kind])
            assert (file.file_size, file.checksum) == (len(data), checksum(data))
            # Equal content is looked for before it is stored, where all of it is at hand.
            times = 2 if "deduplicate" in options and (kind == "bytes" or size < FILE_SMALL_BYTES) else 1
            assert times * size < Counted.hashed_bytes < (times + 0.1) * size, "keys and compressed content are few"


@pytest.mark.parametrize("options", [{}, {"compress": True}, {"deduplicate": True}], ids=["plain", "zstd", "shared"])
async def test_the_same_upload_twice_at_once_is_one_file_whoever_hashes(
    opened: Opened, options: dict[str, bool]
) -> None:
    dal = await opened(**options)
    ada = await dal.users.create()
    data = content(2 * FILE_SMALL_BYTES)
    makers: tuple[Callable[[bytes], Content], ...] = (pieces, bytes)
    for make in makers:
        id = str(uuid4())
        one, other = await asyncio.gather(*(dal.files.upload(ada.id, "a.bin", make(data), id=id) for _ in range(2)))
        assert one == other == await dal.files.get(id)
