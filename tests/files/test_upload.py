"""`files.upload` and `files.open`: contents in, contents out, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from dal import (
    AlreadyExistsError,
    ConfigurationError,
    CorruptDataError,
    DataAccess,
    InvalidInputError,
    LimitExceededError,
    MissingReferenceError,
    NotFoundError,
    User,
)
from dal.blobs.base import BlobStore
from dal.files.frames import compressed
from dal.limits import FILE_SMALL_BYTES
from tests.files.conftest import Opened, keys

UNKNOWN = "01900000-0000-7000-8000-00000000dead"
SIZES = (0, 1, 65_537, FILE_SMALL_BYTES, FILE_SMALL_BYTES + 1, 3_500_000)


def content(size: int) -> bytes:
    """Bytes that are neither text nor of any known kind, and compress to nearly nothing."""
    return (b"\x00\x01\xfenoise" + bytes(range(8))) * (size // 16) + b"\x00" * (size % 16)


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("options", [{}, {"compress": True}, {"deduplicate": True}], ids=["plain", "zstd", "shared"])
async def test_what_is_uploaded_comes_back(opened: Opened, tmp_path: Path, options: dict[str, bool]) -> None:
    dal = await opened(**options)
    ada = await dal.users.create()
    for size in SIZES:
        data = content(size)
        path = tmp_path / "given"
        path.write_bytes(data)
        for given in (data, path, pieces(data)):
            file = await dal.files.upload(ada.id, "a.bin", given, metadata={"size": size})
            assert (file.file_size, file.checksum, file.status) == (size, checksum(data), "active")
            assert await dal.files.get(file.id) == file
            assert await dal.files.read(file.id, verify=True) == data
            for start, end in ((0, 0), (size // 3, size // 2), (size // 2, None), (size, None), (0, size + 9)):
                assert await dal.files.read(file.id, start=start, end=end) == data[start:end]
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files) == (3 * sum(SIZES), 3 * len(SIZES))
    assert (usage.reserved_bytes, usage.reserved_files) == (0, 0)


async def test_a_reader_gives_pieces_and_parts_of_its_own_size(dal: DataAccess, ada: User) -> None:
    data = os.urandom(700_000)
    file = await dal.files.upload(ada.id, "a", data)
    async with dal.files.open(file.id, start=10) as reader:
        assert (reader.record, reader.size) == (file, len(data) - 10)
        assert await reader.read(3) == data[10:13]
        assert await reader.read(300_000) == data[13:300_013]
        rest = [piece async for piece in reader]
        assert b"".join(rest) == data[300_013:]
        assert max(map(len, rest)) <= 256 * 1024
        assert await reader.read() == b""
    reader = await dal.files.open(file.id)
    assert await reader.read(1) == data[:1]
    await reader.aclose()
    assert await reader.read() == b""
    with pytest.raises(InvalidInputError):
        await dal.files.read(file.id, start=len(data) + 1)
    with pytest.raises(InvalidInputError):
        await dal.files.read(file.id, start=1, verify=True)
    for unknown in (UNKNOWN, "no uuid"):
        with pytest.raises(NotFoundError):
            await dal.files.read(unknown)


async def test_a_download_is_whole_or_not_there(dal: DataAccess, ada: User, blobs: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(400_000)
    file = await dal.files.upload(ada.id, "a", data)
    target = tmp_path / "out"
    target.write_bytes(b"before")
    assert await dal.files.download_to(file.id, target, verify=True) == file
    assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o600
    await blobs.put(file.storage_key, os.urandom(400_000))
    with pytest.raises(CorruptDataError):
        await dal.files.download_to(file.id, target, verify=True)
    assert target.read_bytes() == data
    with pytest.raises(InvalidInputError):
        await dal.files.download_to(file.id, tmp_path / "no" / "such")
    assert [name for name in os.listdir(tmp_path) if name.startswith(".dal-")] == []


async def test_bytes_that_are_not_those_that_were_stored_are_noticed(
    dal: DataAccess, ada: User, blobs: BlobStore
) -> None:
    file = await dal.files.upload(ada.id, "a", b"x" * 100)
    await blobs.put(file.storage_key, b"y" * 100)
    assert await dal.files.read(file.id) == b"y" * 100
    with pytest.raises(CorruptDataError, match="checksum"):
        await dal.files.read(file.id, verify=True)
    for other in (b"x" * 99, b"x" * 101):
        await blobs.put(file.storage_key, other)
        with pytest.raises(CorruptDataError):
            await dal.files.read(file.id)
    await blobs.delete([file.storage_key])
    with pytest.raises(CorruptDataError):
        await dal.files.read(file.id)


async def test_compressed_bytes_of_another_length_are_noticed(opened: Opened, blobs: BlobStore) -> None:
    dal = await opened(compress=True)
    ada = await dal.users.create()
    file = await dal.files.upload(ada.id, "a.txt", b"text " * 5000)
    for size in (4999, 5001):
        await blobs.put(file.storage_key, compressed(pieces(b"text " * size)))
        with pytest.raises(CorruptDataError):
            await dal.files.read(file.id, verify=True)
    await blobs.put(file.storage_key, compressed(pieces(b"text " * 4999)))
    with pytest.raises(CorruptDataError, match="its blob does not"):
        await dal.files.read(file.id)
    await blobs.put(file.storage_key, b"no zstd")
    for start in (0, 5):
        with pytest.raises(CorruptDataError):
            await dal.files.read(file.id, start=start)


async def test_a_refused_upload_leaves_no_bytes_no_row_and_no_room(opened: Opened, blobs: BlobStore) -> None:
    dal = await opened(max_file_bytes=2_000_000, allowed_types=("image/*", "text/plain"))
    ada = await dal.users.create()
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 100

    async def broken() -> AsyncIterator[bytes]:
        yield png + bytes(1_500_000)
        raise OSError("the client went away")

    with pytest.raises(OSError, match="went away"):
        await dal.files.upload(ada.id, "a.png", broken())
    for data, error in (
        (png + bytes(2_000_001), LimitExceededError),
        (pieces(png + bytes(2_000_001)), LimitExceededError),
        (b"%PDF-1.7 a pdf", InvalidInputError),
        (b"MZ\x90" + bytes(100), InvalidInputError),
        (bytes(100), InvalidInputError),
    ):
        with pytest.raises(error):
            await dal.files.upload(ada.id, "a.png", data)
    with pytest.raises(InvalidInputError, match=r"image/png.*x-msdownload"):
        await dal.files.upload(ada.id, "a.png", b"MZ\x90" + bytes(100), mime_type="image/png")
    for wrong in ("text", 5, [b"a"], None):
        with pytest.raises(InvalidInputError, match="data"):
            await dal.files.upload(ada.id, "a", wrong)  # type: ignore[arg-type]
    for unknown in (UNKNOWN, "no uuid"):
        with pytest.raises(MissingReferenceError):
            await dal.files.upload(unknown, "a.txt", b"text")
    for name in ("", "\u202e", "...", "a\0b", 5):
        with pytest.raises(InvalidInputError, match="filename"):
            await dal.files.upload(ada.id, name, b"text")  # type: ignore[arg-type]
    assert await keys(blobs) == []
    assert (await dal.files.list(user_id=ada.id)).items == []
    usage = await dal.files.usage(ada.id)
    assert (usage.used_bytes, usage.used_files, usage.reserved_bytes, usage.reserved_files) == (0, 0, 0, 0)
    assert (await dal.files.upload(ada.id, "a.png", png)).mime_type == "image/png"


async def test_a_repeat_with_the_same_id_is_the_same_file(dal: DataAccess, ada: User, blobs: BlobStore) -> None:
    given = str(uuid4())
    await dal.files.set_quota(ada.id, max_bytes=2_000_000, max_files=1)
    for size in (10, 1_500_000):
        data = content(size)
        file = await dal.files.upload(ada.id, "a", data, id=given)
        assert file.id == given
        assert await dal.files.upload(ada.id, "a", data, id=given) == file
        assert await dal.files.upload(ada.id, "a", pieces(data), id=given, if_absent=True) == file
        for name, other in (("b", data), ("a", data + b"\0")):
            with pytest.raises(AlreadyExistsError):
                await dal.files.upload(ada.id, name, other, id=given)
        assert await keys(blobs) == [file.storage_key]
        await dal.files.delete(file.id)
        assert (await dal.files.upload(ada.id, "a", data, id=given)).status == "deleted"
        await blobs.delete([file.storage_key])
        given = str(uuid4())


async def test_the_same_upload_many_times_at_once_is_one_file(dal: DataAccess, ada: User, blobs: BlobStore) -> None:
    given, data = str(uuid4()), content(1_200_000)
    made = await asyncio.gather(*(dal.files.upload(ada.id, "a", pieces(data), id=given) for _ in range(5)))
    assert made == [made[0]] * 5
    assert await keys(blobs) == [made[0].storage_key]
    usage = await dal.files.usage(ada.id)
    assert (usage.used_files, usage.reserved_files, usage.used_bytes) == (1, 0, len(data))


async def test_if_absent_refuses_a_name_that_is_taken(dal: DataAccess, ada: User, bob: User, blobs: BlobStore) -> None:
    file = await dal.files.upload(ada.id, "café.txt", b"1", if_absent=True)
    for data in (b"2", pieces(content(1_500_000))):
        with pytest.raises(AlreadyExistsError, match="café"):
            await dal.files.upload(ada.id, "cafe\u0301.txt", data, if_absent=True)
    assert await keys(blobs) == [file.storage_key]
    await dal.files.upload(bob.id, "café.txt", b"3", if_absent=True)
    await dal.files.upload(ada.id, "café.txt", b"4")
    await dal.files.delete(file.id)
    with pytest.raises(AlreadyExistsError):
        await dal.files.upload(ada.id, "café.txt", b"5", if_absent=True)


async def test_equal_contents_are_stored_once_and_go_with_their_last_file(opened: Opened, blobs: BlobStore) -> None:
    dal = await opened(deduplicate=True, retention_s=0.0)
    ada, bob = await dal.users.create(), await dal.users.create()
    data = content(1_200_000)
    first = await dal.files.upload(ada.id, "a", data)
    second = await dal.files.upload(bob.id, "b", pieces(data))
    third = await dal.files.copy(first.id, filename="c")
    assert len(await keys(blobs)) == 1
    assert (await dal.files.usage(ada.id)).used_bytes == 2 * len(data)
    for file in (first, second):
        await dal.files.delete(file.id)
    assert (await dal.files.sweep()).model_dump(exclude_defaults=True) == {"purged_files": 2}
    assert await dal.files.read(third.id, verify=True) == data
    await dal.files.delete(third.id)
    report = await dal.files.sweep()
    assert (report.purged_files, report.unused_contents) == (1, 1)
    assert await keys(blobs) == []


async def test_a_copy_has_bytes_and_room_of_its_own(dal: DataAccess, ada: User, bob: User) -> None:
    file = await dal.files.upload(ada.id, "a.txt", b"text", metadata={"k": 1})
    copy = await dal.files.copy(file.id)
    assert copy.storage_key != file.storage_key
    assert (copy.filename, copy.user_id, copy.checksum, copy.metadata) == ("a.txt", ada.id, file.checksum, {"k": 1})
    given = str(uuid4())
    theirs = await dal.files.copy(file.id, filename="b.txt", user_id=bob.id, id=given)
    assert await dal.files.copy(file.id, filename="b.txt", user_id=bob.id, id=given) == theirs
    assert (await dal.files.usage(bob.id)).used_files == 1
    await dal.files.delete(file.id)
    assert await dal.files.read(copy.id, verify=True) == await dal.files.read(theirs.id, verify=True) == b"text"


async def test_without_a_blob_store_rows_work_and_contents_say_what_is_missing(ada: User, dal: DataAccess) -> None:
    bare = DataAccess(dal.store)
    file = await bare.files.create(ada.id, "a", storage_key="k", file_size=1)
    for call in (
        bare.files.upload(ada.id, "a", b""),
        bare.files.read(file.id),
        bare.files.presign_get(file.id, expires_in=5),
        bare.files.start_upload(ada.id, "a"),
        bare.files.sweep(),
    ):
        with pytest.raises(ConfigurationError, match="BLOB_URL"):
            await call
    assert await bare.files.delete(file.id) is True
    assert await bare.files.delete(file.id) is False
    await bare.files.close_contents()
