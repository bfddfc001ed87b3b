"""Requests as they are counted, and how the counts come into the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, MutableMapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from dal.access import DataAccess
from dal.blobs.asgi import BlobApp
from dal.blobs.counted import Counted, counted_in
from dal.blobs.factory import create_blob_store, url_signer
from dal.blobs.local import LocalBlobStore
from dal.blobs.memory import MemoryBlobStore
from dal.blobs.signing import UrlSigner
from dal.config import Settings
from dal.errors import InvalidInputError, NotFoundError, UnavailableError
from dal.factory import create_data_access
from dal.files import recording
from dal.files.recording import UsageRecorder
from dal.limits import BLOB_LIST_KEYS, S3_PART_BYTES
from dal.ops import Op
from dal.repositories.base import Context
from dal.repositories.storage_metrics import StorageMetrics
from dal.store import ReadCommit
from dal.values import new_id

NOW = datetime(2026, 11, 29, 23, 59, tzinfo=UTC)


async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 1024**2):
        yield b"x" * 1024**2


async def test_requests_are_counted_as_they_are_billed() -> None:
    blobs = Counted(MemoryBlobStore(), "r2")
    await blobs.open()
    await blobs.put("a", b"12345")
    await blobs.head("a")
    assert await (await blobs.get("a", start=1, end=4)).read() == b"234"
    await blobs.copy("a", "b")
    await blobs.delete(["b"])
    assert blobs.take() == {"class_a": 2, "class_b": 2, "ingress": 5, "egress": 3}

    upload = await blobs.start_parts("c")
    part = await blobs.put_part("c", upload, 1, b"123", size=3)
    await blobs.list_parts("c", upload)
    await blobs.complete_parts("c", upload, [part])
    await blobs.abort_parts("c", upload)
    assert blobs.take() == {"class_a": 4, "ingress": 3}

    with pytest.raises(NotFoundError):
        await blobs.get("nothing")
    assert blobs.take() == {"class_b": 1}  # asked is paid
    assert blobs.take() == {}


async def test_requests_that_were_signed_are_counted_apart(tmp_path: Path) -> None:
    blobs = Counted(LocalBlobStore(tmp_path, signer=UrlSigner("0" * 32, "http://test")), "file")
    await blobs.presign("GET", "a", expires_in=5)
    await blobs.presign("PUT", "b", expires_in=5, size=3)
    await blobs.presign("PUT", "c", expires_in=5, size=3)
    assert blobs.take() == {"signed_get": 1, "signed_put": 2}
    with pytest.raises(InvalidInputError):
        await blobs.presign("GET", "a", expires_in=0)
    assert blobs.take() == {}


async def test_what_is_served_of_a_signed_request_is_counted_and_recorded(tmp_path: Path) -> None:
    settings = Settings(
        blob_url=f"file:{tmp_path}/blobs", blob_signing_secret="0" * 32, blob_public_url="http://test/blobs"
    )
    signer = url_signer(settings)
    assert signer is not None
    dal = create_data_access(f"sqlite:{tmp_path}/rows.db", settings=settings)
    app = BlobApp(dal.files.blobs, signer, owner=dal)
    asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: asyncio.Queue[MutableMapping[str, object]] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, asked.get, said.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    ada = await dal.users.create()
    file = await dal.files.upload(ada.id, "a.txt", b"0123456789")
    signed = await dal.files.presign_get(file.id, expires_in=60)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        assert (await http.get(signed.url)).content == b"0123456789"
        assert (await http.get(signed.url, headers={"range": "bytes=7-"})).content == b"789"
    await asked.put({"type": "lifespan.shutdown"})
    await life
    async with create_data_access(f"sqlite:{tmp_path}/rows.db", settings=settings) as again:
        costs = await again.files.monitoring.costs()
        assert (costs.line("class_a").quantity, costs.line("class_b").quantity, costs.line("egress").quantity) == (
            1,
            4,
            13,
        )
        assert costs.signed == costs.as_dict()["signed"] == 1


async def test_a_large_stream_counts_as_an_upload_in_parts() -> None:
    blobs = Counted(MemoryBlobStore(), "r2")
    await blobs.put("a", pieces(2 * S3_PART_BYTES + 1024**2))
    assert blobs.take()["class_a"] == 1 + 3 + 1
    await blobs.put("a", pieces(1024**2))
    assert blobs.take()["class_a"] == 1


@pytest.mark.parametrize(("keys", "requests"), [(0, 1), (1, 1), (BLOB_LIST_KEYS, 1), (BLOB_LIST_KEYS + 1, 2)])
async def test_a_listing_counts_a_request_for_each_thousand(keys: int, requests: int) -> None:
    blobs = Counted(MemoryBlobStore(), "r2")
    for number in range(keys):
        await blobs.inner.put(f"{number:05}", b"")
    assert len([info async for info in blobs.list()]) == keys
    assert blobs.take() == {"class_a": requests}
    assert [upload async for upload in blobs.list_uploads()] == []
    assert blobs.take() == {"class_a": 1}


def test_every_store_that_an_application_uses_is_counted_under_its_provider(tmp_path: Path) -> None:
    settings = Settings(
        blob_url="s3://bucket?endpoint=https://account.r2.cloudflarestorage.com",
        blob_fallback_url="file:/nowhere",
        blob_cache_dir=str(tmp_path / "cache"),
        aws_access_key_id="id",
        aws_secret_access_key="secret",
    )
    assert [store.provider for store in counted_in(create_blob_store(settings=settings))] == ["r2", "file"]
    assert [store.provider for store in counted_in(create_blob_store("memory:"))] == ["memory"]
    assert counted_in(MemoryBlobStore()) == counted_in(None) == []


class Refusing:
    """A store whose commits fail while it is told so."""

    def __init__(self, store: ReadCommit) -> None:
        self._store = store
        self.read = store.read
        self.error: Exception | None = None
        self.committed = asyncio.Event()

    async def commit(self, ops: list[Op]) -> object:
        if self.error is not None:
            raise self.error
        receipt = await self._store.commit(ops)
        self.committed.set()
        return receipt


async def recorded(dal: DataAccess) -> dict[tuple[str, str], int]:
    found = await StorageMetrics(Context(dal.store, lambda: NOW, new_id, "memory")).list()
    return {(counter.period, counter.metric): counter.value for counter in found.items}


async def test_counts_are_added_up_by_day_and_none_is_lost_while_the_store_does_not_answer() -> None:
    async with create_data_access("memory://") as dal:
        store = Refusing(dal.store)
        metrics = StorageMetrics(Context(store, lambda: NOW, new_id, "memory"))  # type: ignore[arg-type]
        one, two = Counted(MemoryBlobStore(), "r2"), Counted(MemoryBlobStore(), "s3")
        recorder = UsageRecorder(metrics, [one, two], lambda: NOW)
        await one.put("a", b"123")
        await two.head("a")
        await recorder.flush()
        store.error = UnavailableError("no answer")
        await one.put("b", b"4")
        with pytest.raises(UnavailableError):
            await recorder.flush()
        store.error = None
        await recorder.flush()
        assert await recorded(dal) == {
            ("2026-11-29", "r2.class_a"): 2,
            ("2026-11-29", "r2.ingress"): 4,
            ("2026-11-29", "s3.class_b"): 1,
        }
        # What may have been written is not counted twice.
        await one.head("a")
        store.error = UnavailableError("lost", outcome="unknown")
        with pytest.raises(UnavailableError):
            await recorder.flush()
        store.error = None
        await recorder.flush()
        assert ("2026-11-29", "r2.class_b") not in await recorded(dal)


async def test_counts_are_recorded_now_and_then_and_at_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "USAGE_FLUSH_S", 0.001)
    async with create_data_access("memory://") as dal:
        store = Refusing(dal.store)
        blobs = Counted(MemoryBlobStore(), "r2")
        metrics = StorageMetrics(Context(store, lambda: NOW, new_id, "memory"))  # type: ignore[arg-type]
        recorder = UsageRecorder(metrics, [blobs], lambda: NOW)
        recorder.start()
        await blobs.head("a")
        await store.committed.wait()
        await recorder.close()
        await blobs.head("a")
        await recorder.close()
        assert await recorded(dal) == {("2026-11-29", "r2.class_b"): 2}
        store.error = UnavailableError("gone")
        await blobs.head("a")
        with caplog.at_level(logging.WARNING, "dal.files"):
            await recorder.close()
        assert "not recorded" in caplog.text
