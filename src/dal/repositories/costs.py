"""What storage cost, month by month, as it was recorded."""

from __future__ import annotations

from collections.abc import Sequence

from dal.file_models import Cost
from dal.file_tables import COST_TRACKING
from dal.limits import MAX_INT64
from dal.models import Page
from dal.ops import Upsert, Value
from dal.repositories.base import Repository, checked_row
from dal.values import check_int

_KEY = ("provider", "period", "item")


class Costs(Repository):
    """Records and lists costs; a period's later record replaces the earlier one."""

    table = COST_TRACKING

    async def record(self, costs: Sequence[Cost]) -> None:
        """Keeps these costs, each in place of what was kept for its provider, item and period. One commit."""
        if costs:
            await self._store.commit([self._upsert(cost) for cost in costs])

    async def list(
        self, *, provider: str | None = None, period: str | None = None, limit: int = 50, after: str | None = None
    ) -> Page[Cost]:
        """A page of costs, the latest period first. limit: 1..1000."""
        filters = self._filters(provider=provider, period=period)
        return await self._page(Cost, ("-period", "provider", "item", "id"), filters, limit=limit, after=after)

    def _upsert(self, cost: Cost) -> Upsert:
        now = self._now()
        given: dict[str, Value] = {
            "id": self._new_id(),
            "provider": cost.provider,
            "item": cost.item,
            "period": cost.period,
            "quantity": check_int("quantity", cost.quantity, 0, MAX_INT64),
            "cost_nanos": check_int("cost_nanos", cost.cost_nanos, 0, MAX_INT64),
            "currency": cost.currency,
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }
        row = checked_row(self.table, given)
        return Upsert(self.table.name, row, _KEY, ("quantity", "cost_nanos", "currency", "updated_at"), {"version": 1})
