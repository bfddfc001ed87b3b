"""What a deployment did, phase by phase: what `deploy` returns and the reports are written from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Literal, TypeAlias

from dal.errors import DalError
from dal.schema.backups.backup import Backup
from dal.schema.checking.explain import Explained
from dal.schema.checking.validate import ValidationReport
from dal.schema.checking.verify import VerifyReport
from dal.schema.findings import Finding
from dal.schema.plan import Plan
from dal.schema.progress import Migrated

#: In the order in which they come.
PhaseName: TypeAlias = Literal[
    "binding", "plan", "order", "validate", "lint", "backup", "apply", "verify", "explain", "report"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One step of a deployment.

    state     `skipped`: it was not called for; `message` says why.  `failed`: nothing behind it was done.
    message   what was done, or what went wrong.
    findings  what it found; those of severity `error` that nobody allowed made it fail.
    """

    name: PhaseName
    state: Literal["running", "done", "failed", "skipped"]
    duration_ms: int = 0
    message: str = ""
    findings: tuple[Finding, ...] = ()


class PhaseFailedError(Exception):
    """A phase failed; it is on record."""


@dataclass(slots=True)
class Outcome:
    """What a phase that runs has to say: of these `Phases` makes its record. A `problem` makes it fail."""

    message: str = ""
    problem: str = ""
    findings: tuple[Finding, ...] = ()

    def refuse(self, refusals: Iterable[Finding]) -> None:
        self.problem = "; ".join(str(finding) for finding in refusals)


class Phases:
    """The record of a run. `tell` hears when a phase begins and how it ended."""

    def __init__(self, tell: Callable[[Phase], None]) -> None:
        self._tell = tell
        self.records: list[Phase] = []
        self.error: DalError | None = None

    def skip(self, name: PhaseName, why: str) -> None:
        self._record(Phase(name=name, state="skipped", message=why))

    @asynccontextmanager
    async def run(self, name: PhaseName) -> AsyncIterator[Outcome]:
        """Raises PhaseFailedError at the end of a block that raised a DalError or named a problem."""
        self._tell(Phase(name=name, state="running"))
        started = perf_counter()
        outcome = Outcome()
        try:
            yield outcome
        except DalError as error:
            self.error = error
            outcome.problem = error.message
        self._record(
            Phase(
                name=name,
                state="failed" if outcome.problem else "done",
                duration_ms=round((perf_counter() - started) * 1000),
                message=outcome.problem or outcome.message,
                findings=outcome.findings,
            )
        )
        if outcome.problem:
            raise PhaseFailedError from self.error

    def _record(self, phase: Phase) -> None:
        self.records.append(phase)
        self._tell(phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One run of `deploy`.

    ok            no phase failed.
    environment   its name; None where the database was named by its URL.
    phases        in order; those that were not reached are not there.
    migrated      what was applied, also by a run that then failed.
    backup        made before the first of them; None where none was demanded.
    error         what ended the run; None where it ended well, or where findings ended it.
    restore_hint  the command that brings back the state before; empty where there is no backup.
    """

    address: str
    environment: str | None
    schema_set: str
    engine: str
    server_version: str
    tool_version: str
    started_at: datetime
    duration_ms: int
    phases: tuple[Phase, ...]
    plan: Plan | None
    validation: ValidationReport | None
    migrated: tuple[Migrated, ...]
    backup: Backup | None
    verification: VerifyReport | None
    explained: tuple[Explained, ...]
    error: DalError | None
    restore_hint: str

    @property
    def ok(self) -> bool:
        return self.failed is None

    @property
    def failed(self) -> Phase | None:
        """The phase that ended the run."""
        return next((phase for phase in self.phases if phase.state == "failed"), None)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for phase in self.phases for finding in phase.findings)

    @property
    def message(self) -> str:
        """How it ended, and what to do where it did not end well."""
        names = ", ".join(migration.name for migration in self.migrated)
        failed = self.failed
        if failed is None:
            return f"applied {names}" if names else "nothing was applied: nothing is pending"
        parts = [f"{failed.name}: {failed.message}"]
        if names:
            parts.append(f"applied before, and staying: {names}")
        elif failed.name != "apply":
            parts.append("nothing was written")
        elif self.error is not None and self.error.outcome == "unknown":
            parts.append("an answer was lost: `dal schema status` says what the database has")
        else:
            parts.append("no migration was completed")
        if self.backup is not None:
            parts.append(f"the state before is in {self.backup.path}: {self.restore_hint}")
        return "; ".join(parts)
