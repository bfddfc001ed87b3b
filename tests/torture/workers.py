"""What the forked processes of a run do, each until it is told to stop or is killed."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

import dal.move.sides
from dal import DataAccess
from dal.errors import ConflictError, DalError, UnsupportedError
from dal.factory import create_data_access
from dal.move.check_report import Mode
from dal.move.checking import check
from dal.move.cutover import Cutover
from dal.move.differences import Difference
from dal.move.mover import Mover, begin
from dal.move.sides import SIDES, Sides, UnitGates, read_gates
from dal.replica import UNITS, Gate, Movable, Replica
from dal.store import Store
from tests.torture.documents import DocumentLane
from tests.torture.faulty import faulty
from tests.torture.foreign import ForeignLane
from tests.torture.lanes import HOT_CHATS, Lane, lane_slots
from tests.torture.ledger import Ledger, now_s
from tests.torture.places import FilePlace, Place, bare, open_settings
from tests.torture.shared import Counters, row_id
from tests.torture.stopping import fork, stopped, stopping

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Run:
    """What all processes of a run know.

    directory  of ledgers and events.
    rate       how often a mover's calls fail.
    """

    seed: int
    places: tuple[Place, Place]
    counters: Counters
    directory: Path
    rate: float

    def dice(self, *role: object) -> Random:
        return Random(f"{self.seed}/{role}")

    def event(self, kind: str, **what: object) -> None:
        """Tells the supervisor and the verdict; any process may."""
        line = orjson.dumps(
            {"at_s": now_s(), "pid": os.getpid(), "kind": kind, **what}, option=orjson.OPT_APPEND_NEWLINE
        )
        file = os.open(self.directory / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line)
        os.close(file)


async def writer(run: Run, process: int, *, moving: bool, lanes: int, pause_s: float) -> None:
    """Writes through the library, several lanes at once."""
    stop = stopping()
    settings = open_settings(run.places, moving=moving)
    dal = await _opened(run, create_data_access(run.places[0].url, settings=settings, auto_migrate=False), stop)
    if dal is None:
        return
    role = "moving" if moving else "plain"

    async def live(number: int) -> None:
        name = f"{role}-{process}-{number}"
        ledger, dice = Ledger(run.directory, name), run.dice(name)
        lane = Lane(
            dal,
            ledger,
            run.counters,
            dice,
            name=name,
            process=process,
            slots=lane_slots(number, lanes),
            reads_back=moving,
        )
        while not stop.is_set():
            await lane.step()
            await asyncio.sleep(dice.random() * pause_s)

    await asyncio.gather(*(live(number) for number in range(lanes)))
    await dal.close()


async def _opened(run: Run, dal: DataAccess, stop: asyncio.Event) -> DataAccess | None:
    """Opened as soon as the store answers; None where the run ends before."""
    while not stop.is_set():
        try:
            return await dal.open()
        except DalError as error:
            if not error.retryable:
                run.event("broken", what=f"opening failed: {error!r}")
                return None
            await asyncio.sleep(0.1)
    return None


def foreign(run: Run, process: int, place: Place, *, pause_s: float) -> None:
    """Writes raw SQL to one store."""
    name = f"foreign-{process}-{'source' if place is run.places[0] else 'target'}"
    asked = stopped()
    program = place.program()
    assert program is not None
    if place is run.places[1]:
        asyncio.run(_wait_for_move(run))  # what was there before it is nobody's to compare
    dice = run.dice(name)
    lane = ForeignLane(program, Ledger(run.directory, name), dice, name=name)
    while not asked:
        lane.step()
        time.sleep(dice.random() * pause_s)
    program.close()


def foreign_documents(run: Run, process: int, place: FilePlace, *, pause_s: float) -> None:
    """Writes a file store's documents and lines."""
    name = f"foreign-{process}-{'source' if place is run.places[0] else 'target'}"
    asked = stopped()
    if place is run.places[1]:
        asyncio.run(_wait_for_move(run))  # what was there before it is nobody's to compare
    dice = run.dice(name)
    lane = DocumentLane(place.directory, Ledger(run.directory, name), dice, name=name)
    while not asked and not asyncio.run(lane.begin(place.url)):
        time.sleep(1.0)
    while not asked:
        lane.step()
        time.sleep(dice.random() * pause_s)


async def _wait_for_move(run: Run) -> None:
    """Until the source takes part in it, as the last one: a target has gates before all of its fences stand."""
    while True:
        store = bare(run.places[0], open_settings(run.places, moving=False))
        try:
            await store.open()
            assert isinstance(store, Movable)
            if await store.replica().gates():
                return
        except DalError:
            pass
        finally:
            await store.close()
        await asyncio.sleep(0.1)


