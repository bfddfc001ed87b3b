"""The blob stores that the kit is run on, each empty: bare, and in each layer."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dal.blobs.base import BlobStore
from dal.blobs.cache import Cached
from dal.blobs.local import LocalBlobStore
from dal.blobs.memory import MemoryBlobStore
from dal.blobs.readthrough import ReadThrough
from dal.blobs.signing import UrlSigner
from tests.blobs.serving import Served, serve
from tests.engines import s3

SUBJECTS = ("memory", "local", "served", "r2", "rclone", "cached-local", "read-through")


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest_asyncio.fixture
async def store(subject: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    """The subject's blob store, open and empty."""
    made = make(subject, request, tmp_path)
    await made.open()
    yield made
    await made.close()


def make(subject: str, request: pytest.FixtureRequest, place: Path) -> BlobStore:
    if subject.startswith("cached-"):
        return Cached(make(subject.removeprefix("cached-"), request, place), place / "cache", max_bytes=64 * 1024**2)
    match subject:
        case "memory":
            return MemoryBlobStore()
        case "local":
            return LocalBlobStore(place / "blobs")
        case "served":
            served: Served = request.getfixturevalue("served")
            return served.store
        case "read-through":
            return ReadThrough(MemoryBlobStore(), LocalBlobStore(place / "old"))
        case _:
            engine: s3.S3Engine = request.getfixturevalue(f"{subject}_engine")
            return engine.store()


@pytest.fixture
def signer() -> UrlSigner:
    """Signs for no server in particular."""
    return UrlSigner(secrets.token_hex(32), "http://127.0.0.1:1/blobs")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A local store behind uvicorn, for this test."""
    with serve(tmp_path / "served") as running:
        yield running
