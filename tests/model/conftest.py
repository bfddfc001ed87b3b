"""The databases that stores are driven on."""

from __future__ import annotations

from tests.subjects import d1_schema, postgres_with_schema

__all__ = ["d1_schema", "postgres_with_schema"]
