"""What a move of contents costs, from what an assessment counted and the prices of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from dal.file_models import PricingTier
from dal.files.pricing import Item, cost_nanos, tiers_of
from dal.files_move.assessing import Assessment
from dal.files_move.tally import BOUNDS
from dal.limits import BLOB_LIST_KEYS, S3_PART_BYTES
from dal.ops import JsonValue

_LARGE: Final = S3_PART_BYTES // 2  # of the bounds that sizes are counted by, the one where parts begin


class Expense(NamedTuple):
    """One item: on which side, how much of it, and what it costs; of storage, in a month."""

    side: Literal["source", "target"]
    provider: str
    item: Item
    quantity: int
    cost_nanos: int

    def as_dict(self) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = dict(self._asdict())
        return found


def expenses(
    made: Assessment, source: str | None, target: str | None, own_prices: Sequence[PricingTier] = ()
) -> list[Expense]:
    """What the move and a month of keeping what it copied cost, as if nothing else used the providers' free tiers.

    source, target  providers, as `r2`; None for a directory, which costs nothing.
    """
    files, size = made.moving
    lists = -(-made.tally.total.files // BLOB_LIST_KEYS)
    large = sum(amount.bytes for bound, amount in zip(BOUNDS, made.tally.sizes[1:], strict=True) if bound >= _LARGE)
    parts = -(-min(size, large) // S3_PART_BYTES)
    wanted: list[tuple[Literal["source", "target"], str | None, Item, int]] = [
        ("source", source, "class_a", lists),
        ("source", source, "class_b", files),
        ("source", source, "egress", size),
        ("target", target, "class_a", files + parts + lists),
        ("target", target, "storage", size),
    ]
    found = []
    for side, provider, item, quantity in wanted:
        if provider is not None:
            tiers = tiers_of(provider, own_prices).get(item)
            if tiers:
                found.append(Expense(side, provider, item, quantity, cost_nanos(tiers, quantity)))
    return found
