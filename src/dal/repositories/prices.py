"""Prices of one's own for storage, requests and transfer, where the published ones do not hold."""

from __future__ import annotations

from collections.abc import Sequence

from dal.errors import InvalidInputError
from dal.file_models import PricingTier
from dal.file_tables import PRICING_TIERS
from dal.limits import MAX_INT64, MAX_PAGE_ROWS
from dal.ops import Compare, Delete, Insert, Op, Select
from dal.repositories.base import Repository
from dal.values import check_column, check_int


class Prices(Repository):
    """Sets, lists and removes the tiers of a provider's items."""

    table = PRICING_TIERS

    async def set(self, tiers: Sequence[PricingTier]) -> None:
        """Gives items these tiers, in place of all that they had. One commit.

        tiers   1..1000, each item's with another `from_quantity`; the first of an item begins at 0.
        Raises  InvalidInputError.
        """
        items = {(tier.provider, tier.item) for tier in tiers}
        for provider, item in items:
            starts = [tier.from_quantity for tier in tiers if (tier.provider, tier.item) == (provider, item)]
            if len(set(starts)) < len(starts) or 0 not in starts:
                raise InvalidInputError(f"prices: the tiers of {item} begin at 0, and each at another quantity")
        if not tiers or len(tiers) > MAX_PAGE_ROWS:
            raise InvalidInputError(f"prices: found {len(tiers)} tiers, 1 to {MAX_PAGE_ROWS} are set at once")
        ops: list[Op] = [
            Delete(self.table.name, (Compare("provider", "=", provider), Compare("item", "=", item)))
            for provider, item in sorted(items)
        ]
        await self._store.commit([*ops, *(self._tier(tier) for tier in tiers)])

    async def list(self, provider: str) -> list[PricingTier]:
        """All tiers of a provider, by item and quantity."""
        name = check_column(self.table, "provider", provider)
        order = ("item", "from_quantity", "id")
        rows = await self._store.read(
            Select(self.table.name, (Compare("provider", "=", name),), order, limit=MAX_PAGE_ROWS)
        )
        return [self._record(PricingTier, row) for row in rows]

    async def remove(self, provider: str) -> bool:
        """Removes all tiers of a provider, so that the published prices hold again. True if there were any."""
        name = check_column(self.table, "provider", provider)
        return (await self._store.commit((Delete(self.table.name, (Compare("provider", "=", name),)),))).counts[0] > 0

    def _tier(self, tier: PricingTier) -> Insert:
        now = self._now()
        values = {
            **tier.model_dump(),
            "from_quantity": check_int("from_quantity", tier.from_quantity, 0, MAX_INT64),
            "unit": check_int("unit", tier.unit, 1, MAX_INT64),
            "price_nanos": check_int("price_nanos", tier.price_nanos, 0, MAX_INT64),
            "id": self._new_id(),
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }
        return self._insert(values)
