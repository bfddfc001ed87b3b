"""What storing, requests and transfer cost: published prices as data, and the arithmetic of their tiers.

The prices are those of the providers' pages on the days that `SOURCES` names, before taxes and discounts. Prices of
your own go into the data store (`monitoring.prices.set`), and win over these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Final, Literal, get_args

from dal.file_models import PricingTier

Item = Literal["storage", "class_a", "class_b", "egress"]
ITEMS: Final[tuple[Item, ...]] = get_args(Item)

#: Where prices are published, and when these were: R2's Standard storage; S3 Standard in us-east-1.
SOURCES: Final[Mapping[str, tuple[str, date]]] = {
    "r2": ("https://developers.cloudflare.com/r2/pricing/", date(2026, 8, 3)),
    "s3": ("https://aws.amazon.com/s3/pricing/", date(2026, 6, 4)),
}

_GB: Final = 10**9
_GIB: Final = 2**30
_TIB: Final = 2**40
_MILLION: Final = 10**6
_DOLLAR: Final = 10**9  # nanos
#: Providers that round what is beyond the free tier up to whole units.
_WHOLE_UNITS: Final = frozenset({"r2"})


def _tiers(provider: str, item: Item, unit: int, *steps: tuple[int, float]) -> tuple[PricingTier, ...]:
    return tuple(
        PricingTier(provider=provider, item=item, from_quantity=start, unit=unit, price_nanos=round(dollars * _DOLLAR))
        for start, dollars in steps
    )


#: Quantities of storage are bytes kept for a whole month; those of egress are bytes; the others are requests.
PUBLISHED: Final[tuple[PricingTier, ...]] = (
    *_tiers("r2", "storage", _GB, (0, 0), (10 * _GB, 0.015)),
    *_tiers("r2", "class_a", _MILLION, (0, 0), (_MILLION, 4.50)),
    *_tiers("r2", "class_b", _MILLION, (0, 0), (10 * _MILLION, 0.36)),
    *_tiers("r2", "egress", _GB, (0, 0)),
    *_tiers("s3", "storage", _GIB, (0, 0.023), (50 * _TIB, 0.022), (500 * _TIB, 0.021)),
    *_tiers("s3", "class_a", 1000, (0, 0.005)),
    *_tiers("s3", "class_b", 1000, (0, 0.0004)),
    *_tiers(
        "s3", "egress", _GIB, (0, 0), (100 * _GIB, 0.09), (10 * _TIB, 0.085), (50 * _TIB, 0.07), (150 * _TIB, 0.05)
    ),
)


def tiers_of(provider: str, own: Iterable[PricingTier] = ()) -> dict[str, list[PricingTier]]:
    """The tiers of each item of a provider, from the lowest: one's own where an item has some, else the published."""
    found: dict[str, list[PricingTier]] = {}
    for tiers in (PUBLISHED, own):
        given: dict[str, list[PricingTier]] = {}
        for tier in tiers:
            if tier.provider == provider:
                given.setdefault(tier.item, []).append(tier)
        found |= given
    return {item: sorted(tiers, key=lambda tier: tier.from_quantity) for item, tiers in found.items()}


def cost_nanos(tiers: Sequence[PricingTier], quantity: int) -> int:
    """What a quantity of one item costs, in billionths of the currency; 0 where no tier is given.

    Each part of the quantity costs what its tier says. What is less than a unit costs its share, rounded to the nearest
    billionth; of a provider that bills whole units (R2) it costs a unit.
    """
    total = 0
    for place, tier in enumerate(tiers):
        end = tiers[place + 1].from_quantity if place + 1 < len(tiers) else quantity
        within = min(quantity, end) - tier.from_quantity
        if within <= 0:
            continue
        if tier.provider in _WHOLE_UNITS:
            total += -(-within // tier.unit) * tier.price_nanos
        else:
            total += (within * tier.price_nanos + tier.unit // 2) // tier.unit
    return total


def money(nanos: int, currency: str = "USD") -> str:
    """An amount as a person reads it, in cents where it has that many, else as exactly as need be."""
    amount = nanos / _DOLLAR
    return f"{amount:,.2f} {currency}" if nanos == 0 or abs(amount) >= 0.01 else f"{amount:.6f} {currency}"
