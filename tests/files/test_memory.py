"""Memory stays the same whatever the size of a file: in, out, compressed, in parts, read back at completion."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.files.conftest import Opened

MIB = 1024 * 1024
SIZE = 24 * MIB
#: A few pieces on their way, a frame of zstd and its block, the tail that is kept: far below the size.
BOUND = 12 * MIB

pytestmark = pytest.mark.parametrize("pair", ["memory+local"], indirect=True)


async def stream(size: int = SIZE) -> AsyncIterator[bytes]:
    for number in range(size // MIB):
        yield number.to_bytes(4, "big") * (MIB // 4)


@pytest.fixture
def peak() -> AsyncIterator[None]:  # type: ignore[misc]  # a generator of pytest's
    """Fails the test whose Python objects took more at once."""
    gc.collect()
    tracemalloc.start()
    yield
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < BOUND, f"{taken / MIB:.0f} MiB at once"


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
async def test_a_file_passes_in_constant_memory(opened: Opened, tmp_path: Path, compress: bool, peak: None) -> None:
    dal = await opened(compress=compress)
    ada = await dal.users.create()
    file = await dal.files.upload(ada.id, "a.txt" if compress else "a", stream())
    assert file.file_size == SIZE
    assert file.storage_key.endswith(".zst") is compress
    await dal.files.download_to(file.id, tmp_path / "out", verify=True)
    async with dal.files.open(file.id, start=SIZE // 2) as reader:
        assert sum([len(piece) async for piece in reader]) == SIZE // 2
    again = await dal.files.upload(ada.id, "b", tmp_path / "out", mime_type=file.mime_type)
    assert again.checksum == file.checksum


async def test_parts_pass_and_are_read_back_in_constant_memory(opened: Opened, peak: None) -> None:
    dal = await opened()
    ada = await dal.users.create()
    upload = await dal.files.start_upload(ada.id, "a", total_size=SIZE, part_size=SIZE // 2)
    for number in (2, 1):
        await dal.files.upload_part(upload.upload_id, number, stream(SIZE // 2))
    file = await dal.files.complete_upload(upload.upload_id)
    assert file.file_size == SIZE
