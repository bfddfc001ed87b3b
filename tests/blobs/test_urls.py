"""What names a blob store, what layers the settings put around it, and how its secrets are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dal.blobs.base import BlobStore
from dal.blobs.cache import Cached
from dal.blobs.counted import Counted
from dal.blobs.factory import bare_blob_store, create_blob_store, url_signer
from dal.blobs.local import LocalBlobStore
from dal.blobs.memory import MemoryBlobStore
from dal.blobs.readthrough import ReadThrough
from dal.blobs.s3 import S3BlobStore
from dal.blobs.s3.client import base_url
from dal.blobs.urls import parse_blob_url
from dal.config import Settings
from dal.errors import ConfigurationError

KEYS = {"aws_access_key_id": "AKIDHIDDEN", "aws_secret_access_key": "hidden-secret"}
R2 = "https://abc.r2.cloudflarestorage.com"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "address", "region", "prefix", "provider"),
    [
        ("s3://my-bucket", "https://my-bucket.s3.us-east-1.amazonaws.com", "us-east-1", "", "s3"),
        (
            "s3://b0b/a/b/?region=eu-central-1",
            "https://b0b.s3.eu-central-1.amazonaws.com",
            "eu-central-1",
            "a/b/",
            "s3",
        ),
        (f"s3://files/app?endpoint={R2}", f"{R2}/files", "auto", "app/", "r2"),
        ("s3://files?endpoint=http://127.0.0.1:9000/&provider=r2", "http://127.0.0.1:9000/files", "auto", "", "r2"),
        ("s3://files?endpoint=http://h:9000&path_style=false", "http://files.h:9000", "us-east-1", "", "s3"),
    ],
)
def test_a_bucket_is_named_with_its_service(url: str, address: str, region: str, prefix: str, provider: str) -> None:
    bucket = parse_blob_url(url).bucket
    assert bucket is not None
    assert (base_url(bucket), bucket.region, bucket.prefix, bucket.provider) == (address, region, prefix, provider)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:hidden-secret@files", "no credentials"),
        ("s3://files?endpoint=https://u:hidden-secret@h", "without credentials"),
        ("s3://files?secret=hidden-secret", "unknown parameter 'secret'"),
        ("s3://Files", "no name of a bucket"),
        ("s3://", "no name of a bucket"),
        ("s3://files/a b", "prefix"),
        ("s3://files/../b", "prefix"),
        ("s3://files?endpoint=h:9000", "https://host"),
        ("s3://files?endpoint=http://h:99999", "https://host"),
        ("s3://files?region=a b", "no region"),
        ("s3://files?provider=r2", "needs endpoint"),
        ("s3://files?provider=gcs", "unknown provider"),
        ("s3://files?path_style=yes", "true or false"),
        ("s3://files?region=a&region=b", "given twice"),
        ("s3://files#x", "no '#'"),
        ("ftp://h/x", "unknown scheme"),
        ("/var/blobs", "names no scheme"),
        ("file://host/x", "followed by a host"),
        ("file:", "needs a path"),
        ("memory://x", "unknown scheme"),
    ],
)
def test_a_url_that_names_nothing_is_refused_without_its_secrets(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_blob_store(url, settings=Settings(**KEYS))
    assert said in caught.value.message
    assert "hidden-secret" not in caught.value.message
    with pytest.raises(ConfigurationError, match="BLOB_URL") as caught:
        create_blob_store(settings=Settings(**KEYS, blob_url=url))
    assert "hidden-secret" not in caught.value.message


def bare(store: BlobStore) -> BlobStore:
    """The backend below what counts."""
    return store.inner if isinstance(store, Counted) else store


def test_each_url_gives_its_store(tmp_path: Path) -> None:
    assert isinstance(bare(create_blob_store("memory:")), MemoryBlobStore)
    assert isinstance(bare(create_blob_store(f"file://{tmp_path}/b")), LocalBlobStore)
    assert "LocalBlobStore('some/place')" in repr(create_blob_store("file:some/place"))
    store = bare(create_blob_store(f"s3://files?endpoint={R2}", settings=Settings(**KEYS)))
    assert isinstance(store, S3BlobStore)
    assert store.capabilities.equal_parts
    assert "hidden" not in f"{store!r} {store.__dict__}".lower()
    assert not (tmp_path / "b").exists(), "nothing is made before it is opened"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="BLOB_URL: not set"):
        create_blob_store()
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID: not set"):
        create_blob_store("s3://files")
    with pytest.raises(ConfigurationError, match="AWS_SECRET_ACCESS_KEY: not set"):
        create_blob_store("s3://files", settings=Settings(aws_access_key_id="AKID"))
    with pytest.raises(ConfigurationError, match="BLOB_PUBLIC_URL: not set"):
        create_blob_store("file:b", settings=Settings(blob_signing_secret="x" * 32))
    with pytest.raises(ConfigurationError, match="BLOB_SIGNING_SECRET: not set"):
        create_blob_store("file:b", settings=Settings(blob_public_url="http://h"))
    with pytest.raises(ConfigurationError, match="BLOB_FALLBACK_URL"):
        create_blob_store("file:b", settings=Settings(blob_fallback_url="nothing"))
    with pytest.raises(ConfigurationError, match="BLOB_FALLBACK_URL: names the same"):
        create_blob_store("file:b", settings=Settings(blob_fallback_url="file:b"))


def test_settings_put_layers_around_a_store(tmp_path: Path) -> None:
    given = Settings(**KEYS, blob_fallback_url=f"file://{tmp_path}/old", blob_cache_dir=tmp_path / "cache")
    store = create_blob_store("s3://files", settings=given)
    assert isinstance(store, Cached)
    assert isinstance(store.inner, ReadThrough)
    assert isinstance(bare(store.inner.inner), S3BlobStore)
    assert isinstance(bare(store.inner.old), LocalBlobStore)
    assert isinstance(create_blob_store("file:b", settings=given), ReadThrough), "a directory needs no cache"
    assert isinstance(bare(bare_blob_store("s3://files", settings=given)), S3BlobStore)
    signing = Settings(blob_signing_secret="x" * 32, blob_public_url="http://h/blobs")
    assert create_blob_store("file:b", settings=signing).capabilities.presign
    assert url_signer(Settings()) is None
    assert "x" * 32 not in repr(signing)
