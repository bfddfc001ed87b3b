"""Which units of a move are kept from being verified by something that no waiting will mend, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dal.move.mover import Progress
    from dal.move.status import MoveStatus

#: Looks, a second apart, at which the same rows could not be copied.
_LOOKS: Final = 5
#: Whole comparisons in a row that found differences, with a pause in which rows on their way arrive.
_CHECKS: Final = 2


class HeldUp:
    """What looks at a mover at work, one after the other, tell of it."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._looks: dict[str, int] = {}

    def see(self, status: MoveStatus, progress: Progress) -> list[str]:
        """Why each unit that is not verified never will be; empty while there is hope for one of them."""
        reasons = []
        left = [name for name, unit in status.units.items() if unit.phase not in ("VERIFIED", "SWITCHED")]
        for name in left:
            text = progress.held_up.get(name, "")
            self._looks[name] = self._looks.get(name, 0) + 1 if text and text == self._texts.get(name) else 0
            self._texts[name] = text
            if status.units[name].phase != "SYNC":
                continue
            if self._looks[name] >= _LOOKS:
                reasons.append(f"{name}: {text}")
            elif progress.differed.get(name, 0) >= _CHECKS:
                rows = ", ".join(progress.differing.get(name, ()))
                reasons.append(f"{name}: {status.units[name].check.get('differences')} rows differ: {rows}")
        return reasons if len(reasons) == len(left) else []
