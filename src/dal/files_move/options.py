"""What moves, checks and ways back of contents are all given: how much at a time, and who is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Final

from dal.files_move.report import OnProblem, OnProgress
from dal.files_move.throttle import Sleep, Timer
from dal.limits import CONTENTS_TRANSFERS
from dal.values import Clock, now


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions:
    """How a run goes about its work.

    jobs                 blobs at a time; memory is about a MiB for each, or a part where it is large, and
                         CONTENTS_PARTS_AT_ONCE parts for all together.
    limit_bytes_s        bytes of a second, of all transfers together; None for no limit.
    on_progress          is told after every piece that passed.   on_problem  is told of every problem, at once.
    clock, timer, sleep  for tests.
    """

    jobs: int = CONTENTS_TRANSFERS
    limit_bytes_s: float | None = None
    on_progress: OnProgress | None = None
    on_problem: OnProblem | None = None
    clock: Clock = now
    timer: Timer = monotonic
    sleep: Sleep = asyncio.sleep


DEFAULTS: Final = MoveOptions()
