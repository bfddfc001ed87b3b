"""`dal.files`: the metadata of files, on every backend and through every layer."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from dal import (
    AlreadyExistsError,
    ConflictError,
    DataAccess,
    FileRecord,
    InvalidInputError,
    MissingReferenceError,
    NotFoundError,
    User,
)
from dal.testing import FakeClock

UNKNOWN = "01900000-0000-7000-8000-00000000dead"


@pytest.fixture
async def ada(dal: DataAccess) -> User:
    return await dal.users.create(name="Ada")


async def test_create_gives_the_record_as_stored(dal: DataAccess, ada: User, clock: FakeClock) -> None:
    file = await dal.files.create(ada.id, "a.txt", storage_key="k", file_size=0)
    assert file == FileRecord(
        id=file.id,
        user_id=ada.id,
        filename="a.txt",
        storage_key="k",
        mime_type="application/octet-stream",
        file_size=0,
        checksum=None,
        metadata={},
        status="active",
        created_at=clock.now,
        updated_at=clock.now,
        version=1,
    )
    assert await dal.files.get(file.id) == file
    assert await dal.files.get_by_storage_key("k") == file


async def test_create_keeps_every_argument(dal: DataAccess, ada: User) -> None:
    given = str(uuid4())
    file = await dal.files.create(
        ada.id,
        "ünï.bin",
        storage_key="u/1/../x",
        file_size=2**63 - 1,
        mime_type="image/png",
        checksum="sha256:00",
        metadata={"pages": [1]},
        status="uploading",
        id=given,
    )
    assert (file.id, file.file_size, file.mime_type, file.checksum) == (given, 2**63 - 1, "image/png", "sha256:00")
    assert (file.metadata, file.status, file.filename) == ({"pages": [1]}, "uploading", "ünï.bin")
    assert await dal.files.get(given) == file


async def test_a_storage_key_is_unique(dal: DataAccess, ada: User) -> None:
    first = await dal.files.create(ada.id, "a", storage_key="k", file_size=1)
    other = await dal.files.create(ada.id, "a", storage_key="K", file_size=1)
    with pytest.raises(AlreadyExistsError):
        await dal.files.create(ada.id, "b", storage_key="k", file_size=2)
    with pytest.raises(AlreadyExistsError):
        await dal.files.update(other.id, storage_key="k")
    assert await dal.files.get_by_storage_key("k") == first
    assert await dal.files.get(other.id) == other


async def test_create_with_an_id_again_gives_the_stored_record_and_refuses_another(dal: DataAccess, ada: User) -> None:
    given = str(uuid4())
    first = await dal.files.create(ada.id, "a", storage_key="k", file_size=1, id=given)
    assert await dal.files.create(ada.id, "a", storage_key="k", file_size=1, id=given) == first
    with pytest.raises(AlreadyExistsError):
        await dal.files.create(ada.id, "a", storage_key="other", file_size=1, id=given)
    assert await dal.files.get(given) == first


async def test_create_for_an_unknown_user_is_refused(dal: DataAccess) -> None:
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(MissingReferenceError):
            await dal.files.create(unknown, "a", storage_key="k", file_size=1)
    assert await dal.files.get_by_storage_key("k") is None


async def test_update_changes_what_it_names_and_is_locked_by_the_version(
    dal: DataAccess, ada: User, clock: FakeClock
) -> None:
    file = await dal.files.create(ada.id, "a", storage_key="k", file_size=1)
    clock.advance(1)
    changes: dict[str, Any] = {
        "filename": "b",
        "storage_key": "k2",
        "mime_type": "m",
        "file_size": 5,
        "checksum": "sha256:1",
        "metadata": {"a": 1},
        "status": "deleted",
    }
    updated = await dal.files.update(file.id, expected_version=1, **changes)
    assert updated == file.model_copy(update={**changes, "updated_at": clock.now, "version": 2})
    assert await dal.files.get_by_storage_key("k2") == updated
    assert await dal.files.get_by_storage_key("k") is None
    with pytest.raises(ConflictError):
        await dal.files.update(file.id, expected_version=1, filename="lost")
    for field in ("id", "user_id", "version", "created_at", "nope"):
        changes = {field: "x"}
        with pytest.raises(InvalidInputError, match=field):
            await dal.files.update(file.id, **changes)
    for unknown in (UNKNOWN, "not a uuid"):
        with pytest.raises(NotFoundError):
            await dal.files.update(unknown, filename="x")
    assert await dal.files.get(file.id) == updated


@pytest.mark.parametrize("size", [-1, 2**63, "1", 1.0, True, None])
async def test_a_size_is_a_count_of_bytes(dal: DataAccess, ada: User, size: int) -> None:
    with pytest.raises(InvalidInputError, match="file_size"):
        await dal.files.create(ada.id, "a", storage_key="k", file_size=size)
    file = await dal.files.create(ada.id, "a", storage_key="k", file_size=1)
    with pytest.raises(InvalidInputError, match="file_size"):
        await dal.files.update(file.id, file_size=size)


async def test_delete_says_whether_the_file_was_there(dal: DataAccess, ada: User) -> None:
    file = await dal.files.create(ada.id, "a", storage_key="k", file_size=1)
    assert await dal.files.delete(file.id) is True
    assert await dal.files.delete(file.id) is False
    assert await dal.files.delete("not a uuid") is False
    for unknown in (file.id, "not a uuid"):
        assert await dal.files.get(unknown) is None
    await dal.files.create(ada.id, "a", storage_key="k", file_size=1)


async def test_list_is_newest_first_and_filtered(dal: DataAccess, ada: User, clock: FakeClock) -> None:
    bob = await dal.users.create()
    files = []
    for number in range(6):
        clock.advance(number % 2)
        owner = ada if number < 4 else bob
        files.append(
            await dal.files.create(
                owner.id, "f", storage_key=str(number), file_size=number, status="odd" if number % 2 else "even"
            )
        )
    assert (await dal.files.list()).items == files[::-1]
    assert (await dal.files.list(user_id=ada.id)).items == files[3::-1]
    assert (await dal.files.list(status="odd")).items == files[::-1][::2]
    assert (await dal.files.list(user_id=bob.id, status="odd")).items == [files[5]]
    assert (await dal.files.list(user_id="not a uuid")).items == []
