"""From settings or a URL to a blob store that is not yet opened: the only module that knows all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dal.blobs.base import BlobStore
from dal.blobs.counted import Counted
from dal.blobs.urls import NO_BLOB_URL, BlobUrl, parse_blob_url
from dal.config import Settings, given_or_environment
from dal.errors import ConfigurationError

if TYPE_CHECKING:
    from dal.blobs.s3.credentials import Credentials
    from dal.blobs.signing import UrlSigner


def create_blob_store(url: str | None = None, *, settings: Settings | None = None) -> BlobStore:
    """The blob store that the URL, the settings or the environment name, not yet opened.

    url     wins over BLOB_URL: `file:///abs/dir`, `file:rel/dir`, `s3://bucket/prefix?endpoint=…&region=…`, `memory:`.
    layers  BLOB_FALLBACK_URL: an older store, from which is read what is not in this one yet.  BLOB_CACHE_DIR: a cache
            of BLOB_CACHE_BYTES for what is read from a bucket.
    Raises  ConfigurationError: no URL anywhere, one that names nothing, or a setting that it needs is missing.
    """
    settings = given_or_environment(settings)
    if url is None:
        if settings.blob_url is None:
            raise ConfigurationError(NO_BLOB_URL)
        place = _named("BLOB_URL", settings.blob_url.get_secret_value())
    else:
        place = parse_blob_url(url)
    places: list[BlobUrl] = [place]
    store: BlobStore = _store_at(place, settings)
    if settings.blob_fallback_url is not None:
        from dal.blobs.readthrough import ReadThrough

        places.append(_named("BLOB_FALLBACK_URL", settings.blob_fallback_url.get_secret_value()))
        if place == places[-1]:
            raise ConfigurationError("BLOB_FALLBACK_URL: names the same place as BLOB_URL; name the old one")
        store = ReadThrough(store, _store_at(places[-1], settings))
    if settings.blob_cache_dir is not None and any(place.bucket is not None for place in places):
        from dal.blobs.cache import Cached

        store = Cached(store, settings.blob_cache_dir, max_bytes=settings.blob_cache_bytes)
    return store


def bare_blob_store(url: str, *, settings: Settings | None = None) -> BlobStore:
    """The blob store that the URL names, without layers but what counts, not yet opened: for tools that move blobs."""
    return _store_at(parse_blob_url(url), given_or_environment(settings))


def _store_at(place: BlobUrl, settings: Settings) -> Counted:
    provider = place.backend if place.bucket is None else place.bucket.provider
    return Counted(_backend_at(place, settings), provider)


def _backend_at(place: BlobUrl, settings: Settings) -> BlobStore:
    if place.path is not None:
        from dal.blobs.local import LocalBlobStore

        return LocalBlobStore(place.path, signer=url_signer(settings))
    if place.bucket is not None:
        from dal.blobs.s3 import S3BlobStore

        return S3BlobStore(place.bucket, _credentials(settings))
    from dal.blobs.memory import MemoryBlobStore

    return MemoryBlobStore()


def url_signer(settings: Settings | None = None) -> UrlSigner | None:
    """What signs the URLs of a local store, and checks them in `dal.blobs.asgi`; None where the settings name none.

    Raises  ConfigurationError: only one of BLOB_SIGNING_SECRET and BLOB_PUBLIC_URL is set, or one is wrong.
    """
    settings = given_or_environment(settings)
    secret, public_url = settings.blob_signing_secret, settings.blob_public_url
    if secret is None and public_url is None:
        return None
    if secret is None:
        raise ConfigurationError("BLOB_SIGNING_SECRET: not set; BLOB_PUBLIC_URL is of no use without it")
    if public_url is None:
        raise ConfigurationError("BLOB_PUBLIC_URL: not set; BLOB_SIGNING_SECRET is of no use without it")
    from dal.blobs.signing import UrlSigner

    return UrlSigner(secret.get_secret_value(), public_url)


def _credentials(settings: Settings) -> Credentials:
    from dal.blobs.s3.credentials import Credentials

    key_id, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    for name, value in (("AWS_ACCESS_KEY_ID", key_id), ("AWS_SECRET_ACCESS_KEY", secret)):
        if value is None:
            raise ConfigurationError(f"{name}: not set; blobs in s3:// need it")
    assert key_id is not None and secret is not None  # noqa: S101, PT018
    token = settings.aws_session_token
    return Credentials(
        key_id.get_secret_value(), secret.get_secret_value(), None if token is None else token.get_secret_value()
    )


def _named(variable: str, url: str) -> BlobUrl:
    """What the URL names; an error names the variable."""
    try:
        return parse_blob_url(url)
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error.message}") from None
