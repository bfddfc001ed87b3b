"""The stores that several processes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.subjects import BACKENDS, d1_schema, postgres_with_schema, sqlite_with_schema, url_of

__all__ = ["d1_schema", "postgres_with_schema", "sqlite_with_schema"]


@pytest.fixture(params=[backend for backend in BACKENDS if backend != "memory"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store on every backend that several processes may use."""
    return url_of(request.param, request, tmp_path)
