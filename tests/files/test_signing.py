"""Signed requests: sent and fetched without the library, and looked at before they become a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from dal import (
    CorruptDataError,
    DataAccess,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    UnsupportedError,
    User,
)
from dal.blobs.asgi import BlobApp
from dal.blobs.base import BlobStore, SignedRequest
from dal.blobs.local import LocalBlobStore
from dal.blobs.signing import UrlSigner
from dal.files.keys import place_of
from dal.ops import Update
from dal.testing import FakeClock
from tests.files.conftest import Opened, keys
from tests.files.test_upload import checksum

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
pytestmark = pytest.mark.parametrize("pair", ["sqlite+local"], indirect=True)


@pytest.fixture
def signer(clock: FakeClock) -> UrlSigner:
    return UrlSigner("0" * 32, "http://test/blobs", clock=clock)


@pytest.fixture
def blobs(signer: UrlSigner, tmp_path: Path) -> BlobStore:
    return LocalBlobStore(tmp_path / "blobs", signer=signer)


@pytest_asyncio.fixture
async def client(blobs: BlobStore, signer: UrlSigner, dal: DataAccess) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(BlobApp(blobs, signer))
    async with httpx.AsyncClient(transport=transport) as client:
        yield client


async def send(client: httpx.AsyncClient, request: SignedRequest, data: bytes = b"") -> httpx.Response:
    return await client.request(request.method, request.url, headers=dict(request.headers), content=data)


async def test_what_is_sent_with_a_signed_request_becomes_a_file(
    dal: DataAccess, ada: User, client: httpx.AsyncClient, blobs: BlobStore, clock: FakeClock
) -> None:
    signed = await dal.files.presign_put(
        ada.id, "a.png", size=len(PNG), mime_type="image/png", checksum=checksum(PNG), expires_in=60
    )
    assert (await dal.files.usage(ada.id)).reserved_bytes == len(PNG)
    with pytest.raises(NotFoundError):
        await dal.files.complete_upload(signed.upload.upload_id)
    assert (await send(client, signed.request, PNG[:-1])).status_code in (400, 403)
    assert (await send(client, signed.request, PNG)).is_success
    file = await dal.files.complete_upload(signed.upload.upload_id)
    assert (file.checksum, file.mime_type, file.file_size) == (checksum(PNG), "image/png", len(PNG))
    # The request can be sent again until it expires: what it stores then is nobody's.
    evil = PNG[:-4] + b"evil"
    assert (await send(client, signed.request, evil)).is_success
    assert await dal.files.complete_upload(signed.upload.upload_id) == file
    assert await dal.files.read(file.id, verify=True) == PNG
    given = await dal.files.presign_get(file.id, expires_in=timedelta(seconds=60))
    assert 60 <= (given.expires_at - clock.now).total_seconds() < 61
    answer = await send(client, given)
    assert answer.content == PNG
    assert "attachment" in answer.headers["content-disposition"]
    assert "a.png" in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    clock.advance(61)
    assert (await send(client, given)).status_code == 403
    clock.now = max([blob.modified_at async for blob in blobs.list()])
    clock.advance(3601)
    assert (await dal.files.sweep()).orphan_blobs == 1
    assert await keys(blobs) == [file.storage_key]
    assert [e.action for e in (await dal.files.access_log(file_id=file.id)).items] == [
        "presign_get",
        "open",
        "complete_upload",
        "complete_upload",
        "complete_upload",
        "presign_put",
    ]


@pytest.mark.parametrize(
    ("data", "announced", "error"),
    [
        (b"%PDF-1.7" + bytes(100), None, InvalidInputError),
        (PNG, checksum(b"another"), CorruptDataError),
    ],
    ids=["type", "checksum"],
)
async def test_what_is_not_as_announced_is_refused_and_not_kept(
    dal: DataAccess,
    ada: User,
    client: httpx.AsyncClient,
    blobs: BlobStore,
    data: bytes,
    announced: str | None,
    error: type[Exception],
) -> None:
    signed = await dal.files.presign_put(
        ada.id, "a.png", size=len(data), mime_type="image/png", checksum=announced, expires_in=60
    )
    assert (await send(client, signed.request, data)).is_success
    with pytest.raises(error):
        await dal.files.complete_upload(signed.upload.upload_id)
    assert await keys(blobs) == []
    assert (await dal.files.usage(ada.id)).reserved_files == 0


async def test_room_is_reserved_when_a_request_is_signed(dal: DataAccess, ada: User) -> None:
    await dal.files.set_quota(ada.id, max_bytes=150, max_files=None)
    signed = await dal.files.presign_put(ada.id, "a", size=100, expires_in=60)
    with pytest.raises(QuotaExceededError):
        await dal.files.presign_put(ada.id, "b", size=51, expires_in=60)
    assert await dal.files.abort_upload(signed.upload.upload_id) is True
    await dal.files.presign_put(ada.id, "b", size=150, expires_in=60)
    with pytest.raises(InvalidInputError):
        await dal.files.presign_put(ada.id, "c", size=0, expires_in=0)


async def test_what_was_sent_waits_for_its_completion_as_long_as_the_upload_lives(
    dal: DataAccess, ada: User, client: httpx.AsyncClient, blobs: BlobStore, clock: FakeClock
) -> None:
    signed = await dal.files.presign_put(ada.id, "a.png", size=len(PNG), expires_in=7200)
    assert (await send(client, signed.request, PNG)).is_success
    sent = max([blob.modified_at async for blob in blobs.list()])
    assert clock.now + timedelta(seconds=7200) < sent, "the test's clock is behind the disk's"
    clock.now = sent + timedelta(seconds=3601)
    await dal.store.commit(
        [Update("multipart_uploads", {"id": signed.upload.upload_id}, {"expires_at": clock.now + timedelta(hours=1)})]
    )
    report = await dal.files.sweep()
    assert (report.orphan_blobs, report.expired_uploads) == (0, 0)
    assert (await dal.files.complete_upload(signed.upload.upload_id)).mime_type == "image/png"


async def test_parts_are_sent_with_signed_requests(dal: DataAccess, ada: User, client: httpx.AsyncClient) -> None:
    upload = await dal.files.start_upload(ada.id, "a", total_size=15, part_size=10)
    for number, data in ((2, b"56789"), (1, b"0123456789")):
        request = await dal.files.presign_part(upload.upload_id, number, expires_in=60)
        assert (await send(client, request, data)).is_success
    assert [(p.part_number, p.size) for p in await dal.files.list_parts(upload.upload_id)] == [(1, 10), (2, 5)]
    file = await dal.files.complete_upload(upload.upload_id)
    assert await dal.files.read(file.id) == b"012345678956789"


async def test_compressed_contents_are_not_signed_for(opened: Opened) -> None:
    dal = await opened(compress=True)
    ada = await dal.users.create()
    file = await dal.files.upload(ada.id, "a.txt", b"text " * 5000)
    assert file.storage_key.endswith(".zst")
    with pytest.raises(UnsupportedError):
        await dal.files.presign_get(file.id, expires_in=60)


async def test_what_is_sent_with_a_signed_request_shares_equal_content(
    opened: Opened, signer: UrlSigner, blobs: BlobStore
) -> None:
    dal = await opened(deduplicate=True, compress=True)
    ada = await dal.users.create()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(BlobApp(blobs, signer))) as client:
        files = []
        for _ in range(2):
            signed = await dal.files.presign_put(ada.id, "a.txt", size=3000, expires_in=60)
            assert (await send(client, signed.request, b"abc" * 1000)).is_success
            files.append(await dal.files.complete_upload(signed.upload.upload_id))
        [key] = await keys(blobs)
        assert {place_of(file.storage_key) for file in files} == {(key, True, True, False)}, (
            "shared, and as it was sent"
        )
        got = await send(client, await dal.files.presign_get(files[1].id, expires_in=60))
        assert got.content == b"abc" * 1000
