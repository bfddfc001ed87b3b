"""The HTTP client under the store: connections that are kept, and what it offers the server."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from urllib.parse import urlsplit

import hpack
import pytest

from dal import Settings
from dal.backends.d1.transport import D1Address, D1Transport
from dal.factory import create_store
from dal.limits import D1_CONNECTIONS
from dal.ops import Count, Insert
from dal.testing import rows
from tests.d1.conftest import Place


class Relay:
    """A relay to the engine that counts the connections it is given."""

    def __init__(self, base: str) -> None:
        self._target = urlsplit(base)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self.connections = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}{self._target.path}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there_reader, there_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_one_connection_serves_one_caller_and_a_few_serve_many(place: Place) -> None:
    relay = Relay(place.database.base)
    async with relay as base:
        settings = Settings(d1_api_base=base, d1_api_token=place.database.token)
        store = create_store(place.database.url, settings=settings)
        await store.open()
        for n in range(20):
            await store.commit([Insert("users", rows.user(n))])
            await store.read(Count("users"))
        assert relay.connections == 1
        await asyncio.gather(*(store.read(Count("users")) for _ in range(100)))
        assert relay.connections <= D1_CONNECTIONS
        await store.close()


async def test_the_coder_of_http_2_headers_logs_no_token(caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG it would write every header, in plain text or in its own coding."""
    caplog.set_level(logging.DEBUG)
    transport = D1Transport(D1Address("https://api.cloudflare.com/client/v4", "a", "d"), "s3cret")
    await transport.open()
    hpack.Encoder().encode([("authorization", "Bearer s3cret")], huffman=False)
    await transport.close()
    assert not [record for record in caplog.records if record.name.startswith("hpack")]


async def test_http_2_is_offered() -> None:
    transport = D1Transport(D1Address("https://api.cloudflare.com/client/v4", "a", "d"), "token")
    await transport.open()
    assert transport._client is not None
    pool = transport._client._transport._pool  # type: ignore[attr-defined]
    assert pool._http2
    await transport.close()
    await transport.close()
