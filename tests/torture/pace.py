"""Shorter waits for a short run: the moves' bounds are read from here by the worker processes of a run alone.

The library's modules hold their bounds by name, so each of them is set anew. All processes of a run are forked after
that, and agree.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

import dal.move

SHORT: Final[dict[str, float]] = {
    "GATE_IDLE_AGE_S": 0.6,
    "GATE_MAX_AGE_S": 0.25,
    "MOVE_FENCE_S": 1.0,
    "MOVE_LEASE_S": 0.5,
    "MOVE_VERIFY_AGAIN_S": 0.5,
    "MOVE_TAIL_EVERY_S": 0.2,
    "MOVE_MAX_PAUSE_S": 0.3,
    "MOVE_CATCH_UP_S": 5.0,
}


def shorten() -> None:
    """Sets the bounds of this process and of all that are forked from it."""
    for found in pkgutil.iter_modules(dal.move.__path__, "dal.move."):
        module = importlib.import_module(found.name)
        for name, value in SHORT.items():
            if hasattr(module, name):
                setattr(module, name, value)
