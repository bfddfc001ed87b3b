"""The moves' side of a PostgreSQL store: what the shared one leaves to the engine.

Versions come from one sequence for each unit, rows travel as arrays, and roles are switched by enabling triggers
(capture.py, switching.py). What the mover writes into the registry never waits for an application's transaction while
it holds what that may want next: no writer is ever part of a deadlock because of a move.
"""

# ruff: noqa: S608  (names come from dal.tables and dal.replica only)
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Final, cast

from dal.backends.postgresql import capture, rights, switching
from dal.backends.postgresql.dialect import SQL_TYPES, encode_array, encode_copy
from dal.backends.postgresql.errors import BACKEND
from dal.backends.postgresql.session import COPY
from dal.backends.sql import Compiler, Executor, Result, Statement, Step, Violation
from dal.backends.sql.registry import Columns, RegistrySql, table_of
from dal.backends.sql.replica import SqlReplica
from dal.errors import DalTimeoutError, UnsupportedError
from dal.limits import FENCE_LOCK_TIMEOUT_S
from dal.ops import Op, Value
from dal.replica import UNIT_OF, UNITS, Copied, Gate, by_first
from dal.tables import Kind


def _given(columns: Columns) -> str:
    arrays = ", ".join(f"%s::{SQL_TYPES[kind]}[]" for _, kind in columns)
    return f"unnest({arrays}) AS given ({', '.join(name for name, _ in columns)})"


def _encode_given(rows: Sequence[Sequence[object]]) -> list[object]:
    return [encode_array(list(column)) for column in zip(*rows, strict=True)]


def _load(table: str, names: Sequence[str], columns: list[list[object]]) -> list[Statement]:
    return [Statement(f"{COPY}{table} ({', '.join(names)}) FROM STDIN", (encode_copy(columns),))]


REGISTRY: Final = RegistrySql(
    given=_given,
    encode_given=_encode_given,
    bucket="right({}::text, 3)",
    total="({})::bigint",
    installed="SELECT 1 WHERE to_regclass('dal_gate') IS NOT NULL",
    mark=(Statement("SELECT set_config('dal.applying', 'on', true)"),),
    unmark=(Statement("SELECT set_config('dal.applying', '', true)"),),
    lift=lambda unit, version, _condition, _params: [switching.lift(unit, version)],
    new_versions=lambda unit, _count: ((), f"nextval('{capture.sequence_of(unit)}')"),
    load=_load,
)

_CHANGED: Final[Columns] = (("entity", Kind.TEXT), ("pk", Kind.ID), ("ver", Kind.BIGINT))
#: Key by key: without statistics a join would be made the other way round, with the keys looked through for each entry.
_FOUND: Final = (
    "CROSS JOIN LATERAL (SELECT FROM dal_sync AS s WHERE s.entity = given.entity AND s.pk = given.pk "
    "AND s.ver = given.ver AND s.state = {} FOR UPDATE SKIP LOCKED) AS held"
)
_ACKNOWLEDGE: Final = (
    "WITH mine AS (SELECT given.* "
    f"FROM {_given((*_CHANGED, ('deleted', Kind.INT), ('hash', Kind.BIGINT)))} {_FOUND.format(2)}) "
    "UPDATE dal_sync SET state = 1, deleted = mine.deleted, hash = mine.hash FROM mine "
    "WHERE dal_sync.entity = mine.entity AND dal_sync.pk = mine.pk"
)
_MARK_CHECKED: Final = (
    f"WITH mine AS (SELECT given.* FROM {_given(_CHANGED)} {_FOUND.format(1)}) "
    "UPDATE dal_sync SET state = 0 FROM mine WHERE dal_sync.entity = mine.entity AND dal_sync.pk = mine.pk"
)


#: A registry grows from nothing to a row for each row there is, before statistics know of any: plans kept from the
#: beginning, and plans without statistics, would read all of it for each page (measured: 5,000 rows/s at 200,000).
_SETTINGS: Final = {
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "jit": "off",
}
_BY_KEY: Final = Statement(
    "SELECT " + ", ".join([f"set_config('{name}', '{value}', true)" for name, value in _SETTINGS.items()])
)
#: Rows have foreign keys, and those would be planned anew for every row (measured: 120 µs a message, of 50).
_AS_USUAL: Final = Statement("SELECT " + ", ".join([f"set_config('{name}', NULL, true)" for name in _SETTINGS]))


