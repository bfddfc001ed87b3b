"""The sweeper: what was left behind goes, what is in use stays, what cannot be right is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from dal import DataAccess, NotFoundError, UnsupportedError, User
from dal.blobs.base import BlobStore, PartialUpload
from dal.limits import FILE_GRACE_S
from dal.ops import Compare, Delete, Update
from dal.testing import FakeClock
from dal.values import new_id
from tests.files.conftest import Opened, keys
from tests.files.test_upload import content


async def beyond_grace(blobs: BlobStore, clock: FakeClock) -> None:
    """Sets the clock to when the youngest blob is old enough to be an orphan."""
    youngest = max([blob.modified_at async for blob in blobs.list()])
    clock.now = youngest + timedelta(seconds=FILE_GRACE_S + 1)


async def test_bytes_without_a_row_go_once_they_are_old(
    dal: DataAccess, ada: User, blobs: BlobStore, clock: FakeClock
) -> None:
    kept = [await dal.files.upload(ada.id, "a", content(100)) for _ in range(3)]
    theirs = "files/made-by-somebody-else"
    orphans = [f"{prefix}/{new_id()}{end}" for prefix in ("files", "shared", "uploads") for end in ("", ".zst")]
    for key in (theirs, *orphans):
        await blobs.put(key, b"orphan")
    clock.now = min([blob.modified_at async for blob in blobs.list()])
    assert (await dal.files.sweep()).orphan_blobs == 0
    await beyond_grace(blobs, clock)
    report = await dal.files.sweep(dry_run=True)
    assert (report.orphan_blobs, report.orphan_bytes, report.missing_files, report.dry_run) == (6, 36, 0, True)
    assert len(await keys(blobs)) == 10
    report = await dal.files.sweep()
    assert (report.orphan_blobs, report.orphan_bytes, report.missing_files, report.problems) == (6, 36, 0, [])
    assert await keys(blobs) == sorted([theirs, *(f.storage_key for f in kept)])
    assert (await dal.files.sweep()).model_dump(exclude_defaults=True) == {}


async def test_files_whose_bytes_are_gone_are_named_and_left_alone(opened: Opened, blobs: BlobStore) -> None:
    dal, sharing = await opened(), await opened(deduplicate=True)
    ada = await dal.users.create()
    plain = [await dal.files.upload(ada.id, "a", content(100)) for _ in range(3)]
    shared = [await sharing.files.upload(ada.id, "a", content(200)) for _ in range(2)]
    await blobs.delete([plain[1].storage_key, shared[0].storage_key.partition("@")[0]])
    report = await dal.files.sweep()
    assert sorted(report.missing) == sorted([plain[1].id, shared[0].id, shared[1].id])
    assert report.missing_files == 3
    assert await dal.files.get(plain[1].id) == plain[1]


async def test_deleted_files_go_after_their_retention(opened: Opened, blobs: BlobStore, clock: FakeClock) -> None:
    dal = await opened(retention_s=1000.0)
    ada = await dal.users.create()
    files = [await dal.files.upload(ada.id, f"{n}", content(100)) for n in range(3)]
    registered = await dal.files.create(ada.id, "mine", storage_key="mine", file_size=5)
    for file in (files[0], files[1], registered):
        assert await dal.files.delete(file.id) is True
    assert await dal.files.get(files[0].id) is None
    assert await dal.files.get_by_storage_key(files[0].storage_key) is None
    assert [f.id for f in (await dal.files.list(user_id=ada.id)).items] == [files[2].id]
    assert len((await dal.files.list(user_id=ada.id, status="deleted")).items) == 3
    clock.advance(999)
    assert (await dal.files.sweep()).purged_files == 0
    await dal.files.restore(files[0].id)
    clock.advance(1)
    assert (await dal.files.sweep(dry_run=True)).purged_files == 2
    assert (await dal.files.sweep()).purged_files == 2
    with pytest.raises(NotFoundError):
        await dal.files.restore(files[1].id)
    assert await keys(blobs) == sorted([files[0].storage_key, files[2].storage_key])
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files) == (200, 2)


async def test_counters_that_are_wrong_are_put_right(opened: Opened) -> None:
    dal = await opened(deduplicate=True)
    ada, bob = await dal.users.create(), await dal.users.create()
    first, second = [await dal.files.upload(user.id, "a", content(100)) for user in (ada, bob)]
    alone = await dal.files.upload(ada.id, "b", content(300))
    await dal.files.start_upload(ada.id, "c", total_size=50)
    assert (await dal.files.sweep()).model_dump(exclude_defaults=True) == {}
    for file in (first, alone):  # the rows alone: nothing else is told
        await dal.store.commit([Delete("files", (Compare("id", "=", file.id),))])
    await dal.store.commit([Update("user_quotas", {"user_id": bob.id}, {}, {"taken_bytes": 7})])
    report = await dal.files.sweep()
    assert (report.corrected_quotas, report.corrected_counts, report.unused_contents) == (2, 1, 1)
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files, usage.reserved_bytes, usage.reserved_files) == (0, 0, 50, 1)
    assert (await dal.files.usage(bob.id)).used_bytes == 100
    assert await dal.files.read(second.id, verify=True) == content(100)
    assert (await dal.files.sweep()).model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize("pair", ["memory+memory"], indirect=True)
async def test_a_server_that_lists_no_uploads_keeps_nothing_else_from_being_swept(
    dal: DataAccess, blobs: BlobStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(prefix: str = "") -> AsyncIterator[PartialUpload]:
        raise UnsupportedError(f"list_uploads: {prefix}: 501")
        yield

    monkeypatch.setattr(blobs, "list_uploads", refuse)
    await blobs.put(f"files/{new_id()}", b"orphan")
    await beyond_grace(blobs, clock)
    report = await dal.files.sweep()
    assert (report.orphan_blobs, report.orphan_uploads) == (1, 0)
    assert report.problems == ["uploads in parts that no row knows: list_uploads: files/: 501"]
