"""What a blob store's URL names: a directory, a bucket and how to reach it, or this process's memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from dal.blobs.checks import check_key
from dal.errors import ConfigurationError, InvalidInputError
from dal.urls import check_is_text, parse_url, wrong_scheme

Provider = Literal["s3", "r2"]

NO_BLOB_URL: Final = "BLOB_URL: not set; the contents of files need a place, as file:///var/lib/dal/blobs"

_FORMS: Final = "file:///abs/dir, file:rel/dir, s3://bucket/prefix?endpoint=…&region=…, memory:"
_PARAMETERS: Final = ("endpoint", "region", "path_style", "provider")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]").fullmatch
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}").fullmatch
_R2_HOST: Final = ".r2.cloudflarestorage.com"


class Bucket(NamedTuple):
    """A bucket of S3 or R2, and the place in it that is ours.

    prefix      what every key begins with there: empty, or segments with `/` after each.
    endpoint    scheme, host and port of the service; None is AWS in that region.
    path_style  the bucket stands in the path, not in the host's name.
    provider    whose rules the client keeps: `r2` wants equal parts.
    """

    name: str
    prefix: str
    endpoint: str | None
    region: str
    path_style: bool
    provider: Provider


class BlobUrl(NamedTuple):
    """A parsed URL: where a blob store is. One of `path` and `bucket` is set, or neither for memory."""

    backend: Literal["file", "s3", "memory"]
    path: Path | None = None
    bucket: Bucket | None = None


def parse_blob_url(url: str) -> BlobUrl:
    """What the URL of a blob store names. Raises ConfigurationError, without any secret of the URL in it."""
    check_is_text(url)
    scheme = url.partition(":")[0].lower()
    if scheme == "s3":
        return BlobUrl("s3", bucket=_bucket(url))
    if scheme == "file":
        return BlobUrl("file", parse_url(url).path)
    if url in ("memory:", "memory://"):
        return BlobUrl("memory")
    raise ConfigurationError(f"blob url: {wrong_scheme(url)}; use one of {_FORMS}")


def _bucket(url: str) -> Bucket:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigurationError(
            "blob url: s3:// takes no credentials; they are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not _BUCKET(parts.netloc):
        raise ConfigurationError(f"blob url: {parts.netloc[:63]!r} is no name of a bucket; write s3://bucket/prefix")
    if parts.fragment:
        raise ConfigurationError("blob url: s3:// takes no '#' part")
    given = parse_qsl(parts.query, keep_blank_values=True)
    found = dict(given)
    if unknown := sorted(found.keys() - set(_PARAMETERS)):
        raise ConfigurationError(f"blob url: unknown parameter {unknown[0][:40]!r}; known are {', '.join(_PARAMETERS)}")
    if len(found) < len(given):
        raise ConfigurationError("blob url: a parameter is given twice")
    endpoint = _endpoint(found["endpoint"]) if "endpoint" in found else None
    provider = _provider(found.get("provider"), endpoint)
    region = found.get("region", "auto" if provider == "r2" else "us-east-1")
    if not _REGION(region):
        raise ConfigurationError(f"blob url: {region[:40]!r} is no region, as eu-central-1 or auto is")
    if provider == "r2" and endpoint is None:
        raise ConfigurationError(f"blob url: provider=r2 needs endpoint=https://ACCOUNT_ID{_R2_HOST}")
    path_style = _flag(found.get("path_style"), default=endpoint is not None)
    return Bucket(parts.netloc, _prefix(parts.path), endpoint, region, path_style, provider)


def _endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    try:
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_whole = False
    if not is_whole or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError("blob url: endpoint is written https://host, or http://host:port, without credentials")
    return endpoint.rstrip("/")


def _provider(named: str | None, endpoint: str | None) -> Provider:
    if named is None:
        return "r2" if endpoint is not None and (urlsplit(endpoint).hostname or "").endswith(_R2_HOST) else "s3"
    if named == "r2":
        return "r2"
    if named == "s3":
        return "s3"
    raise ConfigurationError(f"blob url: unknown provider {named[:20]!r}; use s3 or r2")


def _flag(value: str | None, *, default: bool) -> bool:
    if value is None:
        return default
    if value not in ("true", "false"):
        raise ConfigurationError(f"blob url: path_style is true or false, not {value[:20]!r}")
    return value == "true"


def _prefix(path: str) -> str:
    prefix = unquote(path).strip("/")
    if not prefix:
        return ""
    try:
        return f"{check_key(prefix)}/"
    except InvalidInputError as error:
        raise ConfigurationError(f"blob url: as a prefix, {error.message}") from None
