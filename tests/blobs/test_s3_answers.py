"""What the client makes of every kind of answer: tried again where that helps, once, and told by its code."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from dal.blobs.base import Part
from dal.blobs.s3 import S3BlobStore
from dal.errors import (
    AlreadyExistsError,
    ConfigurationError,
    CorruptDataError,
    DalError,
    DalTimeoutError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from dal.limits import S3_ATTEMPTS, S3_BUSY_WAIT_S, S3_FIRST_WAIT_S, S3_MAX_PAUSE_S
from dal.testing.blobs.data import content, pieces, read
from dal.testing.reaching import reached
from tests.blobs.bent import SECRET, Answer, Request, bent, refusal

DONE = Answer(200, headers={"etag": '"e1"', "date": "Sun, 29 Nov 2026 04:00:00 GMT"})

CALLS: dict[str, Callable[[S3BlobStore], Awaitable[object]]] = {
    "put": lambda store: store.put("k", b"x"),
    "get": lambda store: store.get("k"),
    "range": lambda store: store.get("k", start=1),
    "head": lambda store: store.head("k"),
    "delete": lambda store: store.delete(["k"]),
    "list": lambda store: anext(aiter(store.list())),
    "start_parts": lambda store: store.start_parts("k"),
    "put_part": lambda store: store.put_part("k", "u", 1, b"x", size=1),
    "list_parts": lambda store: store.list_parts("k", "u"),
    "complete_parts": lambda store: store.complete_parts("k", "u", [Part(1, 1, "e")]),
    "abort_parts": lambda store: store.abort_parts("k", "u"),
    "list_uploads": lambda store: anext(aiter(store.list_uploads())),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_server_that_stays_away_is_asked_so_often_and_no_more(call: str) -> None:
    async with bent(refusal(503, "SlowDown")) as (server, store):
        with pytest.raises(UnavailableError, match="answered 503") as caught:
            await CALLS[call](store)
        # obstore's one look at a whole blob tells no code: the client asks for itself.
        assert len(server.requests) == S3_ATTEMPTS + (call == "get")
        assert len(server.slept) == S3_ATTEMPTS - 1
        assert all(wait <= S3_FIRST_WAIT_S * 2**n for n, wait in enumerate(server.slept))
        assert caught.value.retryable
        assert caught.value.outcome == "not_applied"
        assert caught.value.backend == "s3"


@pytest.mark.parametrize("call", CALLS)
async def test_a_refusal_is_not_repeated_and_shows_no_secret(call: str) -> None:
    async with bent(refusal(403, "SignatureDoesNotMatch")) as (server, store):
        with pytest.raises(ConfigurationError, match="answered 403") as caught:
            await CALLS[call](store)
        assert len(server.requests) == 1 + (call == "get")
        assert server.slept == []
        shown = "".join(traceback.format_exception(caught.value)) + repr(store) + repr(store.__dict__)
        assert SECRET not in shown
        assert "Signature=" not in shown


async def test_a_write_that_came_too_soon_waits_as_long_as_it_is_told() -> None:
    """R2 takes one write of a key a second."""
    async with bent(
        refusal(429, "TooManyRequests", retry_after="7"),
        refusal(429, "TooManyRequests"),
        refusal(503, "SlowDown", retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)),
        DONE,
    ) as (server, store):
        info = await store.put("k", b"x")
        assert info.etag == "e1"
        assert server.slept[:2] == [7.0, S3_BUSY_WAIT_S]
        assert 15 <= server.slept[2] <= 20
        assert [request.body for request in server.requests] == [b"x"] * 4


async def test_a_pause_that_nobody_would_wait_for_is_not_waited_for() -> None:
    async with bent(refusal(429, "TooManyRequests", retry_after=str(int(S3_MAX_PAUSE_S) + 1))) as (server, store):
        with pytest.raises(UnavailableError):
            await store.put("k", b"x")
        assert (len(server.requests), server.slept) == (1, [])


async def test_a_failure_that_passes_is_not_seen() -> None:
    async with bent(Answer(500, b"<html>no XML</html>"), Answer(200, cut=0, headers={"content-length": "5"}), DONE) as (
        server,
        store,
    ):
        assert (await store.put("k", b"x")).size == 1
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", NotFoundError),
        (404, "NoSuchBucket", ConfigurationError),
        (404, "NoSuchUpload", NotFoundError),
        (412, "PreconditionFailed", AlreadyExistsError),
        (400, "BadDigest", CorruptDataError),
        (400, "XAmzContentSHA256Mismatch", CorruptDataError),
        (400, "InvalidPart", InvalidInputError),
        (400, "EntityTooSmall", InvalidInputError),
        (400, "EntityTooLarge", LimitExceededError),
        (413, "", LimitExceededError),
        (400, "AuthorizationHeaderMalformed", ConfigurationError),
        (301, "PermanentRedirect", ConfigurationError),
        (501, "NotImplemented", UnsupportedError),
        (400, "SomethingNew", UnavailableError),
    ],
)
async def test_every_code_is_an_error_of_its_own(status: int, code: str, expected: type[DalError]) -> None:
    async with bent(refusal(status, code)) as (server, store):
        with pytest.raises(expected) as caught:
            await store.put("k", b"x")
        assert type(caught.value) is expected
        assert not caught.value.retryable
        assert len(server.requests) == 1


async def test_a_lost_answer_is_not_taken_for_somebody_elses_blob() -> None:
    async with bent(Answer(500), refusal(412, "PreconditionFailed")) as (server, store):
        with pytest.raises(AlreadyExistsError) as caught:
            await store.put("k", b"x", if_absent=True)
        assert caught.value.outcome == "unknown", "the blob that is there may be the one of the first try"
        assert server.requests[0].headers["if-none-match"] == "*"


async def test_silence_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.blobs.s3.client._TIMEOUT", httpx.Timeout(0.05))
    async with bent(Answer(silent=True)) as (server, store):
        with pytest.raises(DalTimeoutError) as caught:
            await store.put("k", b"x")
        assert len(server.requests) == S3_ATTEMPTS
        assert (caught.value.outcome, caught.value.retryable) == ("unknown", True)


async def test_nobody_there_is_said_and_nothing_was_written() -> None:
    async with bent(DONE) as (server, _):
        server.url = "http://127.0.0.1:1"
        store = server.store()
        await store.open()
        with pytest.raises(UnavailableError) as caught:
            await store.put("k", b"x")
        assert caught.value.outcome == "not_applied"
        assert "no answer" in (await store.health() or "")
        await store.close()


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("start", [0, 100_000])
async def test_a_broken_download_goes_on_where_it_ended(
    is_fast: bool, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_fast:
        monkeypatch.setattr("dal.blobs.s3.uploads.fast_store", lambda *_: None)
    whole = content(3_000_000)

    def answer(request: Request) -> Answer:
        first = int(request.headers.get("range", "bytes=0-").split("=")[1].split("-")[0])
        headers = {"etag": '"e1"', "last-modified": "Sun, 29 Nov 2026 04:00:00 GMT"}
        if "range" in request.headers:
            headers["content-range"] = f"bytes {first}-{len(whole) - 1}/{len(whole)}"
        rest = whole[first:]
        cut = 1_000_000 if len(rest) > 1_000_000 else None
        return Answer(206 if "range" in request.headers else 200, rest, headers, cut=cut)

    async with bent(answer) as (server, store):
        assert await read(store, "k", start) == whole[start:]
        assert len(server.requests) >= 3
        assert all(request.headers["if-match"] == '"e1"' for request in server.requests[1:])
        assert server.requests[1].headers["range"].endswith(f"-{len(whole) - 1}")


async def test_another_blob_under_the_key_is_not_the_rest_of_the_first() -> None:
    headers = {"etag": '"e1"', "last-modified": "Sun, 29 Nov 2026 04:00:00 GMT"}
    first = Answer(200, content(3_000_000), headers, cut=1_000_000)
    async with bent(first, refusal(412, "PreconditionFailed")) as (_, store):
        reading = await store.get("k")
        with pytest.raises(UnavailableError, match="replaced or deleted") as caught:
            [piece async for piece in reading.data]
        assert not caught.value.retryable


async def test_a_download_that_breaks_again_and_again_ends() -> None:
    headers = {"etag": '"e1"', "last-modified": "Sun, 29 Nov 2026 04:00:00 GMT"}
    ranged = {**headers, "content-range": "bytes 0-99/100"}
    async with bent(Answer(200, b"x" * 100, headers, cut=0), Answer(206, b"x" * 100, ranged, cut=0)) as (server, store):
        with pytest.raises(UnavailableError):
            await read(store, "k")
        assert len(server.requests) <= S3_ATTEMPTS + 1


async def test_an_answer_that_begins_well_and_ends_in_an_error_is_one() -> None:
    error = Answer(200, b"<Error><Code>InternalError</Code></Error>")
    upload = Answer(200, b"<X><UploadId>u</UploadId></X>")
    async with bent(Answer(200, headers={"content-length": "5", "etag": '"e"'}, body=b"12345"), error) as (_, store):
        with pytest.raises(UnavailableError, match="200 and then InternalError"):
            await store.copy("a", "b")
    async with bent(upload, error) as (_, store):
        upload_id = await store.start_parts("k")
        with pytest.raises(UnavailableError, match="200 and then InternalError") as caught:
            await store.complete_parts("k", upload_id, [Part(1, 1, "e")])
        assert caught.value.outcome == "unknown"
    async with bent(Answer(200, b"<html>")) as (_, store):
        with pytest.raises(UnavailableError, match="no XML"):
            await store.start_parts("k")


async def test_what_was_not_deleted_is_said() -> None:
    body = b"<DeleteResult><Error><Key>pre/k</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    async with bent(Answer(200, body)) as (server, store):
        with pytest.raises(UnavailableError, match="k: the server answered AccessDenied"):
            await store.delete(["k", "l"])
        assert b"<Key>pre/k</Key>" in server.requests[0].body


async def test_a_bucket_that_is_not_there_is_no_blob_that_is_not_there() -> None:
    async with bent(Answer(404)) as (server, store):
        with pytest.raises(ConfigurationError, match="no bucket files"):
            await store.head("k")
    async with bent(Answer(404), Answer(200), Answer(404)) as (server, store):
        assert await store.head("k") is None
        assert await store.head("k") is None
        assert len(server.requests) == 3, "it is looked for once"


async def test_a_streamed_part_is_sent_again_if_it_is_small_and_once_if_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.blobs.s3.uploads.S3_RESENT_PART_BYTES", 100_000)
    async with bent(Answer(500)) as (server, store):
        with pytest.raises(UnavailableError):
            await store.put_part("k", "u", 1, pieces(content(100_000)), size=100_000)
        assert len(server.requests) == S3_ATTEMPTS
        with pytest.raises(UnavailableError):
            await store.put_part("k", "u", 1, pieces(content(100_001)), size=100_001)
        assert len(server.requests) == S3_ATTEMPTS + 1
        assert server.requests[-1].headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        assert server.requests[-1].body == content(100_001)


async def test_a_large_put_that_fails_is_aborted_and_takes_no_further_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.blobs.s3.sending.S3_UNKNOWN_PART_BYTES", 1024 * 1024)

    def answer(request: Request) -> Answer:
        if request.method == "PUT":
            return refusal(403, "AccessDenied")
        return Answer(204 if request.method == "DELETE" else 200, b"<X><UploadId>u1</UploadId></X>")

    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1024 * 1024)

    async with bent(answer) as (server, store):
        with pytest.raises(ConfigurationError):
            await store.put("k", endless())
        assert server.requests[0].method == "POST"
        aborted = [request.target for request in server.requests if request.method == "DELETE"]
        assert aborted == ["/files/pre/k?uploadId=u1"]
        assert taken < 50


async def test_a_cancelled_put_ends_though_the_abort_is_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.blobs.s3.sending.CLOSE_TIMEOUT_S", 0.05)
    asked = asyncio.Event()

    def answer(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(200, b"<X><UploadId>u1</UploadId></X>")
        asked.set()
        return Answer(silent=True)

    async with bent(answer) as (server, store):
        task = asyncio.create_task(store.put("k", content(9 * 1024 * 1024)))
        await reached(asked, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "DELETE" in [request.method for request in server.requests]


async def test_parts_are_equal_and_large_enough_for_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from dal.blobs.s3.sending import _part_bytes
    from dal.limits import MAX_BLOB_BYTES, MAX_BLOB_PART_BYTES, MAX_BLOB_PARTS, S3_MIN_PART_BYTES

    for size in (None, 0, 1, 8 * 2**20 * 10_000, 8 * 2**20 * 10_000 + 1, MAX_BLOB_BYTES):
        part = _part_bytes(size)
        assert S3_MIN_PART_BYTES <= part <= MAX_BLOB_PART_BYTES
        assert -(-(size or 0) // part) <= MAX_BLOB_PARTS
    monkeypatch.setattr("dal.blobs.s3.sending.MAX_BLOB_PARTS", 2)
    monkeypatch.setattr("dal.blobs.s3.sending.S3_UNKNOWN_PART_BYTES", 100_000)
    made = Answer(200, b"<X><UploadId>u1</UploadId><ETag>e</ETag></X>", {"etag": '"e"'})
    async with bent(made) as (server, store):
        store.capabilities = replace(store.capabilities, min_part_bytes=1)
        with pytest.raises(LimitExceededError, match="name the size before"):
            await store.put("k", pieces(content(250_000)))
        assert server.requests[-1].method == "DELETE"
        await store.put("k", pieces(content(150_000)))
        sent = [len(request.body) for request in server.requests if "partNumber" in request.target][-2:]
        assert sorted(sent) == [50_000, 100_000]


async def test_a_blob_too_large_for_one_copy_is_copied_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dal.blobs.s3.uploads.S3_MAX_COPY_BYTES", 4)
    monkeypatch.setattr("dal.blobs.s3.store.S3_MAX_COPY_BYTES", 4)
    head = Answer(200, b"0123456789", {"etag": '"e"', "content-type": "text/plain", "x-amz-meta-sha256": "ab" * 32})
    made = Answer(200, b"<X><UploadId>u1</UploadId><ETag>e</ETag></X>")
    async with bent(head, made) as (server, store):
        store.capabilities = replace(store.capabilities, min_part_bytes=1)
        info = await store.copy("a", "b")
        assert (info.key, info.size, info.content_type) == ("b", 10, "text/plain")
        ranges = [request.headers.get("x-amz-copy-source-range") for request in server.requests]
        assert ranges == [None, None, "bytes=0-3", "bytes=4-7", "bytes=8-9", None]
        assert server.requests[1].headers["x-amz-meta-sha256"] == "ab" * 32
        assert {request.headers.get("x-amz-copy-source") for request in server.requests[2:5]} == {"/files/pre/a"}
