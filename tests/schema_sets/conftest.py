"""An empty database for a migration set, on the engine that the set is written for."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from tests.engines import d1, postgres
from tests.schema_sets.sets import SchemaSet


class MakeUrl(Protocol):
    def __call__(self, schema_set: SchemaSet, *, on: str | None = None) -> str: ...


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeUrl:
    """Gives the address of a new database for a set; `on="d1"` one on D1 instead of SQLite."""
    made = 0

    def make(schema_set: SchemaSet, *, on: str | None = None) -> str:
        nonlocal made
        made += 1
        if on == "d1":
            engine: d1.D1Engine = request.getfixturevalue("d1_engine")
            database = engine.create_database()
            for name, value in database.environment.items():
                monkeypatch.setenv(name, value)
            return database.url
        if schema_set.engine == "sqlite":
            return f"sqlite://{tmp_path / f'database-{made}.db'}"
        server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
        return server.create_database()

    return make
