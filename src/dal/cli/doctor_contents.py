"""What `dal doctor` says of where the contents of files lie: reached, written to and read back, signing."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dal.blobs.base import BlobStore
    from dal.config import Settings
    from dal.ops import JsonValue

_SMALL = b"dal doctor was here"


async def contents(settings: Settings, *, probe: bool) -> dict[str, JsonValue] | None:
    """Facts about the blob store that the settings name, `problems` among them; None where they name none.

    probe  store a few bytes under a key of its own, read them back and remove them.
    """
    if settings.blob_url is None:
        return None
    from dal.blobs.factory import bare_blob_store
    from dal.errors import DalError
    from dal.urls import mask_url

    url = settings.blob_url.get_secret_value()
    problems: list[JsonValue] = []
    found: dict[str, JsonValue] = {"place": mask_url(url), "written and read": None, "problems": problems}
    try:
        store = bare_blob_store(url, settings=settings)
        found["signed urls"] = store.capabilities.presign
        await store.open()
        try:
            if (problem := await store.health()) is not None:
                problems.append(problem)
            elif probe:
                found["written and read"] = await _try(store)
        finally:
            await store.close()
        if settings.blob_fallback_url is not None:
            found["falls back on"] = mask_url(settings.blob_fallback_url.get_secret_value())
            await _reach(bare_blob_store(settings.blob_fallback_url.get_secret_value(), settings=settings), problems)
    except DalError as error:
        problems.append(f"{type(error).__name__}: {error.message}")
    return found


async def _try(store: BlobStore) -> bool:
    key = f"_dal/doctor/{uuid.uuid4()}"
    await store.put(key, _SMALL, size=len(_SMALL))
    try:
        return await (await store.get(key)).read() == _SMALL
    finally:
        await store.delete([key])


async def _reach(store: BlobStore, problems: list[JsonValue]) -> None:
    await store.open()
    try:
        if (problem := await store.health()) is not None:
            problems.append(f"BLOB_FALLBACK_URL: {problem}")
    finally:
        await store.close()
