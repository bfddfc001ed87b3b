"""The two sides of a check, read alike: a store by the waist alone, or by its registry while it takes part in a move.

Reads are repeated where the store says that this can help. An error is never taken for the end of the data: a side
ends at a page without rows, and what is not in order, or cannot be read, is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import lt
from typing import Final, TypeVar, cast

from dal.errors import CorruptDataError, DalError
from dal.limits import RETRY_ATTEMPTS, RETRY_FIRST_WAIT_S
from dal.move.sides import Side
from dal.ops import Compare, Count, Query, Row, Select
from dal.replica import Bucket, Entry, Registered, Replica
from dal.store import Store, Stored, StoredRows
from dal.tables import Table

_T = TypeVar("_T")
_LONGER: Final = 4  # times the wait before


class Reader:
    """A store by the waist: any backend, in a move or not. Its entries have no version."""

    def __init__(self, side: Side, store: Store) -> None:
        self.side = side
        self._store = store

    def plain(self) -> Reader:
        """The same store by the waist alone."""
        return Reader(self.side, self._store)

    async def page(self, table: Table, after: str, limit: int) -> Stored:
        """The rows behind this id in the order of ids, as the store has them; none at the end."""
        query, store = _page(table, after, limit), self._store
        if isinstance(store, StoredRows):
            found = await self._patiently(table, lambda: store.read_stored(query))
        else:
            found = Stored(await self._read(table, query), {})
        self._require_order(table, after, ids_of(found))
        return found

    async def rows(self, table: Table, after: str, limit: int) -> list[Row]:
        """The same, as values."""
        rows = await self._read(table, _page(table, after, limit))
        self._require_order(table, after, ids_of(Stored(rows, {})))
        return rows

    async def look(self, table: Table, ids: Sequence[str]) -> dict[str, Entry]:
        """These rows as they are now, one entry for each id."""
        rows = await self._read(table, Select(table.name, where=(Compare("id", "in", tuple(ids)),)))
        found = {cast(str, row[0]): Entry(table.name, cast(str, row[0]), 0, row) for row in rows}
        return {row_id: found.get(row_id) or Entry(table.name, row_id, 0, None) for row_id in ids}

    async def present(self, table: Table, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are rows."""
        query = Select(table.name, where=(Compare("id", "in", tuple(ids)),), columns=("id",))
        return {cast(str, row[0]) for row in await self._read(table, query)}

    async def count(self, table: Table) -> int:
        """How many rows there are."""
        return cast(int, (await self._read(table, Count(table.name)))[0][0])

    async def last_id(self, table: Table) -> str:
        """The greatest id; empty where there is no row."""
        rows = await self._read(table, Select(table.name, order=("-id",), limit=1, columns=("id",)))
        return cast(str, rows[0][0]) if rows else ""

    async def damage(self) -> list[str]:
        """What the store says it cannot read, a sentence each: rows that no page would show."""
        damaged = (await self._store.health()).parts.get("damaged")
        return [str(sentence) for sentence in damaged] if isinstance(damaged, list) else []

    async def _read(self, table: Table, query: Query) -> list[Row]:
        return await self._patiently(table, lambda: self._store.read(query))

    async def _patiently(self, table: Table, read: Callable[[], Awaitable[_T]]) -> _T:
        """What the read gives, after a few tries where its errors say that trying again can help.

        Raises  CorruptDataError: a stored value cannot be understood.  DalError: as the store raised it.
        """
        wait_s = RETRY_FIRST_WAIT_S
        for _ in range(RETRY_ATTEMPTS - 1):
            try:
                return await self._understood(table, read)
            except DalError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(wait_s)
            wait_s *= _LONGER
        return await self._understood(table, read)

    async def _understood(self, table: Table, read: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await read()
        except DalError:  # some are ValueErrors too
            raise
        except ValueError as error:  # a document that is no JSON, a time that is none
            raise CorruptDataError(
                f"{table.name} in the {self.side}: a stored value is not what this library writes; repair it there",
                operation="check",
            ) from error

    def _require_order(self, table: Table, after: str, ids: Sequence[str]) -> None:
        """Ids that did not rise by code point would let rows pass unseen."""
        if not all(map(lt, [after, *ids], ids)):
            raise CorruptDataError(
                f"{table.name} in the {self.side}: ids came out of order; rebuild the index of its primary key",
                operation="check",
            )


class ReplicaReader(Reader):
    """A store in a move: rows that are looked at come with the versions under which its registry holds them."""

    def __init__(self, side: Side, store: Store, replica: Replica) -> None:
        super().__init__(side, store)
        self.replica = replica

    async def look(self, table: Table, ids: Sequence[str]) -> dict[str, Entry]:
        found = {
            entry.id: entry for entry in await self._patiently(table, lambda: self.replica.entries(table.name, ids))
        }
        return {row_id: found.get(row_id) or Entry(table.name, row_id, 0, None) for row_id in ids}

    async def total(self, table: Table) -> Bucket:
        """The registry of the table, added up as a whole."""
        return await self._patiently(table, lambda: self.replica.total(table.name))

    async def digest(self, table: Table) -> list[Bucket]:
        """The registry of the table, added up."""
        return await self._patiently(table, lambda: self.replica.digest(table.name))

    async def bucket(self, table: Table, buckets: Sequence[str]) -> list[Registered]:
        """The registry entries in these buckets."""
        return await self._patiently(table, lambda: self.replica.bucket(table.name, buckets))

    async def copied(self, table: Table, after: str, limit: int) -> list[Registered]:
        """Entries copied and not checked since, in the order of ids; empty at the end."""
        return await self._patiently(table, lambda: self.replica.copied(table.name, after, limit))

    async def registered(self, table: Table, ids: Sequence[str]) -> list[Registered]:
        """The registry entries of these keys."""
        return await self._patiently(table, lambda: self.replica.registered(table.name, ids))


def ids_of(page: Stored) -> list[str]:
    """The ids of the rows, in their order."""
    return [row[0] for row in cast("Sequence[tuple[str]]", page.rows)]


def _page(table: Table, after: str, limit: int) -> Select:
    return Select(table.name, order=("id",), after=(after,) if after else None, limit=limit)
