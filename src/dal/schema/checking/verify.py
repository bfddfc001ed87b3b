"""Whether a database is what its migrations make: object by object, against the same files on a scratch database.

`verify` looks for what is missing or different, for what the engine itself calls broken, and asks the questions of
`checks/verify.sql`. `drift` looks both ways: at what nobody declared, too. Both go by the ledger: what is pending is
not missed. The library's own tables are expected wherever the ledger says that they are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Final

from dal.errors import DalError, SchemaError, UnavailableError
from dal.schema.checking.questions import DIRECTORY, Query, read_queries, reads_only
from dal.schema.checking.replay import (
    ScriptRefusedError,
    applied_files,
    foreign_key_violations,
    library_files,
    run_script,
)
from dal.schema.checking.soundness import broken_storage
from dal.schema.connection import Connection
from dal.schema.files import Migration, MigrationSet
from dal.schema.findings import Finding, errors
from dal.schema.inspection.compare import Difference, differences
from dal.schema.inspection.objects import Snapshot, snapshot
from dal.schema.plan import plan

#: Findings of a plan that say why a database may not be what its files make.
_OF_THE_LEDGER: Final = frozenset(
    {
        *("edited-migration", "deleted-migration", "newer-database", "name-taken"),
        *("interrupted-migration", "interrupted-rollback", "changed-while-begun"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One question of `checks/verify.sql`. `problem` is empty where the answer is as expected."""

    query: Query
    problem: str
    duration_ms: int

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was looked at, and what was found.

    migrations   those whose objects were expected, in the order of the ledger.
    objects      how many of each kind the database holds.
    differences  what is missing or different; what nobody expected is `drift`'s.
    findings     what the engine calls broken, and what kept this from looking.
    checks       the questions, each with its problem.
    """

    address: str
    schema_set: str
    migrations: tuple[str, ...]
    objects: dict[str, int]
    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]
    checks: tuple[CheckResult, ...]
    duration_ms: int

    @property
    def ok(self) -> bool:
        return not self.differences and not errors(self.findings) and all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, object]:
        """The same as plain dictionaries and lists, for a report."""
        return asdict(self) | {"ok": self.ok}


async def verify(connection: Connection, migrations: MigrationSet) -> VerifyReport:
    """Whether everything is there that the applied files make, and whole. Writes nothing to the database.

    Raises  SchemaError: no scratch database can be made, or `checks/verify.sql` cannot be read.  UnavailableError.
    Cost    running all applied files on a scratch database, and reading the whole of a SQLite file, each index compared
            with its table (integrity_check); on D1, without that comparison (quick_check).
    """
    started = perf_counter()
    basis = await _basis(connection, migrations)
    found = await snapshot(connection)
    findings = [*basis.findings]
    missing: list[Difference] = []
    expected: Snapshot | None = None
    try:
        expected = await _replayed(connection, basis.files)
        missing = [difference for difference in differences(expected, found) if difference.what != "unexpected"]
    except ScriptRefusedError as error:
        findings.append(
            Finding(
                rule="cannot-replay",
                severity="error",
                file=error.script.name,
                line=error.line,
                message=f"on an empty database {error.reason}; so nobody can say what the files make, and no object "
                "was compared",
                advice="a set must begin with what it builds upon: write a first file that creates it, and enter it "
                "with `dal schema baseline`",
            )
        )
    findings += _broken_objects(expected, found)
    findings += await _broken_rows(connection)
    questions = read_queries(migrations.directory / DIRECTORY / "verify.sql", connection.engine)
    missing_files = lacking(migrations, [migration.name for migration in basis.files])
    if questions and missing_files:
        findings.append(
            Finding(
                rule="checks-not-asked",
                severity="warning",
                file=questions[0].file,
                message=f"they ask about the whole set, and {', '.join(missing_files)} is not applied",
            )
        )
        questions = ()
    checks = [await _checked(connection, query) for query in questions]
    return VerifyReport(
        address=connection.address,
        schema_set=migrations.name,
        migrations=tuple(migration.name for migration in basis.files),
        objects=found.counts(),
        differences=tuple(missing),
        findings=tuple(findings),
        checks=tuple(checks),
        duration_ms=_since(started),
    )


def lacking(migrations: MigrationSet, applied: Collection[str]) -> list[str]:
    """The files without which the set is not whole: not optional, and not for some environments only."""
    return [
        migration.name
        for migration in migrations.migrations
        if migration.name not in applied and not migration.directives.optional and not migration.directives.env
    ]


async def drift(connection: Connection, migrations: MigrationSet) -> list[Difference]:
    """In what the database is not what its applied files make, both ways. Objects of another team's set count as
    unexpected: nobody here knows its files.

    Raises  SchemaError: the files cannot be run on a scratch database; it names file and line.  UnavailableError.
    """
    basis = await _basis(connection, migrations)
    try:
        expected = await _replayed(connection, basis.files)
    except ScriptRefusedError as error:
        raise SchemaError(
            f"{connection.address}: nothing to compare with, because on an empty database {error}",
            operation="schema.drift",
        ) from error
    return differences(expected, await snapshot(connection))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Basis:
    """files     that were applied, in the order of the ledger, the library's own first.
    findings  of the ledger against the files.
    """

    files: tuple[Migration, ...]
    findings: tuple[Finding, ...]


async def _basis(connection: Connection, migrations: MigrationSet) -> _Basis:
    found = await plan(connection, migrations)
    files = applied_files(found, migrations)
    findings = [finding for finding in found.findings if finding.rule in _OF_THE_LEDGER]
    if not files:
        findings.append(
            Finding(
                rule="nothing-applied",
                severity="error",
                message=f"the ledger holds no migration of {migrations.name}, so there is nothing to compare with",
                advice="with the same options, `dal schema up` applies them, and `dal schema baseline` enters those "
                "that are there already",
            )
        )
    return _Basis(files=(*await library_files(connection, migrations), *files), findings=tuple(findings))


async def _replayed(connection: Connection, files: Sequence[Migration]) -> Snapshot:
    async with connection.scratch() as scratch:
        for migration in files:
            await run_script(scratch, migration.up)
        return await snapshot(scratch)


def _broken_objects(expected: Snapshot | None, found: Snapshot) -> Iterator[Finding]:
    for name in found.invalid_indexes:
        if expected is not None and name in expected.indexes:
            continue  # said among the differences
        yield Finding(
            rule="invalid-index",
            severity="error",
            message=f"index {name} on {found.indexes[name].table} is invalid: a CONCURRENTLY build was cut off; it "
            "costs every write and serves no query",
            advice="drop it with DROP INDEX CONCURRENTLY, and build it again",
        )
    for constraint in found.unvalidated:
        meant = expected is not None and constraint in expected.unvalidated
        yield Finding(
            rule="unvalidated-constraint",
            severity="warning" if meant else "error",
            message=f"{constraint}: rows that were there before it have not been checked",
            advice="ALTER TABLE … VALIDATE CONSTRAINT …; it locks out nobody",
        )


async def _broken_rows(connection: Connection) -> list[Finding]:
    """What SQLite finds when it reads the whole file."""
    if connection.engine != "sqlite":
        return []
    found = await broken_storage(connection)
    found += [
        Finding(rule="foreign-key-violation", severity="error", message=problem)
        for problem in await foreign_key_violations(connection)
    ]
    return found


async def _checked(connection: Connection, query: Query) -> CheckResult:
    started = perf_counter()
    if query.values is None and query.rows is None:
        problem = "nothing is expected of it: write `-- expect: VALUE` or `-- expect-rows: N` before it"
    elif not reads_only(query.sql, connection.engine):
        problem = "it would write; only questions are asked here"
    else:
        try:
            problem = query.unmet(await connection.fetch(query.sql))
        except UnavailableError:
            raise
        except DalError as error:
            problem = error.message
    return CheckResult(query=query, problem=problem, duration_ms=_since(started))


def _since(started: float) -> int:
    return round((perf_counter() - started) * 1000)
