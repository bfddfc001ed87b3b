"""From settings or a URL to a blob store that is not yet opened: the only module that knows all of them."""

from __future__ import annotations

from dal.blobs.base import BlobStore
from dal.blobs.urls import BlobUrl, parse_blob_url
from dal.config import Settings
from dal.errors import ConfigurationError, UnsupportedError


def create_blob_store(url: str | None = None, *, settings: Settings | None = None) -> BlobStore:
    """The blob store that the URL, the settings or the environment name, not yet opened.

    url     wins over BLOB_URL: `file:///abs/dir`, `file:rel/dir`, `s3://bucket/prefix?endpoint=…&region=…`, `memory:`.
    Raises  ConfigurationError: no URL anywhere, one that names nothing, or a setting that it needs is missing.
    """
    settings = Settings() if settings is None else settings
    if url is None:
        if settings.blob_url is None:
            raise ConfigurationError(
                "BLOB_URL: not set; the contents of files need a place, as file:///var/lib/dal/blobs"
            )
        url = _named("BLOB_URL", settings.blob_url.get_secret_value())
    return _store_at(parse_blob_url(url))


def _store_at(place: BlobUrl) -> BlobStore:
    if place.backend == "memory":
        from dal.blobs.memory import MemoryBlobStore

        return MemoryBlobStore()
    raise UnsupportedError(f"blobs: {place.backend} is not built yet")


def _named(variable: str, url: str) -> str:
    """The URL, if it is one; an error names the variable."""
    try:
        parse_blob_url(url)
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error.message}") from None
    return url
