"""What a database lacks, and what in its ledger does not fit the files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from dal.errors import SchemaError
from dal.schema import ledger
from dal.schema.connection import Reader
from dal.schema.files import LIBRARY_SET, Migration, MigrationSet, library_set
from dal.schema.findings import Finding
from dal.schema.ledger import Applied, Details, Ledger
from dal.schema.ordering import number_in

#: Errors that `up` goes past when it is told so; all others must be mended.
ALLOWABLE: Final = frozenset({"edited-migration", "deleted-migration", "late-migration", "bad-name"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `up` would do.

    applied   of this set, in the order of application.
    pending   what is to be applied, in order; `begun` are those of them that an earlier run did not end.
    left_out  files that are not to be applied, each with why.
    findings  of the files and of the ledger against them.
    """

    address: str
    environment: str | None
    applied: tuple[Applied, ...]
    pending: tuple[Migration, ...]
    left_out: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    begun: dict[str, Details]

    def refusals(self, allow: Collection[str] = ()) -> list[Finding]:
        """The findings for which `up` refuses."""
        return [f for f in self.findings if f.severity == "error" and not (f.rule in allow and f.rule in ALLOWABLE)]


async def plan(
    reader: Reader,
    migrations: MigrationSet,
    *,
    environment: str | None = None,
    seed: bool = False,
    leave_out: Collection[str] = (),
    to: str | None = None,
) -> Plan:
    """What this database lacks of the set. Writes nothing; two round trips.

    environment, seed  choose among files that say `-- dal:env`.
    leave_out          optional files not to apply.
    to                 the last file to apply; those behind it are left out.
    Raises             SchemaError: no such file, or one in `leave_out` that is not optional.
    """
    _check_leave_out(migrations, leave_out)
    last = len(migrations.migrations) if to is None else migrations.position(to)
    found = await ledger.read(reader)
    mine = Mine(migrations, found)
    pending: list[Migration] = []
    left_out: list[tuple[str, str]] = []
    for place, migration in enumerate(migrations.migrations):
        if migration.name in mine.applied or migration.name in mine.taken:
            continue
        if place > last:
            left_out.append((migration.name, f"it comes after {to}"))
        elif migration.name in leave_out:
            left_out.append((migration.name, "it is optional and was asked to be left out"))
        elif not migration.directives.is_for(environment, seed=seed):
            left_out.append((migration.name, f"it is for {', '.join(sorted(migration.directives.env))} only"))
        else:
            pending.append(migration)
    findings = [*migrations.findings, *_ledger_findings(mine), *_pending_findings(mine, pending)]
    return Plan(
        address=reader.address,
        environment=environment,
        applied=tuple(mine.applied.values()),
        pending=tuple(pending),
        left_out=tuple(left_out),
        findings=tuple(f for f in findings if not _is_allowed(f, migrations)),
        begun={m.name: mine.begun[m.name] for m in pending if m.name in mine.begun},
    )


class Mine:
    """The ledger as one set sees it. A row is the set's own when its details say so, or its file has the very content
    that was applied (a directory may be renamed), or nobody knows whose it is and the set has a file of that name.

    applied  by name.  begun  likewise.  taken  names of files that another set's row stands in the way of.
    unknown  rows without details that no file of the set explains.
    """

    def __init__(self, migrations: MigrationSet, found: Ledger) -> None:
        self.migrations = migrations
        self.applied: dict[str, Applied] = {}
        self.begun: dict[str, Details] = {}
        self.taken: dict[str, str] = {}
        self.unknown: list[str] = []
        for row in found.applied:
            if self._is_mine(row.name, row.details):
                self.applied[row.name] = row
        for name, details in found.begun.items():
            if self._is_mine(name, details):
                self.begun[name] = details

    def _is_mine(self, name: str, details: Details | None) -> bool:
        file = self.migrations.get(name)
        if details is None:
            if file is None:
                self.unknown.append(name)
            return file is not None
        if details.schema_set == self.migrations.name:
            return True
        if file is not None and file.checksum == details.checksum:
            return True
        if file is not None:
            self.taken[name] = details.schema_set
        return False


