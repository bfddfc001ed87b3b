"""The way to D1: its REST API over one HTTP client, a request for each batch.

It sends a body once and gives the results or raises `Failure`; what a failure means and whether to try again is decided
above. The token lives in the client's headers and nowhere else: no log, error or repr holds it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from ipaddress import ip_address
from time import time
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import httpx
import orjson

from dal.backends.d1.errors import BACKEND, Failure
from dal.backends.d1.limiter import Limiter
from dal.errors import ConfigurationError, LimitExceededError, UnavailableError
from dal.limits import (
    CONNECT_TIMEOUT_S,
    D1_CONNECTIONS,
    D1_MAX_REQUEST_BYTES,
    POOL_WAIT_TIMEOUT_S,
    STATEMENT_TIMEOUT_S,
)

PUBLIC_HOST: Final = "api.cloudflare.com"
#: D1 ends a statement at STATEMENT_TIMEOUT_S; this is for a server or network that has gone silent.
_SILENCE_S: Final = STATEMENT_TIMEOUT_S + 5
JSON: Final = {"content-type": "application/json"}
_SHOWN_CHARS: Final = 300
_OK: Final = 200
Rows = list[tuple[object, ...]]


class D1Address(NamedTuple):
    """Where a database is: the API's base address with `/client/v4`, the account, the database."""

    base: str
    account: str
    database: str

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"d1://{self.account}/{self.database}"

    @property
    def databases(self) -> str:
        return f"{self.base.rstrip('/')}/accounts/{quote(self.account, safe='')}/d1/database"

    @property
    def url(self) -> str:
        return f"{self.databases}/{quote(self.database, safe='')}"


class Usage:
    """What the database was asked since the store was made, as D1 bills it."""

    def __init__(self) -> None:
        self.requests = 0
        self.rows_read = 0
        self.rows_written = 0


