"""The application that serves a local store: what HTTP asks of it, beyond what signed requests promise."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from dal.blobs.asgi import BlobApp
from dal.blobs.base import SignedRequest
from dal.blobs.local import LocalBlobStore
from dal.blobs.signing import UrlSigner
from dal.errors import ConfigurationError
from dal.testing.blobs.data import content, keys, pieces, read
from tests.blobs.serving import Served


class Site:
    """A store, its application in this process, and a client of that."""

    def __init__(self, store: LocalBlobStore, signer: UrlSigner, max_bytes: int = 1_000_000) -> None:
        self.store = store
        app = BlobApp(store, signer, max_bytes=max_bytes)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    async def send(self, signed: SignedRequest, method: str = "", **more: str) -> httpx.Response:
        return await self.http.request(method or signed.method, signed.url, headers={**signed.headers, **more})


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    signer = UrlSigner(secrets.token_hex(32), "http://test/blobs")
    store = LocalBlobStore(tmp_path, signer=signer)
    await store.open()
    site = Site(store, signer)
    yield site
    await site.http.aclose()
    await store.close()


async def test_head_and_ranges_answer_as_http_wants(site: Site) -> None:
    await site.store.put("a", b"0123456789", content_type="text/plain")
    get = await site.store.presign("GET", "a", expires_in=60)
    head = await site.send(get, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-length"], head.headers["accept-ranges"]) == ("10", "bytes")
    assert head.headers["etag"].startswith('"')
    cases = {
        "bytes=0-0": (206, b"0"),
        "bytes=7-": (206, b"789"),
        "bytes=-3": (206, b"789"),
        "bytes=-30": (200, b"0123456789"),
        "bytes=5-100": (206, b"56789"),
        "bytes=10-": (416, b""),
        "bytes=-0": (416, b""),
        "bytes=4-2": (200, b"0123456789"),
        "bytes=0-1,3-4": (200, b"0123456789"),
        "lines=1-2": (200, b"0123456789"),
        "bytes=-": (200, b"0123456789"),
    }
    for asked, expected in cases.items():
        answer = await site.send(get, range=asked)
        assert (answer.status_code, answer.content) == expected, asked
    assert (await site.send(get, range="bytes=10-")).headers["content-range"] == "bytes */10"
    other = await site.send(get, range="bytes=1-2", **{"if-range": '"other"'})
    assert other.content == b"0123456789"
    same = await site.send(get, range="bytes=1-2", **{"if-range": head.headers["etag"]})
    assert same.content == b"12"
    known = await site.send(get, **{"if-none-match": head.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


async def test_a_browser_does_not_act_on_what_people_stored(site: Site) -> None:
    await site.store.put("a", b"<script>", content_type="text/html")
    answer = await site.send(await site.store.presign("GET", "a", expires_in=60))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"


async def test_what_is_gone_is_404_and_other_requests_learn_nothing(site: Site) -> None:
    gone = await site.store.presign("GET", "gone", expires_in=60)
    assert (await site.send(gone)).status_code == 404
    for path in ("/blobs/gone", "/blobs/", "/", "/blobs/../../etc/passwd", "/blobs/gone?signature=", "/elsewhere"):
        answer = await site.http.get(path)
        assert (answer.status_code, answer.content) == (403, b"")
    lost = await site.store.presign("PUT", "p", expires_in=60, size=0, upload_id="0" * 32, part_number=1)
    assert (await site.http.put(lost.url)).status_code == 404
    evil = site.store._signer
    assert evil is not None
    outside = evil.sign("GET", "../../etc/passwd", expires_in=60)  # the signer signs; the store refuses the key
    assert (await site.http.get(outside.url)).status_code in (400, 403)


async def test_a_body_without_an_agreed_size_has_a_limit(site: Site) -> None:
    free = await site.store.presign("PUT", "a", expires_in=60)
    assert (await site.http.put(free.url, content=content(1_000_001))).status_code == 413
    assert (await site.http.put(free.url, content=pieces(content(1_000_001)))).status_code == 413
    assert await keys(site.store) == []
    assert (await site.http.put(free.url, content=pieces(content(1_000_000)))).status_code == 200
    sized = await site.store.presign("PUT", "b", expires_in=60, size=5)
    chunked = await site.http.put(sized.url, content=pieces(b"fiver"))
    assert chunked.status_code == 403, "what was agreed must be announced"
    upload_id = await site.store.start_parts("c")
    part = await site.store.presign("PUT", "c", expires_in=60, upload_id=upload_id, part_number=1)
    assert (await site.http.put(part.url, content=pieces(b"fiver"))).status_code == 411
    assert await keys(site.store) == ["a"]


async def test_it_works_where_it_is_mounted(site: Site, tmp_path: Path) -> None:
    from fastapi import FastAPI

    signer = site.store._signer
    assert signer is not None
    app = FastAPI()
    app.mount("/blobs", BlobApp(site.store, signer))
    await site.store.put("a/b", b"mounted")
    get = await site.store.presign("GET", "a/b", expires_in=60)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        answer = await http.get(get.url)
        assert (answer.status_code, answer.content) == (200, b"mounted")


async def test_a_client_that_goes_away_leaves_nothing(site: Site, tmp_path: Path) -> None:
    put = await site.store.presign("PUT", "a", expires_in=60, size=3_000_000)
    signer = site.store._signer
    assert signer is not None
    coming: Iterator[dict[str, object]] = iter(
        [{"type": "http.request", "body": bytes(2_000_000), "more_body": True}, {"type": "http.disconnect"}]
    )
    path, _, query = put.url.removeprefix("http://test").partition("?")
    headers = [(name.encode(), value.encode()) for name, value in put.headers.items()]
    scope = {"type": "http", "method": "PUT", "path": path, "query_string": query.encode(), "headers": headers}
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return next(coming)

    async def send(message: object) -> None:
        sent.append(message)

    await BlobApp(site.store, signer)(scope, receive, send)
    assert sent == [], "there is nobody left to answer"
    assert await site.store.head("a") is None
    assert list((tmp_path / "unfinished").iterdir()) == []


async def test_a_large_blob_streams_both_ways(served: Served) -> None:
    await served.store.open()
    data = content(20_000_000)
    put = await served.store.presign("PUT", "a", expires_in=60, size=len(data))
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.put(put.url, content=data)).status_code == 200
        assert await read(served.store, "a") == data
        get = await served.store.presign("GET", "a", expires_in=60)
        assert (await http.get(get.url)).content == data
    await served.store.close()


def test_a_signature_is_of_everything_and_of_this_secret_and_time() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    secret = secrets.token_hex(32)
    signer = UrlSigner(secret, "http://h/p", clock=lambda: now)
    signed = signer.sign("PUT", "a", expires_in=60, content_type="text/plain", size=5)
    query = signed.url.partition("?")[2]
    assert signed.expires_at == now + timedelta(seconds=60)
    grant = signer.verify("a", query)
    assert grant is not None
    assert (grant.method, grant.size, grant.content_type) == ("PUT", 5, "text/plain")
    assert signer.verify("b", query) is None
    changes = (
        ("size=5", "size=6"),
        ("PUT", "GET"),
        ("text", "test"),
        ("expires=", "expires=1"),
        ("signature=", "signature=0"),
    )
    for old, new in changes:
        assert old in query
        assert signer.verify("a", query.replace(old, new)) is None, new
    for query_changed in (f"{query}&size=6", f"{query}&part=1", f"{query}&x=1", "", "signature=", f"size=5&{query}"):
        assert signer.verify("a", query_changed) is None
    assert UrlSigner(secrets.token_hex(32), "http://h/p", clock=lambda: now).verify("a", query) is None
    assert UrlSigner(secret, "http://h/p", clock=lambda: now + timedelta(seconds=60)).verify("a", query) is None
    late = UrlSigner(secret, "http://h/p", clock=lambda: now + timedelta(seconds=59.9))
    assert late.verify("a", query) is not None
    assert secret not in repr(signer)


@pytest.mark.parametrize(
    ("secret", "url", "named"),
    [
        ("short", "http://h/p", "BLOB_SIGNING_SECRET"),
        ("x" * 32, "ftp://h", "BLOB_PUBLIC_URL"),
        ("x" * 32, "http://h/?a=b", "BLOB_PUBLIC_URL"),
        ("x" * 32, "/blobs", "BLOB_PUBLIC_URL"),
    ],
)
def test_a_signer_that_could_not_work_is_refused(secret: str, url: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        UrlSigner(secret, url)
    assert secret not in caught.value.message
