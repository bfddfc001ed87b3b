"""Measures two sides of a comparison in alternating rounds.

A side is a call and the number of tasks that make it at once. Before anything is counted, a warm-up finds how many
calls fill a round; then the sides take turns, the first of a pair being the second of the next. Garbage is collected
before every round and collection stays on during it, on both sides alike; what was there before the first one, the
harness with its data above all, is not looked through each time. Reported are medians of rounds, and percentiles over
all calls.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Final, NamedTuple

#: One call of a side. Its argument is never the same twice in a run; modulo the number of tasks it is the task's.
Call = Callable[[int], Awaitable[object]]

_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")
_MAX_CALLS: Final = 200_000


class Pace(NamedTuple):
    """How long to measure: rounds, and seconds that the slower side of a comparison spends in each.

    most_calls  of a round, also where a row has a number of its own.
    """

    rounds: int
    round_s: float
    warm_up_s: float
    most_calls: int = _MAX_CALLS


@dataclass(slots=True)
class Side:
    """Whoever is measured.

    tasks     how many make calls at the same time.
    per_call  messages (or whatever is counted) that one call handles.
    calls     in each round; None fills the round's time.
    requests  how many requests a server was sent until now, where there is one that counts them.
    settled   waits for what the calls have left to be done behind them; its processor time is theirs.
    tells     a call gives the seconds that count, instead of those that it takes.
    """

    name: str
    call: Call
    tasks: int = 1
    per_call: int = 1
    calls: int | None = None
    requests: Callable[[], int] | None = None
    settled: Callable[[], Awaitable[None]] | None = None
    tells: bool = False
    _next: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._next = list(range(self.tasks))

    async def run(self, calls: int) -> Round:
        """Makes the calls, shared out among the tasks."""
        latencies_s: list[float] = []
        gc.collect()
        sent = None if self.requests is None else self.requests()
        memory = _forget_peak()
        cpu, start = process_time(), perf_counter()
        if self.tasks == 1:
            await self._work(0, calls, latencies_s)
        else:
            shares = [calls // self.tasks + (n < calls % self.tasks) for n in range(self.tasks)]
            async with asyncio.TaskGroup() as group:
                for task, share in enumerate(shares):
                    group.create_task(self._work(task, share, latencies_s))
        elapsed_s = perf_counter() - start
        if self.settled is not None:
            await self.settled()
        cpu_s = process_time() - cpu
        peak_bytes = _peak_since(memory)
        if self.requests is not None and sent is not None:
            sent = self.requests() - sent
        return Round(latencies_s, elapsed_s, cpu_s, peak_bytes, calls * self.per_call, sent)

    async def _work(self, task: int, calls: int, latencies_s: list[float]) -> None:
        call, first = self.call, self._next[task]
        self._next[task] = end = first + calls * self.tasks
        for number in range(first, end, self.tasks):
            start = perf_counter()
            found = await call(number)
            took_s = perf_counter() - start
            latencies_s.append(found if self.tells and isinstance(found, float) else took_s)


class Round(NamedTuple):
    latencies_s: list[float]
    elapsed_s: float
    cpu_s: float
    peak_bytes: int | None
    handled: int
    requests: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What the rounds of one side say. Times in microseconds a call; `per_second` counts what the calls handled.

    cpu_us      of this process, all threads; the server's own is not in it.
    peak_bytes  memory above that at the beginning of the round, the largest of all rounds; None where the system
                does not tell (it does on Linux).
    requests    to the server, a call; None where nobody counts them.
    rounds      the same of each round alone, in order: how far they spread is how much a median can be trusted.
    """

    name: str
    calls: int
    median_us: float
    p95_us: float
    p99_us: float
    per_second: float
    cpu_us: float
    peak_bytes: int | None
    requests: float | None = None
    rounds: tuple[Stats, ...] = ()


async def compare(sides: Sequence[Side], pace: Pace, *, same_calls: bool) -> list[Stats]:
    """The statistics of each side, measured in turns.

    same_calls  every side makes as many calls as the slowest manages: for writes, which change what they meet.
    """
    gc.freeze()
    try:
        return await _compare(sides, pace, same_calls=same_calls)
    finally:
        gc.unfreeze()


async def _compare(sides: Sequence[Side], pace: Pace, *, same_calls: bool) -> list[Stats]:
    for side in sides:
        side.calls = side.calls and min(side.calls, pace.most_calls)
    per_call_s = [await _warm_up(side, pace.warm_up_s) for side in sides]
    if same_calls:
        per_call_s = [max(per_call_s)] * len(sides)
    least = max(side.tasks for side in sides)
    calls = [
        side.calls or min(_MAX_CALLS, max(least, round(pace.round_s / cost)))
        for side, cost in zip(sides, per_call_s, strict=True)
    ]
    rounds: list[list[Round]] = [[] for _ in sides]
    for number in range(pace.rounds):
        order = list(range(len(sides)))
        for at in order if number % 2 == 0 else reversed(order):
            rounds[at].append(await sides[at].run(calls[at]))
    return [_stats(side, found) for side, found in zip(sides, rounds, strict=True)]


async def _warm_up(side: Side, warm_up_s: float) -> float:
    """Runs the side until it has had its time; seconds a call (of all tasks together) at its end."""
    calls, spent_s = side.calls or side.tasks, 0.0
    while True:
        found = await side.run(calls)
        spent_s += found.elapsed_s
        if spent_s >= warm_up_s or calls >= _MAX_CALLS or side.calls is not None:
            return found.elapsed_s / calls
        calls *= 2


def _stats(side: Side, rounds: Sequence[Round]) -> Stats:
    every = sorted(latency for one in rounds for latency in one.latencies_s)
    peaks = [one.peak_bytes for one in rounds if one.peak_bytes is not None]
    sent = [one.requests for one in rounds if one.requests is not None]
    return Stats(
        name=side.name,
        calls=len(every),
        median_us=statistics.median(statistics.median(one.latencies_s) for one in rounds) * 1e6,
        p95_us=_percentile(every, 95) * 1e6,
        p99_us=_percentile(every, 99) * 1e6,
        per_second=statistics.median(one.handled / one.elapsed_s for one in rounds),
        cpu_us=statistics.median(one.cpu_s / len(one.latencies_s) for one in rounds) * 1e6,
        peak_bytes=max(peaks) if peaks else None,
        requests=sum(sent) / len(every) if sent else None,
        rounds=tuple(_stats(side, [one]) for one in rounds) if len(rounds) > 1 else (),
    )


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _forget_peak() -> int | None:
    """Resets the kernel's high-water mark of this process; the memory in use now, in bytes."""
    try:
        _CLEAR_REFS.write_text("5")
        return _status_bytes("VmRSS")
    except OSError:
        return None


def _peak_since(start: int | None) -> int | None:
    return None if start is None else max(0, _status_bytes("VmHWM") - start)


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {name}")
