"""Stores with the moves' side of them, on every backend that can be moved."""

from __future__ import annotations

from tests.move.replicas import backend, make_site, primary, replica, schemas, site
from tests.subjects import d1_schema, postgres_with_schema, sqlite_with_schema

__all__ = [
    "backend",
    "d1_schema",
    "make_site",
    "postgres_with_schema",
    "primary",
    "replica",
    "schemas",
    "site",
    "sqlite_with_schema",
]
