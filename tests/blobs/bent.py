"""A server that answers what a test tells it to: refusals, broken connections, silence. Counts what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from dal.blobs.s3 import S3BlobStore
from dal.blobs.s3.credentials import Credentials
from dal.blobs.urls import parse_blob_url

SECRET = "hidden-secret-key"


class Request(NamedTuple):
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answer:
    """cut: the connection breaks off behind so many bytes of the body.  silent: nothing ever comes."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent: bool = False


def refusal(status: int, code: str, **headers: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class Bent:
    """answers: in their order; the last one is given again and again."""

    def __init__(self, *answers: Answer | Callable[[Request], Answer]) -> None:
        self._answers = list(answers)
        self.requests: list[Request] = []
        self.slept: list[float] = []
        self.url = ""

    def store(self, **query: str) -> S3BlobStore:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        bucket = parse_blob_url(f"s3://files/pre?endpoint={self.url}&region=auto{more}").bucket
        assert bucket is not None
        return S3BlobStore(bucket, Credentials("key", SECRET), sleep=self._sleep)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                method, target, _ = first.split()
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(method, target, headers, body)
                self.requests.append(request)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                answer = answer if isinstance(answer, Answer) else answer(request)
                if answer.silent:
                    await reader.read()
                    return
                length = {"content-length": str(len(answer.body))}
                named = "".join(f"{name}: {value}\r\n" for name, value in {**length, **answer.headers}.items())
                writer.write(f"HTTP/1.1 {answer.status} X\r\n{named}\r\n".encode())
                if method != "HEAD":
                    writer.write(answer.body[: answer.cut])
                await writer.drain()
                if answer.cut is not None:
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return  # the client went away, or the test is over
        finally:
            writer.close()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@asynccontextmanager
async def bent(*answers: Answer | Callable[[Request], Answer]) -> AsyncIterator[tuple[Bent, S3BlobStore]]:
    """The server, and an open store that speaks to it and sleeps for no time."""
    made = Bent(*answers)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = made.store()
    await store.open()
    try:
        yield made, store
    finally:
        await store.close()
        server.close()
        await server.wait_closed()
