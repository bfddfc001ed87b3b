"""The story of one move from files to PostgreSQL, told line by line with its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from dal import create_data_access
from dal.cli.demo_writers import missing
from dal.ops import Count
from tests.demo_move.children import Child, WriterProcesses, dal

Say = Callable[[str, str], None]
_TELL_EVERY_S = 15.0
_LEFT_ROWS = 1000  # under constant writing something waits at every moment
_UNDER_WAY = ("CAPTURE", "BACKFILL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is moved, from where to where, under whom.

    files  old data, as `dal import` takes it.
    log    what processes say to people.
    """

    files: Sequence[Path]
    source: str
    target: str
    log: Path
    writers: int = 20
    processes: int = 4
    pause_s: float = 0.1

    @property
    def both(self) -> tuple[str, ...]:
        return ("--from", self.source, "--to", self.target)


class Story:
    """One run of a plan. `problems` has what must not be; it is empty when all is well."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self.problems: list[str] = []
        self._plan = plan
        self._say = say
        self._writers = WriterProcesses(plan.log)
        self._mover = Child(plan.log, self._heard)
        self._loaded: dict[str, int] = {}
        self._began = 0.0
        self._told_at = 0.0
        self._copied_at: float | None = None
        self._is_verified = False
        self._first_memory_mb: float | None = None

    async def run(self) -> None:
        """Raises CommandFailedError where a command fails."""
        plan = self._plan
        try:
            await self._load()
            async with create_data_access(plan.target, auto_migrate=True):
                pass  # an administrator's `dal schema up`
            started = monotonic()
            await self._writers.start(plan.source, plan.target, plan.writers, plan.processes, plan.pause_s)
            who = f"{plan.writers} in {plan.processes} processes, with pauses of {plan.pause_s:g} s"
            self._say("writers", f"{who}; all are at work after {monotonic() - started:.0f} s")
            await self._copy()
            stalls = [await self._switch("cutover")]
            stalls.append(await self._switch("rollback", "--only", "memory,chats"))
            stalls.append(await self._switch("cutover"))
            await self._writers.stop()
            await self._drained()
            memory_mb = self._mover.memory_mb()
            await self._mover.interrupt()
            await self._compare()
            self._say("longest stall", f"{max(stalls) * 1000:,.0f} ms, of any writer's call at any cutover or rollback")
            self._tell_memory(memory_mb)
            await self.account()
        finally:
            await self._writers.close()
            await self._mover.close()

    async def _load(self) -> None:
        """The old data into files."""
        started = monotonic()
        found = await dal("import", *map(str, self._plan.files), "--url", self._plan.source, allowed=(0, 1))
        took_s = monotonic() - started
        names = {"users": "users", "chats": "chat_sessions", "messages": "messages", "memory_items": "user_memory"}
        self._loaded = loaded = {table: sum(done[name] for done in found["files"]) for name, table in names.items()}
        rows = sum(loaded.values())
        what = f"{loaded['chat_sessions']:,} conversations, {loaded['messages']:,} messages"
        self._say("old data", f"{what}: into files in {took_s:.0f} s, {rows / took_s:,.0f} rows/s")

    async def _copy(self) -> None:
        """From the move's begin until both stores hold the same."""
        self._writers.slowest_s()
        self._began = self._told_at = monotonic()
        await self._mover.start("dal.cli", "move", "start", *self._plan.both, "--quick", "--json")
        status = await self._mover.until(lambda status: bool(status["verified"]))
        self._is_verified = True
        verified_s = monotonic() - self._began
        rows = sum(unit["total"] for unit in status["units"])
        copied_s = (self._copied_at or monotonic()) - self._began
        self._say("copied", f"{rows:,} rows in {copied_s:.1f} s, {rows / copied_s:,.0f} rows/s")
        self._say("verified", f"{verified_s:.1f} s after the begin: every row of both stores compared")
        slowest_ms = self._writers.slowest_s() * 1000
        self._say(
            "meanwhile", f"{self._writers.answered:,} calls of writers answered, the slowest in {slowest_ms:,.0f} ms"
        )

    def _heard(self, status: dict[str, Any]) -> None:
        """Notes when all was copied, and tells from time to time how far it is."""
        total = sum(unit["total"] for unit in status["units"])
        copied = sum(unit["copied"] for unit in status["units"])
        now = monotonic()
        if self._first_memory_mb is None and copied * 10 >= total > 0:
            self._first_memory_mb = self._mover.memory_mb()
        is_under_way = any(unit["phase"] in _UNDER_WAY for unit in status["units"])
        if self._copied_at is None and not is_under_way and total - copied <= _LEFT_ROWS:
            self._copied_at = now
        if not self._is_verified and now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            doing = "comparing" if self._copied_at is not None else f"{copied:,} of {total:,} rows"
            self._say(f"after {now - self._began:.0f} s", doing)

    async def _switch(self, command: str, *only: str) -> float:
        """One command's switches; the longest call of a writer meanwhile, in seconds."""
        self._writers.slowest_s()
        found = await dal("move", command, *self._plan.both, *only, "--yes")
        slowest_s = self._writers.slowest_s()
        for done in found["switched"]:
            place = "PostgreSQL" if done["to"] == "target" else "files"
            self._say(command, f"{done['unit']:<7} lives on {place}; fenced for {done['stall_ms']:,.0f} ms")
        self._say("", f"the longest call of a writer meanwhile took {slowest_s * 1000:,.0f} ms")
        return slowest_s

    async def _drained(self) -> None:
        """Until nothing waits to be copied, as the mover has looked since this was called."""
        await self._mover.until(lambda _: True)
        await self._mover.until(lambda status: not any(unit["dirty"] for unit in status["units"]))

    async def _compare(self) -> None:
        found = await dal("move", "check", *self._plan.both, allowed=(0, 1))
        rows = sum(table["source"] for table in found["tables"].values())
        self._say("checked", f"{rows:,} rows in {found['seconds']:.0f} s, {found['differences']} differ")
        if not found["equal"]:
            self.problems.append(f"{found['differences']} rows differ, {found['pending']} were not copied")

    def _tell_memory(self, memory_mb: float | None) -> None:
        if memory_mb is None or self._first_memory_mb is None:
            self._say("mover's memory", "this system does not tell")
            return
        first = f"{self._first_memory_mb:,.0f} MB when a tenth was copied"
        self._say("mover's memory", f"{memory_mb:,.0f} MB at most; {first}")

    async def account(self) -> None:
        """Whether all that was loaded or acknowledged is in PostgreSQL."""
        ledgers = self._writers.ledgers
        failed = sum(ledger.failed for ledger in ledgers)
        answered = sum(ledger.acknowledged for ledger in ledgers)
        self._say("writers", f"{answered:,} calls answered, {failed} failed")
        self.problems += [problem for ledger in ledgers for problem in ledger.problems]
        written = {
            "users": len(ledgers),
            "chat_sessions": len(ledgers),
            "messages": sum(ledger.messages for ledger in ledgers),
            "user_memory": sum(len(ledger.memory) for ledger in ledgers),
        }
        async with create_data_access(self._plan.target) as access:
            self.problems += await missing(access, ledgers)
            for table, expected in self._loaded.items():
                ((there,),) = await access.store.read(Count(table))
                if there != expected + written[table]:
                    self.problems.append(f"{table}: {there} rows, not {expected} loaded and {written[table]} written")
        if not self.problems:
            self._say("in PostgreSQL", "all that was loaded, and every write that was acknowledged")
