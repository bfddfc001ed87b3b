"""What every layer starts from: a store around a store that changes nothing.

A layer overrides `read`, `commit` or both and inherits the rest, so that a new word at the waist costs no layer a
line. The search index of the store below, where it has one, is handed through.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import cast

from dal.errors import UnsupportedError
from dal.ops import Op, Query, Receipt, Row
from dal.store import Capabilities, ReadCommit, SearchIndex, Store, StoreHealth


class Layer:
    """A Store that delegates everything to `inner`."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    async def open(self) -> None:
        await self.inner.open()

    async def read(self, query: Query) -> list[Row]:
        return await self.inner.read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        return await self.inner.commit(ops)

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        return self.inner.transaction()

    async def health(self) -> StoreHealth:
        return await self.inner.health()

    async def close(self) -> None:
        await self.inner.close()

    async def index_pending(self, *, limit: int = 1000) -> int:
        return await self._search_index().index_pending(limit=limit)

    async def drop_search(self) -> None:
        await self._search_index().drop_search()

    def _search_index(self) -> SearchIndex:
        if hasattr(self.inner, "index_pending"):
            return cast(SearchIndex, self.inner)
        backend = self.capabilities.backend
        raise UnsupportedError(
            f"search index: the {backend} store keeps none and searches without; nothing needs to be done",
            operation="search index",
            backend=backend,
        )


def innermost(store: Store) -> Store:
    """The backend below all layers; the store itself where it has none."""
    while isinstance(store, Layer):
        store = store.inner
    return store
