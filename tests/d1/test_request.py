"""What a request does besides asking: nothing that need not be done every time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from dal.ops import Count
from dal.store import Store


class _Searches:
    """A finder that finds nothing, and notes what is looked for in vain by those before it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        self.names.append(name)
        return None


async def test_a_request_searches_for_no_module(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.read(Count("users"))
    searches = _Searches()
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, searches])

    await store.read(Count("users"))

    assert searches.names == []
