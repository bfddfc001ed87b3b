"""The stores that the conformance kit is run on."""

from __future__ import annotations

from tests.subjects import postgres_with_schema, sqlite_with_schema, store, store_url, subject

__all__ = ["postgres_with_schema", "sqlite_with_schema", "store", "store_url", "subject"]
