"""Requests that their URL alone allows, sent by a client that knows nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest

from dal.blobs.base import BlobStore, SignedRequest
from dal.errors import InvalidInputError, UnsupportedError
from dal.testing.blobs.data import content, read


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=30)


async def send(request: SignedRequest, body: bytes = b"", **changed: str) -> httpx.Response:
    """The signed request, some of its headers changed."""
    headers = {name: value for name, value in request.headers.items() if name != "content-length"} | changed
    async with client() as http:
        return await http.request(request.method, request.url, headers=headers, content=body or None)


class SignedConformance:
    """`presign`."""

    async def test_a_store_that_cannot_sign_says_so(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            with pytest.raises(UnsupportedError):
                await store.presign("GET", "s", expires_in=60)

    async def test_requests_that_cannot_be_signed_are_refused(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            pytest.skip("capabilities.presign is False")
        for expires_in in (0, -1, 604_801):
            with pytest.raises(InvalidInputError):
                await store.presign("GET", "s", expires_in=expires_in)
        with pytest.raises(InvalidInputError):
            await store.presign("GET", "../s", expires_in=60)
        with pytest.raises(InvalidInputError):
            await store.presign("DELETE", "s", expires_in=60)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError):
            await store.presign("PUT", "s", expires_in=60, upload_id="x")

    async def test_a_signed_get_gives_the_blob_and_its_ranges(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            pytest.skip("capabilities.presign is False")
        stored = content(100_000)
        await store.put("s/a", stored, content_type="text/plain")
        request = await store.presign("GET", "s/a", expires_in=60)
        assert timedelta(seconds=50) < request.expires_at - datetime.now(UTC) <= timedelta(seconds=62)
        answer = await send(request)
        assert (answer.status_code, answer.content) == (200, stored)
        assert answer.headers["content-type"] == "text/plain"
        part = await send(request, range="bytes=10-19")
        assert part.content == stored[10:20]
        assert part.headers["content-range"] == "bytes 10-19/100000"

    async def test_a_signed_get_offers_a_download_under_any_name(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            pytest.skip("capabilities.presign is False")
        await store.put("s/a", b"one")
        answer = await send(await store.presign("GET", "s/a", expires_in=60, filename='naïve "file"\r\nx: y.txt'))
        assert answer.content == b"one"
        wanted = "attachment; filename*=UTF-8''na%C3%AFve%20%22file%22%0D%0Ax%3A%20y.txt"
        assert answer.headers["content-disposition"] == wanted

    async def test_a_signed_put_stores_what_was_agreed_and_nothing_else(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            pytest.skip("capabilities.presign is False")
        request = await store.presign("PUT", "s/a", expires_in=60, content_type="text/plain", size=5)
        assert {name.lower() for name in request.headers} == {"content-type", "content-length"}
        for body, kind in ((b"four", "text/plain"), (b"sixsix", "text/plain"), (b"fiver", "text/html")):
            answer = await send(request, body, **{"content-type": kind})
            assert answer.status_code == 403, (body, kind, answer.text)
        assert await store.head("s/a") is None
        assert (await send(request, b"fiver")).status_code == 200
        found = await store.head("s/a")
        assert found is not None
        assert (found.size, found.content_type) == (5, "text/plain")
        assert await read(store, "s/a") == b"fiver"

    async def test_a_signed_part_becomes_a_part(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            pytest.skip("capabilities.presign is False")
        upload_id = await store.start_parts("s/a")
        request = await store.presign("PUT", "s/a", expires_in=60, size=5, upload_id=upload_id, part_number=1)
        answer = await send(request, b"fiver")
        assert answer.status_code == 200, answer.text
        part = await store.put_part("s/a", upload_id, 1, b"fiver", size=5)
        if store.capabilities.list_parts:
            assert [found.size for found in await store.list_parts("s/a", upload_id)] == [5]
            assert answer.headers["etag"].strip('"') == part.etag
        await store.complete_parts("s/a", upload_id, [part])
        assert await read(store, "s/a") == b"fiver"

    async def test_another_method_key_signature_or_hour_is_refused(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            pytest.skip("capabilities.presign is False")
        await store.put("s/a", b"one")
        await store.put("s/b", b"two")
        request = await store.presign("GET", "s/a", expires_in=60)
        parts = urlsplit(request.url)
        signature = parts.query.rpartition("=")[2]
        flipped = ("0" if signature[0] != "0" else "1") + signature[1:]
        wrong = [
            ("GET", request.url.replace("s/a?", "s/b?")),
            ("GET", request.url.replace(signature, flipped)),
            ("GET", request.url.replace(signature, "")),
            ("GET", request.url.replace("xpires=", "xpires=9")),
            ("GET", f"{parts.scheme}://{parts.netloc}{parts.path}"),
            ("PUT", request.url),
            ("DELETE", request.url),
        ]
        for method, url in wrong:
            async with client() as http:  # each with a connection of its own: one whose body was refused may end
                answer = await http.request(method, url, content=b"evil" if method == "PUT" else None)
            assert answer.status_code in (400, 401, 403), (method, url, answer.status_code)
            assert b"two" not in answer.content
        assert await read(store, "s/a") == b"one"
        assert await read(store, "s/b") == b"two"

    async def test_an_expired_request_is_refused(self, store: BlobStore) -> None:
        if not store.capabilities.presign:
            pytest.skip("capabilities.presign is False")
        await store.put("s/a", b"one")
        request = await store.presign("GET", "s/a", expires_in=1)
        # Time itself is the subject: nobody can move the clock of a real server.
        await asyncio.sleep((request.expires_at - datetime.now(UTC)).total_seconds() + 0.1)
        answer = await send(request)
        assert answer.status_code in (400, 401, 403), answer.text
