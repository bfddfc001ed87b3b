"""How the address of a store is shown: without its secrets, whether it stands in a URL or in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dal.config import Settings


def shown_place(url: str | None, settings: Settings) -> str:
    """The store that the URL, or without one the settings, name."""
    from dal.factory import store_url
    from dal.urls import mask_url

    if url is not None:
        return mask_url(url)
    if settings.data_storage_type != "postgresql":
        return store_url(settings).url
    if settings.database_url is not None:
        return mask_url(settings.database_url.get_secret_value())
    return f"postgresql://{settings.db_user or ''}@{settings.db_host or ''}:{settings.db_port}/{settings.db_name or ''}"
