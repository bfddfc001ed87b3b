"""What was not tested, said aloud: an engine that cannot start is skipped, named at the end of the run, or a failure.

`DAL_REQUIRE_ENGINES=postgresql,pgbouncer` makes each engine named there a failure instead of a skip.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, NoReturn

import pytest

ENGINES: Final = ("postgresql", "pgbouncer", "d1", "d1-worker", "r2", "rclone", "wrangler")
REQUIRE_VARIABLE: Final = "DAL_REQUIRE_ENGINES"

_missing: dict[str, str] = {}


def required_engines(environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The engines that must be there; a name nobody knows would require nothing in silence, so it is refused."""
    names = frozenset(name.strip() for name in environ.get(REQUIRE_VARIABLE, "").split(",") if name.strip())
    unknown = sorted(names - frozenset(ENGINES))
    if unknown:
        raise pytest.UsageError(f"{REQUIRE_VARIABLE} names {', '.join(unknown)}; known are {', '.join(ENGINES)}")
    return names


def not_tested(engine: str, why: str) -> NoReturn:
    """Skips the test that needs the engine and remembers it for the end of the run; fails it where it is required."""
    _missing[engine] = why
    if engine in required_engines():
        pytest.fail(f"ENGINE NOT TESTED: {engine} ({why}), but {REQUIRE_VARIABLE} requires it", pytrace=False)
    pytest.skip(f"engine {engine} is not there: {why}")


def missing() -> dict[str, str]:
    """The engines that tests of this process wanted and did not get, each with why."""
    return dict(_missing)


def remember(engines: Mapping[str, str]) -> None:
    """Takes over what another process of the run was missing."""
    _missing.update(engines)


def lines() -> list[str]:
    """One line for each engine that a test wanted and did not get."""
    return [f"ENGINE NOT TESTED: {engine} ({why})" for engine, why in sorted(_missing.items())]
