"""Content to a path: written beside it, durable, then renamed into place, so that nobody sees half of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterable
from pathlib import Path

from dal.errors import InvalidInputError


async def save(content: AsyncIterable[bytes], path: Path) -> None:
    """Writes the content, mode 0600, replacing what is there. Raises InvalidInputError: the path cannot be written."""
    try:
        descriptor, name = await asyncio.to_thread(tempfile.mkstemp, dir=path.parent, prefix=".dal-", suffix=".part")
    except OSError as error:
        raise InvalidInputError(f"path: cannot write there: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            async for piece in content:
                await asyncio.to_thread(_write, file.fileno(), piece)
            await asyncio.to_thread(os.fsync, file.fileno())
        await asyncio.to_thread(_place, name, path)
    except OSError as error:
        raise InvalidInputError(f"path: cannot write there: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _place(name: str, path: Path) -> None:
    os.replace(name, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
