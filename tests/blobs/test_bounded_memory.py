"""Contents of any size pass in bounded memory: a few hundred MiB, and the process grows by a fraction of that."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dal.blobs.base import BlobStore
from dal.blobs.local import LocalBlobStore
from tests.bench.measure import _forget_peak, _peak_since
from tests.engines.s3 import RcloneEngine

MIB = 1024 * 1024


async def stream(size_mib: int) -> AsyncIterator[bytes]:
    for number in range(size_mib):
        yield bytes([number % 256]) * MIB


async def through(store: BlobStore, size_mib: int, *, size: int | None) -> tuple[int, int]:
    """The bytes by which the process grew, up and down."""
    start = _forget_peak()
    await store.put("large", stream(size_mib), size=size)
    up = _peak_since(start) or 0
    start = _forget_peak()
    async with await store.get("large") as reading:
        assert sum([len(piece) async for piece in reading.data]) == size_mib * MIB
    return up, _peak_since(start) or 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a process's peak on Linux only")
async def test_a_directory_takes_and_gives_any_size(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    await store.open()
    up, down = await through(store, 256, size=None)
    print(f"256 MiB: {up // MIB} MiB up, {down // MIB} MiB down")
    assert up < 32 * MIB
    assert down < 32 * MIB
    await store.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a process's peak on Linux only")
async def test_a_bucket_takes_and_gives_any_size(rclone_engine: RcloneEngine) -> None:
    store = rclone_engine.store()
    await store.open()
    up, down = await through(store, 256, size=256 * MIB)
    print(f"256 MiB: {up // MIB} MiB up, {down // MIB} MiB down")
    assert up < 128 * MIB, "some parts of 8 MiB"
    assert down < 64 * MIB
    await store.delete(["large"])
    await store.close()
