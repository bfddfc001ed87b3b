"""Signature Version 4 against the examples in AWS's documentation."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from dal.blobs.s3.credentials import Credentials
from dal.blobs.s3.signature import presign_url, sign_headers

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AT = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "https://examplebucket.s3.amazonaws.com"
NOTHING = hashlib.sha256(b"").hexdigest()


def test_a_get_of_a_range_is_signed_as_documented() -> None:
    headers = sign_headers(EXAMPLE, "us-east-1", "GET", f"{HOST}/test.txt", {"range": "bytes=0-9"}, NOTHING, AT)
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_a_listing_is_signed_as_documented() -> None:
    headers = sign_headers(EXAMPLE, "us-east-1", "GET", f"{HOST}/?max-keys=2&prefix=J", {}, NOTHING, AT)
    assert headers["authorization"].endswith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


def test_a_url_is_signed_as_documented() -> None:
    url = presign_url(EXAMPLE, "us-east-1", "GET", f"{HOST}/test.txt", {}, {}, 86400, AT)
    assert url == (
        f"{HOST}/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_a_session_token_is_signed_and_credentials_are_not_shown() -> None:
    with_token = Credentials("key", "secret-of-key", "token-of-session")
    headers = sign_headers(with_token, "auto", "GET", f"{HOST}/a", {}, NOTHING, AT)
    assert headers["x-amz-security-token"] == "token-of-session"
    assert "x-amz-security-token" in headers["authorization"]
    assert "X-Amz-Security-Token=token-of-session" in presign_url(with_token, "auto", "GET", HOST, {}, {}, 60, AT)
    assert repr(with_token) == "Credentials()"
