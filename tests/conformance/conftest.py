"""The stores that the kit is run on: every backend bare and as applications get it, and each layer alone."""

from __future__ import annotations

import pytest

from tests.subjects import (
    BACKENDS,
    LAYERS,
    Subject,
    d1_schema,
    postgres_with_schema,
    sqlite_with_schema,
    store,
    store_url,
)

__all__ = ["d1_schema", "postgres_with_schema", "sqlite_with_schema", "store", "store_url", "subject"]

SUBJECTS = [
    *(Subject(backend, layers) for backend in BACKENDS for layers in ((), LAYERS)),
    *(Subject("memory", (name,)) for name in LAYERS),
]


@pytest.fixture(params=SUBJECTS, ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    chosen: Subject = request.param
    return chosen
