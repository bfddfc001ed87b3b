"""An empty database for a migration set, on the engine that the set is written for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines import postgres
from tests.schema_sets.sets import SchemaSet

MakeUrl = Callable[[SchemaSet], str]


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> MakeUrl:
    """Gives the address of a new database for a set."""
    made = 0

    def make(schema_set: SchemaSet) -> str:
        nonlocal made
        made += 1
        if schema_set.engine == "sqlite":
            return f"sqlite://{tmp_path / f'database-{made}.db'}"
        server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
        return server.create_database()

    return make
