"""One run: starts everybody, lets faults befall them as the dice say, brings the move to rest, and judges.

The supervisor itself touches no store before the end. It stays one process with one thread: everything else is forked
from it, so that a run starts quickly and nothing outlives it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from dal.move.sides import read_gates
from tests.torture import legacy, pace, verdict, workers
from tests.torture.disk import SmallDisk
from tests.torture.ledger import now_s
from tests.torture.places import LEGACY, FilePlace, LegacyPlace, Place, make_places
from tests.torture.shared import Counters
from tests.torture.stages import SETTLE_S, end, prepare, prepare_legacy, settle
from tests.torture.verdict import Held, Told, Window
from tests.torture.workers import Run

#: What writers may still need for the call that they are in, when they are told to stop.
_PATIENCE_S: Final = 45.0
#: For the first cutover, once no more faults come.
_CUTOVER_S: Final = 120.0
_TICK_S: Final = 0.02
#: How far the clocks of processes are wrong. Nobody is to notice.
_CLOCKS_OFF_S: Final = (0.0, 0.3, -0.3, 5.0, -5.0, 86_400.0, -86_400.0)
#: What the processes of a run had to say.
LOG: Final = "log"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How hard a run is. Of each kind of process so many run at any time.

    checkers        that compare both stores all the time; what they call a difference is none.
    begins_settled  how often the move has come to VERIFIED before the writers start.
    ends            the move is retired or aborted in the end, and what the stores take then is looked at.
    """

    seconds: float
    writers: int = 3
    lanes: int = 3
    plain: int = 1
    foreign: int = 1
    readers: int = 1
    checkers: int = 0
    movers: int = 2
    switchers: int = 2
    switch_every_s: float = 0.3
    fault_every_s: float = 0.5
    rate: float = 0.01
    writer_pause_s: float = 0.01
    begins_settled: float = 0.8
    ends: bool = True


@dataclass
class Outcome:
    """What a run has shown. No problems: every promise was kept."""

    problems: list[str]
    told: Told
    events: list[dict[str, Any]]
    faults: Counter[str]
    seconds: float
    rows: int = 0

    def figures(self) -> str:
        switched = [event for event in self.events if event["kind"] == "switched"]
        copied = sum(event["rows"] for event in self.events if event["kind"] == "copied")
        checks = [event for event in self.events if event["kind"] == "checked"]
        stall = max((event["stall_ms"] for event in switched), default=0.0)
        refused = Counter(
            f"{event['error']}" for event in self.events if event["kind"] == "not switched" and "error" in event
        )
        lines = [
            f"{self.told.acknowledged} acknowledged writes, {self.rows} rows at the end, {copied} rows copied",
            f"{len(switched)} cutovers, their longest stall {stall:.0f} ms; not switched: {dict(refused)}",
            f"longest call of a writer {self.told.longest_s:.2f} s, while both stores served "
            f"{self.told.longest_undisturbed_s:.2f} s",
            f"calls in doubt {len(self.told.doubts)}, errors {dict(sorted(self.told.errors.items()))}",
            f"faults {dict(sorted(self.faults.items()))}",
        ]
        if checks:
            rows, pending = (sum(event[name] for event in checks) for name in ("rows", "pending"))
            lines.append(f"{len(checks)} checks beside them, of {rows} rows; {pending} were pending, none different")
        return "\n".join(lines)


@dataclass
class _Worker:
    role: str
    number: int
    place: Place | None = None
    stopped_until_s: float = 0.0
    was_killed: bool = False