async def reader(run: Run, number: int) -> None:
    """Looks at numbers that writers raise: what was acknowledged before a look began must be seen by it."""
    stop, dice = stopping(), run.dice("reader", number)
    dal = create_data_access(run.places[0].url, settings=open_settings(run.places, moving=True), auto_migrate=False)
    if await _opened(run, dal, stop) is None:
        return
    ledger = Ledger(run.directory, f"reader-{number}")
    while not stop.is_set():
        try:
            await _look(run.counters, dal, ledger, dice)
        except DalError as error:
            ledger.read_failed(error)
        await asyncio.sleep(dice.random() * 0.01)
    await dal.close()


async def _look(counters: Counters, dal: DataAccess, ledger: Ledger, dice: Random) -> None:
    if dice.random() < 0.3:
        place = dice.randrange(len(HOT_CHATS))
        known = counters.highest("chats", place)
        found = await dal.messages.count(HOT_CHATS[place])
        _compare(ledger, HOT_CHATS[place], known, found)
        return
    kind = dice.choice(("memory", "users", "files"))
    chosen = counters.some(kind, dice)
    if chosen is None:
        return
    known = counters.get(kind, *chosen)
    user, file = row_id("user", *chosen), row_id("file", *chosen)
    value: Any
    if kind == "memory":
        value = await dal.memory.get(user, "count", "n")
    elif kind == "users":
        value = (one := await dal.users.get(user)) and one.profile["n"]
    else:
        value = (record := await dal.files.get(file)) and record.metadata["n"]
    _compare(ledger, f"{kind} {chosen}", known, -1 if value is None else value)


def _compare(ledger: Ledger, what: str, known: int, found: int) -> None:
    if found < known:
        ledger.broken(f"a reader went back: {what} is {found}, and {known} was acknowledged before it looked")


# The move ------------------------------------------------------------------------------------------------------------


async def open_stores(run: Run) -> tuple[Store, Store]:
    """Both bare stores, opened with patience."""
    settings = open_settings(run.places, moving=False)
    opened: list[Store] = []
    for place in run.places:
        while True:
            store = bare(place, settings)
            try:
                await store.open()
                break
            except DalError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(0.1)
        opened.append(store)
    return opened[0], opened[1]


def sides_of(source: Store, target: Store, wrap: Callable[[Replica], Replica] = lambda replica: replica) -> Sides:
    assert isinstance(source, Movable)
    assert isinstance(target, Movable)
    return Sides(wrap(source.replica()), wrap(target.replica()))


def mover_of(run: Run, sides: Sides, source: Store, target: Store, *, batch_rows: int) -> Mover:
    """A mover as the command starts it; what its check finds is told."""

    async def verify(unit: str) -> int:
        found: list[str] = []
        report = await check(
            source, target, units=(unit,), pause_s=0.02, on_difference=lambda one: found.append(f"{one!r:.400}")
        )
        if report.differences:
            run.event("check", unit=unit, differences=report.differences, found=found[:5])
        return report.differences

    async def count(_table: str) -> int:
        return 0

    return Mover(sides, verify=verify, count=count, batch_rows=batch_rows)


async def mover(run: Run, number: int) -> None:
    """Copies until it is killed."""
    dice = run.dice("mover", number)
    source, target = await open_stores(run)
    sides = sides_of(source, target, lambda inner: faulty(inner, dice, run.rate))
    work = mover_of(run, sides, source, target, batch_rows=dice.choice((10, 100, 1000)))
    told = 0
    while True:
        try:
            started = time.monotonic()
            await begin(sides, tuple(UNITS))
            run.event("begun", took_s=time.monotonic() - started)
            ended = asyncio.create_task(work.run(lambda _gates: False))
            while not ended.done():
                await asyncio.wait([ended], timeout=0.1)
                copied = sum(work.progress.copied.values())
                if copied > told:
                    run.event("copied", rows=copied - told)
                    told = copied
                if work.progress.different:
                    run.event("different", keys=[list(key) for key in work.progress.different])
            ended.result()
        except DalError as error:
            run.event("mover ended", error=type(error).__name__, message=str(error), retryable=error.retryable)
            await asyncio.sleep(0.1)


