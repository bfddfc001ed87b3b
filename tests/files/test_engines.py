"""Files' contents on engines that are far away: R2 with rows in memory, and rows in D1."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from dal import DataAccess, QuotaExceededError, User
from dal.blobs.base import BlobStore
from tests.engines.s3 import R2Engine
from tests.files.conftest import keys
from tests.files.test_upload import checksum, content, pieces


class TestR2:
    @pytest.fixture(params=["memory+r2"])
    def pair(self) -> tuple[str, str]:
        return "memory", "r2"

    @pytest.fixture
    def blobs(self, r2_engine: R2Engine) -> BlobStore:
        return r2_engine.store()

    async def test_contents_go_through_r2_whole_in_parts_and_by_signed_requests(
        self, dal: DataAccess, ada: User, blobs: BlobStore
    ) -> None:
        data = content(6 * 1024 * 1024 + 5)
        small = await dal.files.upload(ada.id, "small.bin", b"\0" * 100)
        large = await dal.files.upload(ada.id, "large.bin", pieces(data))
        assert await dal.files.read(large.id, verify=True) == data
        assert await dal.files.read(large.id, start=5_999_999, end=6_000_001) == data[5_999_999:6_000_001]
        copy = await dal.files.copy(large.id)
        upload = await dal.files.start_upload(ada.id, "parts.bin", total_size=len(data), part_size=5 * 1024 * 1024)
        first = await dal.files.presign_part(upload.upload_id, 1, expires_in=60)
        await dal.files.upload_part(upload.upload_id, 2, data[5 * 1024 * 1024 :])
        signed = await dal.files.presign_put(ada.id, "signed.png", size=108, mime_type="image/png", expires_in=60)
        png = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
        async with httpx.AsyncClient() as client:
            tags = []
            for request, body in ((first, data[: 5 * 1024 * 1024]), (signed.request, png)):
                answer = await client.put(request.url, headers=dict(request.headers), content=body)
                assert answer.is_success, answer.text
                tags.append(answer.headers["etag"].strip('"'))
            parted = await dal.files.complete_upload(upload.upload_id, etags={1: tags[0]})
            image = await dal.files.complete_upload(signed.upload.upload_id)
            got = await dal.files.presign_get(image.id, expires_in=60)
            assert (await client.get(got.url, headers=dict(got.headers))).content == png
        assert (parted.checksum, image.checksum) == (checksum(data), checksum(png))
        assert await dal.files.read(parted.id, verify=True) == data
        assert await keys(blobs) == sorted(f.storage_key for f in (small, large, copy, parted, image))


class TestD1:
    @pytest.fixture(params=["d1+local"])
    def pair(self) -> tuple[str, str]:
        return "d1", "local"

    async def test_rows_in_d1_keep_quota_and_log(self, dal: DataAccess, ada: User, tmp_path: Path) -> None:
        await dal.files.set_quota(ada.id, max_bytes=25, max_files=None)
        file = await dal.files.upload(ada.id, "a.txt", b"0123456789", if_absent=True)
        await dal.files.upload(ada.id, "b.txt", b"0123456789")
        with pytest.raises(QuotaExceededError):
            await dal.files.upload(ada.id, "c.txt", b"0123456789")
        await dal.files.grant(file.id, "somebody", expires_in=60)
        await dal.files.download_to(file.id, tmp_path / "out", verify=True)
        await dal.files.delete(file.id)
        upload = await dal.files.start_upload(ada.id, "d", total_size=5)
        await dal.files.upload_part(upload.upload_id, 1, b"parts")
        assert (await dal.files.complete_upload(upload.upload_id)).file_size == 5
        assert (await dal.files.usage(ada.id)).used_bytes == 15
        assert len((await dal.files.access_log(user_id=ada.id)).items) == 9
        assert (await dal.files.sweep()).corrected_quotas == 0
