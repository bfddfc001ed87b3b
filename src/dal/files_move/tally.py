"""What there is to move, counted: bytes, types, sizes, and what is there twice."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dal.limits import CONTENTS_DISTINCT
from dal.ops import JsonValue

_KIB: Final = 1024
#: Sizes are counted below each of these bounds; the last counts what is larger than all.
BOUNDS: Final = (1, _KIB, 16 * _KIB, 256 * _KIB, 4 * _KIB**2, 64 * _KIB**2, _KIB**3, 5 * _KIB**3)
_SHOWN_TYPES: Final = 20


class Amount(NamedTuple):
    files: int = 0
    bytes: int = 0

    def plus(self, size: int) -> Amount:
        return Amount(self.files + 1, self.bytes + size)

    def as_dict(self) -> dict[str, JsonValue]:
        return {"files": self.files, "bytes": self.bytes}


NOTHING: Final = Amount()


@dataclass(slots=True)
class Tally:
    """Counts that grow file by file. Memory is bounded: duplicates are known of the first CONTENTS_DISTINCT contents.

    duplicates  files whose content an earlier one has, and what storing them once would spare.
    unhashed    files of which no checksum is known, so that none of them counts as a duplicate.
    """

    total: Amount = NOTHING
    types: dict[str, Amount] = field(default_factory=dict)
    sizes: list[Amount] = field(default_factory=lambda: [NOTHING] * (len(BOUNDS) + 1))
    duplicates: Amount = NOTHING
    unhashed: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def add(self, size: int, mime_type: str | None, checksum: str | None) -> None:
        self.total = self.total.plus(size)
        kind = (mime_type or "unknown").partition(";")[0].strip().lower()
        self.types[kind] = self.types.get(kind, NOTHING).plus(size)
        place = sum(size >= bound for bound in BOUNDS)
        self.sizes[place] = self.sizes[place].plus(size)
        if checksum is None:
            self.unhashed += 1
            return
        short = hashlib.blake2b(checksum.encode(), digest_size=8).digest()
        if short in self._seen:
            self.duplicates = self.duplicates.plus(size)
        elif len(self._seen) < CONTENTS_DISTINCT:
            self._seen.add(short)

    @property
    def is_partial(self) -> bool:
        """There are more different contents than are remembered: duplicates may be more than were counted."""
        return len(self._seen) >= CONTENTS_DISTINCT

    def histogram(self) -> list[tuple[str, Amount]]:
        """How many files are of about which size, from the smallest."""
        names = ["empty", *(f"below {size_name(bound)}" for bound in BOUNDS[1:]), f"{size_name(BOUNDS[-1])} and more"]
        return list(zip(names, self.sizes, strict=True))

    def commonest(self) -> list[tuple[str, Amount]]:
        """The types with the most bytes; the rest in one."""
        ordered = sorted(self.types.items(), key=lambda item: (-item[1].bytes, item[0]))
        rest = [amount for _, amount in ordered[_SHOWN_TYPES:]]
        if not rest:
            return ordered
        others = Amount(sum(amount.files for amount in rest), sum(amount.bytes for amount in rest))
        return [*ordered[:_SHOWN_TYPES], ("others", others)]

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            **self.total.as_dict(),
            "types": {kind: amount.as_dict() for kind, amount in self.commonest()},
            "sizes": {name: amount.as_dict() for name, amount in self.histogram()},
            "duplicates": self.duplicates.as_dict(),
            "duplicates_partial": self.is_partial,
            "unhashed": self.unhashed,
        }


def size_name(size: float) -> str:
    """Bytes as a person says them, in powers of 1024."""
    for unit, factor in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= factor:
            return f"{_digits(size / factor)} {unit}"
    return f"{size:.0f} bytes"


def _digits(number: float) -> str:
    """Three that count, and no fraction of what is larger."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
