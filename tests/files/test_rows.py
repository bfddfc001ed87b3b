"""What is known of files, changed within a transaction or outside one, beside what follows from their contents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dal import (
    AlreadyExistsError,
    ConflictError,
    DataAccess,
    InvalidInputError,
    MissingReferenceError,
    NotFoundError,
    UnsupportedError,
    User,
)
from dal.ops import Op, Query, Receipt, Row
from tests.files.conftest import Opened
from tests.files.test_upload import UNKNOWN


async def test_within_a_transaction_contents_are_refused_and_rows_go_through_it(dal: DataAccess, ada: User) -> None:
    async with dal.transaction() as tx:
        file = await tx.files.create(ada.id, "a", storage_key="k", file_size=0)
        assert not hasattr(tx.files, "upload")
        with pytest.raises(UnsupportedError):
            await dal.files.upload(ada.id, "b", b"x")
    assert await dal.files.get(file.id) == file


async def test_within_a_transaction_an_uploaded_file_stays_what_its_content_makes_it(
    dal: DataAccess, ada: User
) -> None:
    kept, gone = await dal.files.upload(ada.id, "kept", b"x"), await dal.files.upload(ada.id, "gone", b"y")
    await dal.files.delete(gone.id)
    changes: list[dict[str, Any]] = [
        {"storage_key": "k"},
        {"file_size": 2},
        {"checksum": None},
        {"status": "active"},
        {"filename": "../b"},
    ]
    async with dal.transaction() as tx:
        for change in changes:
            with pytest.raises(InvalidInputError, match="follow from its content"):
                await tx.files.update(kept.id, **change)
        with pytest.raises(UnsupportedError, match=r"dal\.files\.delete"):
            await tx.files.delete(kept.id)
        assert await tx.files.get(gone.id) is None
        assert await tx.files.get_by_storage_key(gone.storage_key) is None
        assert [file.id for file in (await tx.files.list(user_id=ada.id)).items] == [kept.id]
        assert [file.id for file in (await tx.files.list(status="deleted")).items] == [gone.id]
        named = await tx.files.update(kept.id, metadata={"a": 1})
    assert await dal.files.get(kept.id) == named
    assert await dal.files.read(kept.id, verify=True) == b"x"
    assert (await dal.files.usage(ada.id)).used_files == 1
    assert (await dal.files.restore(gone.id)).id == gone.id


async def test_a_deleted_file_is_not_there_to_be_changed(dal: DataAccess, ada: User) -> None:
    uploaded = await dal.files.upload(ada.id, "a", b"x")
    registered = await dal.files.create(ada.id, "b", storage_key="k", file_size=1)
    changes: list[dict[str, Any]] = [
        {},
        {"metadata": {"z": 1}},
        {"metadata": {"z": 1}, "expected_version": 2},
        {"metadata": {"z": 1}, "expected_version": 1},
        {"expected_version": 2},
        {"filename": "c"},
        {"status": "active"},
    ]
    for file in (uploaded, registered):
        with pytest.raises(ConflictError, match="at version 1, expected 7"):
            await dal.files.update(file.id, metadata={}, expected_version=7)
        assert await dal.files.delete(file.id)
        for change in changes:
            with pytest.raises(NotFoundError):
                await dal.files.update(file.id, **change)
            async with dal.transaction() as tx:
                with pytest.raises(NotFoundError):
                    await tx.files.update(file.id, **change)
                await tx.users.touch(ada.id)  # the transaction goes on
    for file in (uploaded, registered):
        restored = await dal.files.restore(file.id)
        assert (restored.metadata, restored.version) == ({}, 3)
        assert (await dal.files.update(file.id, metadata={"z": 1}, expected_version=3)).version == 4
    with pytest.raises(NotFoundError):
        await dal.files.update(UNKNOWN, metadata={})


async def test_a_change_takes_one_round_trip_and_another_to_say_what_was_found(
    dal: DataAccess, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await dal.files.upload(ada.id, "a", b"x")
    calls: list[str] = []
    store = dal.files._store
    read, commit = store.read, store.commit

    async def counted_read(query: Query) -> list[Row]:
        calls.append("read")
        return await read(query)

    async def counted_commit(ops: Sequence[Op]) -> Receipt:
        calls.append("commit")
        return await commit(ops)

    monkeypatch.setattr(store, "read", counted_read)
    monkeypatch.setattr(store, "commit", counted_commit)
    await dal.files.update(file.id, metadata={"z": 1})
    await dal.files.update(file.id, metadata={"z": 2}, expected_version=2)
    assert calls == ["commit"] * 2
    with pytest.raises(NotFoundError):
        await dal.files.update(UNKNOWN, metadata={})
    assert calls == ["commit"] * 3 + ["read"]


async def test_changes_at_once_are_all_made(dal: DataAccess, opened: Opened, ada: User) -> None:
    file = await dal.files.upload(ada.id, "a", b"x")
    others = [dal, await opened(), await opened()]
    changed = await asyncio.gather(*(others[n % 3].files.update(file.id, metadata={"n": n}) for n in range(30)))
    assert sorted(record.version for record in changed) == list(range(2, 32))


async def test_a_file_that_is_registered_leaves_a_row_in_the_access_log(dal: DataAccess, ada: User) -> None:
    file = await dal.files.create(ada.id, "a", storage_key="k", file_size=1)
    with pytest.raises(AlreadyExistsError):
        await dal.files.create(ada.id, "b", storage_key="k", file_size=1)
    with pytest.raises(MissingReferenceError):
        await dal.files.create("nobody", "c", storage_key="l", file_size=1)
    log = (await dal.files.access_log(action="create")).items
    assert [(entry.success, entry.file_id, entry.user_id) for entry in reversed(log)] == [
        (True, file.id, ada.id),
        (False, "", None),
        (False, "", None),
    ]


async def test_a_file_that_is_registered_takes_nothing_of_what_is_stored(dal: DataAccess, ada: User) -> None:
    await dal.files.create(ada.id, "a", storage_key="k", file_size=10**12)
    await dal.files.upload(ada.id, "b", b"x")
    await dal.files.delete((await dal.files.upload(ada.id, "c", b"yz")).id)
    total = await dal.files.monitoring.usage_total()
    assert (total.files, total.bytes, total.stored_bytes) == (2, 10**12 + 1, 3)
