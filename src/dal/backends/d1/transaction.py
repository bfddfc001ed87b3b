"""An optimistic unit of work: transactions without a lock, for an engine that only knows batches.

Nothing is written before the end. A commit inside is carried out by the interpreter over the rows it concerns, which
are looked up as they are needed; a read inside sees those writes through common table expressions. What was read, and
that what was missed is missing, is kept as a digest. At the end one batch checks every digest and then carries out
every commit, in order: all of it or, where somebody was faster, nothing and a ConflictError.

A digest holds what was read, and of long texts their length and ends: who goes around this library, changes the middle
of one and leaves `version` alone is not noticed.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias, cast

from dal.backends import interpreter
from dal.backends.d1.errors import BACKEND
from dal.backends.d1.executor import D1Executor
from dal.backends.d1.known import Known, Lookup, Range
from dal.backends.d1.shadow import shadowed
from dal.backends.d1.transport import Rows
from dal.backends.memory import check_batch
from dal.backends.overlay import carry_out
from dal.backends.rows import encode
from dal.backends.sql import Compiler, Result, Statement, Violation
from dal.backends.sql.search import read_search
from dal.errors import ConflictError, DalError, LimitExceededError, UnsupportedError, transaction_over
from dal.limits import D1_MAX_VALUE_BYTES
from dal.ops import Compare, Op, Query, Receipt, Row, Search, Select
from dal.store import Capabilities
from dal.tables import Kind, Table

_END_CHARS: Final = 60


class _Digest(NamedTuple):
    """A statement that gives one text, which stands for what another statement answered."""

    sql: str
    params: tuple[object, ...]


_Wanted: TypeAlias = tuple[Statement, Query, Sequence[str]]


class UnitOfWork:
    """What `transaction()` gives on D1."""

    def __init__(self, executor: D1Executor, compiler: Compiler, capabilities: Capabilities) -> None:
        self._executor = executor
        self._compiler = compiler
        self._capabilities = capabilities
        self._known = Known()
        self._staged = interpreter.Batch(self._known, BACKEND)
        self._statements: list[Statement] = []
        self._digests: dict[_Digest, object] = {}
        #: Requests that have looked at the database: what one of them saw was there at one moment.
        self._moments = 0
        self._is_over = False

    # What callers do -------------------------------------------------------------------------------------------------

    async def read(self, query: Query) -> list[Row]:
        self._check_open("read")
        if isinstance(query, Search):
            if not self._capabilities.search:
                raise UnsupportedError(
                    "this database has no search index: `dal search rebuild` makes it",
                    operation="read",
                    backend=BACKEND,
                )
            return await read_search(_Reader(self, query), self._compiler, query)
        statement, read = self._compiler.select(query) if isinstance(query, Select) else self._compiler.total(query)
        return read.decode(await self.fetch(statement, query))

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self._check_open("commit")
        check_batch(ops, BACKEND)
        if not ops:
            return Receipt((), ())
        dialect = self._compiler.dialect
        plan = dialect.plan_searched if self._capabilities.search and dialect.plan_searched else dialect.plan
        steps = plan(ops, self._compiler)  # also refuses what is too large for D1
        while await self._learn_what_is_missing(ops):
            pass
        try:
            receipt, changes = interpreter.apply(self._staged.tables, ops, backend=BACKEND)
        except DalError as refusal:
            # What it rests on was seen at several moments; seen at one, it may look different.
            if self._moments > 1 and not await self._still_holds():
                raise _outrun() from refusal
            raise
        carry_out(self._staged.tables, changes)
        self._statements += [step.statement for step in steps]
        return receipt

    def end(self) -> None:
        self._is_over = True

    async def commit_all(self) -> None:
        """Makes everything durable together. Raises ConflictError where what was read holds no longer."""
        if not self._statements:
            if self._moments > 1 and not await self._still_holds():
                raise _outrun()
            return
        guards = [_guard(digest, expected) for digest, expected in self._digests.items()]
        try:
            await self._executor.batch([*guards, *self._statements])
        except Violation as violation:
            raise _outrun() from violation.__cause__

    def _check_open(self, operation: str) -> None:
        if self._is_over:
            raise transaction_over(operation, BACKEND)

    # Reading ---------------------------------------------------------------------------------------------------------

    async def fetch(self, statement: Statement, query: Query) -> Rows:
        """The rows of a statement that was compiled for this query, own writes included."""
        return (await self._look([(statement, query, ())]))[0]

    async def _look(self, wanted: Sequence[_Wanted]) -> list[Rows]:
        """The rows of each statement, as of one moment; what stands for them is kept.

        wanted  statement, the query it was compiled for, and tables to be seen as they are stored.
        """
        try:
            return await self._look_closely(wanted, whole=True)
        except LimitExceededError:
            # Thousands of rows: what stands for them is longer than a value of D1's. Ids and versions are shorter.
            return await self._look_closely(wanted, whole=False)

    async def _look_closely(self, wanted: Sequence[_Wanted], *, whole: bool) -> list[Rows]:
        overlays = list(self._staged.tables.values())
        statements: list[Statement] = []
        digests: list[_Digest] = []
        for statement, query, but in wanted:
            statements.append(shadowed(statement, overlays, self._compiler, but=but))
            digested = _digested(statement, query, self._compiler, whole=whole)
            inner = shadowed(digested, overlays, self._compiler, but=but, whole=False)
            digests.append(_Digest(f"SELECT json_group_array(d) FROM ({inner.sql})", tuple(inner.params)))
        self._moments += 1
        found = await self._executor.fetch_all(
            [*statements, *(Statement(digest.sql, digest.params, returns=True) for digest in digests)]
        )
        if any(len(str(rows[0][0]).encode()) > D1_MAX_VALUE_BYTES for rows in found[len(statements) :]):
            raise LimitExceededError(
                "a transaction reads too many rows at once for D1; read them in pages",
                operation="read",
                backend=BACKEND,
            )
        for digest, rows in zip(digests, found[len(statements) :], strict=True):
            if self._digests.setdefault(digest, rows[0][0]) != rows[0][0]:
                raise _outrun()
        return found[: len(statements)]

    async def _still_holds(self) -> bool:
        """Whether everything that was read would be read again, as of one moment."""
        statements = [Statement(digest.sql, digest.params, returns=True) for digest in self._digests]
        found = await self._executor.fetch_all(statements)
        return [rows[0][0] for rows in found] == list(self._digests.values())

    # Looking up ------------------------------------------------------------------------------------------------------

    async def _learn_what_is_missing(self, ops: Sequence[Op]) -> bool:
        """Carries the batch out for trial and looks up what that wanted to know; False where it knew everything."""
        wanted = self._known.wanted
        wanted.clear()
        trial = interpreter.Batch(self._staged.tables, BACKEND)
        for op in ops:
            try:
                trial.apply(op)
            except DalError:
                if not wanted:
                    break  # a refusal that rests on what is known
        if not wanted:
            return False
        groups = list(_grouped(list(wanted)))
        looks = [self._look_for(group) for group in groups]
        for group, rows in zip(groups, await self._look(looks), strict=True):
            table = self._compiler.tables[group[0].table]
            _, read = self._compiler.select(Select(table.name))
            stored = [encode(table, dict(zip(table.names, row, strict=True))) for row in read.decode(rows)]
            self._known[table.name].learn(group, stored)
        return True

    def _look_for(self, group: Sequence[Lookup | Range]) -> _Wanted:
        first = group[0]
        table = self._compiler.tables[first.table]
        if isinstance(first, Range):
            query = Select(table.name, first.where, order=(table.key,))
        elif len(first.key) == 1:
            values = tuple([cast(Lookup, one).values[0] for one in group])
            query = Select(table.name, (Compare(first.key[0], "in", values),), order=(table.key,))
        else:
            where = tuple([Compare(*pair) for pair in zip(first.key, "=" * len(first.key), first.values, strict=True)])  # type: ignore[arg-type]
            query = Select(table.name, where, order=(table.key,))
        statement, _ = self._compiler.select(query)
        return statement, query, (table.name,)


class _Reader:
    """The unit of work as the shared search sees it: a session that only fetches."""

    def __init__(self, work: UnitOfWork, query: Search) -> None:
        self._work = work
        self._query = query

    async def fetch(self, statement: Statement) -> Rows:
        return await self._work.fetch(statement, self._query)

    async def batch(self, statements: Sequence[Statement]) -> Sequence[Result]:
        raise NotImplementedError("a search writes nothing")


def _grouped(wanted: Sequence[Lookup | Range]) -> list[list[Lookup | Range]]:
    """What can be asked for together: lookups by the same key of one column."""
    groups: dict[object, list[Lookup | Range]] = {}
    for number, one in enumerate(wanted):
        together = isinstance(one, Lookup) and len(one.key) == 1
        groups.setdefault((one.table, one.key) if together and isinstance(one, Lookup) else number, []).append(one)
    return list(groups.values())


def _digested(statement: Statement, query: Query, compiler: Compiler, *, whole: bool) -> Statement:
    """The statement with one column `d` that stands for each row it gives; not `whole`: its id and version only."""
    table = compiler.tables[query.table]
    if not isinstance(query, Select | Search):
        return Statement(f"SELECT total AS d FROM (SELECT ({statement.sql}) AS total)", statement.params, returns=True)
    # Placeholders stand behind FROM only, and the first FROM of that table is the statement's own.
    rest = statement.sql.partition(f" FROM {table.name}")[2]
    columns = ", ".join(_changeable(table, query.columns if whole else (table.key,), compiler))
    return Statement(f"SELECT json_array({columns}) AS d FROM {table.name}{rest}", statement.params, returns=True)


def _changeable(table: Table, columns: Sequence[str], compiler: Compiler) -> list[str]:
    """What stands for these columns of a row: themselves, and of long texts and documents the length and both ends.

    The rest of a long one is vouched for by the row's version.
    """
    names = dict.fromkeys((table.key, *(("version",) if "version" in table.by_name else ()), *(columns or table.names)))
    return [_short(table, name, compiler.column(table, name)) for name in names]


def _short(table: Table, name: str, sql: str) -> str:
    column = table.by_name.get(name)
    if column is None or column.max_chars is not None or column.kind not in (Kind.TEXT, Kind.JSON):
        return sql
    ends = f"length({sql}) || substr({sql}, 1, {_END_CHARS}) || substr({sql}, -{_END_CHARS})"
    return f"CASE WHEN length({sql}) <= {3 * _END_CHARS} THEN {sql} ELSE {ends} END"


def _guard(digest: _Digest, expected: object) -> Statement:
    sql = f"INSERT INTO dal_guard (ok) SELECT 0 WHERE ({digest.sql}) IS NOT ?"
    return Statement(sql, (*digest.params, expected))


def _outrun() -> ConflictError:
    return ConflictError(
        "commit: what this transaction has read was changed by another; run it again",
        operation="commit",
        backend=BACKEND,
        retryable=True,
    )
