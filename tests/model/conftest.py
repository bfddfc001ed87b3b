"""The database that the PostgreSQL store is driven on."""

from __future__ import annotations

from tests.subjects import postgres_with_schema

__all__ = ["postgres_with_schema"]
