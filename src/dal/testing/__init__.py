"""Tests for those who build on this library: conformance kits for stores, and a DataAccess for application tests.

`StoreConformance` proves a store of your own with one fixture, `BlobStoreConformance` a blob store.
`memory_data_access()` gives an application's tests a DataAccess that needs no disk and whose clock and ids they own.
Needs pytest and pytest-asyncio, which the library does not install.
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
_BLOB_SUBJECTS = ("conformance", "parts", "signed", "whole")
pytest.register_assert_rewrite(
    *(f"dal.testing.{subject}" for subject in _SUBJECTS),
    *(f"dal.testing.blobs.{subject}" for subject in _BLOB_SUBJECTS),
)

from dal.testing.application import FakeClock, memory_data_access, sequential_ids  # noqa: E402
from dal.testing.blobs.conformance import BlobStoreConformance  # noqa: E402
from dal.testing.conformance import StoreConformance  # noqa: E402

__all__ = ["BlobStoreConformance", "FakeClock", "StoreConformance", "memory_data_access", "sequential_ids"]
