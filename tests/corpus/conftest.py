"""Real conversations, read in place where they are; the whole corpus only when it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.subjects import postgres_with_schema, sqlite_with_schema

__all__ = ["corpus_directory", "postgres_with_schema", "sqlite_with_schema"]

_DIRECTORY = Path(__file__).resolve().parents[3] / "shared" / "data" / "corpus"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "corpus" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("corpus") is not None:
            item.add_marker(pytest.mark.skip(reason="takes minutes: make test-corpus"))


@pytest.fixture
def corpus_directory() -> Path:
    """Where the corpus lies."""
    if not _DIRECTORY.is_dir():
        pytest.skip("no corpus at ../shared/data/corpus")
    return _DIRECTORY
