"""Migrations tried before they touch anything: every file forward, back and forward again on a scratch database.

Forward must run; the way back must restore exactly the former objects; forward again must run on what the way back
left, and give the same as before. Seeds are covered by that: rows that a way back leaves behind refuse the second time.
At the end everything goes back to nothing and up once more. Rows of the real database play no part: what fails on data,
a NOT NULL for a column with empty cells, is found by trying on a restored backup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Final

from dal.schema.checking.replay import ScriptRefusedError, foreign_key_violations, library_files, run_script
from dal.schema.connection import Connection
from dal.schema.files import Migration, MigrationSet, Script
from dal.schema.findings import Finding, errors
from dal.schema.inspection.compare import Difference, differences
from dal.schema.inspection.objects import Snapshot, snapshot
from dal.schema.progress import OnProgress, Progress, ignore

#: Of a long list of differences, how many a finding names.
_NAMED_DIFFERENCES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedFile:
    """How long a file took.

    up_ms, again_ms  forward, the first and the second time.
    down_ms          back; None where it has no way back, which is then not tried.
    """

    name: str
    statements: int
    up_ms: int
    down_ms: int | None = None
    again_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What trying the files gave.

    files     that ran forward, in order. After one that does not, no other is tried.
    findings  of the files themselves, and of running them.
    objects   how many of each kind all files together give.
    """

    address: str
    schema_set: str
    files: tuple[ValidatedFile, ...]
    findings: tuple[Finding, ...]
    objects: dict[str, int]
    duration_ms: int

    @property
    def ok(self) -> bool:
        return not errors(self.findings)

    def to_dict(self) -> dict[str, object]:
        """The same as plain dictionaries and lists, for a report."""
        return asdict(self) | {"ok": self.ok}


async def validate(
    connection: Connection, migrations: MigrationSet, *, on_progress: OnProgress = ignore
) -> ValidationReport:
    """Tries every file of the set, whatever environment it is for, on a scratch database of the same engine.

    Where the database has the library's own tables, the scratch database gets them first: the set may build upon them.
    Otherwise it begins empty. Nothing else of the database plays a part. Files that cannot be read are not tried.
    Raises  SchemaError: no scratch database can be made.  UnavailableError.
    """
    started = perf_counter()
    trial = _Trial(migrations, on_progress)
    if not errors(migrations.findings):
        beneath = await library_files(connection, migrations)
        async with connection.scratch() as scratch:
            await trial.run(scratch, beneath)
    return ValidationReport(
        address=connection.address,
        schema_set=migrations.name,
        files=tuple(trial.files),
        findings=(*migrations.findings, *trial.findings),
        objects=trial.objects,
        duration_ms=_since(started),
    )


@dataclass
class _Trial:
    migrations: MigrationSet
    report: OnProgress
    files: list[ValidatedFile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    objects: dict[str, int] = field(default_factory=dict)

    async def run(self, scratch: Connection, beneath: Sequence[Migration]) -> None:
        for migration in beneath:
            await run_script(scratch, migration.up)
        before = await snapshot(scratch)
        former = [before]
        for migration in self.migrations.migrations:
            after = await self._try(scratch, migration, before)
            if after is None:
                return
            before = after
            former.append(after)
        self.objects = before.counts()
        if not errors(self.findings):
            await self._all(scratch, former)

    async def _try(self, scratch: Connection, migration: Migration, before: Snapshot) -> Snapshot | None:
        """Forward, back, forward. What is there after it; None where the files behind it cannot be tried."""
        up_ms = await self._run(scratch, migration.up, "does-not-run")
        if up_ms is None:
            return None
        after = await snapshot(scratch)
        down_ms = again_ms = None
        if migration.down is not None:
            down_ms = await self._run(scratch, migration.down, "rollback-does-not-run")
            if down_ms is None and not migration.down.directives.transaction:
                return None  # nobody knows how far it came
        if migration.down is not None and down_ms is not None:
            self._compare(migration.down, before, await snapshot(scratch), "rollback-differs")
            again_ms = await self._run(scratch, migration.up, "not-repeatable")
            if again_ms is None:
                return None
            self._compare(migration.up, after, await snapshot(scratch), "not-repeatable")
        self.files.append(
            ValidatedFile(
                name=migration.name,
                statements=len(migration.statements),
                up_ms=up_ms,
                down_ms=down_ms,
                again_ms=again_ms,
            )
        )
        return after

    async def _all(self, scratch: Connection, former: Sequence[Snapshot]) -> None:
        """Everything back, as far as there are ways, and up again. `former`: what was there before each file, and after
        the last."""
        chosen = list(self.migrations.migrations)
        first = next((i + 1 for i in reversed(range(len(chosen))) if chosen[i].down is None), 0)
        for migration in reversed(chosen[first:]):
            if migration.down is not None and await self._run(scratch, migration.down, "rollback-does-not-run") is None:
                return
        if first == len(chosen):
            return
        self._compare(
            chosen[first].down or chosen[first].up, former[first], await snapshot(scratch), "rollback-differs"
        )
        for migration in chosen[first:]:
            if await self._run(scratch, migration.up, "not-repeatable") is None:
                return
        self._compare(chosen[-1].up, former[-1], await snapshot(scratch), "not-repeatable")

    async def _run(self, scratch: Connection, script: Script, rule: str) -> int | None:
        """How long it took; None where it was refused, and the finding is made."""
        count = len(script.statements)
        self.report(Progress(name=script.name, statement=0, of=count, elapsed_ms=0, phase="running"))
        started = perf_counter()
        try:
            await run_script(scratch, script)
        except ScriptRefusedError as error:
            self.findings.append(error.finding(rule))
            return None
        duration_ms = _since(started)
        self.report(Progress(name=script.name, statement=count, of=count, elapsed_ms=duration_ms, phase="done"))
        for problem in await foreign_key_violations(scratch):
            finding = Finding(
                rule="foreign-key-violation",
                severity="error",
                file=script.name,
                message=f"after it, {problem}",
                advice="delete or mend the rows in the same file, before the rows that they point to go",
            )
            if finding not in self.findings:
                self.findings.append(finding)
        return duration_ms

    def _compare(self, script: Script, expected: Snapshot, found: Snapshot, rule: str) -> None:
        unlike = differences(expected, found)
        back = rule == "rollback-differs"
        what = "the former schema is not restored" if back else "the second time it gave something else"
        if unlike:
            self._add(script, rule, "error", what, unlike)
            return
        in_order = differences(expected, found, column_order=True)
        if in_order:
            self._add(script, "column-order", "warning", "the columns stand in another order than before", in_order)

    def _add(self, script: Script, rule: str, severity: str, what: str, unlike: Sequence[Difference]) -> None:
        if any(finding.rule == rule and finding.file == script.name for finding in self.findings):
            return
        named = [str(difference) for difference in unlike[:_NAMED_DIFFERENCES]]
        more = len(unlike) - len(named)
        self.findings.append(
            Finding(
                rule=rule,
                severity="error" if severity == "error" else "warning",
                file=script.name,
                message=f"{what}: {'; '.join(named)}{f'; and {more} more' if more else ''}",
            )
        )


def _since(started: float) -> int:
    return round((perf_counter() - started) * 1000)
