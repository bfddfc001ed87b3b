"""The order of application: by `requires` where files declare it, else by number and name."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from dal.schema.findings import Finding

if TYPE_CHECKING:
    from dal.schema.files import Migration

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql")
_NUMBERED: Final = re.compile(r"(\d+)\D")


def number_of(name: str, findings: list[Finding]) -> int | None:
    """The number that a file name begins with; None where it has none and the file cannot have a place."""
    strict = _NAME.fullmatch(name)
    if strict is not None:
        return int(strict[1])
    numbered = _NUMBERED.match(name)
    message = "a migration is named NNNN_lowercase_words.sql"
    if numbered is None:
        message += "; without a number it has no place in the order, and is not applied"
    findings.append(Finding(rule="bad-name", severity="error", file=name, message=message))
    return None if numbered is None else int(numbered[1])


def number_in(name: str) -> int:
    """The number that a ledger's name begins with; 0 where there is none."""
    numbered = _NUMBERED.match(name)
    return 0 if numbered is None else int(numbered[1])


def number_findings(migrations: Sequence[Migration]) -> Iterator[Finding]:
    """Gaps and duplicates. Numbers of more than four digits are times, which have gaps."""
    by_number: dict[int, list[str]] = {}
    for migration in migrations:
        by_number.setdefault(migration.number, []).append(migration.name)
    for names in by_number.values():
        if len(names) > 1:
            yield Finding(
                rule="duplicate-number",
                severity="warning",
                file=names[-1],
                message=f"{', '.join(sorted(names))} have one number; all are applied, by `requires` or else by name",
            )
    for before, number in pairwise(sorted(by_number)):
        if number > before + 1 and number < 10_000:
            missing = f"{before + 1:04}" if number == before + 2 else f"{before + 1:04} to {number - 1:04}"
            yield Finding(
                rule="number-gap",
                severity="warning",
                file=by_number[number][0],
                message=f"there is no {missing} before it; is a file missing?",
            )


def ordered(migrations: Sequence[Migration], findings: list[Finding]) -> list[Migration]:
    """In the order of application. Where a cycle leaves none, by number and name, and a finding names the cycle."""
    by_name = {m.name: m for m in migrations}
    waits_for: dict[str, set[str]] = {}
    for migration in migrations:
        waits_for[migration.name] = {name for name in migration.directives.requires if name in by_name}
        for name in migration.directives.requires:
            if name not in by_name:
                message = f"it requires {name}, which is not in this directory"
                findings.append(
                    Finding(rule="unknown-requires", severity="error", file=migration.name, message=message)
                )
    ready = [(m.number, m.name) for m in migrations if not waits_for[m.name]]
    heapq.heapify(ready)
    done: list[Migration] = []
    while ready:
        _, name = heapq.heappop(ready)
        done.append(by_name[name])
        for other in migrations:
            if name in waits_for[other.name]:
                waits_for[other.name].remove(name)
                if not waits_for[other.name]:
                    heapq.heappush(ready, (other.number, other.name))
    if len(done) == len(migrations):
        return done
    cycle = _cycle({name: names for name, names in waits_for.items() if names})
    message = f"files require each other in a circle: {' → '.join(cycle)}"
    findings.append(Finding(rule="requires-cycle", severity="error", file=cycle[0], message=message))
    return sorted(migrations, key=lambda m: (m.number, m.name))


def _cycle(waits_for: dict[str, set[str]]) -> list[str]:
    """One circle among files that all wait, its first name again at its end."""
    path = [min(waits_for)]
    while True:
        following = min(name for name in waits_for[path[-1]] if name in waits_for)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
