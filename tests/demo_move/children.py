"""Child processes that talk in lines of JSON: the writers, the mover, and commands that are run to their end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Self

from dal.cli.demo_writers import Ledger

_LINE_BYTES = 16 * 1024 * 1024
_STOP_S = 60.0
_SILENT_S = 300.0
_SAID_CHARS = 2000
_ROOT = Path(__file__).resolve().parents[2]
#: What runs a module of ours as a program.
PROGRAM: tuple[str, ...] = (sys.executable, "-m")


class CommandFailedError(Exception):
    """A command ended as it must not; the message has what it said."""


async def dal(*arguments: str, allowed: tuple[int, ...] = (0,)) -> Any:
    """Runs a command of the library with --json to its end: the document that it printed."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "dal.cli", *arguments, "--json", stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=_ROOT
    )
    try:
        found, said = await process.communicate()
    finally:
        _kill(process)
    if process.returncode not in allowed:
        raise CommandFailedError(f"dal {' '.join(arguments)}: {process.returncode}: {said.decode().strip()}")
    return json.loads(found)


class Child:
    """A process that goes on until it is told to stop, and the last line that it said.

    log      what it says to people goes there.
    on_line  is given every line.
    """

    def __init__(self, log: Path, on_line: Callable[[dict[str, Any]], None]) -> None:
        self.last: dict[str, Any] = {}
        self._log = log
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._next: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def start(self, *arguments: str) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *PROGRAM, *arguments, stdin=PIPE, stdout=PIPE, stderr=log, limit=_LINE_BYTES, cwd=_ROOT
            )
        self._reading = asyncio.create_task(self._read(self._process))
        return self

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.last = json.loads(line)
            self._on_line(self.last)
            said, self._next = self._next, asyncio.get_running_loop().create_future()
            said.set_result(self.last)
        await process.wait()

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line from now on that is as asked for.

        Raises CommandFailedError where the process ends before, or is silent for too long, and what `on_line` raised.
        """
        assert self._process is not None
        assert self._reading is not None
        while True:
            line = self._next
            awaited: set[asyncio.Future[Any]] = {line, self._reading}
            await asyncio.wait(awaited, timeout=_SILENT_S, return_when=asyncio.FIRST_COMPLETED)
            if line.done():
                if holds(line.result()):
                    return line.result()
                continue
            if self._reading.done():
                self._reading.result()
            said = self._log.read_text(errors="replace").strip()[-_SAID_CHARS:]
            what = f"ended by itself: {self._process.returncode}" if self._reading.done() else "says nothing any more"
            raise CommandFailedError(f"a process {what}: {said}")

    def memory_mb(self) -> float | None:
        """Its largest resident set so far; None where the system does not tell."""
        assert self._process is not None
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:")), None)

    async def end_input(self) -> None:
        """Closes its standard input, and waits until it has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._ended()

    async def interrupt(self) -> None:
        """What Ctrl-C does, and waits until it has ended."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        await self._ended()

    async def _ended(self) -> None:
        assert self._reading is not None
        async with asyncio.timeout(_STOP_S):
            await self._reading

    async def close(self) -> None:
        """Ends it at once, if it runs."""
        if self._process is not None and self._reading is not None:
            _kill(self._process)
            await asyncio.gather(self._reading, return_exceptions=True)
            await self._process.communicate()  # what a reading that failed has left


class WriterProcesses:
    """All the writers, over some processes."""

    def __init__(self, log: Path) -> None:
        self.ledgers: list[Ledger] = []
        self._log = log
        self._slowest_s = 0.0
        self._children: list[Child] = []

    async def start(self, source: str, target: str, writers: int, processes: int, pause_s: float) -> None:
        for number in range(processes):
            share = writers // processes + (number < writers % processes)
            if share:
                arguments = ("--count", str(share), "--name", f"writer-{number + 1}", "--pause", str(pause_s))
                child = await Child(self._log, self._heard).start("tests.demo_move.writers", source, target, *arguments)
                self._children.append(child)
        await asyncio.gather(*(child.until(lambda report: report.get("answered", 0) > 0) for child in self._children))

    @property
    def answered(self) -> int:
        return sum(int(child.last.get("answered", 0)) for child in self._children)

    def slowest_s(self) -> float:
        """The longest call since this was last asked."""
        found, self._slowest_s = self._slowest_s, 0.0
        return found

    async def stop(self) -> None:
        """Lets them end what they are at; `ledgers` has what they were told."""
        await asyncio.gather(*(child.end_input() for child in self._children))
        for child in self._children:
            if "ledgers" not in child.last:
                raise CommandFailedError("a process of writers ended without its ledgers")
            self.ledgers += [Ledger(**ledger) for ledger in child.last["ledgers"]]

    async def close(self) -> None:
        for child in self._children:
            await child.close()

    def _heard(self, report: dict[str, Any]) -> None:
        self._slowest_s = max(self._slowest_s, report["slowest_s"])


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