async def switcher(run: Run, number: int, *, every_s: float, one_way: bool) -> None:
    """Switches units forth and back, or forth alone, until it is killed."""
    dice = run.dice("switcher", number)
    source, target = await open_stores(run)
    sides = sides_of(source, target, lambda inner: faulty(inner, dice, run.rate))
    cutover = Cutover(sides, batch_rows=500)
    while True:
        await asyncio.sleep(dice.random() * every_s)
        try:
            gates = await read_gates(sides)
            movable = ("source",) if one_way else SIDES
            units = [unit for unit, found in gates.items() if found.primary in movable]
            if not units:
                continue
            unit = dice.choice(units)
            to = dice.choice(SIDES) if dice.random() < 0.2 and not one_way else _away(gates[unit])
            report = await cutover.switch(unit, to)
            run.event("switched", unit=unit, to=to, epoch=report.epoch, stall_ms=report.stall_ms, rows=report.drained)
        except DalError as error:
            run.event("not switched", error=type(error).__name__, message=str(error), retryable=error.retryable)


async def checker(run: Run, number: int) -> None:
    """Compares both stores again and again, in every way: whatever it calls a difference is none."""
    stop, dice = stopping(), run.dice("checker", number)
    source, target = await open_stores(run)
    while not stop.is_set():
        mode: Mode = dice.choice(("deep", "quick", "tail"))
        found: list[Difference] = []
        try:
            report = await check(source, target, mode=mode, pause_s=0.05, on_difference=found.append)
        except DalError as error:
            if not error.retryable and not isinstance(error, UnsupportedError | ConflictError):
                run.event("broken", what=f"a {mode} check failed: {error!r}")
            await asyncio.sleep(0.1)  # the move has not begun, or a store is away
            continue
        if len(report.in_move) < len(UNITS):
            continue  # it had not begun when the check did, and two stores in no move need not be equal
        run.event("checked", mode=mode, rows=report.rows, pending=report.pending)
        if report.differences:
            run.event("check", mode=mode, differences=report.differences, found=[f"{one!r:.400}" for one in found[:5]])
    await source.close()
    await target.close()


def _away(gates: UnitGates) -> Any:
    return "source" if gates.primary == "target" else "target"


def by_a_clock_that_is_off(off_s: float, work: Callable[[], Awaitable[None] | None]) -> Awaitable[None] | None:
    """Does this in a process whose wall clock, as the moves see it, is wrong by so much."""
    right = time.time
    dal.move.sides.time = lambda: right() + off_s  # type: ignore[attr-defined]
    return work()


async def watcher(run: Run) -> None:
    """Looks at both stores' gates all the time: never are both primary, and epochs never go back."""
    stop = stopping()
    source, target = await open_stores(run)
    sides = sides_of(source, target)
    epochs: dict[tuple[str, str], int] = {}
    last: dict[str, tuple[object, ...]] = {}
    while not stop.is_set():
        try:
            first = await sides.source.gates()
            second = await sides.target.gates()
            third = await sides.source.gates()
        except DalError:
            await asyncio.sleep(0.05)
            continue
        for unit in UNITS:
            if unit in first and unit in second and unit in third:
                _watch(run, unit, first[unit], second[unit], third[unit], epochs)
                now = tuple((g.role, g.epoch, g.next_epoch, g.phase) for g in (second[unit], third[unit]))
                if last.get(unit) != now:
                    last[unit] = now
                    run.event("gates", unit=unit, target=now[0], source=now[1])
        await asyncio.sleep(0.01)
    await source.close()
    await target.close()


def _watch(run: Run, unit: str, first: Gate, second: Gate, third: Gate, epochs: dict[tuple[str, str], int]) -> None:
    stayed = first.role == third.role == "primary" and first.epoch == third.epoch
    if stayed and second.role == "primary":
        run.event("broken", what=f"two primaries of {unit}: epochs {first.epoch} and {second.epoch}")
    for gate in (second, third):
        if gate.epoch < epochs.get((unit, gate.side), 0):
            run.event("broken", what=f"the epoch of {unit} went back at the {gate.side}")
        epochs[unit, gate.side] = gate.epoch


# Forking -------------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], Awaitable[None] | None], log: Path) -> int:
    """The id of a new process that does this work and ends with it; it dies with its parent.

    log  where its errors go.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = fork()
    if pid:
        return pid
    try:
        _die_with_parent()
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        found = work()
        if found is not None:
            asyncio.run(_awaited(found))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


async def _awaited(work: Awaitable[None]) -> None:
    faulthandler.register(signal.SIGUSR2)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _show_tasks)
    await work


def _show_tasks() -> None:
    """Where this process hangs, for the log; SIGUSR2 shows where it runs, if it does not even come to this."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
