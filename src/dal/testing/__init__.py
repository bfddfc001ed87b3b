"""Tests for those who build on this library: the conformance kit for stores, and a DataAccess for application tests.

`StoreConformance` proves a store of your own with one fixture. `memory_data_access()` gives an application's tests a
DataAccess that needs no disk and whose clock and ids they own. Needs pytest and pytest-asyncio, which the library does
not install.
"""

from __future__ import annotations

try:
    import pytest
    import pytest_asyncio  # noqa: F401
except ImportError as error:
    raise ImportError("dal.testing needs pytest and pytest-asyncio: pip install pytest pytest-asyncio") from error

_SUBJECTS = (
    "atomicity",
    "concurrency",
    "guarding",
    "lifecycle",
    "reads",
    "rows",
    "searching",
    "transactions",
    "values",
    "writes",
)
pytest.register_assert_rewrite(*(f"dal.testing.{subject}" for subject in _SUBJECTS))

from dal.testing.application import FakeClock, memory_data_access, sequential_ids  # noqa: E402
from dal.testing.conformance import StoreConformance  # noqa: E402

__all__ = ["FakeClock", "StoreConformance", "memory_data_access", "sequential_ids"]
