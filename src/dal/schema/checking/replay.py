"""Running a migration's files where nothing can be spoilt: no ledger, no lock, nothing but the statements."""

from __future__ import annotations

from dal.errors import DalError, UnavailableError
from dal.schema.connection import Connection, Reader, StatementError
from dal.schema.files import LIBRARY_SET, Migration, MigrationSet, Script, library_set
from dal.schema.findings import Finding
from dal.schema.plan import Plan, plan


class ScriptRefusedError(Exception):
    """A statement of a script was refused.

    line    that the engine pointed at, else that the statement begins in; None where it did not say which.
    reason  the engine's words, with the statement's beginning.
    """

    def __init__(self, script: Script, line: int | None, reason: str) -> None:
        super().__init__(f"{script.name}:{line}: {reason}" if line is not None else f"{script.name}: {reason}")
        self.script = script
        self.line = line
        self.reason = reason

    def finding(self, rule: str) -> Finding:
        return Finding(rule=rule, severity="error", file=self.script.name, line=self.line, message=self.reason)


async def run_script(connection: Connection, script: Script) -> None:
    """Runs a file as `up` and `down` do: in one transaction, or statement by statement where it says so.

    Raises  ScriptRefusedError: of a file in one transaction nothing has happened then.  UnavailableError.
    """
    if script.directives.transaction:
        await _run(connection, script)
        return
    for number, statement in enumerate(script.statements):
        try:
            await connection.run_alone(statement.sql)
        except StatementError as error:
            raise _refused(script, number, error) from error


def applied_files(found: Plan, migrations: MigrationSet) -> list[Migration]:
    """The files that a plan found applied, in the order of the ledger."""
    return [file for row in found.applied if (file := migrations.get(row.name)) is not None]


async def library_files(reader: Reader, migrations: MigrationSet) -> list[Migration]:
    """The library's own files that this database has: what another set may build upon. None for the library itself."""
    if migrations.name == LIBRARY_SET:
        return []
    library = library_set(reader.engine)
    return [file for file in applied_files(await plan(reader, library), library) if migrations.get(file.name) is None]


async def foreign_key_violations(connection: Connection) -> list[str]:
    """Rows that point to nothing, by table and parent, on SQLite and D1; PostgreSQL never holds any."""
    if connection.engine != "sqlite":
        return []
    try:
        rows = await connection.fetch(
            'SELECT "table", parent, count(*) FROM pragma_foreign_key_check '
            'GROUP BY "table", parent ORDER BY "table", parent'
        )
    except UnavailableError:
        raise
    except DalError as error:  # a key that fits no unique key of its parent
        return [f"foreign keys cannot be checked: {error.message}"]
    return [f"rows of {table} point to rows of {parent} that are not there: {count}" for table, parent, count in rows]


async def _run(connection: Connection, script: Script) -> None:
    if not script.statements:
        return
    try:
        await connection.run(
            [(statement.sql, ()) for statement in script.statements], foreign_keys=script.directives.foreign_keys
        )
    except StatementError as error:
        raise _refused(script, error.index, error) from error
    except UnavailableError:
        raise
    except DalError as error:
        raise ScriptRefusedError(script, None, error.message) from error


def _refused(script: Script, number: int | None, error: StatementError) -> ScriptRefusedError:
    if number is None or number >= len(script.statements):
        return ScriptRefusedError(script, None, error.reason)
    statement = script.statements[number]
    code = f" ({error.code})" if error.code else ""
    return ScriptRefusedError(
        script, statement.line_of(error.position or 0), f"{error.reason}{code}, in: {statement.beginning()}"
    )