@dataclass
class Supervisor:
    """One run of one pair of stores."""

    seed: int
    source: str
    target: str
    plan: Plan
    directory: Path
    problems: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def run(self) -> Outcome:
        began = time.monotonic()
        pace.shorten()
        disk = SmallDisk(self.directory / "disk")
        self._places = make_places(self.source, self.target, disk)
        try:
            return self._run(began)
        finally:
            self._kill_all()
            for place in self._places:
                place.close()
            disk.close(keeping=bool(self.problems))

    def _run(self, began: float) -> Outcome:
        self._dice = Random(f"{self.seed}/supervisor")
        self._run_data = Run(self.seed, self._places, Counters(), self.directory, self.plan.rate)
        self._workers: dict[int, _Worker] = {}
        self._windows: list[Window] = []
        self._next = Counter[str]()
        is_settled = False
        self._mark("begun")
        if self._call(lambda: (prepare_legacy if self._is_legacy else prepare)(self._run_data), "prepare", 60):
            if self._dice.random() < self.plan.begins_settled:
                self._call(lambda: settle(self._run_data), "settle at the start", SETTLE_S + 30)
            self._mark("live")
            self._staff(movers=False)
            self._live()
            self._mark("ending")
            self._end_workers()
            self._mark("settling")
            is_settled = self._call(lambda: settle(self._run_data), "settle", SETTLE_S + 30)
        self._mark("judging")
        told, held_rows = Told(), 0
        if is_settled:
            told, held_rows = asyncio.run(self._judge())
        events = verdict.events_of(self.directory)
        for event in events:
            if event["kind"] == "broken":
                self.problems.append(f"{event['what']} at {event['at_s']:.3f}")
            elif event["kind"] in ("check", "different"):
                self.problems.append(f"{event!s:.1000}")
            elif event["kind"] in ("mover ended", "not switched") and is_serious(event):
                self.problems.append(str(event))
        return Outcome(self.problems, told, events, self.faults, time.monotonic() - began, held_rows)

    def _mark(self, what: str) -> None:
        self._run_data.event("supervisor", what=what)

    # People ----------------------------------------------------------------------------------------------------------

    def _staff(self, *, movers: bool) -> None:
        """Starts whoever is missing."""
        plan, present = self.plan, Counter(worker.role for worker in self._workers.values())
        wanted = {"writer": plan.writers, "plain": plan.plain, "reader": plan.readers, "watcher": 1}
        wanted["foreign"] = plan.foreign
        if self._is_legacy:
            wanted = {"legacy": max(2, plan.foreign), "watcher": 1}
        wanted["checker"] = plan.checkers
        if movers:
            wanted |= {"mover": plan.movers, "switcher": plan.switchers}
        for role, count in wanted.items():
            for _ in range(count - present[role]):
                self._start(role)

    def _start(self, role: str) -> None:
        self._next[role] += 1
        number, run, plan = self._next[role], self._run_data, self.plan
        clock_off_s = self._dice.choice(_CLOCKS_OFF_S)
        source, place = self._places[0], self._dice.choice(self._open_to_others())
        work: Callable[[], Awaitable[None] | None]
        if role in ("writer", "plain"):
            process = run.counters.add_process()
            work = lambda: workers.writer(  # noqa: E731
                run, process, moving=role == "writer", lanes=plan.lanes, pause_s=plan.writer_pause_s
            )
        elif role == "reader":
            work = lambda: workers.reader(run, number)  # noqa: E731
        elif role == "checker":
            work = lambda: workers.checker(run, number)  # noqa: E731
        elif role == "watcher":
            work = lambda: workers.watcher(run)  # noqa: E731
        elif role == "legacy":
            assert isinstance(source, LegacyPlace)
            work = lambda: legacy.legacy_program(  # noqa: E731
                source.directory, run.directory, run.dice(role, number), name=f"l{number}", pause_s=plan.writer_pause_s
            )
        elif role == "foreign" and isinstance(place, FilePlace):
            work = lambda: workers.foreign_documents(run, number, place, pause_s=plan.writer_pause_s * 3)  # noqa: E731
        elif role == "foreign":
            work = lambda: workers.foreign(run, number, place, pause_s=plan.writer_pause_s * 3)  # noqa: E731
        elif role == "mover":
            work = lambda: workers.mover(run, number)  # noqa: E731
        else:
            every_s = plan.seconds / 8 if self._is_legacy else plan.switch_every_s
            work = lambda: workers.switcher(run, number, every_s=every_s, one_way=self._is_legacy)  # noqa: E731
        wrong = lambda: workers.by_a_clock_that_is_off(clock_off_s, work)  # noqa: E731
        self._workers[workers.forked(wrong, self.directory / LOG)] = _Worker(role, number)

    @property
    def _is_legacy(self) -> bool:
        return self.source == LEGACY

    def _open_to_others(self) -> list[Place]:
        """Where programs of others write. On files they have no more than their own documents."""
        source, target = self._places
        return [source] + [place for place in (target,) if place.program() is not None or isinstance(place, FilePlace)]

    def _live(self) -> None:
        """Faults for the run's seconds; then without any, until at least one cutover was among it all."""
        ends = time.monotonic() + self.plan.seconds
        move_begins = time.monotonic() + self._dice.random() * min(1.0, self.plan.seconds / 10)
        next_fault = move_begins + self._dice.random() * self.plan.fault_every_s * 2
        while len(self.problems) < 20 and ((now := time.monotonic()) < ends or not self._has_switched()):
            if now > ends + _CUTOVER_S:
                self.problems.append(f"no cutover in {_CUTOVER_S:g} s without a fault")
                break
            self._reap()
            self._wake(now)
            self._staff(movers=now >= move_begins)
            if next_fault <= now < ends:
                self._fault()
                next_fault = time.monotonic() + self._dice.random() * self.plan.fault_every_s * 2
            time.sleep(_TICK_S)

    def _has_switched(self) -> bool:
        events = self.directory / "events"
        return events.exists() and b'"kind":"switched"' in events.read_bytes()

    def _reap(self) -> None:
        """Takes note of those who ended or stopped."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.get(pid)
            if worker is None:
                continue
            if os.WIFSTOPPED(status):
                if not worker.stopped_until_s:
                    self.faults[f"zombie: {worker.role}"] += 1
                    worker.stopped_until_s = time.monotonic() + self._dice.choice((0.1, 0.5, 1.5, 3.0))
                continue
            del self._workers[pid]
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                self.faults[f"killed: {worker.role}"] += 1
            else:
                self.problems.append(f"{worker.role} {worker.number} ended by itself with status {status}")

    def _wake(self, now: float) -> None:
        for pid, worker in self._workers.items():
            if worker.stopped_until_s and now >= worker.stopped_until_s:
                worker.stopped_until_s = 0.0
                os.kill(pid, signal.SIGCONT)

    # Faults ----------------------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        kind = self._dice.choices(("kill", "stop", "store", "more"), (5, 3, 2, 1))[0]
        if kind == "store":
            self._strike_store()
        elif kind == "more":
            self._start(self._dice.choice(("mover", "switcher")))
        else:
            roles = ["mover", "mover", "switcher", "switcher", "writer", "plain", "foreign"]
            role = self._dice.choice(roles if kind == "kill" else [*roles, "reader", "legacy"])
            chosen = [pid for pid, worker in self._workers.items() if worker.role == role]
            if chosen:
                pid = self._dice.choice(sorted(chosen))
                if kind == "kill":
                    os.kill(pid, signal.SIGKILL)
                else:
                    os.kill(pid, signal.SIGSTOP)

    def _strike_store(self) -> None:
        faults = [fault for place in self._places for fault in place.faults().items()]
        if not faults:
            return
        name, strike = self._dice.choice(faults)
        self.faults[name] += 1
        began = now_s()
        strike(self._dice.choice((0.1, 0.3, 0.8, 1.5)))
        if not name.startswith("sqlite"):
            self._windows.append(Window(name, began, now_s()))
        self._run_data.event("fault", name=name, began_s=began)

    # The end ---------------------------------------------------------------------------------------------------------

    def _end_workers(self) -> None:
        for place in self._places:
            place.revive()
        self._reap()
        for pid, worker in self._workers.items():
            os.kill(pid, signal.SIGKILL if worker.role in ("mover", "switcher") else signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + _PATIENCE_S
        while self._workers and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(-1, os.WNOHANG)
                ended = self._workers.pop(pid, None)
                was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL  # just before, by a fault
                if ended is not None and status and not was_killed:
                    self.problems.append(f"{ended.role} {ended.number} ended with status {status}")
            time.sleep(_TICK_S)
        for pid, worker in self._workers.items():
            self.problems.append(f"{worker.role} {worker.number} (process {pid}) did not stop in {_PATIENCE_S:g} s")
            for question in (signal.SIGUSR1, signal.SIGUSR2):
                os.kill(pid, question)
                time.sleep(0.5)
        self._kill_all()

    def _kill_all(self) -> None:
        for pid in getattr(self, "_workers", {}):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._workers = {}

    def _call(self, work: Callable[[], Awaitable[None]], what: str, patience_s: float) -> bool:
        """Does this in a process of its own; whether it ended well."""
        pid = workers.forked(work, self.directory / LOG)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                if status:
                    self.problems.append(f"{what} ended with status {status}")
                return status == 0
            time.sleep(_TICK_S)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.problems.append(f"{what} took longer than {patience_s:g} s")
        return False

    async def _judge(self) -> tuple[Told, int]:
        """Compares what was told with what is there, before the move ends and after it."""
        told = verdict.read_ledgers(self.directory, self._windows)
        self.problems += told.problems
        source, target = await workers.open_stores(self._run_data)
        sides = workers.sides_of(source, target)
        gates = await read_gates(sides)
        held = await Held.of(source, target)
        if self._is_legacy:
            self.problems += await legacy.compare(told, source, target)
            return told, sum(len(rows) for rows in held.target.values())
        self.problems += verdict.compare(told, held, gates)
        self.problems += verdict.differences(held)
        self.problems += await verdict.checked(source, target)
        if self.plan.ends and not self.problems:
            self.problems += await end(self._run_data, sides, source, target, self._dice.choice(("source", "target")))
        await source.close()
        await target.close()
        return told, sum(len(rows) for rows in held.target.values())


def is_serious(event: Mapping[str, Any]) -> bool:
    """Whether a mover or a cutover ended with an error that is no refusal and does not pass."""
    return not event["retryable"] and event["error"] not in ("ConflictError", "UnavailableError")
