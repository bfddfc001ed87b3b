"""A move beside an application that uploads, reads, deletes and sweeps, contents compressed and shared among it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from dal.access import DataAccess
from dal.backends.memory import MemoryStore
from dal.blobs.base import BlobStore
from dal.blobs.factory import bare_blob_store
from dal.blobs.readthrough import ReadThrough
from dal.errors import NotFoundError
from dal.files.options import FileOptions
from dal.files_move import moving
from dal.files_move.moving import move
from dal.files_move.options import MoveOptions
from dal.files_move.verifying import verify
from dal.store import Store
from dal.values import Clock, now
from tests.files_move.contents import Watched, everything

#: So far ahead, what has no row now is an orphan.
HOURS = timedelta(hours=2)


def content_of(number: int) -> bytes:
    """Some are there several times, some can be compressed, some are empty."""
    return f"content {number % 30} ".encode() * (number % 30 * 50)


@pytest_asyncio.fixture
async def rows() -> AsyncIterator[Store]:
    store = MemoryStore()
    await store.open()
    yield store
    await store.close()


AccessTo = Callable[..., DataAccess]


@pytest_asyncio.fixture
async def access_to(rows: Store) -> AsyncIterator[AccessTo]:
    """`access_to(blobs, compress=True, …)`: files over the same rows, and contents there."""
    made: list[DataAccess] = []

    def access(blobs: BlobStore, *, clock: Clock = now, **options: Any) -> DataAccess:
        made.append(DataAccess(rows, blobs=blobs, files=FileOptions(**options), clock=clock))
        return made[-1]

    yield access
    for one in made:
        await one.files.close_contents()


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_and_nothing_comes_back_while_the_application_goes_on(
    access_to: AccessTo,
    rows: Store,
    source: Watched,
    target: Watched,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moving, "CONTENTS_RANGE_KEYS", 10)
    dice = Random(seed)
    before, plain = access_to(source, compress=True, deduplicate=True), access_to(source)
    application = access_to(
        ReadThrough(target, source), compress=True, deduplicate=True, retention_s=0, clock=lambda: now() + HOURS
    )
    user = (await before.users.create()).id
    files = {}
    for number in range(150):
        access = before if number % 3 else plain
        files[(await access.files.upload(user, f"{number}", content_of(number))).id] = content_of(number)

    async def live() -> None:
        for number in range(150, 250):
            kind = dice.choice(("upload", "read", "delete", "sweep"))
            some = dice.choice(list(files))
            if kind == "upload":
                record = await application.files.upload(user, f"{number}", content_of(number))
                files[record.id] = content_of(number)
            elif kind == "read":
                assert await application.files.read(some, verify=True) == files[some]
            elif kind == "delete":
                del files[some]
                await application.files.delete(some)
            elif number % 5 == 0:
                await application.files.sweep()
            await asyncio.sleep(0)

    async def slow(key: str) -> None:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)

    source.after["get"] = target.before["put"] = slow
    report, _ = await asyncio.gather(move(source, target, rows, options=MoveOptions(jobs=4)), live())
    assert report.problems.total == 0, report.problems.samples
    await move(source, target, rows)
    check = await verify(source, target, rows, deep=True)
    assert check.problems.total == 0, check.problems.samples

    after = access_to(target, retention_s=0, clock=lambda: now() + 2 * HOURS)
    for file_id, content in files.items():
        assert await after.files.read(file_id, verify=True) == content
    swept = await after.files.sweep()
    assert swept.missing_files == 0
    assert (await after.files.sweep()).orphan_blobs == 0
    named = {record.storage_key.partition("@")[0] for record in (await after.files.list(limit=1000)).items}
    assert set(await everything(target)) == named


async def test_what_was_deleted_can_be_restored_behind_the_move(
    access_to: AccessTo, rows: Store, source: Watched, target: Watched
) -> None:
    before, after = access_to(source), access_to(target)
    user = (await before.users.create()).id
    file = await before.files.upload(user, "a", b"content")
    await before.files.delete(file.id)
    await move(source, target, rows)
    await after.files.restore(file.id)
    assert await after.files.read(file.id) == b"content"


async def test_directories_hold_the_same_behind_the_move(access_to: AccessTo, rows: Store, tmp_path: Path) -> None:
    old, new = (bare_blob_store(f"file:{tmp_path / name}") for name in ("old", "new"))
    await old.open()
    await new.open()
    before = access_to(old, compress=True)
    user = (await before.users.create()).id
    record = await before.files.upload(user, "a.txt", b"a drawing of the engine " * 1000)
    assert record.storage_key.endswith(".zst")
    assert (await move(old, new, rows)).copied == 1
    assert (await verify(old, new, rows, deep=True)).is_clean
    assert await everything(new) == await everything(old)
    stored = await new.head(record.storage_key)
    assert stored is not None
    assert stored.content_type is not None
    await old.delete([record.storage_key])
    assert await access_to(new).files.read(record.id, verify=True) == b"a drawing of the engine " * 1000
    with pytest.raises(NotFoundError):
        await old.get(record.storage_key)
    await old.close()
    await new.close()
