"""Everything of a person's files is found by its owner, and goes with them: rows at once, bytes with the next sweep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from dal.access import DataAccess
from dal.blobs.memory import MemoryBlobStore
from dal.factory import create_store
from dal.file_tables import FILE_TABLES
from dal.files.keys import place_of
from dal.files.options import FileOptions
from dal.limits import FILE_GRACE_S
from dal.ops import Compare, Row, Select
from dal.table import Table
from dal.values import now

OWNED = [table for table in FILE_TABLES if table.owner is not None]
#: The log and the counters outlive the people they speak of.
LASTING = {"file_access_logs", "storage_metrics"}


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest_asyncio.fixture(params=["memory", "file", "sqlite"])
async def dal(request: pytest.FixtureRequest, blobs: MemoryBlobStore, tmp_path: Path) -> AsyncIterator[DataAccess]:
    url = {"memory": "memory://", "file": f"file:{tmp_path}/data", "sqlite": f"sqlite:{tmp_path}/data.db"}
    options = FileOptions(deduplicate=True)
    async with DataAccess(create_store(url[request.param]), blobs=blobs, files=options) as access:
        yield access


async def of(dal: DataAccess, table: Table, owner: str) -> list[Row]:
    """The rows of a table that belong to a person, by nothing but the table's declaration."""
    assert table.owner is not None
    return await dal.store.read(Select(table.name, (Compare(table.owner, "=", owner),), columns=table.names))


async def test_a_persons_rows_and_bytes_are_found_by_owner_and_go_with_them(
    dal: DataAccess, blobs: MemoryBlobStore
) -> None:
    ada, yuki = [(await dal.users.create(name=name)).id for name in ("Ada", "Yuki")]
    for owner, other in ((ada, yuki), (yuki, ada)):
        file = await dal.files.upload(owner, "own.txt", f"of {owner}".encode())
        await dal.files.upload(owner, "same.txt", b"the same of both")
        await dal.files.grant(file.id, other, "read")
        upload = await dal.files.start_upload(owner, "large", total_size=10)
        await dal.files.upload_part(upload.upload_id, 1, b"0123456789")
    await dal.files.access_log()  # waits until the log is written
    await dal.files.monitoring.record()

    found = {table.name: await of(dal, table, ada) for table in OWNED}
    assert {name for name, rows in found.items() if not rows} == set()
    assert len(found["files"]) == 2
    key = OWNED[0].names.index("storage_key")
    contents = [await (await blobs.get(place_of(str(row[key])).blob_key)).read() for row in found["files"]]
    assert sorted(contents) == sorted([f"of {ada}".encode(), b"the same of both"])

    await dal.users.delete(ada)
    assert {table.name for table in OWNED if await of(dal, table, ada)} == LASTING
    assert all([await of(dal, table, yuki) for table in OWNED])
    later = DataAccess(dal.store, blobs=blobs, clock=lambda: now() + timedelta(seconds=2 * FILE_GRACE_S))
    await later.files.sweep()
    await later.files.close_contents()
    left = [await (await blobs.get(info.key)).read() async for info in blobs.list()]
    assert sorted(left) == sorted([f"of {yuki}".encode(), b"the same of both"])