def _ledger_findings(mine: Mine) -> Iterator[Finding]:
    highest = max((m.number for m in mine.migrations.migrations), default=0)
    is_library = mine.migrations.name == LIBRARY_SET
    library = set() if is_library else {m.name for m in library_set(mine.migrations.engine).migrations}
    for name in mine.unknown:
        if is_library and number_in(name) > highest:
            yield _newer(name)
        elif not is_library and name not in library:
            yield _deleted(name, "is in the ledger")
    for name, owner in mine.taken.items():
        message = f"the ledger has a {name} of another set, {owner}, with another content"
        yield _error("name-taken", name, message, "rename this file: the whole file name is its identity")
    for name, row in mine.applied.items():
        file = mine.migrations.get(name)
        if file is None:
            yield _newer(name) if is_library and number_in(name) > highest else _deleted(name, "was applied")
        elif row.details is not None:
            yield from _applied_findings(file, row.details)
    for name, details in mine.begun.items():
        begun = mine.migrations.get(name)
        if begun is None:
            yield _deleted(name, "was begun and not finished")
        else:
            yield _begun_finding(begun, details)


def _applied_findings(file: Migration, details: Details) -> Iterator[Finding]:
    if details.checksum != file.checksum:
        message = "it was changed after it had been applied: this database has what it said before"
        yield _error("edited-migration", file.name, message, "put the old text back, and write a new migration")
    if details.undone_count or details.in_doubt:
        total = len(file.down.statements) if file.down else 0
        message = f"its way back was begun and not finished ({details.undone_count} of {total} statements have run)"
        yield _error("interrupted-rollback", file.name, message, "run `dal schema down` again: it goes on there")


def _begun_finding(file: Migration, details: Details) -> Finding:
    if details.undone_count:
        message = "it was begun, and then its way back was begun and not finished"
        return _error("interrupted-rollback", file.name, message, "run `dal schema down` again: it goes on there")
    done = details.done_count
    if ledger.digest(file.statements[:done]) != details.digest and done:
        message = f"{done} of its statements have run already, and the file now says something else there"
        return _error("changed-while-begun", file.name, message, "put those statements back as they were")
    message = f"it was begun and not finished: {done} of {len(file.statements)} statements have run; `up` goes on there"
    return Finding(rule="interrupted-migration", severity="warning", file=file.name, message=message)


def _pending_findings(mine: Mine, pending: list[Migration]) -> Iterator[Finding]:
    order = {m.name: place for place, m in enumerate(mine.migrations.migrations)}
    done = [m for m in mine.migrations.migrations if m.name in mine.applied]
    there = set(mine.applied) | {m.name for m in pending}
    for migration in pending:
        later = [d.name for d in done if d.number > migration.number and order[d.name] > order[migration.name]]
        if later and not migration.directives.optional and migration.name not in mine.begun:
            yield Finding(
                rule="late-migration",
                # Files of one environment become pending late by their nature, as when seeding is switched on.
                severity="warning" if migration.directives.env else "error",
                file=migration.name,
                message=f"it comes late: {later[-1]} has been applied already",
                advice="give it the next free number",
            )
        for name in migration.directives.requires:
            if name in order and name not in there:
                yield _error("unmet-requires", migration.name, f"it requires {name}, which is left out here", "")


def _check_leave_out(migrations: MigrationSet, leave_out: Collection[str]) -> None:
    optional = [m.name for m in migrations.migrations if m.directives.optional]
    for name in leave_out:
        if name not in optional:
            can = ", ".join(optional) or "none"
            raise SchemaError(f"{name} cannot be left out; what can: {can}", operation="schema.plan")


def _is_allowed(finding: Finding, migrations: MigrationSet) -> bool:
    file = migrations.get(finding.file)
    return finding.rule in ALLOWABLE and file is not None and finding.rule in file.directives.allow


def _newer(name: str) -> Finding:
    return _error("newer-database", name, "this library does not know it", "upgrade the library (nothing was written)")


def _deleted(name: str, how: str) -> Finding:
    return _error(
        "deleted-migration", name, f"it {how}, and is not in the directory: deleted, or this checkout is older", ""
    )


def _error(rule: str, file: str, message: str, advice: str) -> Finding:
    return Finding(rule=rule, severity="error", file=file, message=message, advice=advice)