class _ByKey:
    """An executor whose statements go by the registry's indexes, but for those that are to read all there is."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def fetch(self, statement: Statement) -> Sequence[tuple[object, ...]]:
        if " JOIN " in statement.sql or " LIMIT " in statement.sql:
            return (await self._executor.batch([_BY_KEY, statement]))[1].rows
        return await self._executor.fetch(statement)

    async def batch(self, statements: Sequence[Statement]) -> Sequence[Result]:
        sent: list[Statement] = []
        places: list[int] = []
        for is_registry, group in groupby(statements, key=_is_planned_by_key):
            if is_registry or sent:
                sent.append(_BY_KEY if is_registry else _AS_USUAL)
            for statement in group:
                places.append(len(sent))
                sent.append(statement)
        try:
            results = await self._executor.batch(sent)
        except Violation as violation:
            violation.statement = places.index(violation.statement) if violation.statement in places else None
            raise
        return [results[place] for place in places]


def _is_planned_by_key(statement: Statement) -> bool:
    return "dal_sync" in statement.sql and not statement.sql.startswith(COPY)


def _raise_version(table: str) -> str:
    """The version is taken once the entry is held: nobody's that was taken before can come to lie above it."""
    version = f"nextval('{capture.sequence_of(UNIT_OF[table])}')"
    return (
        "INSERT INTO dal_sync (entity, pk, ver, deleted, state) "
        f"SELECT '{table}', id, {version}, CASE WHEN EXISTS (SELECT FROM {table} AS t WHERE t.id = given.id) "
        "THEN 0 ELSE 1 END, 2 FROM (SELECT %s::uuid AS id) AS given "
        f"WHERE EXISTS (SELECT FROM dal_gate WHERE unit = '{UNIT_OF[table]}' AND role = 'primary') "
        f"ON CONFLICT (entity, pk) DO UPDATE SET ver = {version}, deleted = EXCLUDED.deleted, state = 2, hash = NULL"
    )


class PostgresReplica(SqlReplica):
    """See `dal.replica.Replica`."""

    def __init__(
        self,
        executor: Executor,
        compiler: Compiler,
        plan: Callable[[Sequence[Op]], list[Step]],
        is_searched: Callable[[], bool],
    ) -> None:
        # Of the executor, the shared part asks for no more than this.
        super().__init__(cast(Executor, _ByKey(executor)), compiler, REGISTRY, plan, is_searched, BACKEND)

    # The move itself -------------------------------------------------------------------------------------------------

    async def install(self, gates: Sequence[Gate]) -> None:
        """Takes the tables' ownership, or the right to write them and make triggers; works through a pooler too."""
        if missing := await rights.missing(self._executor):
            raise UnsupportedError(f"install: {' '.join(missing)}", operation="install", backend=BACKEND)
        await switching.install(self._executor, gates)

    async def uninstall(self, *, keep_fence: bool) -> None:
        await switching.uninstall(self._executor, keep_fence=keep_fence)

    async def change_gate(self, unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        """A change to or from `primary` waits for writers under way, for others nobody waits: their triggers are the
        same."""
        if "role" not in change or "primary" not in (change["role"], expect.get("role", "primary")):
            return await super().change_gate(unit, expect=expect, change=change)
        gate = (await self.gates()).get(unit)
        if gate is None or any(getattr(gate, name) != value for name, value in expect.items()):
            return False  # what follows would find out as well, with a lock or two
        *lifted, changed = self._registry.change_gate(unit, expect, change)
        return await switching.switch(self._executor, unit, str(change["role"]), changed, lifted)

    # The registry ----------------------------------------------------------------------------------------------------

    async def seed(self, table: str, after: str, limit: int) -> str:
        """A page that meets entries of an open transaction is taken in smaller ones: one row alone can wait for long
        without holding anything."""
        wait = [switching.patience(FENCE_LOCK_TIMEOUT_S)] if limit > 1 else []
        try:
            rows = (await self._executor.batch([*wait, *self._registry.seed(table_of(table), after, limit)]))[-1].rows
        except DalTimeoutError:
            if limit == 1:
                raise
            return await self.seed(table, after, max(1, limit // 10))
        return str(rows[0][0]) if rows and rows[0][1] == limit else ""

    async def acknowledge(self, copied: Sequence[Copied]) -> None:
        """Passes over entries that a writer holds: they are about to have another version."""
        first, later = by_first(copied)
        await self._register(first)
        rows = [(c.table, c.id, c.version, int(c.hash is None), c.hash) for c in later]
        if rows:
            await self._executor.batch([Statement(_ACKNOWLEDGE, _encode_given(rows))])

    async def _register(self, copied: Sequence[Copied]) -> None:
        """As `seed`: where entries of an open transaction are in the way, by fewer at a time."""
        if not copied:
            return
        wait = [switching.patience(FENCE_LOCK_TIMEOUT_S)] if len(copied) > 1 else []
        try:
            await self._executor.batch([*wait, *self._registry.register(copied)])
        except DalTimeoutError:
            if len(copied) == 1:
                raise
            part = max(1, len(copied) // 10)
            for start in range(0, len(copied), part):
                await self._register(copied[start : start + part])

    async def mark_checked(self, table: str, versions: Mapping[str, int]) -> None:
        if versions:
            rows = [(table_of(table).name, id_, version) for id_, version in versions.items()]
            await self._executor.batch([Statement(_MARK_CHECKED, _encode_given(rows))])

    async def raise_versions(self, table: str, ids: Sequence[str]) -> int:
        """Each key in a transaction of its own, so that waiting for its writer holds nothing."""
        statement = _raise_version(table_of(table).name)
        for id_ in (distinct := sorted(set(ids))):
            await self._executor.batch([Statement(statement, (id_,))])
        return len(distinct)

    # What a plan and a cutover ask -----------------------------------------------------------------------------------

    async def oldest_writer_s(self) -> float:
        return await rights.oldest_writer_s(self._executor, [table for unit in UNITS for table in UNITS[unit]])

    async def obstacles(self) -> list[str]:
        asked = (rights.obstacles, rights.missing, rights.foreign)
        return [sentence for ask in asked for sentence in await ask(self._executor)]
