"""Requests for blobs that their URL alone allows: signed with a secret, checked by whoever serves them.

What is allowed (method, key, until when, and for PUT the length and media type) stands in the URL and under its HMAC.
Nobody who lacks the secret can change a letter of it; whoever has the URL can use it until it expires.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from dal.blobs.base import Method, SignedRequest
from dal.errors import ConfigurationError
from dal.values import Clock, now

_MIN_SECRET_CHARS: Final = 32
#: Parameters of a URL, each at most once; `signature` is of all the others.
_TEXTS: Final = ("method", "type", "filename", "upload")
_NUMBERS: Final = ("expires", "size", "part")


class Grant(NamedTuple):
    """What a signed URL allows."""

    method: str
    key: str
    content_type: str | None
    size: int | None
    filename: str | None
    upload_id: str | None
    part_number: int | None


class UrlSigner:
    """Signs requests, and tells which of those that come were signed.

    secret      at least 32 characters, the same for every process; BLOB_SIGNING_SECRET.
    public_url  where `dal.blobs.asgi` is reached, as http://127.0.0.1:8000/blobs; BLOB_PUBLIC_URL. `path` is its path.
    Raises      ConfigurationError: either is none.
    """

    def __init__(self, secret: str, public_url: str, *, clock: Clock = now) -> None:
        if len(secret) < _MIN_SECRET_CHARS:
            raise ConfigurationError(
                f"BLOB_SIGNING_SECRET: {len(secret)} characters, {_MIN_SECRET_CHARS} are needed; make one with "
                "python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        parts = urlsplit(public_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError("BLOB_PUBLIC_URL: is written http://host:port/path, without '?' and '#'")
        self._secret = secret.encode()
        self._public_url = public_url.rstrip("/")
        self.path = parts.path.rstrip("/")
        self._clock = clock

    def __repr__(self) -> str:
        return f"UrlSigner({self._public_url!r})"

    def sign(
        self,
        method: Method,
        key: str,
        *,
        expires_in: float,
        content_type: str | None = None,
        size: int | None = None,
        filename: str | None = None,
        upload_id: str | None = None,
        part_number: int | None = None,
    ) -> SignedRequest:
        """A request as `BlobStore.presign` gives it; what it is given was checked there."""
        expires = math.ceil(self._clock().timestamp() + expires_in)
        named = {
            "method": method,
            "expires": expires,
            "type": content_type if method == "PUT" else None,
            "size": size,
            "filename": filename,
            "upload": upload_id,
            "part": part_number,
        }
        given = {name: str(value) for name, value in named.items() if value is not None}
        query = urlencode({**given, "signature": self._signature(key, given)}, quote_via=quote)
        headers = {}
        if method == "PUT" and content_type is not None:
            headers["content-type"] = content_type
        if size is not None:
            headers["content-length"] = str(size)
        url = f"{self._public_url}/{key}?{query}"
        return SignedRequest(method, url, headers, datetime.fromtimestamp(expires, UTC))

    def verify(self, key: str, query: str) -> Grant | None:
        """What a request's URL allows now; None where it was not signed here, was changed, or has expired."""
        pairs = parse_qsl(query, keep_blank_values=True)
        given = dict(pairs)
        signature = given.pop("signature", "")
        if len(pairs) != len(given) + 1 or not given.keys() <= {*_TEXTS, *_NUMBERS}:
            return None
        # The signature first, in constant time: nothing of an unsigned URL is looked at before.
        if not hmac.compare_digest(self._signature(key, given).encode(), signature.encode()):
            return None
        numbers = {name: int(given[name]) for name in _NUMBERS if name in given}
        if numbers["expires"] <= self._clock().timestamp():
            return None
        return Grant(
            given["method"],
            key,
            given.get("type"),
            numbers.get("size"),
            given.get("filename"),
            given.get("upload"),
            numbers.get("part"),
        )

    def _signature(self, key: str, given: Mapping[str, str]) -> str:
        # JSON of everything in one order: no two requests are the same text.
        message = json.dumps([key, sorted(given.items())], separators=(",", ":"))
        return hmac.digest(self._secret, message.encode(), "sha256").hex()


def disposition(filename: str) -> str:
    """The header that offers a download under a name, whatever letters the name has (RFC 6266)."""
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