class D1Transport:
    """The REST API of one database. Not open until open(); may be opened again after close()."""

    #: For messages: the setting of its base address, what that looks like, and the setting of its token.
    settings = ("D1_API_BASE", "https://HOST/client/v4", "D1_API_TOKEN")

    def __init__(self, address: D1Address, token: str, *, client: httpx.AsyncClient | None = None) -> None:
        base_variable, form, token_variable = self.settings
        parts = urlsplit(address.base)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError(
                f"{base_variable}: must be {form}, without a user, password or query", backend=BACKEND
            )
        if parts.scheme == "http" and not _is_near(parts.hostname):
            raise ConfigurationError(f"{base_variable}: must be {form}: http would show the token", backend=BACKEND)
        if not token.isascii() or not token.isprintable() or not token:
            raise ConfigurationError(
                f"{token_variable}: is empty or holds characters that no token has", backend=BACKEND
            )
        self._address = address
        self._token = token
        self._given = client
        self._client: httpx.AsyncClient | None = None
        self._headers: httpx.Headers | None = None
        self.limiter = Limiter(is_limited=parts.hostname == PUBLIC_HOST)
        self.usage = Usage()

    def __repr__(self) -> str:
        return f"D1Transport({self._address.label!r})"

    async def open(self) -> None:
        if self._client is None:
            _keep_headers_out_of_logs()
            self._client = self._given or httpx.AsyncClient(
                http2=True,
                headers={"authorization": f"Bearer {self._token}"},
                timeout=httpx.Timeout(_SILENCE_S, connect=CONNECT_TIMEOUT_S, pool=POOL_WAIT_TIMEOUT_S),
                limits=httpx.Limits(max_connections=D1_CONNECTIONS, max_keepalive_connections=D1_CONNECTIONS),
                verify=_tls(),
            )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def query(self, body: bytes, count: int) -> list[Rows]:
        """The rows of each of `count` statements. Raises Failure; DalTimeoutError where the rate lets none go."""
        if len(body) > D1_MAX_REQUEST_BYTES:
            raise LimitExceededError(
                f"a request of {len(body)} bytes; the API takes {D1_MAX_REQUEST_BYTES}; write in smaller batches",
                operation="request",
                backend=BACKEND,
            )
        result = await self.call("POST", f"{self._address.url}/raw", body)
        return self._rows(result, count)

    async def call(self, method: str, url: str, body: bytes | None = None) -> Any:
        """The `result` of one call of the API. Raises Failure."""
        client = self._client
        if client is None:
            raise UnavailableError(
                f"{self._address.label} is closed; open the store again",
                operation="request",
                backend=BACKEND,
                retryable=False,
            )
        await self.limiter.permit()
        self.usage.requests += 1
        try:
            async with asyncio.timeout(_SILENCE_S + CONNECT_TIMEOUT_S):  # httpx bounds each read, not their number
                answer = await self._send(client, method, url, body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Failure(type(error).__name__, is_sent=False) from error
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Failure(type(error).__name__) from error
        return self._result(answer)

    async def _send(self, client: httpx.AsyncClient, method: str, url: str, body: bytes | None) -> httpx.Response:
        # As client.request() does it, without merging the same headers and parsing the same address every time: 50 µs.
        if self._headers is None:
            self._headers = httpx.Headers({**client.headers, **JSON})
        timeout = {"timeout": client.timeout.as_dict()}
        request = httpx.Request(method, _parsed(url), headers=self._headers, content=body, extensions=timeout)
        return await client.send(request)

    def _result(self, answer: httpx.Response) -> Any:
        try:
            found = orjson.loads(answer.content)
            is_good = found["success"] is True and answer.status_code == _OK
        except (orjson.JSONDecodeError, KeyError, TypeError):
            # A page of HTML, from D1's edge or from a proxy in between.
            raise self._failure(answer, 0, answer.text[:_SHOWN_CHARS]) from None
        if not is_good:
            code, text = _first_error(found)
            raise self._failure(answer, code, text)
        return found.get("result")

    def _failure(self, answer: httpx.Response, code: int, text: str) -> Failure:
        retry_after_s = _retry_after(answer.headers.get("retry-after"))
        if retry_after_s is not None:
            self.limiter.pause(retry_after_s)
        return Failure(text, status=answer.status_code, code=code, retry_after_s=retry_after_s)

    def _rows(self, result: object, count: int) -> list[Rows]:
        found: list[Rows] = []
        try:
            for one in result:  # type: ignore[attr-defined]  # whatever it is, it is checked by using it
                if one.get("success") is False:
                    code, text = _first_error(one)
                    raise Failure(text, status=_OK, code=code)
                found.append([tuple(row) for row in one["results"]["rows"]])
                meta = one.get("meta") or {}
                self.usage.rows_read += meta.get("rows_read") or 0
                self.usage.rows_written += meta.get("rows_written") or 0
        except (TypeError, KeyError, AttributeError) as error:
            raise Failure("an answer of another form", status=_OK) from error
        if len(found) != count:
            raise Failure(f"{len(found)} results for {count} statements", status=_OK)
        return found


@lru_cache(16)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


def _is_near(host: str) -> bool:
    """Whether the host is this machine or in a private network, as a local engine is."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host


def _keep_headers_out_of_logs() -> None:
    """HTTP/2's header coder writes what it codes to its log at level DEBUG, the token with it."""
    coder = logging.getLogger("hpack")
    if coder.level == logging.NOTSET:
        coder.setLevel(logging.INFO)


@cache
def _tls() -> ssl.SSLContext:
    """How certificates are checked; reading them takes 20 ms, so once a process."""
    return httpx.create_ssl_context()


def _first_error(found: Any) -> tuple[int, str]:
    """Code and text of the first error that an answer reports, which may be of any form."""
    errors = found.get("errors") if isinstance(found, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else {"message": found.get("error", "")}
    if not isinstance(first, dict):
        return 0, str(first)[:_SHOWN_CHARS]
    code = first.get("code")
    return code if isinstance(code, int) else 0, str(first.get("message", ""))[:_SHOWN_CHARS]


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except ValueError:
        return None
