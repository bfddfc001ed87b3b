"""Our own stores, bare and in their layers, under the kit that is shipped for everybody else's."""

from __future__ import annotations

import pytest

from dal.store import Store
from dal.testing import StoreConformance


class TestStores(StoreConformance):
    """The whole kit, on each of our stores."""

    @pytest.fixture
    def store(self, store: Store) -> Store:
        return store
