"""The whole of `dal schema up`: look, check, back up, apply, and look again.

Each phase ends the run when it fails, and none before `apply` writes to the database. The library's own set was proved
before its release: it is planned and applied only, and backed up where the environment demands it.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Final, TypedDict

from dal.errors import ConfigurationError, DalError, UnavailableError
from dal.schema.apply import up
from dal.schema.backups.backup import Backup, backup
from dal.schema.backups.identity import server_version
from dal.schema.checking.explain import Explained, explain
from dal.schema.checking.questions import DIRECTORY
from dal.schema.checking.validate import ValidationReport, validate
from dal.schema.checking.verify import VerifyReport, lacking, verify
from dal.schema.connection import Bookmarks, Connection
from dal.schema.deploying.after import Connect, check_order
from dal.schema.deploying.deployment import Deployment, Phase, PhaseFailedError, Phases
from dal.schema.deploying.environments import Environment, Project
from dal.schema.deploying.report import write_reports
from dal.schema.files import MigrationSet, library_set
from dal.schema.findings import Finding, errors
from dal.schema.linting import lint
from dal.schema.plan import Plan, plan
from dal.schema.progress import Migrated, OnProgress, Progress, ignore
from dal.urls import path_url
from dal.values import Clock, now

_PROVED: Final = "the library's own files are proved before a release"


async def deploy(
    connection: Connection,
    migrations: MigrationSet | None = None,
    environment: Environment | None = None,
    *,
    project: Project | None = None,
    connect: Connect | None = None,
    allow: Collection[str] = (),
    to: str | None = None,
    leave_out: Collection[str] = (),
    backups: Path | None = None,
    report_dir: Path | None = None,
    wait_s: float | None = None,
    on_phase: Callable[[Phase], None] | None = None,
    on_progress: OnProgress | None = None,
    clock: Clock = now,
) -> Deployment:
    """Brings the database up, with all that the environment demands, and says what was done.

    migrations        None: the library's own.
    environment       its rules are kept: binding, order, backup, seeds.
    project, connect  to ask the environment that comes before; `connect` opens a database by its URL.
    allow             rules of findings to go past.
    to, leave_out     the last file to apply, and optional files not to apply.
    backups           a directory: back up whatever the environment says, into it. None: where it demands that.
    report_dir        the reports are written there, also when the run fails.
    wait_s            as for `up`.
    on_phase          told when each phase begins (`running`) and how it ended.
    on_progress       told of each file, tried and applied.
    Returns           also when a phase fails: see `Deployment.failed`. Raises what is no DalError.
    """
    run = _Run(
        connection=connection,
        migrations=migrations or library_set(connection.engine),
        is_proved=migrations is None,
        environment=environment,
        project=project,
        connect=connect,
        allow=frozenset(allow),
        scope={
            "environment": environment.name if environment else None,
            "seed": environment is not None and environment.seed,
            "to": to,
            "leave_out": tuple(leave_out),
        },
        backups=backups,
        report_dir=report_dir,
        wait_s=wait_s,
        phases=Phases(on_phase or (lambda _: None)),
        on_progress=on_progress or ignore,
        started_at=clock(),
    )
    with suppress(PhaseFailedError):
        await run.go(clock)
    with suppress(PhaseFailedError):
        await run.report()
    return run.deployment()


class _Scope(TypedDict):
    environment: str | None
    seed: bool
    to: str | None
    leave_out: Collection[str]


@dataclass(kw_only=True)
class _Run:
    connection: Connection
    migrations: MigrationSet
    is_proved: bool
    environment: Environment | None
    project: Project | None
    connect: Connect | None
    allow: frozenset[str]
    scope: _Scope
    backups: Path | None
    report_dir: Path | None
    wait_s: float | None
    phases: Phases
    on_progress: OnProgress
    started_at: datetime
    started: float = field(default_factory=perf_counter)
    server: str = ""
    plan: Plan | None = None
    validation: ValidationReport | None = None
    migrated: list[Migrated] = field(default_factory=list)
    backup: Backup | None = None
    verification: VerifyReport | None = None
    explained: list[Explained] = field(default_factory=list)

    async def go(self, clock: Clock) -> None:
        await self._bind()
        found = await self._plan()
        if not found.pending:
            return
        await self._order(found)
        await self._validate()
        await self._lint(found)
        await self._back_up(clock)
        await self._apply()
        await self._verify()
        await self._explain()

    async def _bind(self) -> None:
        """The database that is meant, and room for the reports."""
        environment = self.environment
        async with self.phases.run("binding") as outcome:
            if self.report_dir is not None:
                _make_directory(self.report_dir)
            self.server = await server_version(self.connection)
            if environment is not None:
                await environment.check_database(self.connection)
            name = f"{environment.name} is " if environment else ""
            outcome.message = f"{name}{self.connection.address}"

    async def _plan(self) -> Plan:
        async with self.phases.run("plan") as outcome:
            self.plan = found = await plan(self.connection, self.migrations, **self.scope)
            outcome.findings = found.findings
            outcome.refuse(found.refusals(self.allow))
            outcome.message = f"{len(found.pending)} pending, {len(found.applied)} applied before"
        return found

    async def _order(self, found: Plan) -> None:
        environment, project, connect = self.environment, self.project, self.connect
        if environment is None or environment.after is None:
            self.phases.skip("order", "no environment comes before this one")
            return
        async with self.phases.run("order") as outcome:
            if project is None or connect is None:
                raise ConfigurationError(
                    f"{environment.name} comes after {environment.after}, which cannot be asked from here"
                )
            first = project.environment(environment.after)
            await check_order(
                environment, first, self.migrations, found.pending, connect, leave_out=self.scope["leave_out"]
            )
            outcome.message = f"{first.name} has all of them"

    async def _validate(self) -> None:
        if self.is_proved:
            self.phases.skip("validate", _PROVED)
            return
        async with self.phases.run("validate") as outcome:
            # What is wrong with the files themselves, the plan has said; what was allowed is tried all the same.
            files = replace(self.migrations, findings=())
            self.validation = await validate(self.connection, files, on_progress=self.on_progress)
            outcome.findings = self.validation.findings
            outcome.refuse(self._refusals(outcome.findings))
            outcome.message = f"{len(self.validation.files)} files ran forward, back and forward"

    async def _lint(self, found: Plan) -> None:
        if self.is_proved:
            self.phases.skip("lint", _PROVED)
            return
        async with self.phases.run("lint") as outcome:
            applied = {row.name for row in found.applied}
            chosen = {migration.name for migration in found.pending}
            said = await asyncio.to_thread(lint, self.migrations, self.connection.place, applied=applied)
            # A finding without a file speaks of the linting itself.
            outcome.findings = tuple(one for one in said if not one.file or Path(one.file).name in chosen)
            outcome.refuse(self._refusals(outcome.findings))

    async def _back_up(self, clock: Clock) -> None:
        environment, directory = self.environment, self.backups
        if directory is None and environment is not None and environment.require_backup:
            directory = environment.backups
        if directory is None:
            self.phases.skip("backup", "none is demanded")
            return
        async with self.phases.run("backup") as outcome:
            self.backup = await backup(self.connection, directory, clock=clock)
            outcome.findings = self.backup.findings
            # A migration that reads by an index that lacks rows would lose them for good.
            outcome.refuse(self._refusals(outcome.findings))
            outcome.message = f"{self.backup.path}, {self.backup.manifest.size_bytes} bytes"

    async def _way_back(self) -> str | None:
        """By what the state before this run can be had again: the backup, else the engine's own bookmark."""
        if self.backup is not None:
            return self.backup.path.name
        return await self.connection.bookmark() if isinstance(self.connection, Bookmarks) else None

    async def _apply(self) -> None:
        seen: dict[str, Migrated] = {}

        def note(step: Progress) -> None:
            if step.phase == "done":
                seen[step.name] = Migrated(name=step.name, duration_ms=step.elapsed_ms, statements=step.of)
            self.on_progress(step)

        async with self.phases.run("apply") as outcome:
            try:
                self.migrated = await up(
                    self.connection,
                    self.migrations,
                    allow=self.allow,
                    backup_ref=await self._way_back(),
                    on_progress=note,
                    wait_s=self.wait_s,
                    **self.scope,
                )
            except DalError:
                self.migrated = list(seen.values())
                raise
            outcome.message = f"{len(self.migrated)} applied" if self.migrated else "another runner was faster"

    async def _verify(self) -> None:
        if self.is_proved:
            self.phases.skip("verify", _PROVED)
            return
        async with self.phases.run("verify") as outcome:
            self.verification = report = await verify(self.connection, self.migrations)
            outcome.findings = report.findings
            wrong = [str(finding) for finding in self._refusals(report.findings)]
            wrong += [str(difference) for difference in report.differences]
            wrong += [f"{check.query.place}: {check.problem}" for check in report.checks if not check.ok]
            outcome.problem = "; ".join(wrong)
            outcome.message = ", ".join(f"{count} {kind}" for kind, count in report.objects.items() if count)

    async def _explain(self) -> None:
        if not (self.migrations.directory / DIRECTORY / "explain.sql").exists():
            self.phases.skip("explain", "there is no checks/explain.sql")
            return
        applied = () if self.verification is None else self.verification.migrations
        if missing := lacking(self.migrations, applied):
            self.phases.skip("explain", f"the queries are about the whole set, and {', '.join(missing)} is not applied")
            return
        async with self.phases.run("explain") as outcome:
            self.explained = await explain(self.connection, self.migrations.directory)
            # What is in stays in: a slow query is a reason for another migration, not for calling these failed.
            outcome.findings = tuple(_slow(query) for query in self.explained if not query.ok)
            outcome.message = f"{len(self.explained)} queries"

    def _refusals(self, findings: Collection[Finding]) -> list[Finding]:
        return [finding for finding in errors(tuple(findings)) if finding.rule not in self.allow]

    async def report(self) -> None:
        directory = self.report_dir
        if directory is None or not directory.is_dir():
            return  # where it cannot be made, `binding` has failed
        deployment = self.deployment()
        try:
            await asyncio.to_thread(write_reports, deployment, directory)
        except OSError as error:
            async with self.phases.run("report"):
                raise _unwritable(directory, error) from error

    def deployment(self) -> Deployment:
        return Deployment(
            address=self.connection.address,
            environment=self.environment.name if self.environment else None,
            schema_set=self.migrations.name,
            engine=self.connection.engine,
            server_version=self.server,
            tool_version=version("dal"),
            started_at=self.started_at,
            duration_ms=round((perf_counter() - self.started) * 1000),
            phases=tuple(self.phases.records),
            plan=self.plan,
            validation=self.validation,
            migrated=tuple(self.migrated),
            backup=self.backup,
            verification=self.verification,
            explained=tuple(self.explained),
            error=self.phases.error,
            restore_hint=self._restore_hint(),
        )

    def _restore_hint(self) -> str:
        if self.backup is None:
            return ""
        scheme, _, path = self.connection.address.partition(":")
        if self.environment is not None:
            place = f"--env {self.environment.name}"
        elif scheme == "sqlite":
            place = f"--url {shlex.quote(path_url(scheme, Path(path)))}"
        else:  # the address as it is shown lacks the user and the password
            place = '--url "$DATABASE_URL"'
        return f"dal schema restore {shlex.quote(str(self.backup.path))} {place}"


def _slow(explained: Explained) -> Finding:
    query = explained.query
    return Finding(
        rule="slow-query",
        severity="warning",
        file=query.file,
        line=query.line,
        message=f"{query.name}: {'; '.join(explained.problems)}",
        advice="write a migration that gives it an index",
    )


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise _unwritable(directory, error) from error


def _unwritable(directory: Path, error: OSError) -> UnavailableError:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return UnavailableError(f"{directory}: reports cannot be written there: {reason}", retryable=False)
