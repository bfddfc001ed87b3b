"""Contents stored without the library: plain files, `cp`, and by a bucket's clients, obstore and boto3."""

from __future__ import annotations

import asyncio
import io
import os
from datetime import timedelta
from pathlib import Path

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from obstore import get_async, put_async
from obstore.store import S3Store

from tests.bench.contents import ContentSubject
from tests.engines.s3 import BUCKET, S3Engine

_BLOCK_BYTES = 1024 * 1024


class PlainFiles(ContentSubject):
    """One file each, written aside, synced and renamed, its directory synced; in this thread, as a script does it."""

    def __init__(self, directory: Path, large_bytes: int) -> None:
        super().__init__("plain files", large_bytes)
        self._directory = directory

    async def open(self) -> None:
        self._directory.mkdir()
        await self.fill()

    async def close(self) -> None:
        """Nothing is open."""

    async def put(self, key: str, content: bytes) -> object:
        aside = self._directory / f"{key}.new"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for start in range(0, len(content), _BLOCK_BYTES):
                os.write(descriptor, content[start : start + _BLOCK_BYTES])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        aside.rename(self._directory / key)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return None

    async def get(self, key: str) -> int:
        size = 0
        descriptor = os.open(self._directory / key, os.O_RDONLY)
        try:
            while block := os.read(descriptor, _BLOCK_BYTES):
                size += len(block)
        finally:
            os.close(descriptor)
        return size


class CopyCommand(PlainFiles):
    """`cp` of one file to another, and no sync."""

    def __init__(self, directory: Path, large_bytes: int) -> None:
        super().__init__(directory, large_bytes)
        self.name = "cp"

    async def upload_large(self, number: int) -> object:
        return await self._copy(number)

    async def download_large(self, number: int) -> object:
        return await self._copy(number)

    async def _copy(self, number: int) -> object:
        source, target = self._directory / self.large_key(0), self._directory / f"copy-{number % 4}"
        process = await asyncio.create_subprocess_exec("cp", source, target)
        return await process.wait()


class Obstore(ContentSubject):
    """The bare library, which computes no checksum of what it sends."""

    def __init__(self, engine: S3Engine, large_bytes: int) -> None:
        super().__init__("obstore", large_bytes)
        self._store = S3Store(
            BUCKET,
            prefix=engine.bucket().prefix,
            endpoint=engine.endpoint,
            region="auto",
            access_key_id=engine.key_id,
            secret_access_key=engine.secret,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": timedelta(minutes=10)},
        )

    async def open(self) -> None:
        await self.fill()

    async def close(self) -> None:
        """Nothing to close."""

    async def put(self, key: str, content: bytes) -> object:
        return await put_async(self._store, key, content)

    async def get(self, key: str) -> int:
        found = await get_async(self._store, key)
        return sum([len(piece) async for piece in found.stream()])


class Boto3(ContentSubject):
    """`upload_fileobj` and a body read in pieces, each call in a thread: parts side by side, checksums by the bucket's
    wish alone."""

    def __init__(self, engine: S3Engine, large_bytes: int) -> None:
        super().__init__("boto3", large_bytes)
        self._prefix = engine.bucket().prefix
        self._client = boto3.client(
            "s3",
            endpoint_url=engine.endpoint,
            region_name="auto",
            aws_access_key_id=engine.key_id,
            aws_secret_access_key=engine.secret,
            config=Config(s3={"addressing_style": "path"}),
        )

    async def open(self) -> None:
        await self.fill()

    async def close(self) -> None:
        self._client.close()

    async def put(self, key: str, content: bytes) -> object:
        place = f"{self._prefix}{key}"
        return await asyncio.to_thread(self._client.upload_fileobj, io.BytesIO(content), BUCKET, place)

    async def get(self, key: str) -> int:
        def read() -> int:
            body = self._client.get_object(Bucket=BUCKET, Key=f"{self._prefix}{key}")["Body"]
            return sum([len(piece) for piece in body.iter_chunks(_BLOCK_BYTES)])

        return await asyncio.to_thread(read)
