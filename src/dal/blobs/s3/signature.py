"""AWS Signature Version 4, in headers and in a URL.

As AWS documents it: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html and
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html; its examples are in the tests.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

from dal.blobs.s3.credentials import Credentials

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"


def encode_query(query: Mapping[str, str]) -> str:
    """Parameters as a signature has them: sorted, with every character but A-Z a-z 0-9 - . _ ~ as %XX."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))


def sign_headers(
    credentials: Credentials,
    region: str,
    method: str,
    url: str,
    headers: Mapping[str, str],
    payload_hash: str,
    at: datetime,
) -> dict[str, str]:
    """The headers of a request, signed. `headers` have lower-case names; the host is the URL's."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    signed = {**headers, "host": urlsplit(url).netloc, "x-amz-content-sha256": payload_hash, "x-amz-date": stamp}
    if credentials.session_token is not None:
        signed["x-amz-security-token"] = credentials.session_token
    signature = _signature(credentials, region, method, url, signed, payload_hash, stamp)
    scope, names = _scope(region, stamp), ";".join(sorted(signed))
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.key_id}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return signed


def presign_url(
    credentials: Credentials,
    region: str,
    method: str,
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    expires_s: int,
    at: datetime,
) -> str:
    """The URL of a request that is allowed for so many seconds, with exactly these headers (lower-case names)."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    signed = {**headers, "host": urlsplit(url).netloc}
    parameters = {
        **query,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.key_id}/{_scope(region, stamp)}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": ";".join(sorted(signed)),
    }
    if credentials.session_token is not None:
        parameters["X-Amz-Security-Token"] = credentials.session_token
    whole = f"{url}?{encode_query(parameters)}"
    signature = _signature(credentials, region, method, whole, signed, UNSIGNED_PAYLOAD, stamp)
    return f"{whole}&X-Amz-Signature={signature}"


def _signature(
    credentials: Credentials,
    region: str,
    method: str,
    url: str,
    headers: Mapping[str, str],
    payload_hash: str,
    stamp: str,
) -> str:
    parts = urlsplit(url)
    names = sorted(headers)
    # S3's path is encoded once, and ours is so already: keys have nothing that would need it.
    lines = [method, parts.path or "/", parts.query]
    lines += [f"{name}:{' '.join(headers[name].split())}" for name in names]
    request = "\n".join([*lines, "", ";".join(names), payload_hash])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join([_ALGORITHM, stamp, _scope(region, stamp), digest])
    key = _signing_key(credentials.secret_key, stamp[:8], region)
    return hmac.digest(key, text.encode(), "sha256").hex()


@lru_cache(maxsize=16)
def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    """The same all day, and half of what a signature costs."""
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _scope(region: str, stamp: str) -> str:
    return f"{stamp[:8]}/{region}/s3/aws4_request"
