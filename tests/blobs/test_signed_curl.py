"""Signed requests in the hands of curl, on R2, rclone's S3 and the local application: they allow what was agreed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from dal.blobs.base import BlobStore, SignedRequest
from dal.testing.blobs.data import content, read
from tests.blobs.conftest import make

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="no curl on PATH")


@pytest_asyncio.fixture(params=["served", "r2", "rclone"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = make(request.param, request, tmp_path)
    await store.open()
    yield store
    await store.close()


async def curl(*arguments: str, body: bytes | None = None) -> tuple[int, bytes]:
    """The status, and what was answered."""
    sending = () if body is None else ("--data-binary", "@-")
    command = [str(CURL), "--silent", "--noproxy", "*", "--max-time", "30", "--write-out", "\n%{http_code}"]
    done = await asyncio.to_thread(
        subprocess.run, [*command, *sending, *arguments], input=body or b"", capture_output=True, timeout=60
    )
    answer, _, status = done.stdout.rpartition(b"\n")
    return int(status), answer


def headers(request: SignedRequest, **changed: str) -> list[str]:
    """What curl is to send; it counts the length itself."""
    named = {name: value for name, value in request.headers.items() if name != "content-length"} | changed
    return [word for name, value in named.items() for word in ("--header", f"{name}: {value}")]


async def test_what_was_agreed_is_done(store: BlobStore) -> None:
    put = await store.presign("PUT", "c/a", expires_in=60, content_type="image/png", size=70_000)
    status, _ = await curl("--request", "PUT", *headers(put), put.url, body=content(70_000))
    assert status == 200
    get = await store.presign("GET", "c/a", expires_in=60)
    assert await curl(get.url) == (200, content(70_000))
    status, part = await curl("--range", "100-199", get.url)
    assert part == content(70_000)[100:200]


async def test_a_part_goes_up_and_the_upload_is_completed(store: BlobStore) -> None:
    upload_id = await store.start_parts("c/a")
    signed = await store.presign("PUT", "c/a", expires_in=60, size=5, upload_id=upload_id, part_number=1)
    for body, expected in ((b"four", 403), (b"fiver", 200)):
        status, _ = await curl("--request", "PUT", *headers(signed, **{"content-type": ""}), signed.url, body=body)
        assert status == expected
    if store.capabilities.list_parts:
        await store.complete_parts("c/a", upload_id, await store.list_parts("c/a", upload_id))
        assert await read(store, "c/a") == b"fiver"


@pytest.mark.parametrize("what", ["length", "type", "signature", "method", "key", "no signature", "size in the URL"])
async def test_anything_else_is_refused(store: BlobStore, what: str) -> None:
    await store.put("c/other", b"other")
    put = await store.presign("PUT", "c/a", expires_in=60, content_type="image/png", size=5)
    url, body, method, changed = put.url, b"fiver", "PUT", {}
    signature = urlsplit(url).query.rpartition("=")[2]
    match what:
        case "length":
            body = b"more than five"
        case "type":
            changed = {"content-type": "text/html"}
        case "signature":
            url = url.replace(signature, ("0" if signature[0] != "0" else "1") + signature[1:])
        case "method":
            method, url = "DELETE", url
        case "key":
            url = url.replace("c/a?", "c/other?")
        case "no signature":
            url = url.partition("?")[0]
        case _:
            url += "&size=14"
    arguments = ["--request", method, *headers(put, **changed), url]
    status, _ = await curl(*arguments, body=body if method == "PUT" else None)
    assert status in (400, 401, 403), what
    assert await store.head("c/a") is None
    assert await read(store, "c/other") == b"other"


async def test_an_expired_request_is_refused(store: BlobStore) -> None:
    put = await store.presign("PUT", "c/a", expires_in=1, content_type="image/png", size=5)
    await asyncio.sleep(2.1)  # the servers' clocks are the machine's, and count whole seconds
    status, _ = await curl("--request", "PUT", *headers(put), put.url, body=b"fiver")
    assert status in (400, 401, 403)
    assert await store.head("c/a") is None
